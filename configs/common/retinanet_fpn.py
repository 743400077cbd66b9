"""torchvision's RetinaNet over an FPN, for images of 128 to 256 pixels."""

from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead

from detrex_backbones import BasicStem, LastLevelP6P7, ResNet, TorchvisionFPN, make_stage
from detrex_backbones.config import LazyCall as L
from detrex_backbones.layers.norm import norm_layer

model = L(RetinaNet)(
    backbone=L(TorchvisionFPN)(
        bottom_up=L(ResNet)(
            stem=L(BasicStem)(in_channels=3, out_channels=64, norm="BN"),
            stages=L(make_stage)(depth=18, stride_in_1x1=False, norm="BN"),
            out_features=["res3", "res4", "res5"],
            freeze_at=0,
        ),
        in_features=["res3", "res4", "res5"],
        out_channels=128,
        norm="GN",
        top_block=L(LastLevelP6P7)(in_channels=512, out_channels="${..out_channels}", in_feature="res5"),
    ),
    num_classes=5,  # with the background, which is class 0
    # Three sizes and three shapes of anchors at each of p3 to p7, in pixels: half of COCO's, for small images.
    anchor_generator=L(AnchorGenerator)(
        sizes=((16, 20, 25), (32, 40, 50), (64, 80, 101), (128, 161, 203), (256, 322, 406)),
        aspect_ratios=((0.5, 1.0, 2.0),) * 5,
    ),
    head=L(RetinaNetHead)(
        in_channels="${..backbone.out_channels}",
        num_anchors=9,
        num_classes="${..num_classes}",
        norm_layer=L(norm_layer)(norm="GN"),
    ),
    # How images are resized, and normalised: RGB, 0 to 1.
    min_size=128,
    max_size=256,
    image_mean=[0.485, 0.456, 0.406],
    image_std=[0.229, 0.224, 0.225],
    detections_per_img=100,
)
