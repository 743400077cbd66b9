"""Every lazy config of detectron2 and detrex, with our classes where theirs of the same name stand."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, ListConfig, OmegaConf

import detrex_backbones
from detrex_backbones.config import LazyConfig, instantiate
from detrex_backbones.errors import ConfigImportError
from tests.config.test_save import unequal
from tests.interop.theirs import link_configs, need_detectron2, need_detrex

# Project -> where its configs lie.
FOLDERS = {
    "detectron2": ["configs", "projects/ViTDet/configs", "projects/MViTv2/configs"],
    "detrex": ["configs", "projects/*/configs"],
}

# Names of theirs that public configs import: at least these must have been met.
EXPECTED = {
    "detectron2": {"ResNet", "FPN", "SwinTransformer", "ViT", "MViT", "SimpleFeaturePyramid", "LastLevelMaxPool"},
    "detrex": {"ResNet", "SwinTransformer", "ViT", "ChannelMapper", "SimpleFeaturePyramid"},
}


def ours_for(target: Any) -> Any:
    """Our object of the same name as one of theirs; None if there is none or it isn't theirs."""
    if str(getattr(target, "__module__", "")).partition(".")[0] not in ("detectron2", "detrex"):
        return None
    first, *rest = target.__qualname__.split(".")
    if first not in detrex_backbones.__all__:
        return None
    found = getattr(detrex_backbones, first)
    for name in rest:
        found = getattr(found, name)
    return found


def replace(node: Any, met: set[str]) -> None:
    """As if the import line had been changed: every target below that we have, in place."""
    if isinstance(node, DictConfig):
        ours = ours_for(node._get_node("_target_")._value()) if "_target_" in node else None
        if ours is not None:
            met.add(ours.__qualname__.partition(".")[0])
            node["_target_"] = ours
    if isinstance(node, DictConfig | ListConfig) and not node._is_none():
        keys = range(len(node)) if isinstance(node, ListConfig) else list(node)
        for key in keys:
            if not OmegaConf.is_interpolation(node, key) and not OmegaConf.is_missing(node, key):
                replace(node[key], met)


def configs_below(root: Path, patterns: list[str]) -> list[Path]:
    return sorted(path for pattern in patterns for folder in root.glob(pattern) for path in folder.rglob("*.py"))


def parts(path: Path) -> dict[str, Any]:
    """Backbone and neck of a config's model; {} where it has none, or is no config that loads by itself."""
    try:
        model = LazyConfig.load(path).get("model")
    except ConfigImportError:
        return {}
    if not isinstance(model, DictConfig):
        return {}
    return {name: model[name] for name in ("backbone", "neck") if isinstance(model.get(name), DictConfig)}


def description(module: torch.nn.Module, with_maps: bool) -> tuple[Any, ...]:
    state = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    learning = {key for key, value in module.named_parameters() if value.requires_grad}
    maps = module.output_shape() if with_maps else {}  # type: ignore[operator]
    return state, learning, {name: (shape.channels, shape.stride) for name, shape in maps.items()}


@pytest.mark.parametrize("project", FOLDERS)
def test_builds_the_same_backbone_and_neck(project, monkeypatch):
    roots = {"detectron2": need_detectron2()} | ({"detrex": need_detrex()} if project == "detrex" else {})
    link_configs(monkeypatch, **roots)
    linspace = torch.linspace  # theirs read values of it, which the meta device has none of
    monkeypatch.setattr(torch, "linspace", lambda *args, **kwargs: linspace(*args, **{"device": "cpu"} | kwargs))
    met: set[str] = set()
    seen, files = set(), set()
    for path in configs_below(roots[project], FOLDERS[project]):
        for name, node in parts(path).items():
            files.add(path)
            text = repr(node)
            if text in seen:
                continue
            seen.add(text)
            with warnings.catch_warnings(), torch.device("meta"):
                warnings.simplefilter("ignore")
                theirs = instantiate(node)
                replace(node, met)
                ours = instantiate(node)
            with_maps = hasattr(theirs, "output_shape")  # which detrex's torchvision networks don't have
            assert description(ours, with_maps) == description(theirs, with_maps), f"{name} of {path}"
    assert met >= EXPECTED[project]
    assert len(files) >= {"detectron2": 58, "detrex": 149}[project]


# They hold what no YAML can, objects of detectron2's `Metadata` and torchvision's transforms: the file beside the YAML
# has the whole config.
UNSAVED = {"ade20k_semantic_seg.py", "torchvision_imagenet_R_50.py"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("project", FOLDERS)
def test_what_is_saved_loads_as_the_same_config(project, monkeypatch, tmp_path):
    roots = {"detectron2": need_detectron2()} | ({"detrex": need_detrex()} if project == "detrex" else {})
    link_configs(monkeypatch, **roots)
    equal = 0
    for path in configs_below(roots[project], FOLDERS[project]):
        try:
            cfg = LazyConfig.load(path)
        except ConfigImportError:  # of theirs: no config by itself, or it needs more than is installed here
            continue
        LazyConfig.save(cfg, tmp_path / "cfg.yaml")
        if path.name in UNSAVED:
            assert list(pickle.loads((tmp_path / "cfg.yaml.pkl").read_bytes())) == list(cfg)
            continue
        assert unequal(cfg, LazyConfig.load(tmp_path / "cfg.yaml")) == [], path
        equal += 1
    assert equal >= {"detectron2": 69, "detrex": 168}[project]
