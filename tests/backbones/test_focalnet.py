"""FocalNet against timm's with the same weights where its sizes are whole, and what its arguments do."""

import pytest
import torch
from timm.models.focalnet import FocalNet as TimmFocalNet
from torch import nn

from detrex_backbones import FocalNet
from detrex_backbones.errors import ArgumentError
from tests.reference import assert_close, noise, randomise_parameters, renamed

SMALL = {"embed_dim": 16, "depths": (1, 2, 1, 1), "focal_levels": (2, 3, 3, 2), "focal_windows": (3, 5, 3, 3)}
LARGE = {"use_conv_embed": True, "use_postln": True, "use_layerscale": True}

KINDS = {
    "tiny": ({}, {}),
    "large": (LARGE, {"use_overlap_down": True, "use_post_norm": True, "layerscale_value": 1e-4}),
    "huge": (
        LARGE | {"use_postln_in_modulation": True, "normalize_modulator": True},
        {"use_overlap_down": True, "use_post_norm": True, "layerscale_value": 1e-4}
        | {"use_post_norm_in_modulation": True, "normalize_modulator": True},
    ),
}


def to_our_names(weights):
    weights = renamed(
        {key: value for key, value in weights.items() if not key.startswith(("head", "norm"))},
        [
            (r"^stem\.", "patch_embed."),
            (r"\.norm([12])_post\.", r".norm\1."),
            (r"\.ls([12])\.gamma$", r".gamma_\1"),
            (r"\.modulation\.norm\.", ".modulation.ln."),
            (r"^layers\.1\.down", "layers.0.down"),
            (r"^layers\.2\.down", "layers.1.down"),
            (r"^layers\.3\.down", "layers.2.down"),
        ],
    )
    linear = (".modulation.f.weight", ".modulation.proj.weight", ".fc1.weight", ".fc2.weight")
    return {key: value.flatten(1) if key.endswith(linear) else value for key, value in weights.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_the_maps_are_timms_behind_a_norm(kind):
    ours_too, theirs_too = KINDS[kind]
    theirs = randomise_parameters(TimmFocalNet(**SMALL, **theirs_too)).eval()
    ours = FocalNet(**SMALL, **ours_too).eval()
    left = ours.load_state_dict(to_our_names(theirs.state_dict()), strict=False)
    assert not left.unexpected_keys and all(key.startswith("norm") for key in left.missing_keys)
    with torch.no_grad():
        for size in ((64, 96), (32, 160)):
            images = noise(2, 3, *size)
            maps = ours(images)
            for index, wanted in enumerate(theirs.forward_intermediates(images, indices=4, intermediates_only=True)):
                # The norm of a map is a fresh one: weight 1, bias 0, eps 1e-5.
                last = nn.functional.layer_norm(wanted.permute(0, 2, 3, 1), wanted.shape[1:2])
                assert_close(maps[f"p{index}"], last.permute(0, 3, 1, 2))


def test_an_image_of_any_size_is_one_that_zeros_fill_up():
    net = randomise_parameters(FocalNet(**SMALL, out_indices=(0,))).eval()
    image = noise(1, 3, 61, 90)
    filled = torch.zeros(1, 3, 64, 92)
    filled[..., :61, :90] = image
    with torch.no_grad():
        assert torch.equal(net(image)["p0"], net(filled)["p0"])


def test_computing_blocks_again_changes_no_gradient():
    nets = [FocalNet(**SMALL, drop_path_rate=0.0, use_checkpoint=again) for again in (False, True)]
    nets[1].load_state_dict(randomise_parameters(nets[0]).state_dict())
    for net in nets:
        sum(value.square().mean() for value in net(noise(1, 3, 64, 64)).values()).backward()
    for (name, one), (_, other) in zip(*(net.named_parameters() for net in nets), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)


@pytest.mark.parametrize(
    ("frozen_stages", "frozen"),
    [(-1, ()), (0, ("patch_embed",)), (1, ("patch_embed",)), (3, ("patch_embed", "layers.0", "layers.1"))],
)
def test_frozen_stages_count_as_the_authors_do(frozen_stages, frozen):
    net = FocalNet(**SMALL, frozen_stages=frozen_stages)
    still = {name for name, value in net.named_parameters() if not value.requires_grad}
    assert still == {name for name, _ in net.named_parameters() if name.startswith(frozen)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"focal_levels": (3, 3)}, r"focal_levels=\[3, 3\]"),
        ({"out_indices": (4,)}, "out_indices"),
        ({"frozen_stages": 6}, "frozen_stages=6.*to 5"),
    ],
)
def test_what_it_cannot_be_made_of(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        FocalNet(**{**SMALL, **arguments})
