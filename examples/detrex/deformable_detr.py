"""detrex's Deformable DETR over this library's ResNet-50: theirs but for one import line.

In detrex's checkout: python tools/train_net.py --config-file .../examples/detrex/deformable_detr.py
"""

from pathlib import Path

import projects.deformable_detr.modeling
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig

from detrex_backbones import BasicStem, ResNet  # was: from detectron2.modeling.backbone import BasicStem, ResNet

_configs = Path(projects.deformable_detr.modeling.__file__).parents[1] / "configs"
_cfg = LazyConfig.load(str(_configs / "deformable_detr_r50_50ep.py"))
dataloader, lr_multiplier, model = _cfg.dataloader, _cfg.lr_multiplier, _cfg.model
optimizer, train = _cfg.optimizer, _cfg.train

model.backbone = L(ResNet)(
    stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
    stages=L(ResNet.make_default_stages)(depth=50, stride_in_1x1=False, norm="FrozenBN"),
    out_features=["res3", "res4", "res5"],
    freeze_at=1,
)
train.output_dir = "./output/deformable_detr"
