"""Deformable ResNets in the names of OpenMMLab, detectron2 and maskrcnn-benchmark, and the latter's plain ones."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn
from torchvision.ops import deform_conv2d

from detrex_backbones import TimmBackbone, convert_checkpoint, load_checkpoint
from detrex_backbones.checkpoint.files import read_checkpoint
from detrex_backbones.errors import CheckpointError, CheckpointMatchError
from detrex_backbones.zoo import infer_config
from tests.checkpoint.conventions.files import (
    assert_same,
    load,
    prefixed,
    without_counters,
    write_mmengine,
    write_torch,
)
from tests.checkpoint.conventions.nets import maps_of, our_resnet, rename, timm_bottleneck
from tests.checkpoint.nets import snapshot

STAGES = {2: [False, True, True, True], 3: [False, False, True, True], 4: [False, False, False, True]}


class Pack(nn.Module):
    """A deformable convolution with the parameters of mmcv's `DeformConv2dPack` or `ModulatedDeformConv2dPack`."""

    def __init__(self, plain: nn.Conv2d, modulated: bool, groups: int) -> None:
        super().__init__()
        self.modulated, self.like = modulated, {name: getattr(plain, name) for name in ("stride", "padding")}
        self.weight = plain.weight
        channels = (3 if modulated else 2) * 9 * groups
        self.conv_offset = nn.Conv2d(plain.in_channels, channels, 3, **self.like)

    def forward(self, x):
        """As mmcv computes it."""
        out = self.conv_offset(x)
        if not self.modulated:
            return deform_conv2d(x, out, self.weight, **self.like)
        first, second, mask = torch.chunk(out, 3, dim=1)
        return deform_conv2d(x, torch.cat((first, second), dim=1), self.weight, **self.like, mask=mask.sigmoid())


def deformable(modulated: bool = True, groups: int = 1, first: int = 2):
    """A ResNet-26 whose blocks from layer `first` on are deformable."""
    net = timm_bottleneck()
    for stage in range(first, 5):
        for block in getattr(net, f"layer{stage}"):
            block.conv2 = Pack(block.conv2, modulated, groups)
    return net.eval()


def ours(modulated: bool = True, groups: int = 1, first: int = 2):
    """The same of ours."""
    stages = {"deform_on_per_stage": STAGES[first], "deform_modulated": modulated, "deform_num_groups": groups}
    return our_resnet(26, **stages)


# From mmcv's names to those of each source.
SPELLINGS = {
    "mmcv 1": [],
    "before mmcv 1": [(r"\.conv2\.conv_offset\.", ".conv2_offset.")],
    "maskrcnn-benchmark": [
        (r"\.conv2\.weight", ".conv2.conv.weight"),
        (r"(layer1\.\d)\.conv2\.conv\.weight", r"\1.conv2.weight"),  # not deformable
        (r"\.conv2\.conv_offset\.", ".conv2.offset."),
        (r"^(conv1|bn1)\.", r"stem.\1."),
        (r"^", "module.backbone.body."),
    ],
}


@pytest.mark.few(1)
@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(("modulated", "groups", "first"), [(True, 1, 2), (False, 1, 3), (True, 4, 4), (False, 2, 2)])
def test_the_same_network_is_filled(tmp_path, spelling, modulated, groups, first):
    net = deformable(modulated, groups, first)
    state = rename(without_counters(net.state_dict()), SPELLINGS[spelling])
    model = ours(modulated, groups, first)
    report = load(model, write_torch(tmp_path / "file.pth", {"model": state}))
    assert report.source == ("maskrcnn-benchmark" if spelling == "maskrcnn-benchmark" else "torchvision")
    assert_same(maps_of(model), maps_of(net))


def test_an_old_and_a_new_detector_of_mmdet(tmp_path):
    net = deformable()
    for rules in (SPELLINGS["mmcv 1"], SPELLINGS["before mmcv 1"]):
        state = prefixed(rename(net.state_dict(), rules), "backbone.") | {
            "neck.lateral_convs.0.conv.weight": torch.ones(2)
        }
        model = ours()
        load(model, write_mmengine(tmp_path / "file.pth", state), known=False)
        assert_same(maps_of(model), maps_of(net))


@pytest.mark.few(1)
@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("first", [2, 3, 4])
def test_a_plain_network_refuses_them_and_says_why(tmp_path, spelling, first):
    path = write_torch(tmp_path / "file.pth", rename(deformable(first=first).state_dict(), SPELLINGS[spelling]))
    for model in (our_resnet(26), TimmBackbone("resnet26", pretrained=False)):
        before = snapshot(model)
        with pytest.raises(CheckpointMatchError, match=r"offsets of deformable convolutions: make_stage\(\.\.\., de"):
            load_checkpoint(model, path)
        assert snapshot(model) == before


def test_detectron2s_into_a_plain_network(tmp_path):
    model = ours()
    for value in model.state_dict().values():
        value.zero_()
    path = write_torch(tmp_path / "file.pth", {"model": model.state_dict()})
    with pytest.raises(CheckpointMatchError, match="the offsets of deformable convolutions"):
        load_checkpoint(our_resnet(26), path)
    load(ours(), path)


@pytest.mark.few(1)
@pytest.mark.parametrize(("spelling", "first"), list(zip(SPELLINGS, (2, 3, 4), strict=True)))
def test_the_config_in_a_file_is_deformable(tmp_path, spelling, first):
    state = our_resnet(50, deform_on_per_stage=STAGES[first], deform_modulated=first != 3, deform_num_groups=2)
    convert_checkpoint(
        write_torch(tmp_path / "ours.pth", state.state_dict()), tmp_path / "theirs.pth", to="torchvision"
    )
    theirs = rename(read_checkpoint(tmp_path / "theirs.pth").tensors, SPELLINGS[spelling])
    found = infer_config(write_torch(tmp_path / "file.pth", theirs))
    assert found.stages == {
        "depth": 50,
        "deform_on_per_stage": STAGES[first],
        "deform_modulated": first != 3,
        "deform_num_groups": 2,
    }


# --- maskrcnn-benchmark's plain networks


@pytest.mark.parametrize("detector", ["fpn", "c4", "data parallel"])
def test_a_detector_of_maskrcnn_benchmark(tmp_path, caplog, detector):
    net = timm_bottleneck()
    prefix = "module.backbone.body." if detector == "data parallel" else "backbone.body."
    state = rename(without_counters(net.state_dict()), [(r"^(conv1|bn1)\.", r"stem.\1."), (r"^", prefix)])
    state = {name: value for name, value in state.items() if ".fc." not in name}
    if detector == "c4":
        state = rename(state, [(r"^backbone\.body\.layer4", "roi_heads.box.feature_extractor.head.layer4")])
    state |= {"rpn.head.conv.weight": torch.ones(4, 4, 3, 3), "backbone.fpn.fpn_inner2.weight": torch.ones(4, 4, 1, 1)}
    model = our_resnet(26)
    with caplog.at_level(logging.WARNING):
        report = load(model, write_torch(tmp_path / "file.pth", {"model": state, "iteration": 3}), known=False)
    assert (report.source, report.coverage) == ("maskrcnn-benchmark", 1.0)
    assert "stride_in_1x1=True" in report.lookalikes
    assert_same(maps_of(model), maps_of(net))


def test_its_names_there_and_back(tmp_path):
    state = without_counters(timm_bottleneck().state_dict())
    write_torch(tmp_path / "file.pth", {name: value for name, value in state.items() if not name.startswith("fc.")})
    convert_checkpoint(tmp_path / "file.pth", tmp_path / "there.pth", to="maskrcnn-benchmark", prefix="backbone.body")
    there = read_checkpoint(tmp_path / "there.pth").tensors
    assert {"backbone.body.stem.bn1.running_var", "backbone.body.layer2.0.downsample.1.bias"} <= there.keys()
    convert_checkpoint(tmp_path / "there.pth", tmp_path / "back.pth", to="torchvision")
    assert read_checkpoint(tmp_path / "back.pth").tensors.keys() == state.keys() - {"fc.weight", "fc.bias"}
    write_torch(tmp_path / "dcn.pth", deformable().state_dict())
    with pytest.raises(CheckpointError, match=r"have no name there: layer2\.0\.conv2\.conv_offset\.weight"):
        convert_checkpoint(tmp_path / "dcn.pth", tmp_path / "there.pth", to="maskrcnn-benchmark")
