"""torchvision's RetinaNet v2 with its COCO file's weights: norms that learn (Zhang et al. 2020)."""

from ..common.coco_retinanet import model
from ..common.train import train

model.backbone.bottom_up.stem.norm = model.backbone.bottom_up.stages.norm = "BN"
model.backbone.top_block.in_channels = 2048
model.backbone.top_block.in_feature = "res5"
model.head.norm_layer.norm = "GN"
train.init_checkpoint = "torchvision://retinanet_resnet50_fpn_v2-coco_v1"

__all__ = ["model", "train"]
