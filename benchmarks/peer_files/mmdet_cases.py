"""OpenMMLab's backbones, in small. mmcv's compiled operators, which none of them calls, are stood in for."""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable, Sequence
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any
from unittest.mock import MagicMock

from torch import Tensor, nn

from benchmarks.peer_files.case import SIZES, Case, timm_network
from detrex_backbones import SwinTransformer

__all__ = ["CASES"]

COMPILED = ("mmcv.ops", "mmcv._ext")


class _NotCompiled(MetaPathFinder, Loader):
    """Modules of mmcv's compiled operators, whatever is asked of them."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self, is_package=True) if fullname.startswith(COMPILED) else None

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        module = types.ModuleType(spec.name)
        module.__getattr__ = _stand_in  # type: ignore[method-assign]
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        return None


def _stand_in(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return MagicMock()


def build(name: str, **arguments: Any) -> nn.Module:
    """One of mmdet's backbones."""
    stand_in = _NotCompiled()
    if importlib.util.find_spec("mmcv._ext") is None:
        sys.meta_path.insert(0, stand_in)
    try:
        from mmdet.models import backbones
    finally:
        if stand_in in sys.meta_path:
            sys.meta_path.remove(stand_in)
    net: nn.Module = getattr(backbones, name)(**arguments)
    return net


def maps(net: nn.Module, image: Tensor) -> Sequence[Tensor]:
    """Those that it gives."""
    found: Sequence[Tensor] = net(image)
    return found


def case(name: str, ours: tuple[Callable[[], nn.Module], str], sizes: Any = SIZES, note: str = "", **more: Any) -> Case:
    """A row."""
    return Case("mmdet", name, partial(build, name, **more), *ours, maps, sizes=sizes, note=note)


FOUR = {"out_indices": (0, 1, 2, 3)}
SWIN = {"depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8)}
WHOLE_PATCHES = ((192, 256), (164, 228), (224, 224))

CASES = [
    case("MobileNetV2", timm_network("mobilenetv2_100", out_indices=(1, 2, 3, 4)), out_indices=(1, 2, 4, 6)),
    case(
        "EfficientNet",
        timm_network("tf_efficientnet_b0", out_indices=(0, 1, 2, 3, 4)),
        arch="b0",
        out_indices=(1, 2, 3, 4, 5),
    ),
    case(
        "SwinTransformer",
        timm_network("swin_tiny_patch4_window7_224", output_norms=True, embed_dim=24, **SWIN, **FOUR),
        WHOLE_PATCHES,
        embed_dims=24,
        **SWIN,
    ),
    case(
        "SwinTransformer",
        (partial(SwinTransformer, embed_dim=24, **SWIN), "SwinTransformer"),
        embed_dims=24,
        **SWIN,
    ),
    case(
        "PyramidVisionTransformerV2",
        timm_network("pvt_v2_b0", depths=(1, 1, 1, 1), **FOUR),
        note="its last norms have eps 1e-6 where the authors' have 1e-5",
        embed_dims=32,
        num_layers=[1, 1, 1, 1],
    ),
    case(
        "CSPNeXt",
        timm_network("cspnext_tiny", out_indices=(1, 2, 3, 4)),
        arch="P5",
        deepen_factor=0.167,
        widen_factor=0.375,
        norm_cfg={"type": "BN"},
        note="with the norms of RTMDet's configs; by itself its class has eps 1e-3",
        out_indices=(1, 2, 3, 4),
    ),
    case("RegNet", timm_network("regnetx_004", out_indices=(1, 2, 3, 4)), arch="regnetx_400mf"),
    case("ResNeSt", timm_network("resnest50d", out_indices=(1, 2, 3, 4)), depth=50),
    case("ResNetV1d", timm_network("resnet50d", out_indices=(1, 2, 3, 4)), depth=50),
]
