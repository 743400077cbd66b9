"""A timm network in detrex's DINO, with weights of your own, as a lazy config.

In detrex's checkout: python tools/train_net.py --config-file .../examples/timm_example.py
Without detrex it is the backbone alone, which shows and loads the same:

    detrex-backbones show examples/timm_example.py
    detrex-backbones features examples/timm_example.py --image photo.jpg train.init_checkpoint=my_resnet152d.pth

`train.init_checkpoint` takes the network's own file, in timm's names or torchvision's, or a whole detector's. In
detrex's train_net.py, `from detrex_backbones import DetectionCheckpointer` reads it so.
"""

from pathlib import Path

from detrex_backbones import FeatureExtractor, ShapeSpec, TimmBackbone
from detrex_backbones.config import LazyCall as L
from detrex_backbones.config import LazyConfig

try:
    import projects.dino.modeling as _dino
except ImportError:  # no detrex here
    _dino = None

_backbone = L(TimmBackbone)(
    model_name="resnet152d",  # its name in timm
    pretrained=False,  # True: timm's own weights
    in_channels=3,
    out_indices=(2, 3, 4),  # strides 8, 16 and 32
    norm_layer="FrozenBN",
)

if _dino is None:
    model = L(FeatureExtractor)(
        backbone=_backbone,
        pixel_mean=[123.675, 116.280, 103.530],
        pixel_std=[58.395, 57.120, 57.375],
        input_format="RGB",
    )
    train = {"device": "", "init_checkpoint": ""}
else:
    _configs = Path(_dino.__file__).parents[1] / "configs"
    _cfg = LazyConfig.load(_configs / "dino-resnet" / "dino_r50_4scale_12ep.py")
    dataloader, lr_multiplier, optimizer = _cfg.dataloader, _cfg.lr_multiplier, _cfg.optimizer
    model, train = _cfg.model, _cfg.train
    model.backbone = _backbone
    model.neck.input_shapes = {
        "p2": ShapeSpec(channels=512),
        "p3": ShapeSpec(channels=1024),
        "p4": ShapeSpec(channels=2048),
    }
    model.neck.in_features = ["p2", "p3", "p4"]
    train.init_checkpoint = ""  # or on the command line: train.init_checkpoint=my_resnet152d.pth
    train.output_dir = "./output/dino_timm"
