"""Models of the shapes that detrex's and detectron2's configs have, for what a swap does to them."""

import dataclasses
import itertools

import torch
from torch import nn

from detrex_backbones import BasicStem, ResNet, ShapeSpec, get_config, instantiate, make_stage
from detrex_backbones.config import LazyCall as L

BGR = {"pixel_mean": [103.53, 116.28, 123.675], "pixel_std": [1.0, 1.0, 1.0], "input_format": "BGR"}


@dataclasses.dataclass
class TheirShape:
    """detectron2's ShapeSpec: not frozen, not ours."""

    channels: int | None = None
    height: int | None = None
    width: int | None = None
    stride: int | None = None


class Neck(nn.Module):
    """detrex's ChannelMapper: a 1x1 convolution for each map."""

    def __init__(self, input_shapes, in_features, out_channels, num_outs):
        super().__init__()
        self.in_features = list(in_features)
        channels = [input_shapes[name].channels for name in self.in_features]
        self.convs = nn.ModuleList(nn.Conv2d(count, out_channels, 1) for count in channels)
        self.extra = num_outs - len(channels)

    def forward(self, maps):
        assert self.extra == 1
        return [conv(maps[name]) for conv, name in zip(self.convs, self.in_features, strict=True)]


class Dino(nn.Module):
    """A backbone and a neck."""

    def __init__(self, backbone, neck, pixel_mean, pixel_std, input_format="RGB", num_classes=80):
        super().__init__()
        self.backbone, self.neck = backbone, neck

    def forward(self, x):
        return self.neck(self.backbone(x))


class Detr(nn.Module):
    """One map, and a projection of it."""

    def __init__(self, backbone, in_features, in_channels, embed_dim, pixel_mean, pixel_std):
        super().__init__()
        self.backbone, self.in_features = backbone, in_features
        self.input_proj = nn.Conv2d(in_channels, embed_dim, 1)

    def forward(self, x):
        return [self.input_proj(self.backbone(x)[self.in_features[-1]])]


class TopBlock(nn.Module):
    """detectron2's LastLevelP6P7."""

    def __init__(self, in_channels, out_channels, in_feature="res5"):
        super().__init__()
        self.in_feature = in_feature
        self.p6 = nn.Conv2d(in_channels, out_channels, 3, 2, 1)


class Pyramid(nn.Module):
    """detectron2's FPN as far as it is about channels: its outputs are named by their strides."""

    def __init__(self, bottom_up, in_features, out_channels, top_block=None):
        super().__init__()
        self.bottom_up, self.in_features, self.top_block = bottom_up, in_features, top_block
        shapes = bottom_up.output_shape()
        strides = [shapes[name].stride for name in in_features]
        assert all(b == 2 * a for a, b in itertools.pairwise(strides))
        self.lateral = nn.ModuleList(nn.Conv2d(shapes[name].channels, out_channels, 1) for name in in_features)

    def forward(self, x):
        maps = self.bottom_up(x)
        outputs = [conv(maps[name]) for conv, name in zip(self.lateral, self.in_features, strict=True)]
        return [*outputs, self.top_block.p6(maps[self.top_block.in_feature])]


class Detector(nn.Module):
    """A pyramid and heads that name its outputs."""

    def __init__(self, backbone, head_in_features, pixel_mean, pixel_std, input_format="BGR"):
        super().__init__()
        self.backbone = backbone

    def forward(self, x):
        return self.backbone(x)


def resnet(features=("res3", "res4", "res5"), **stages):
    return L(ResNet)(
        stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
        stages=L(make_stage)(depth=50, stride_in_1x1=False, norm="FrozenBN", **stages),
        out_features=list(features),
        freeze_at=1,
    )


def dino(shape=ShapeSpec):
    names = ["res3", "res4", "res5"]
    model = L(Dino)(
        backbone=resnet(),
        neck=L(Neck)(
            input_shapes={name: shape(channels=count) for name, count in zip(names, (512, 1024, 2048), strict=True)},
            in_features=list(names),
            out_channels=256,
            num_outs=4,
        ),
        num_classes=80,
        **BGR,
    )
    return config(model)


def detr(features=("res2", "res3", "res4", "res5"), **stages):
    pixels = {key: BGR[key] for key in ("pixel_mean", "pixel_std")}
    backbone = resnet(features, **stages)
    return config(L(Detr)(backbone=backbone, in_features=["res5"], in_channels=2048, embed_dim=256, **pixels))


def retinanet():
    names = ["res3", "res4", "res5"]
    block = L(TopBlock)(in_channels=2048, out_channels="${..out_channels}")
    pyramid = L(Pyramid)(bottom_up=resnet(), in_features=names, out_channels=256, top_block=block)
    return config(L(Detector)(backbone=pyramid, head_in_features=["p3", "p4", "p5", "p6"], **BGR))


def config(model):
    cfg = get_config("resnet/resnet50")
    cfg.train.init_checkpoint = "old.pkl"
    cfg.model = model
    return cfg


def runs(cfg, size=64):
    """Shapes of what the model makes of an image, without weights: channels that don't agree would fail."""
    with torch.device("meta"):
        model = instantiate(cfg.model).eval()
        return [tuple(value.shape[1:]) for value in model(torch.empty(1, 3, size, size))]
