"""torchvision's Faster R-CNN v2 with its COCO file's weights: deeper heads, norms that learn (Li et al. 2021)."""

from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead
from torchvision.models.detection.rpn import RPNHead

from detrex_backbones.config import LazyCall as L
from detrex_backbones.layers.norm import norm_layer

from ..common.coco_faster_rcnn import model
from ..common.train import train

model.backbone.bottom_up.stem.norm = model.backbone.bottom_up.stages.norm = model.backbone.norm = "BN"
model.rpn_head = L(RPNHead)(in_channels=256, num_anchors=3, conv_depth=2)
model.box_head = L(FastRCNNConvFCHead)(
    input_size=(256, 7, 7), conv_layers=[256] * 4, fc_layers=[1024], norm_layer=L(norm_layer)(norm="BN")
)
train.init_checkpoint = "torchvision://fasterrcnn_resnet50_fpn_v2-coco_v1"

__all__ = ["model", "train"]
