"""OpenMMLab's Res2Net through timm's: its first block pools nothing, which no name tells."""

import importlib.abc
import importlib.machinery
import sys
import types

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from detrex_backbones import FeatureExtractor, TimmBackbone, load_checkpoint
from detrex_backbones.errors import ArgumentError, PreprocessingError
from tests.reference import assert_same_maps, noise, randomise_norms

NAME = "res2net50d"
SMALL = {"layers": (2, 2, 1, 1)}
RGB = {"pixel_mean": [123.675, 116.28, 103.53], "pixel_std": [58.395, 57.12, 57.375]}


class Split(nn.Module):
    """A block of OpenMMLab's Res2Net in plain operations: what its code does, in its names. mmdet is too large to be
    installed for a test; where it is, the next test compares with it."""

    def __init__(self, inputs: int, planes: int, stride: int, first: bool) -> None:
        super().__init__()
        width = planes * 26 // 64
        self.first, self.stride, self.width = first, stride, width
        self.conv1, self.bn1 = nn.Conv2d(inputs, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, stride, 1, bias=False) for _ in range(3))
        self.bns = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(3))
        self.conv3, self.bn3 = nn.Conv2d(4 * width, 4 * planes, 1, bias=False), nn.BatchNorm2d(4 * planes)
        if first:
            pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)
            conv = nn.Conv2d(inputs, 4 * planes, 1, bias=False)
            self.downsample = nn.Sequential(pool, conv, nn.BatchNorm2d(4 * planes))

    def forward(self, x):
        splits = F.relu(self.bn1(self.conv1(x))).split(self.width, 1)
        done = []
        for index, (conv, norm) in enumerate(zip(self.convs, self.bns, strict=True)):
            value = splits[index] if index == 0 or self.first else done[-1] + splits[index]
            done.append(F.relu(norm(conv(value))))
        last = splits[3] if self.stride == 1 else F.avg_pool2d(splits[3], 3, self.stride, 1)
        out = self.bn3(self.conv3(torch.cat([*done, last], 1)))
        return F.relu(out + (self.downsample(x) if self.first else x))


class Res2Net(nn.Module):
    """OpenMMLab's Res2Net v1d of a few blocks."""

    def __init__(self) -> None:
        super().__init__()
        stem = []
        for inputs, outputs, stride in ((3, 32, 2), (32, 32, 1), (32, 64, 1)):
            stem += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.stem, inputs = nn.Sequential(*stem), 64
        for index, (count, planes) in enumerate(zip(SMALL["layers"], (64, 128, 256, 512), strict=True)):
            blocks = []
            for number in range(count):
                blocks.append(Split(inputs, planes, 2 if index and not number else 1, not number))
                inputs = 4 * planes
            setattr(self, f"layer{index + 1}", nn.Sequential(*blocks))

    def forward(self, x):
        x, maps = F.max_pool2d(self.stem(x), 3, 2, 1), {}
        for index in range(1, 5):
            x = getattr(self, f"layer{index}")(x)
            maps[f"p{index}"] = x
        return maps


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    return randomise_norms(Res2Net()).eval()


@pytest.fixture(scope="module")
def file(theirs, tmp_path_factory):
    path = tmp_path_factory.mktemp("res2net") / "mine.pth"
    torch.save({"state_dict": {f"backbone.{name}": value for name, value in theirs.state_dict().items()}}, path)
    return path


def backbone(**kwargs):
    return TimmBackbone(NAME, out_indices=(1, 2, 3, 4), **SMALL, **kwargs).eval()


def test_into_timms_as_it_is_they_are_refused_with_the_override_that_mends_it(file):
    model = FeatureExtractor(backbone(), **RGB)
    with pytest.raises(PreprocessingError) as caught:
        load_checkpoint(model, file)
    assert str(caught.value).endswith(
        "expect stride1_pool=false (the model has true). Fix it with:\n    model.backbone.stride1_pool=false"
    )


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 96), (97, 61), (130, 75)])
def test_without_the_pool_the_maps_are_openmmlabs(theirs, file, size):
    ours = backbone(stride1_pool=False)
    report = load_checkpoint(ours, file)
    assert report.source == "mmdet-res2net" and report.coverage == 1
    images = noise(1, 3, *size)
    assert_same_maps(ours(images), theirs(images))


@torch.no_grad()
def test_the_pool_makes_the_difference(theirs, file):
    ours, images = backbone(), noise(1, 3, 97, 61)
    load_checkpoint(ours, file, check_preprocessing="off")
    found, expected = ours(images)["p1"], theirs(images)["p1"]
    assert (found - expected).norm() / expected.norm() > 0.01


def test_a_network_without_such_a_block_refuses_the_argument():
    with pytest.raises(ArgumentError, match=r"stride1_pool=False: resnet18 has no block of Res2Net"):
        TimmBackbone("resnet18", stride1_pool=False)


class _NoOps(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands for `mmcv.ops`, compiled operations that mmcv-lite has not and a backbone needs not."""

    def find_spec(self, name, path, target=None):
        if name.split(".")[:2] in (["mmcv", "ops"], ["mmcv", "_ext"]):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        class Ops(types.ModuleType):
            __path__ = []

            def __getattr__(self, name):
                if name.startswith("__"):
                    raise AttributeError(name)
                return type(name, (nn.Module,), {})

        return Ops(spec.name)

    def exec_module(self, module):
        pass


@torch.no_grad()
def test_mmdets_own_class_gives_the_same_maps(tmp_path):
    pytest.importorskip("mmdet", reason="mmdet is not installed")
    sys.meta_path.insert(0, _NoOps())
    try:
        from mmdet.models.backbones.res2net import Res2Net as MMDetRes2Net
    finally:
        sys.meta_path.pop(0)
    torch.manual_seed(0)
    theirs = randomise_norms(MMDetRes2Net(depth=50, scales=4, base_width=26))
    theirs.eval()  # returns nothing
    path = tmp_path / "mine.pth"
    torch.save(theirs.state_dict(), path)
    ours = TimmBackbone(NAME, out_indices=(1, 2, 3, 4), stride1_pool=False).eval()
    assert load_checkpoint(ours, path).coverage == 1
    images = noise(1, 3, 97, 61)
    expected = {f"p{index + 1}": value for index, value in enumerate(theirs(images))}
    assert_same_maps(ours(images), expected)
