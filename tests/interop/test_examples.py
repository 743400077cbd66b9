"""The configs in examples/: theirs, but for the backbone's class."""

import pytest
from omegaconf import DictConfig, ListConfig

import detrex_backbones.config
from detrex_backbones import ResNet, TorchvisionResNet
from tests.interop.theirs import EXAMPLES, link_configs, need_detectron2, need_detrex

# Example -> their config, the class of our backbone in it.
DETECTRON2 = {
    "faster_rcnn": ("configs/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py", ResNet),
    "retinanet": ("configs/COCO-Detection/retinanet_R_50_FPN_1x.py", ResNet),
}
DETREX = {
    "dino": ("projects/dino/configs/dino-resnet/dino_r50_4scale_12ep.py", ResNet),
    "detr_dc5": ("projects/detr/configs/detr_r50_dc5_300ep.py", TorchvisionResNet),
    "deformable_detr": ("projects/deformable_detr/configs/deformable_detr_r50_50ep.py", ResNet),
}
MASKS = ("mask_in_features", "mask_pooler", "mask_head")


def plain(node):
    """The values of a config without its targets: what the calls are given."""
    if isinstance(node, DictConfig):
        return {key: plain(value) for key, value in node.items() if key != "_target_"}
    return [plain(value) for value in node] if isinstance(node, ListConfig) else node


@pytest.fixture(params=[*DETECTRON2, *DETREX])
def example(request, monkeypatch):
    """The example's file, their file, and the class."""
    name, roots = request.param, {"detectron2": need_detectron2()}
    if name in DETREX:
        roots["detrex"] = need_detrex()
    link_configs(monkeypatch, **roots)
    kind = "detectron2" if name in DETECTRON2 else "detrex"
    theirs, backbone = {**DETECTRON2, **DETREX}[name]
    return EXAMPLES / kind / f"{name}.py", roots[kind] / theirs, backbone


@pytest.mark.parametrize("by_ours", [False, True])
def test_is_theirs_but_for_the_backbones_class(example, by_ours):
    import detectron2.config

    file, their_file, backbone_class = example
    layer = detrex_backbones.config if by_ours else detectron2.config
    ours, theirs = layer.LazyConfig.load(str(file)), detectron2.config.LazyConfig.load(str(their_file))
    assert set(ours) == {"dataloader", "lr_multiplier", "model", "optimizer", "train"}
    backbones = [cfg.model.backbone.get("bottom_up", cfg.model.backbone) for cfg in (ours, theirs)]
    assert plain(backbones[0]) == plain(backbones[1])
    assert not isinstance(layer.instantiate(backbones[1]), backbone_class)
    if "device" in ours.model:
        ours.model.device = "cpu"
    for instantiate in (detectron2.config.instantiate, detrex_backbones.config.instantiate):
        model = instantiate(ours.model)
        assert type(getattr(model.backbone, "bottom_up", model.backbone)) is backbone_class
    for key in MASKS if file.stem == "faster_rcnn" else ():
        del theirs.model.roi_heads[key]
    if "device" in ours.model:
        theirs.model.device = "cpu"
    ours.train.output_dir = theirs.train.output_dir
    for key in ("model", "train", "lr_multiplier"):
        assert plain(ours[key]) == plain(theirs[key]), key
