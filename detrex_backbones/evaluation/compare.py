"""Two backbones, or two checkpoints of one, side by side: configs, weights, and maps of a photo."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from detrex_backbones.backbones.images.extractor import FeatureExtractor
from detrex_backbones.config.nodes import SEQUENCES
from detrex_backbones.errors import ConfigTypeError
from detrex_backbones.zoo import build_model

__all__ = ["Comparison", "compare_models", "linear_cka"]

WRAPPERS = ("backbone", "timm_model", "model")  # what is said of their modules, not of them


@dataclass
class Comparison:
    """What differs between two models, A and B.

    Args:
        config: keys whose values differ -> the value in A and in B; None where a key isn't there.
        weights: a row a module: its tensors that both have, `difference` (||A - B|| / ||A||, of parameters and buffers
            together), how many `only_a` and `only_b` have, and how many have another shape.
        maps: a row for each pair of maps of one stride: shapes in A and B; `cosine`, the mean over positions, where
            both have the same channels in the same order; `cka`, linear centred kernel alignment (Kornblith et al.
            2019), which doesn't depend on the channels' order.
        a: maps of the photo by A, (C, h, w).
        b: maps of the photo by B.
    """

    config: dict[str, tuple[Any, Any]]
    weights: list[dict[str, Any]]
    maps: list[dict[str, Any]]
    a: dict[str, Tensor] = field(default_factory=dict)
    b: dict[str, Tensor] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """In types that JSON knows, without the maps themselves."""
        config = {key: [None if one is None else str(one) for one in pair] for key, pair in self.config.items()}
        return {"config": config, "weights": self.weights, "maps": self.maps}


def compare_models(a: DictConfig, b: DictConfig, photo: Any) -> Comparison:
    """Build the models of two configs, load their weights, run both on a photo.

    Args:
        a: with a `model` that is a FeatureExtractor, and `train` as of `build_model`. Not changed.
        b: the other.
        photo: as a FeatureExtractor takes it, RGB, 0-255.

    Raises:
        ConfigTypeError: a model that takes no photos.
        CheckpointError: weights that can't be read or don't fit.
    """
    models = [_extractor(cfg) for cfg in (a, b)]
    found = []
    for model in models:
        with torch.inference_mode():
            found.append({name: value[0].float().cpu() for name, value in model([photo]).items() if value.dim() == 4})
    strides = [{name: shape.stride for name, shape in model.output_shape().items()} for model in models]
    pairs = _pairs(*strides)
    return Comparison(
        config=_config_differences(a, b),
        weights=_weight_differences(models[0], models[1]),
        maps=[_map_row(one, other, found, strides[0].get(one)) for one, other in pairs],
        a=found[0],
        b=found[1],
    )


def linear_cka(a: Tensor, b: Tensor) -> float:
    """Similarity of two representations of the same points, 0 to 1: (N, C) and (N, D)."""
    a, b = a - a.mean(dim=0), b - b.mean(dim=0)
    # By the smaller of the two matrices of products: of channels, or of points.
    if len(a) < max(a.shape[1], b.shape[1]):
        gram_a, gram_b = a @ a.T, b @ b.T
        return float((gram_a * gram_b).sum() / (gram_a.norm() * gram_b.norm()).clamp_min(1e-12))
    return float((a.T @ b).square().sum() / ((a.T @ a).norm() * (b.T @ b).norm()).clamp_min(1e-12))


def _extractor(cfg: DictConfig) -> FeatureExtractor:
    model = build_model(cfg)
    if not isinstance(model, FeatureExtractor):
        raise ConfigTypeError(f"model is a {type(model).__name__}. compare takes a FeatureExtractor over a backbone.")
    return model.eval()


def _config_differences(a: DictConfig, b: DictConfig) -> dict[str, tuple[Any, Any]]:
    flat = [dict(_leaves({key: cfg[key] for key in ("model", "train") if key in cfg})) for cfg in (a, b)]
    keys = dict.fromkeys([*flat[0], *flat[1]])
    return {key: (flat[0].get(key), flat[1].get(key)) for key in keys if flat[0].get(key) != flat[1].get(key)}


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for key in node:
            missing = isinstance(node, DictConfig) and OmegaConf.is_missing(node, key)
            yield from _leaves("???" if missing else node[key], f"{path}.{key}" if path else str(key))
    elif isinstance(node, SEQUENCES):
        yield path, list(node) if all(not isinstance(item, Mapping) for item in node) else str(node)
    else:
        yield path, getattr(node, "__name__", node)


def _weight_differences(a: nn.Module, b: nn.Module) -> list[dict[str, Any]]:
    ours, theirs = a.state_dict(), b.state_dict()
    groups: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys([*ours, *theirs]):
        groups[_module_of(name)].append(name)
    return [_weight_row(module, names, ours, theirs) for module, names in groups.items()]


def _weight_row(module: str, names: list[str], a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> dict[str, Any]:
    both = [name for name in names if name in a and name in b]
    same = [name for name in both if a[name].shape == b[name].shape and a[name].is_floating_point()]
    apart = sum(float((a[name].double() - b[name].double()).square().sum()) for name in same) ** 0.5
    whole = sum(float(a[name].double().square().sum()) for name in same) ** 0.5
    return {
        "module": module,
        "tensors": len(both),
        "difference": apart / whole if whole else None,
        "only_a": sum(name not in b for name in names),
        "only_b": sum(name not in a for name in names),
        "other_shape": sum(a[name].shape != b[name].shape for name in both),
    }


def _module_of(name: str) -> str:
    words = [word for word in name.split(".")[:-1] if word not in WRAPPERS]
    # Stages that stand in a list are called by their number, too.
    return ".".join(words[: 2 if len(words) > 1 and words[1].isdecimal() and words[0] in ("stages", "blocks") else 1])


def _pairs(a: Mapping[str, int | None], b: Mapping[str, int | None]) -> list[tuple[str, str]]:
    """Maps of the same name where both have them, otherwise of the same stride, in order."""
    if set(a) == set(b):
        return [(name, name) for name in a]
    left, pairs = list(b), []
    for name, stride in a.items():
        other = next((key for key in left if b[key] == stride), None)
        if other is not None:
            left.remove(other)
            pairs.append((name, other))
    return pairs


def _map_row(one: str, other: str, maps: list[dict[str, Tensor]], stride: int | None) -> dict[str, Any]:
    a, b = maps[0][one], maps[1][other]
    grid = (min(a.shape[1], b.shape[1]), min(a.shape[2], b.shape[2]))
    points = [F.adaptive_avg_pool2d(value, grid).flatten(1).T for value in (a, b)]
    return {
        "a": one,
        "b": other,
        "stride": stride,
        "shape_a": list(a.shape),
        "shape_b": list(b.shape),
        "cosine": float(F.cosine_similarity(a, b, dim=0).mean()) if a.shape == b.shape else None,
        "cka": linear_cka(*points),
    }
