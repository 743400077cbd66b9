"""RetinaNet of detectron2's model zoo over this library's ResNet-50: theirs but for one import line.

tools/lazyconfig_train_net.py --config-file examples/detectron2/retinanet.py
"""

from detectron2 import model_zoo
from detectron2.config import LazyCall as L

from detrex_backbones import BasicStem, ResNet  # was: from detectron2.modeling.backbone import BasicStem, ResNet

_cfg = model_zoo.get_config("COCO-Detection/retinanet_R_50_FPN_1x.py")
dataloader, lr_multiplier, model = _cfg.dataloader, _cfg.lr_multiplier, _cfg.model
optimizer, train = _cfg.optimizer, _cfg.train

model.backbone.bottom_up = L(ResNet)(
    stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
    stages=L(ResNet.make_default_stages)(depth=50, stride_in_1x1=True, norm="FrozenBN"),  # MSRA's weights
    out_features=["res3", "res4", "res5"],
    freeze_at=2,
)
