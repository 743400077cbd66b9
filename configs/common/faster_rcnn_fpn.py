"""torchvision's Faster R-CNN over an FPN, for images of 128 to 256 pixels."""

from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from detrex_backbones import BasicStem, LastLevelMaxPool, ResNet, TorchvisionFPN, make_stage
from detrex_backbones.config import LazyCall as L

model = L(FasterRCNN)(
    backbone=L(TorchvisionFPN)(
        bottom_up=L(ResNet)(
            stem=L(BasicStem)(in_channels=3, out_channels=64, norm="BN"),
            stages=L(make_stage)(depth=18, stride_in_1x1=False, norm="BN"),
            out_features=["res2", "res3", "res4", "res5"],
            freeze_at=0,
        ),
        in_features=["res2", "res3", "res4", "res5"],
        out_channels=128,
        norm="GN",
        top_block=L(LastLevelMaxPool)(in_feature="p5"),
    ),
    num_classes=5,  # with the background, which is class 0
    # One size and three shapes of anchors at each of p2 to p6, in pixels: half of COCO's, for small images.
    rpn_anchor_generator=L(AnchorGenerator)(
        sizes=((16,), (32,), (64,), (128,), (256,)), aspect_ratios=((0.5, 1.0, 2.0),) * 5
    ),
    box_roi_pool=L(MultiScaleRoIAlign)(featmap_names=["p2", "p3", "p4", "p5"], output_size=7, sampling_ratio=2),
    # How images are resized, and normalised: RGB, 0 to 1.
    min_size=128,
    max_size=256,
    image_mean=[0.485, 0.456, 0.406],
    image_std=[0.229, 0.224, 0.225],
    # How many proposals go on, of how many that are looked at: small images have few.
    rpn_pre_nms_top_n_train=200,
    rpn_post_nms_top_n_train=100,
    rpn_pre_nms_top_n_test=200,
    rpn_post_nms_top_n_test=100,
    rpn_batch_size_per_image=64,
    box_batch_size_per_image=64,
    box_detections_per_img=100,
)
