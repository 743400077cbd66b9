"""Faster R-CNN with FPN of detectron2's model zoo over this library's ResNet-50: theirs but for one import line.

The zoo has it as a lazy config with masks, which are taken off here.

tools/lazyconfig_train_net.py --config-file examples/detectron2/faster_rcnn.py
"""

from detectron2 import model_zoo
from detectron2.config import LazyCall as L

from detrex_backbones import BasicStem, ResNet  # was: from detectron2.modeling.backbone import BasicStem, ResNet

_cfg = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py")
dataloader, lr_multiplier, model = _cfg.dataloader, _cfg.lr_multiplier, _cfg.model
optimizer, train = _cfg.optimizer, _cfg.train

for _key in ("mask_in_features", "mask_pooler", "mask_head"):
    del model.roi_heads[_key]
dataloader.train.mapper.use_instance_mask = False

model.backbone.bottom_up = L(ResNet)(
    stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
    stages=L(ResNet.make_default_stages)(depth=50, stride_in_1x1=True, norm="FrozenBN"),  # MSRA's weights
    out_features=["res2", "res3", "res4", "res5"],
    freeze_at=2,
)
