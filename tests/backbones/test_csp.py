"""CSPDarknet, CSPResNet and PVT where no other library is needed; their peers are in `tests/checkpoint/conventions`."""

import re

import pytest
import torch
import torch.nn.functional as F

from detrex_backbones import CSPDarknet, CSPResNet, PyramidVisionTransformer, load_checkpoint
from detrex_backbones.backbones.csp_darknet import Focus
from detrex_backbones.errors import ArgumentError, CheckpointMatchError
from tests.reference import assert_close, assert_same_maps, noise, randomise_norms, randomise_parameters

NANO = {"deepen_factor": 0.33, "widen_factor": 0.25}
# Megvii's names of the parts, as `yolox.models` has them.
TO_MEGVII = [
    (r"^stage4\.2\.", "dark5.2."),
    (r"^stage(\d)\.", lambda found: f"dark{int(found[1]) + 1}."),
    (r"\.main_conv\.", ".conv1."),
    (r"\.short_conv\.", ".conv2."),
    (r"\.final_conv\.", ".conv3."),
    (r"\.blocks\.", ".m."),
    (r"depthwise_conv\.", "dconv."),
    (r"pointwise_conv\.", "pconv."),
]


def test_focus_has_four_pixels_of_a_square_column_by_column():
    image = torch.arange(12.0).view(1, 1, 3, 4)  # the last row has zeros below
    wanted = [[[0, 2], [8, 10]], [[4, 6], [0, 0]], [[1, 3], [9, 11]], [[5, 7], [0, 0]]]
    assert Focus(torch.nn.Identity())(image)[0].tolist() == wanted


@pytest.mark.parametrize("depthwise", [False, True])
def test_megviis_file_fills_it(depthwise, tmp_path):
    theirs = randomise_norms(CSPDarknet(**NANO, use_depthwise=depthwise, out_indices=(0, 1, 2, 3, 4))).eval()
    state = {}
    for name, value in theirs.state_dict().items():
        for pattern, new in TO_MEGVII:
            name = re.sub(pattern, new, name)
        state["backbone.backbone." + name] = value
    state["backbone.lateral_conv0.conv.weight"] = torch.ones(8, 8, 1, 1)
    state["head.stems.0.conv.weight"] = torch.ones(8, 8, 1, 1)
    torch.save({"model": state, "start_epoch": 300}, tmp_path / "yolox_nano.pth")
    ours = CSPDarknet(**NANO, use_depthwise=depthwise, out_indices=(0, 1, 2, 3, 4)).eval()
    report = load_checkpoint(ours, tmp_path / "yolox_nano.pth")
    assert (report.source, report.coverage, report.file_coverage) == ("yolox", 1, 1)
    image = noise(1, 3, 65, 96)
    with torch.no_grad():
        assert_same_maps(ours(image), theirs(image), 0)
    with pytest.raises(CheckpointMatchError):
        load_checkpoint(CSPDarknet("P5", 0.67, 0.25), tmp_path / "yolox_nano.pth")


def test_norms_have_yoloxs_eps():
    norms = [part for part in CSPDarknet(**NANO).modules() if isinstance(part, torch.nn.BatchNorm2d)]
    assert norms and {norm.eps for norm in norms} == {1e-3}


def test_its_two_branches_are_one_convolution():
    """RepVGG's identity: a 1x1 kernel is the middle of a 3x3 one, once norms are folded."""
    block = randomise_norms(CSPResNet(use_alpha=True)).eval().stages[0].blocks[0].conv2
    block.alpha.data.fill_(0.7)

    def folded(branch):
        scale = branch.bn.weight / (branch.bn.running_var + branch.bn.eps).sqrt()
        return branch.conv.weight * scale[:, None, None, None], branch.bn.bias - branch.bn.running_mean * scale

    with torch.no_grad():
        (kernel, bias), (small, small_bias) = folded(block.conv1), folded(block.conv2)
        kernel[:, :, 1:2, 1:2] += 0.7 * small
        x = noise(2, kernel.shape[1], 9, 11)
        assert_close(block(x), F.silu(F.conv2d(x, kernel, bias + 0.7 * small_bias, padding=1)))


@pytest.mark.parametrize(("net", "frozen"), [(CSPDarknet(frozen_stages=1, **NANO), ("stem.", "stage1."))])
def test_frozen_stages(net, frozen):
    learning = {name for name, value in net.named_parameters() if value.requires_grad}
    assert learning and not any(name.startswith(frozen) for name in learning)
    assert all(name in learning for name, _ in net.named_parameters() if not name.startswith(frozen))


def test_pvts_attention_without_reduction_is_torchs():
    net = randomise_parameters(PyramidVisionTransformer(embed_dims=8, num_layers=(1, 1, 1, 1), sr_ratios=(1, 1, 1, 1)))
    ours = net.eval().block2[0].attn
    theirs = torch.nn.MultiheadAttention(16, 2, batch_first=True).eval()
    theirs.in_proj_weight.data = torch.cat([ours.q.weight, ours.kv.weight]).detach()
    theirs.in_proj_bias.data = torch.cat([ours.q.bias, ours.kv.bias]).detach()
    theirs.out_proj.load_state_dict(ours.proj.state_dict())
    x = noise(2, 5, 7, 16)
    with torch.no_grad():
        tokens = x.flatten(1, 2)
        assert_close(ours(x).flatten(1, 2), theirs(tokens, tokens, tokens)[0])


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: CSPDarknet("P7"), "arch='P7' is not known. Allowed: 'P5', 'P6'"),
        (lambda: CSPDarknet(out_indices=(5,)), "out_indices"),
        (lambda: CSPDarknet(frozen_stages=5), "frozen_stages=5 is out of range"),
        (lambda: CSPResNet("xl"), "name='xl' is not known"),
        (lambda: CSPResNet(act="silo"), "act='silo' is not known.*'silu'"),
        (lambda: PyramidVisionTransformer(num_layers=(1, 1)), "four numbers each"),
    ],
)
def test_wrong_arguments(made, said):
    with pytest.raises(ArgumentError, match=said):
        made()
