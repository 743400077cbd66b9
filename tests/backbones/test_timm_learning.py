"""What of a timm network learns: all that its maps depend on, without what is frozen, recomputed or not."""

import copy
import re
from functools import cache

import pytest
import timm
import torch
from torch import nn

from benchmarks.timm_families import families, smallest
from detrex_backbones import Backbone, FrozenBatchNorm2d, SimpleFeaturePyramid, TimmBackbone
from detrex_backbones.config import LazyCall as L
from detrex_backbones.config import instantiate
from detrex_backbones.errors import ArgumentError
from tests.backbones.test_recompute import kept
from tests.old_libraries import skip_without_maps, skip_without_network
from tests.reference import assert_same_maps, noise, randomise_norms

# Stems with a map of their own or without one, blocks called otherwise than their maps, maps taken within a block.
FREEZABLE = ["dpn48b", "efficientvim_m1", "legacy_seresnet18", "mobilevit_xxs", "levit_128s"]
ALL = [family for family in families() if not family[1].startswith("test")]


@pytest.mark.few(1)
@pytest.mark.parametrize(("name", "maps"), [("levit_128s", 3), ("levit_conv_128s", 3), ("efficientformer_l1", 4)])
def test_no_statistics_of_a_frozen_network_change(name, maps):
    net = TimmBackbone(name, out_indices=range(maps), freeze_at=maps + 1).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    net(noise(2, 3, 224, 224))
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def last_freeze_at(name: str, **kwargs: int) -> int:
    with torch.device("meta"), pytest.raises(ArgumentError) as caught:
        TimmBackbone(name, out_indices=None, freeze_at=99, **kwargs)
    return int(re.findall(r"to (\d+) \(", str(caught.value))[-1])


@cache
def small_case(name: str) -> tuple[dict[str, int], tuple[int, int]]:
    """Arguments and (H, W) that make the network cheap to run: few blocks and a small image, where it has a choice."""
    own = timm.get_pretrained_cfg(name).input_size[1:]
    choices = [(64, {}), (64, {"img_size": 64}), (112, {"img_size": 112})]
    for side, kwargs in [(side, {"depth": 4, **kwargs}) for side, kwargs in choices] + choices:
        try:
            bound = _runs(name, side, kwargs, "meta")
        except Exception as error:  # it takes no img_size, or not this one
            if "meta tensors" not in str(error):
                continue
            bound = _runs(name, side, kwargs, "cpu")  # its forward looks at values, as gemma4_vit's does
        if "img_size" in kwargs or not bound:
            return kwargs, (side, side)
    return {}, own


@torch.no_grad()
def _runs(name: str, side: int, kwargs: dict[str, int], device: str) -> bool:
    """Whether it needs images of one size, or the error with which it runs none of this size."""
    with torch.device(device):
        net = TimmBackbone(name, out_indices=None, **kwargs)
        net(torch.empty(1, 3, side, side))
    return net.size_divisibility not in (0, 1, 2, 4, 8, 16, 32)


def all_maps(name: str, **kwargs: int) -> tuple[int, ...]:
    with torch.device("meta"):
        info = timm.create_model(name, features_only=True, **kwargs).feature_info.info
    return tuple(index for index, one in enumerate(info) if one.get("module") != "")  # TResNet's stem is no module


def check_freezing(name: str) -> None:
    """What a map depends on gets a gradient from it; and what isn't finite reaches all that depends on it."""
    kwargs, size = small_case(name)
    last, indices = last_freeze_at(name, **kwargs), all_maps(name, **kwargs)
    image = noise(1, 3, *size)
    free = TimmBackbone(name, out_indices=indices, **kwargs).train()
    values = dict(free.named_parameters())
    wants = [key for key in values if values[key].requires_grad]
    needed: list[set[str]] = [set(values) - set(wants)]
    for value in free(image.expand(2, -1, -1, -1)).values():
        given = torch.autograd.grad(value.sum(), [values[key] for key in wants], retain_graph=True, allow_unused=True)
        found = {key for key, gradient in zip(wants, given, strict=True) if gradient is not None}
        needed.append(needed[-1] | found)
    for number in reversed(range(len(indices))):  # what learns becomes more, and is made NaN
        freeze_at = number + 1 + last - len(indices)
        if freeze_at >= 2:
            with torch.device("meta"):
                net = TimmBackbone(name, out_indices=indices, freeze_at=freeze_at, **kwargs)
            learns = {key for key, parameter in net.named_parameters() if parameter.requires_grad}
            assert set(values) - learns == needed[number + 1], freeze_at
            assert_no_map_depends_on(learns, number, free, image)


@torch.no_grad()
def assert_no_map_depends_on(learns: set[str], number: int, net: TimmBackbone, image: torch.Tensor) -> None:
    for key, parameter in net.named_parameters():
        if key in learns:
            parameter.fill_(float("nan"))
    assert all(value.isfinite().all() for value in list(net.eval()(image).values())[: number + 1])


@pytest.mark.few(1)
@pytest.mark.parametrize("name", FREEZABLE)
def test_freeze_at_freezes_exactly_what_the_map_of_the_stage_depends_on(name):
    skip_without_network(name)
    check_freezing(name)


@pytest.mark.families
@pytest.mark.parametrize("family", ALL, ids="/".join)
def test_so_it_does_in_every_family(family):
    name, _ = smallest(family)
    try:
        all_maps(name)
    except Exception as error:
        pytest.skip(f"timm gives no feature maps of {name}: {error}")
    check_freezing(name)


@pytest.mark.few(1)
@pytest.mark.parametrize("name", ["dpn48b", "mobileone_s0", "legacy_seresnet18", "coat_tiny", "mvitv2_tiny"])
def test_freeze_at_1_freezes_the_stem_alone(name):
    skip_without_maps(name)
    with torch.device("meta"):
        net = TimmBackbone(name, out_indices=None, freeze_at=1)
        free = dict(TimmBackbone(name, out_indices=None).named_parameters())
    learns = {key for key, parameter in net.named_parameters() if parameter.requires_grad}
    frozen = {key.removeprefix("timm_model.model.").removeprefix("timm_model.") for key in set(free) - learns}
    stems = ("features_conv1_1.", "stem.", "layer0.", "patch_embed1.", "cls_token1", "patch_embed.", "cls_token")
    assert frozen and all(key.startswith(stems) for key in frozen)


MAPS = {
    "efficientnet_b0": [(0,), (1, 2), (4, 1)],
    "ghostnet_050": [(1, 2)],
    "hrnet_w18_small": [(1, 2), (0,)],
    "legacy_xception": [(2,)],
    "pit_ti_224": [(0, 1)],
    "coat_tiny": [(0,), (1, 3)],
    "vit_tiny_patch16_224": [(3,), (2, 5)],
    "swin_tiny_patch4_window7_224": [(0, 1)],
}


@pytest.mark.few(1)
@pytest.mark.parametrize("freeze_at", [0, 1, 2])
@pytest.mark.parametrize(("name", "indices"), [(name, choice) for name, all_ in MAPS.items() for choice in all_])
def test_every_parameter_that_wants_a_gradient_gets_one(name, indices, freeze_at):
    skip_without_maps(name)
    with torch.device("meta"):
        net = TimmBackbone(name, out_indices=indices, freeze_at=freeze_at).train()
    image = torch.empty(2, 3, *timm.get_pretrained_cfg(name).input_size[1:], device="meta")
    learning = [key for key, parameter in net.named_parameters() if parameter.requires_grad]
    total = sum(value.sum() for value in net(image).values())
    if total.requires_grad:
        total.backward()
    assert learning == [key for key, parameter in net.named_parameters() if parameter.grad is not None]


def test_what_is_behind_the_last_map_is_left_out_and_changes_no_map():
    net = TimmBackbone("mobilenetv3_small_050", out_indices=(1, 2)).eval()
    theirs = timm.create_model("mobilenetv3_small_050", features_only=True, out_indices=(1, 2)).eval()
    own = net.timm_model.state_dict()
    assert 0 < len(own) < len(theirs.state_dict())
    theirs.load_state_dict(own, strict=False)
    image = noise(2, 3, 61, 83)
    with torch.no_grad():
        assert_same_maps(net(image), dict(zip(("p1", "p2"), theirs(image), strict=True)), 0)


RECOMPUTED = {
    "resnet14t": {},
    "mobilenetv3_small_050": {"out_indices": (1, 3)},
    "convnext_atto": {"depths": [1, 1, 2, 1]},
    "vit_tiny_patch16_224": {"depth": 3, "out_indices": (0, -1)},
    "swin_tiny_patch4_window7_224": {"depths": (1, 1, 2, 1)},
    "legacy_xception": {"out_indices": (1, 2)},
    "hrnet_w18_small": {"out_indices": (1, 2)},
    "efficientvim_m1": {"out_indices": (0, 2)},
    "vgg11_bn": {"out_indices": (1, 2)},  # single layers in a row
}


def step(net: Backbone, image: torch.Tensor) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    maps = net.train()(image)
    sum(value.square().mean() for value in maps.values()).backward()
    return maps


def check_recomputing(backbone: type[Backbone], name: str, image: torch.Tensor, **kwargs) -> None:
    torch.manual_seed(0)
    plain = randomise_norms(backbone(name, **kwargs))
    saving = backbone(name, use_act_checkpoint=True, **kwargs)
    saving.load_state_dict(plain.state_dict())
    assert kept(saving.train(), image) < kept(plain.train(), image)
    saving.load_state_dict(plain.state_dict())
    assert_same_maps(step(saving, image), step(plain, image), 0)
    for (key, one), other in zip(saving.named_parameters(), plain.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), key
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5 * other.grad.abs().max().item())
    for (key, one), other in zip(saving.named_buffers(), plain.buffers(), strict=True):
        assert torch.equal(one, other), key


@pytest.mark.few(1)
@pytest.mark.parametrize("name", RECOMPUTED)
def test_recomputing_keeps_less_and_changes_no_number(name):
    skip_without_network(name)
    check_recomputing(TimmBackbone, name, noise(2, 3, 64, 96), **RECOMPUTED[name])


@pytest.mark.families
@pytest.mark.parametrize("family", ALL, ids="/".join)
def test_so_it_is_in_every_family(family):
    name, _ = smallest(family)
    try:
        all_maps(name)
    except Exception as error:
        pytest.skip(f"timm gives no feature maps of {name}: {error}")
    kwargs, size = small_case(name)
    check_recomputing(TimmBackbone, name, noise(1, 3, *size).expand(2, -1, -1, -1), out_indices=None, **kwargs)


@pytest.mark.slow
def test_layers_in_a_row_that_are_exchanged_are_recomputed_as_they_are():
    image = noise(2, 3, 64, 64)
    plain, saving = (
        TimmBackbone("vgg11_bn", out_indices=(1, 2), norm_layer=FrozenBatchNorm2d, checkpoint_stages=stages).train()
        for stages in (False, True)
    )
    saving.load_state_dict(randomise_norms(plain).state_dict())
    assert kept(saving, image) < kept(plain, image)
    assert_same_maps(step(saving, image), step(plain, image), 0)
    copied = copy.deepcopy(saving)
    with torch.no_grad():
        copied.timm_model["features_0"].weight.zero_()
    assert_same_maps(saving(image), plain(image), 0)  # the copy has layers of its own


def test_stages_are_recomputed_by_the_names_of_maps():
    image = noise(2, 3, 64, 64)
    sizes = [
        kept(TimmBackbone("resnet14t", checkpoint_stages=stages).train(), image)
        for stages in (False, ["p2"], ["p1", "p2"], True)
    ]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 4


@pytest.mark.parametrize("name", ["resnet14t", "vit_tiny_patch16_224"])
def test_the_last_map_is_asked_for_by_minus_one(name):
    with torch.device("meta"):
        net = TimmBackbone(name, out_indices=(-1, 1))
        same = TimmBackbone(name, out_features=("p-1", "p1"))
    assert list(net.output_shape()) == list(same.output_shape()) == ["p-1", "p1"]
    whole = all_maps(name)
    with torch.device("meta"):
        last = TimmBackbone(name, out_indices=(1, whole[-1])).output_shape()[f"p{whole[-1]}"]
    assert net.output_shape()["p-1"] == last
    maps = net(torch.empty(1, 3, 64, 64, device="meta"))
    assert maps["p-1"].shape[1] == last.channels and list(maps) == ["p-1", "p1"]


def test_lists_of_a_config_are_what_timm_asks_for():
    node = L(TimmBackbone)(model_name="convnext_atto", depths=[1, 1, 1, 1], dims=[8, 8, 16, 16])
    assert [shape.channels for shape in instantiate(node).output_shape().values()] == [8, 8, 16, 16]
    node = L(TimmBackbone)(model_name="cspnext_tiny", out_indices=(0,), stage_cfgs={"depth": [1]})
    with pytest.raises(ArgumentError):  # timm's own words, not omegaconf's
        instantiate(node)
    pyramid = L(SimpleFeaturePyramid)(
        net=L(TimmBackbone)(model_name="vit_tiny_patch16_224", depth=2, out_indices=(-1,)),
        in_feature="p-1",
        out_channels=8,
        scale_factors=(2.0, 1.0),
    )
    assert list(instantiate(pyramid).output_shape()) == ["p3", "p4"]


@pytest.mark.parametrize(("name", "stem"), [("regnetx_002", "stem.conv"), ("vit_tiny_patch16_224", "patch_embed.proj")])
def test_a_stem_that_was_changed_by_hand_is_asked_for_its_channels(name, stem):
    net = TimmBackbone(name, out_indices=(0,)).eval()
    path = ("timm_model.model." if name.startswith("vit") else "timm_model.") + stem
    old = net.get_submodule(path)
    new = nn.Conv2d(5, old.out_channels, old.kernel_size, old.stride, old.padding, bias=old.bias is not None)
    parent, _, key = path.rpartition(".")
    setattr(net.get_submodule(parent), key, new)
    with torch.no_grad():
        assert net(noise(1, 5, 64, 64))["p0"].isfinite().all()
    with pytest.raises(ValueError, match=r"in_channels=5.*has 3"):
        net(noise(1, 3, 64, 64))
