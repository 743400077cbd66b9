"""detrex's DETR-R50-DC5 over this library's TorchvisionResNet: theirs but for one import line.

In detrex's checkout: python tools/train_net.py --config-file .../examples/detrex/detr_dc5.py
"""

from pathlib import Path

import projects.detr.modeling
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig

from detrex_backbones import TorchvisionResNet  # was: from detrex.modeling.backbone.torchvision_resnet import ...

_configs = Path(projects.detr.modeling.__file__).parents[1] / "configs"
_cfg = LazyConfig.load(str(_configs / "detr_r50_dc5_300ep.py"))
dataloader, lr_multiplier, model = _cfg.dataloader, _cfg.lr_multiplier, _cfg.model
optimizer, train = _cfg.optimizer, _cfg.train

model.backbone = L(TorchvisionResNet)(
    name="resnet50",
    train_backbone=True,
    dilation=True,
    return_layers={"layer4": "res5"},
)
train.output_dir = "./output/detr_dc5"
