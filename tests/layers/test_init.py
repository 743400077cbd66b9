import copy

import pytest
import timm
import torch
from torch import nn

from detrex_backbones import TimmBackbone, get_config, instantiate
from detrex_backbones.layers.init import skip_random_init


def drawn_and_constant(net: nn.Module, skipped) -> tuple[list[str], list[str]]:
    tensors = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    drawn = [name for name, value in tensors.items() if skipped.is_empty(value)]
    return drawn, [name for name in tensors if name not in drawn]


def nothing_was_drawn() -> bool:
    """Whether torch's generator is where the seed put it."""
    return torch.equal(torch.get_rng_state(), torch.Generator().manual_seed(0).get_state())


@pytest.mark.few(1)
@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "swin_tiny_patch4_window7_224", "efficientnet_lite0"])
def test_constants_are_timms_and_nothing_else_is_filled(name):
    def build():
        torch.manual_seed(0)
        return timm.create_model(name, num_classes=7)

    usual = build()
    torch.manual_seed(0)
    with skip_random_init() as skipped:
        net = timm.create_model(name, num_classes=7)
    drawn, constant = drawn_and_constant(net, skipped)
    assert nothing_was_drawn()
    assert drawn
    theirs = {**dict(usual.named_parameters()), **dict(usual.named_buffers())}
    ours = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    assert all(torch.equal(ours[name], theirs[name]) for name in constant)
    # What was left out had been drawn: no constant is among it.
    assert all(value.unique().numel() > 1 for value in map(theirs.get, drawn) if value.numel() > 1)


def test_our_convolutions_are_not_filled():
    with skip_random_init() as skipped:
        net = instantiate(get_config("resnet/resnet18.py").model)
    drawn, constant = drawn_and_constant(net, skipped)
    assert len(drawn) == 20
    assert all("norm" not in name for name in drawn)
    assert all("norm" in name or "pixel" in name for name in constant)


def test_a_constant_written_over_a_draw_is_written():
    with skip_random_init() as skipped:
        layer = nn.Linear(3, 4)
        nn.init.constant_(layer.weight, 2.0)
        layer.weight.data.mul_(3)
        nn.init.zeros_(layer.bias)
    assert not skipped.is_empty(layer.weight)
    assert (layer.weight == 6).all()
    assert not layer.bias.any()


def test_a_part_of_a_draw_that_is_constant_leaves_it_drawn():
    with skip_random_init() as skipped:
        embedding = nn.Embedding(5, 4, padding_idx=0)
    assert skipped.is_empty(embedding.weight)


def test_weights_that_are_copied_in_are_there():
    values = torch.rand(4, 3)
    with skip_random_init() as skipped:
        layer = nn.Linear(3, 4)
        layer.load_state_dict({"weight": values, "bias": torch.ones(4)})
    assert torch.equal(layer.weight, values)
    assert not skipped.is_empty(layer.weight)


def test_outside_everything_is_drawn_again():
    with skip_random_init():
        pass
    torch.manual_seed(0)
    layer = nn.Linear(3, 4)
    assert layer.weight.unique().numel() == 12
    assert not nothing_was_drawn()


def test_the_meta_device_is_left_alone():
    with skip_random_init() as skipped, torch.device("meta"):
        net = TimmBackbone("resnet18")
    assert not any(skipped.is_empty(value) for value in net.parameters())


def test_moving_keeps_constants_and_copies_no_empty_memory(monkeypatch):
    with skip_random_init() as skipped:
        net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm2d(4))
    before = {name: value.clone() for name, value in net.state_dict().items() if not name.startswith("0.")}
    weight = net[0].weight
    moved = skipped.move(net, torch.device("cpu"))
    assert moved is net
    assert net[0].weight is weight
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())
    meta = skipped.move(net, torch.device("meta"))
    assert all(value.is_meta for value in meta.state_dict().values())


class Heads(nn.Module):
    """Weights that are drawn, copied, changed in part, or computed from what was drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.copies = nn.ModuleList([copy.deepcopy(self.first) for _ in range(2)])
        self.embedding = nn.Embedding(5, 4, padding_idx=0)
        self.orthogonal = nn.Linear(4, 4, bias=False)
        nn.init.orthogonal_(self.orthogonal.weight)
        self.scaled = nn.Parameter(torch.empty(4, 3).normal_() * 2 + 1)
        self.partial = nn.Conv2d(3, 4, 1)
        with torch.no_grad():
            self.partial.weight[1] = 7.0
            self.partial.weight *= 3
            self.partial.bias.copy_(self.first.bias)
        self.constant = nn.Linear(4, 3)
        nn.init.zeros_(self.constant.weight)


@pytest.mark.parametrize("device", [torch.device("cpu"), torch.device("cpu", 0)], ids=["in place", "moved"])
def test_what_was_skipped_is_made_up_for_as_an_ordinary_build_has_it(device):
    torch.manual_seed(0)
    usual = Heads().state_dict()
    torch.manual_seed(0)
    with skip_random_init() as skipped:
        net = Heads()
    skipped.move(net, device)
    own = dict(net.named_parameters())
    assert all(skipped.is_empty(value) for name, value in own.items() if name != "constant.weight")
    skipped.draw()
    for name, value in net.state_dict().items():
        assert torch.equal(value, usual[name]), name
    assert torch.rand(1) == after_an_ordinary_build()


@pytest.mark.parametrize("device", [torch.device("cpu"), torch.device("cpu", 0)], ids=["in place", "moved"])
def test_nothing_is_drawn_for_what_is_filled(device):
    torch.manual_seed(0)
    first, last = nn.Linear(3, 4), nn.Embedding(5, 4, padding_idx=0)
    after = torch.get_rng_state()
    torch.manual_seed(0)
    with skip_random_init() as skipped:
        net = nn.Sequential(nn.Linear(3, 4), nn.Conv2d(3, 4, 1), nn.Embedding(5, 4, padding_idx=0))
        nn.init.normal_(net[1].weight, std=0.5)
        with torch.no_grad():
            net[1].bias[1] = 7.0
    skipped.move(net, device)
    for value in net[1].parameters():
        value.data.fill_(5.0)
    skipped.draw(net[1].parameters())
    assert all(torch.equal(value, torch.full_like(value, 5.0)) for value in net[1].parameters())
    assert torch.equal(net[0].weight, first.weight)
    assert torch.equal(net[0].bias, first.bias)
    assert torch.equal(net[2].weight, last.weight)
    assert torch.equal(torch.get_rng_state(), after)


def test_of_two_parts_of_one_memory_the_one_that_is_not_filled_is_drawn():
    torch.manual_seed(0)
    drawn = torch.empty(2, 3, 4).normal_()
    torch.manual_seed(0)
    with skip_random_init() as skipped:
        base = torch.empty(2, 3, 4).normal_()
        net = nn.ParameterList([nn.Parameter(part) for part in base])
    net[0].data.fill_(5.0)
    skipped.draw([net[0], net[0]])
    assert torch.equal(net[0], torch.full((3, 4), 5.0))
    assert torch.equal(net[1], drawn[1])


@pytest.mark.parametrize("device", [torch.device("cpu"), torch.device("cpu", 0)], ids=["in place", "moved"])
def test_what_is_made_of_a_filled_one_is_made_of_what_would_have_been_drawn(device):
    torch.manual_seed(0)
    first = nn.Linear(3, 4).weight
    torch.manual_seed(0)
    with skip_random_init() as skipped:
        net = nn.ModuleList([nn.Linear(3, 4, bias=False) for _ in range(2)])
        with torch.no_grad():
            net[1].weight.copy_(net[0].weight).mul_(3)
    skipped.move(net, device)
    net[0].weight.data.fill_(5.0)
    skipped.draw([net[0].weight])
    assert torch.equal(net[0].weight, torch.full((4, 3), 5.0))
    assert torch.equal(net[1].weight, 3 * first)


def test_where_a_value_is_read_everything_up_to_there_is_drawn():
    def build():
        torch.manual_seed(0)
        first, second = nn.Linear(3, 4), nn.Linear(4, 40)
        nn.init.normal_(second.weight)
        while second.weight.abs().max() > 2.2:  # as torch's newer `trunc_normal_` draws again what is out of bounds
            nn.init.normal_(second.weight)
        return nn.Sequential(first, second, nn.Linear(40, 2))

    usual = build().state_dict()
    with skip_random_init() as skipped:
        net = build()
    assert net[1].weight.abs().max() <= 2.2
    skipped.draw()
    assert all(torch.equal(value, usual[name]) for name, value in net.state_dict().items())


def after_an_ordinary_build() -> torch.Tensor:
    torch.manual_seed(0)
    Heads()
    return torch.rand(1)
