"""The catalogue's detectors beside the projects' own configs: files, preprocessing, stride, and the network inside."""

import pytest
import torch
from omegaconf import OmegaConf

from detrex_backbones.checkpoint.fetch.catalog import detectors
from detrex_backbones.config import LazyConfig
from detrex_backbones.errors import ConfigError
from detrex_backbones.zoo import get_config
from detrex_backbones.zoo.meta_build import build_on_meta
from tests.interop.test_every_config import replace
from tests.interop.theirs import link_configs, need_detectron2, need_detrex


def shapes(node):
    linspace, torch.linspace = torch.linspace, lambda *a, **k: linspace(*a, **{"device": "cpu"} | k)  # theirs read it
    try:
        net = build_on_meta(node)
    finally:
        torch.linspace = linspace
    state = {key.removeprefix("model."): tuple(value.shape) for key, value in net.state_dict().items()}
    return {key: shape for key, shape in state.items() if not key.endswith("num_batches_tracked")}


@pytest.mark.parametrize("project", ["detectron2", "detrex"])
def test_lazy_configs(project, monkeypatch):
    roots = {"detectron2": need_detectron2()} | ({"detrex": need_detrex()} if project == "detrex" else {})
    link_configs(monkeypatch, **roots)
    seen: dict[tuple[str, ...], str] = {}
    for row in detectors._rows():
        if not row["theirs"] or not row["name"].startswith(f"{project}://"):
            continue
        weight = {**detectors.DETECTRON2, **detectors.DETREX}[row["name"].partition("://")[2]]
        key = (row["theirs"], weight.config, *weight.overrides)
        if key in seen:
            continue
        seen[key] = weight.name
        try:
            theirs = LazyConfig.load(roots[project] / row["theirs"])
        except ConfigError:  # MaskDINO's, which import what isn't there
            assert "maskdino" in row["theirs"]
            continue
        model, mapper = theirs.model, theirs.dataloader.train.mapper
        order = mapper.get("img_format") or mapper.get("image_format")
        found = weight.traits
        assert (found["pixel_mean"], found["pixel_std"]) == (list(model.pixel_mean), list(model.pixel_std)), key
        assert found["input_format"] == order == (model.get("input_format") or order), key
        net = model.backbone.get("bottom_up", model.backbone)
        stride = OmegaConf.select(net, "stages.stride_in_1x1")
        assert stride in (None, weight.stride_in_1x1), key
        if weight.config and str(net._target_).rpartition(".")[2].rstrip("'>") != "TorchvisionResNet":
            replace(net, set())
            ours = LazyConfig.apply_overrides(get_config(weight.config), weight.overrides).model.backbone
            assert shapes(ours) == shapes(net), key
        elif weight.config:
            assert (weight.model, weight.dilation_style == "torchvision") == (net.name, net.dilation), key
    assert len(seen) >= {"detectron2": 29, "detrex": 65}[project]


def test_yaml_configs_of_detectron2(monkeypatch):
    link_configs(monkeypatch, detectron2=need_detectron2())
    from detectron2 import model_zoo
    from detectron2.model_zoo.model_zoo import _ModelZooUrls

    names = list(_ModelZooUrls.CONFIG_PATH_TO_URL_SUFFIX)
    assert len(names) > 50
    for name in names:
        weight = detectors.DETECTRON2[name]
        if name.startswith("new_baselines/"):
            assert weight.url == model_zoo.get_checkpoint_url(f"{name}.py")
            continue
        assert weight.url == model_zoo.get_checkpoint_url(f"{name}.yaml")
        model = model_zoo.get_config(f"{name}.yaml").MODEL
        order = model_zoo.get_config(f"{name}.yaml").INPUT.FORMAT
        expected = {"pixel_mean": model.PIXEL_MEAN, "pixel_std": model.PIXEL_STD, "input_format": order}
        assert expected.items() <= weight.traits.items(), name
        assert weight.stride_in_1x1 == model.RESNETS.STRIDE_IN_1X1, name
        assert (weight.dilation_style == "detectron2") == (model.RESNETS.RES5_DILATION == 2), name
        plain = model.RESNETS.NORM != "GN" and not any(model.RESNETS.DEFORM_ON_PER_STAGE)
        assert bool(weight.config) == plain, name
        if plain:
            assert str(model.RESNETS.DEPTH) in weight.config, name
