"""torchvision's Faster R-CNN with the weights of its COCO file."""

from ..common.coco_faster_rcnn import model
from ..common.train import train

train.init_checkpoint = "torchvision://fasterrcnn_resnet50_fpn-coco_v1"

__all__ = ["model", "train"]
