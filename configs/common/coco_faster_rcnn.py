"""torchvision's Faster R-CNN over ResNet-50 and an FPN, as for its COCO files: 91 classes, 800 to 1333 pixels."""

from functools import partial

from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from detrex_backbones import BasicStem, FrozenBatchNorm2d, LastLevelMaxPool, ResNet, TorchvisionFPN, make_stage
from detrex_backbones.config import LazyCall as L

# The files of 2019 were trained without an eps in the frozen norms.
norm = partial(FrozenBatchNorm2d, eps=0.0)

model = L(FasterRCNN)(
    backbone=L(TorchvisionFPN)(
        bottom_up=L(ResNet)(
            stem=L(BasicStem)(in_channels=3, out_channels=64, norm=norm),
            stages=L(make_stage)(depth=50, stride_in_1x1=False, norm=norm),
            out_features=["res2", "res3", "res4", "res5"],
            freeze_at=2,
        ),
        in_features=["res2", "res3", "res4", "res5"],
        out_channels=256,
        norm="",
        top_block=L(LastLevelMaxPool)(in_feature="p5"),
    ),
    num_classes=91,  # COCO's numbers of categories, with the background, which is class 0
    # One size and three shapes of anchors at each of p2 to p6, in pixels.
    rpn_anchor_generator=L(AnchorGenerator)(
        sizes=((32,), (64,), (128,), (256,), (512,)), aspect_ratios=((0.5, 1.0, 2.0),) * 5
    ),
    box_roi_pool=L(MultiScaleRoIAlign)(featmap_names=["p2", "p3", "p4", "p5"], output_size=7, sampling_ratio=2),
    # How images are resized, and normalised: RGB, 0 to 1.
    min_size=800,
    max_size=1333,
    image_mean=[0.485, 0.456, 0.406],
    image_std=[0.229, 0.224, 0.225],
)
