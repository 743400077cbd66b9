"""torchvision's RetinaNet over ResNet-50 and an FPN, as its COCO files were trained: 91 classes, 800 to 1333 pixels."""

from functools import partial

from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead

from detrex_backbones import BasicStem, FrozenBatchNorm2d, LastLevelP6P7, ResNet, TorchvisionFPN, make_stage
from detrex_backbones.config import LazyCall as L
from detrex_backbones.layers.norm import norm_layer

# The files of 2019 were trained without an eps in the frozen norms.
norm = partial(FrozenBatchNorm2d, eps=0.0)

model = L(RetinaNet)(
    backbone=L(TorchvisionFPN)(
        bottom_up=L(ResNet)(
            stem=L(BasicStem)(in_channels=3, out_channels=64, norm=norm),
            stages=L(make_stage)(depth=50, stride_in_1x1=False, norm=norm),
            out_features=["res3", "res4", "res5"],
            freeze_at=2,
        ),
        in_features=["res3", "res4", "res5"],
        out_channels=256,
        norm="",
        top_block=L(LastLevelP6P7)(in_channels=256, out_channels="${..out_channels}", in_feature="p5"),
    ),
    num_classes=91,  # COCO's numbers of categories, with the background, which is class 0
    # Three sizes and three shapes of anchors at each of p3 to p7, in pixels.
    anchor_generator=L(AnchorGenerator)(
        sizes=((32, 40, 50), (64, 80, 101), (128, 161, 203), (256, 322, 406), (512, 645, 812)),
        aspect_ratios=((0.5, 1.0, 2.0),) * 5,
    ),
    head=L(RetinaNetHead)(
        in_channels="${..backbone.out_channels}",
        num_anchors=9,
        num_classes="${..num_classes}",
        norm_layer=L(norm_layer)(norm=""),
    ),
    # How images are resized, and normalised: RGB, 0 to 1.
    min_size=800,
    max_size=1333,
    image_mean=[0.485, 0.456, 0.406],
    image_std=[0.229, 0.224, 0.225],
)
