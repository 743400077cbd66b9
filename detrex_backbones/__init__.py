"""Lazy-config detection backbones, and a checkpoint loader that proves what it loaded.

Every public name stands here, and is imported on first use (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detrex_backbones.backbones.base import Backbone as Backbone
    from detrex_backbones.backbones.blocks import BasicBlock as BasicBlock
    from detrex_backbones.backbones.blocks import BottleneckBlock as BottleneckBlock
    from detrex_backbones.backbones.blocks import CNNBlockBase as CNNBlockBase
    from detrex_backbones.backbones.blocks import ResNetBlockBase as ResNetBlockBase
    from detrex_backbones.backbones.darknet import Darknet53 as Darknet53
    from detrex_backbones.backbones.deform_block import DeformBottleneckBlock as DeformBottleneckBlock
    from detrex_backbones.backbones.feature_extractor import FeatureExtractor as FeatureExtractor
    from detrex_backbones.backbones.feature_pyramid import LastLevelMaxPool as LastLevelMaxPool
    from detrex_backbones.backbones.feature_pyramid import SimpleFeaturePyramid as SimpleFeaturePyramid
    from detrex_backbones.backbones.fpn import FPN as FPN
    from detrex_backbones.backbones.fpn import LastLevelP6P7 as LastLevelP6P7
    from detrex_backbones.backbones.resnet import ResNet as ResNet
    from detrex_backbones.backbones.stages import make_stage as make_stage
    from detrex_backbones.backbones.stems import BasicStem as BasicStem
    from detrex_backbones.backbones.stems import DeepStem as DeepStem
    from detrex_backbones.backbones.timm_backbone import TimmBackbone as TimmBackbone
    from detrex_backbones.backbones.torchvision_backbone import TorchvisionBackbone as TorchvisionBackbone
    from detrex_backbones.backbones.torchvision_resnet import TorchvisionResNet as TorchvisionResNet
    from detrex_backbones.backbones.vgg import SSDVGG as SSDVGG
    from detrex_backbones.checkpoint.checkpointer import DetectionCheckpointer as DetectionCheckpointer
    from detrex_backbones.checkpoint.load import load_checkpoint as load_checkpoint
    from detrex_backbones.checkpoint.place.distributed import load_checkpoint_distributed as load_checkpoint_distributed
    from detrex_backbones.checkpoint.report import LoadReport as LoadReport
    from detrex_backbones.config import LazyCall as LazyCall
    from detrex_backbones.config import LazyConfig as LazyConfig
    from detrex_backbones.config import instantiate as instantiate
    from detrex_backbones.layers import Conv2d as Conv2d
    from detrex_backbones.layers import FrozenBatchNorm2d as FrozenBatchNorm2d
    from detrex_backbones.layers import ShapeSpec as ShapeSpec
    from detrex_backbones.layers import SqueezeExcitation as SqueezeExcitation
    from detrex_backbones.layers import fuse_norms as fuse_norms
    from detrex_backbones.layers import get_norm as get_norm
    from detrex_backbones.named import get_backbone as get_backbone
    from detrex_backbones.named import list_backbones as list_backbones
    from detrex_backbones.swap import swap_backbone as swap_backbone
    from detrex_backbones.zoo import build_model as build_model
    from detrex_backbones.zoo import get_config as get_config
    from detrex_backbones.zoo import list_configs as list_configs

# Public name -> module.
_PUBLIC = {
    "Backbone": "backbones.base",
    "BasicBlock": "backbones.blocks",
    "BasicStem": "backbones.stems",
    "BottleneckBlock": "backbones.blocks",
    "build_model": "zoo",
    "CNNBlockBase": "backbones.blocks",
    "Conv2d": "layers",
    "Darknet53": "backbones.darknet",
    "DeepStem": "backbones.stems",
    "DeformBottleneckBlock": "backbones.deform_block",
    "DetectionCheckpointer": "checkpoint.checkpointer",
    "FeatureExtractor": "backbones.feature_extractor",
    "FrozenBatchNorm2d": "layers",
    "FPN": "backbones.fpn",
    "fuse_norms": "layers",
    "get_backbone": "named",
    "get_config": "zoo",
    "get_norm": "layers",
    "instantiate": "config",
    "LastLevelMaxPool": "backbones.feature_pyramid",
    "LastLevelP6P7": "backbones.fpn",
    "LazyCall": "config",
    "LazyConfig": "config",
    "list_backbones": "named",
    "list_configs": "zoo",
    "load_checkpoint": "checkpoint.load",
    "load_checkpoint_distributed": "checkpoint.distributed",
    "LoadReport": "checkpoint.report",
    "make_stage": "backbones.stages",
    "ResNet": "backbones.resnet",
    "ResNetBlockBase": "backbones.blocks",
    "ShapeSpec": "layers",
    "SimpleFeaturePyramid": "backbones.feature_pyramid",
    "SqueezeExcitation": "layers",
    "SSDVGG": "backbones.vgg",
    "swap_backbone": "swap",
    "TimmBackbone": "backbones.timm_backbone",
    "TorchvisionBackbone": "backbones.torchvision_backbone",
    "TorchvisionResNet": "backbones.torchvision_resnet",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("detrex-backbones")
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}. Public names: {', '.join(_PUBLIC)}.")
    value = getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    globals()[name] = value  # asked for once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
