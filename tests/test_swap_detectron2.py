"""detectron2's own configs with other backbones, built by detectron2."""

from pathlib import Path

import pytest
import torch

from detrex_backbones import swap_backbone
from detrex_backbones.errors import ArgumentError

pytest.importorskip("detectron2.modeling", reason="detectron2 is not importable", exc_type=ImportError)

import detectron2

MODELS = Path(detectron2.__file__).parents[1] / "configs" / "common" / "models"
if not MODELS.is_dir():
    pytest.skip("detectron2 is installed without its configs", allow_module_level=True)

LEVELS = {"retinanet": range(3, 8), "fcos": range(3, 8), "mask_rcnn_fpn": range(2, 7), "panoptic_fpn": range(2, 7)}


def load(name):
    from detectron2.config import LazyConfig

    return LazyConfig.load(str(MODELS / f"{name}.py"))


@pytest.mark.parametrize("config", [*LEVELS, "mask_rcnn_vitdet"])
@pytest.mark.parametrize("name", ["resnet18", "gluon/resnet50_v1d", "timm/convnext_atto", "timm/test_vit"])
def test_what_follows_the_backbone_sees_what_it_saw(config, name):
    from detectron2.config import instantiate
    from detectron2.utils.events import EventStorage

    cfg = load(config)
    swap_backbone(cfg, name)
    cfg.model.pixel_mean, cfg.model.pixel_std = list(cfg.model.pixel_mean), list(cfg.model.pixel_std)
    model = instantiate(cfg.model).eval()
    levels = LEVELS.get(config, range(2, 7))
    with torch.no_grad(), EventStorage():
        maps = model.backbone(torch.zeros(1, 3, 128, 128))
        model([{"image": torch.zeros(3, 96, 128), "height": 96, "width": 128}])  # the heads agree
    assert {key: tuple(value.shape[1:]) for key, value in maps.items()} == {
        f"p{level}": (256, 128 >> level, 128 >> level) for level in levels
    }


@pytest.mark.parametrize("name", ["resnet101", "timm/convnext_atto", "timm/test_vit"])
def test_c4_is_refused(name):
    with pytest.raises(ArgumentError, match=r"roi_heads\.res5 is the last stage of the old backbone"):
        swap_backbone(load("mask_rcnn_c4"), name)
