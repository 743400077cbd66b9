"""RegNet against torchvision's with the same weights, and what its arguments do."""

import pytest
import torch
import torchvision

from detrex_backbones import FrozenBatchNorm2d, RegNet, ResBottleneckBlock, SimpleStem
from detrex_backbones.backbones.regnet import fit_groups, stage_sizes
from detrex_backbones.errors import ArgumentError
from tests.reference import assert_same_maps, noise, randomise_norms, renamed

# Of the paper's models: depth, w_a, w_0, w_m, group_width, se_ratio; torchvision's are built from the same numbers.
MODELS = {
    "regnet_x_800mf": (16, 35.73, 56, 2.28, 16, 0.0),
    "regnet_y_400mf": (16, 27.89, 48, 2.09, 8, 0.25),
}
# Widths and depths that the paper gives for RegNetX-400MF, X-4.0GF and Y-4.0GF.
STAGES = {
    (22, 24.48, 24, 2.54, 16): ([32, 64, 160, 384], [1, 2, 7, 12]),
    (23, 38.65, 96, 2.43, 40): ([80, 240, 560, 1360], [2, 5, 14, 2]),
    (22, 31.41, 96, 2.24, 64): ([128, 192, 512, 1088], [2, 6, 12, 2]),
}

FROM_TORCHVISION = [
    (r"^stem\.0\.", "stem.conv."),
    (r"^stem\.1\.", "stem.bn."),
    (r"^trunk_output\.block(\d)\.", r"s\1."),
    (r"block\d-(\d+)\.", lambda match: f"b{int(match[1]) + 1}."),
    (r"\.proj\.0\.", ".proj."),
    (r"\.proj\.1\.", ".bn."),
    (r"\.f\.([abc])\.0\.", r".f.\1."),
    (r"\.f\.([abc])\.1\.", r".f.\1_bn."),
    (r"\.se\.fc1\.", ".se.f_ex.0."),
    (r"\.se\.fc2\.", ".se.f_ex.2."),
]


def regnet(name="regnet_x_800mf", **kwargs):
    depth, w_a, w_0, w_m, group_width, se_ratio = MODELS[name]
    numbers = {"depth": depth, "w_a": w_a, "w_0": w_0, "w_m": w_m, "group_width": group_width, "se_ratio": se_ratio}
    parts = {"stem_class": SimpleStem, "stem_width": 32, "block_class": ResBottleneckBlock}
    return RegNet(**{**parts, **numbers, **kwargs})


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
def test_the_maps_are_torchvisions(name, norm):
    theirs = randomise_norms(getattr(torchvision.models, name)(weights=None)).eval()
    weights = renamed(theirs.state_dict(), FROM_TORCHVISION)
    weights = {key: value for key, value in weights.items() if not key.startswith("fc.")}
    with torch.device("meta"):
        ours = regnet(name, norm=norm, out_features=["s1", "s2", "s3", "s4", "stem"]).eval()
    if norm == "FrozenBN":
        weights = {key: value for key, value in weights.items() if not key.endswith("num_batches_tracked")}
    ours.load_state_dict(weights, strict=True, assign=True)
    images = noise(1, 3, 65, 97)
    with torch.no_grad():
        wanted = {"stem": theirs.stem(images)}
        for stage, last in zip(theirs.trunk_output, ("stem", "s1", "s2", "s3"), strict=True):
            wanted[f"s{len(wanted)}"] = stage(wanted[last])
        maps = ours(images)
        assert list(maps) == list(ours.output_shape()) == ["s1", "s2", "s3", "s4", "stem"]
        assert_same_maps(maps, wanted)
        assert_same_maps(ours.fuse()(images), wanted)


@pytest.mark.parametrize("numbers", STAGES)
def test_the_stages_are_the_papers(numbers):
    widths, depths = stage_sizes(*numbers[:4])
    assert ([fit_groups(width, 1.0, numbers[4])[0] for width in widths], depths) == STAGES[numbers]


@pytest.mark.parametrize("freeze_at", range(-1, 6))
def test_freezing_counts_the_stem_first(freeze_at):
    net = regnet()
    assert net.freeze(freeze_at) is net
    parts = ["stem", "s1", "s2", "s3", "s4"]
    for index, name in enumerate(parts):
        part = net.get_submodule(name)
        is_frozen = index < freeze_at
        assert all(value.requires_grad is not is_frozen for value in part.parameters())
        assert is_frozen is any(isinstance(module, FrozenBatchNorm2d) for module in part.modules())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"out_features": ["s5"]}, "s5.*Allowed: stem, s1, s2, s3, s4"),
        ({"freeze_at": 6}, "freeze_at=6 is out of range"),
        ({"w_0": 20}, "w_0=20.*multiple of 8"),
        ({"w_m": 1.0}, "w_m=1.0"),
    ],
)
def test_what_it_cannot_be_made_of(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        regnet(**arguments)
