"""detrex's DINO over this library's ResNet-50: theirs but for one import line.

In detrex's checkout: python tools/train_net.py --config-file .../examples/detrex/dino.py
"""

from pathlib import Path

import projects.dino.modeling
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig

from detrex_backbones import BasicStem, ResNet  # was: from detectron2.modeling.backbone import BasicStem, ResNet

_configs = Path(projects.dino.modeling.__file__).parents[1] / "configs"
_cfg = LazyConfig.load(str(_configs / "dino-resnet" / "dino_r50_4scale_12ep.py"))
dataloader, lr_multiplier, model = _cfg.dataloader, _cfg.lr_multiplier, _cfg.model
optimizer, train = _cfg.optimizer, _cfg.train

model.backbone = L(ResNet)(
    stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
    stages=L(ResNet.make_default_stages)(depth=50, stride_in_1x1=False, norm="FrozenBN"),
    out_features=["res3", "res4", "res5"],
    freeze_at=1,
)
train.output_dir = "./output/dino"
