"""torchvision's RetinaNet with the weights of its COCO file."""

from ..common.coco_retinanet import model
from ..common.train import train

train.init_checkpoint = "torchvision://retinanet_resnet50_fpn-coco_v1"

__all__ = ["model", "train"]
