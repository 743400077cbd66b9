"""Activation checkpointing: the same numbers, and less kept in between."""

import copy

import pytest
import torch

from detrex_backbones import (
    SSDVGG,
    BasicStem,
    ConvNeXt,
    CSPDarknet,
    CSPResNet,
    Darknet53,
    EVA02_ViT,
    EVAViT,
    FocalNet,
    InternImage,
    LWDETRViT,
    MViT,
    PyramidVisionTransformer,
    RegNet,
    ResNet,
    SwinTransformer,
    TorchvisionBackbone,
    TorchvisionResNet,
    ViT,
    WindowedDINOv2,
    make_stage,
)
from detrex_backbones.config import LazyCall as L
from detrex_backbones.config import LazyConfig
from detrex_backbones.errors import ArgumentError, OverrideError
from tests.backbones.test_contract import EVA, FOCALNET, INTERNIMAGE, MVIT, PVT, REGNET, SMALL_VIT, SWIN, VIT
from tests.reference import assert_same_maps, noise, randomise_norms


def resnet(checkpoint_stages, norm: str = "FrozenBN", **kwargs) -> ResNet:
    torch.manual_seed(0)
    net = ResNet(
        BasicStem(norm=norm),
        make_stage(depth=18, norm=norm),
        out_features=["res2", "res5"],
        checkpoint_stages=checkpoint_stages,
        **kwargs,
    )
    return randomise_norms(net)


def step(net: ResNet) -> dict[str, torch.Tensor]:
    maps = net(noise(2, 3, 64, 96))
    sum(value.square().mean() for value in maps.values()).backward()
    return maps


@pytest.mark.few(1)
@pytest.mark.parametrize("norm", ["FrozenBN", "BN", "GN"])
@pytest.mark.parametrize("stages", [True, ["res2", "res3"]])
@pytest.mark.parametrize("freeze_at", [0, 1, 3])
def test_maps_gradients_and_statistics_are_the_same(stages, norm, freeze_at):
    plain, saving = (resnet(value, norm, freeze_at=freeze_at) for value in (False, stages))
    assert_same_maps(step(saving), step(plain), 0)
    for (name, one), other in zip(saving.named_parameters(), plain.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        assert one.grad is None or torch.equal(one.grad, other.grad), name
    for (name, one), other in zip(saving.named_buffers(), plain.buffers(), strict=True):
        assert torch.equal(one, other), name


def kept(net: torch.nn.Module, image: torch.Tensor | None = None) -> int:
    """Bytes that the forward pass keeps for the backward one, parameters left out."""
    own = {value.untyped_storage().data_ptr() for value in net.state_dict().values()}
    seen: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        maps = net(noise(1, 3, 128, 128) if image is None else image)
    del maps
    return sum(seen.values())


def test_less_is_kept_the_more_stages_are_named():
    none, one, every = (kept(resnet(stages)) for stages in (False, ["res2"], True))
    assert every < one < none
    assert every < none / 2


def test_in_evaluation_nothing_changes():
    plain, saving = (resnet(value, "BN").eval() for value in (False, True))
    with torch.no_grad():
        assert_same_maps(saving(noise(1, 3, 64, 64)), plain(noise(1, 3, 64, 64)), 0)


def test_a_copy_saves_too():
    net = copy.deepcopy(resnet(["res3"]))
    assert net.checkpoint_stages == ("res3",)


@pytest.mark.parametrize("stages", ["res2", ["res6"], ["stem"], ["res2", "layer1"]])
def test_stages_that_are_not_there(stages):
    with pytest.raises(ArgumentError, match=r"checkpoint_stages=.*a list of the stages .*: res2, res3, res4, res5\."):
        resnet(stages)


def test_a_stage_that_is_left_out_of_the_network_can_not_be_named():
    with pytest.raises(ArgumentError, match=r"has: res2\."):
        ResNet(BasicStem(), make_stage(depth=18), out_features=["res2"], checkpoint_stages=["res3"])


OWN = {
    "swin": (SwinTransformer, "use_checkpoint", SWIN | {"drop_path_rate": 0.3}),
    "vit": (ViT, "use_act_checkpoint", VIT | {"drop_path_rate": 0.3}),
    "mvit": (MViT, "use_act_checkpoint", MVIT | {"out_features": ["scale3", "scale4"]}),
    "convnext": (
        ConvNeXt,
        "checkpoint_stages",
        {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32), "drop_path_rate": 0.3},
    ),
    "focalnet": (FocalNet, "use_checkpoint", FOCALNET),
    "internimage": (InternImage, "with_cp", INTERNIMAGE),
    "eva": (EVAViT, "use_act_checkpoint", EVA),
    "eva02": (EVA02_ViT, "use_act_checkpoint", EVA),
    "regnet": (RegNet, "checkpoint_stages", REGNET | {"out_features": ["stem", "s2"]}),
    "csp_darknet": (CSPDarknet, "checkpoint_stages", {"deepen_factor": 0.1, "widen_factor": 0.25}),
    "csp_resnet": (CSPResNet, "checkpoint_stages", {}),
    "pvt": (PyramidVisionTransformer, "use_checkpoint", PVT),
    "dinov2": (WindowedDINOv2, "use_act_checkpoint", SMALL_VIT | {"img_size": 56, "depth": 3, "out_indices": (1, 3)}),
    "lw_detr": (LWDETRViT, "use_act_checkpoint", SMALL_VIT | {"pretrain_img_size": 28, "depth": 2}),
    "ssd_vgg": (SSDVGG, "checkpoint_stages", {}),
    "darknet": (Darknet53, "use_act_checkpoint", {"out_indices": (1, 2)}),
    "torchvision": (TorchvisionBackbone, "use_act_checkpoint", {"model_name": "shufflenet_v2_x0_5"}),
    "torchvision_resnet": (
        TorchvisionResNet,
        "checkpoint_stages",
        {"name": "resnet18", "train_backbone": True, "return_layers": {"layer3": "res4"}},
    ),
}


@pytest.mark.few(1)
@pytest.mark.parametrize("kind", OWN)
def test_every_class_recomputes_and_changes_no_number(kind):
    build, word, kwargs = OWN[kind]
    torch.manual_seed(0)
    nets = [randomise_norms(build(**kwargs, **{word: asked})).train() for asked in (False, True)]
    nets[1].load_state_dict(nets[0].state_dict())
    image = noise(2, 3, *{"lw_detr": (64, 96), "dinov2": (112, 56)}.get(kind, (112, 80)))
    calls, given = [], []
    for net in nets:
        hooked = [module for module in net.modules() if not list(module.children())]
        counted = []
        for module in hooked:
            module.register_forward_hook(lambda *_, counted=counted: counted.append(1))
        torch.manual_seed(1)
        given.append(net(image))
        ahead = len(counted)
        sum(value.square().mean() for value in given[-1].values()).backward()
        calls.append((ahead, len(counted) - ahead))
    assert calls[0][0] == calls[1][0]
    assert calls[0][1] == 0 and calls[1][1] > calls[1][0] / 2  # of what is computed again, most of the network
    assert_same_maps(given[1], given[0], 0)
    for (name, one), other in zip(nets[1].named_parameters(), nets[0].parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        if one.grad is not None:
            torch.testing.assert_close(
                one.grad, other.grad, rtol=1e-4, atol=1e-6 + 1e-5 * other.grad.abs().max().item()
            )
    for (name, one), other in zip(nets[1].named_buffers(), nets[0].buffers(), strict=True):
        assert torch.equal(one, other), name


def test_a_stage_of_a_class_of_ours_is_recomputed_by_its_name():
    kwargs = OWN["convnext"][2] | {"drop_path_rate": 0.0}
    none, one, every = (kept(ConvNeXt(**kwargs, checkpoint_stages=asked)) for asked in (False, ["p0"], True))
    assert every < one < none
    with pytest.raises(ArgumentError, match=r"checkpoint_stages=\['s9'\].*network has: s1, s2, s3"):
        RegNet(**REGNET, checkpoint_stages=["s9"])


@pytest.mark.parametrize("kind", ["swin", "vit", "internimage", "csp_darknet", "convnext"])
def test_the_word_of_another_class_is_answered_with_the_class_own(kind):
    build, word, kwargs = OWN[kind]
    other = "use_act_checkpoint" if word != "use_act_checkpoint" else "checkpoint_stages"
    if kind == "internimage":  # which takes any word, as detrex's does
        with pytest.raises(ArgumentError, match=r"Did you mean 'with_cp'\?"):
            build(**kwargs, **{other: True})
        return
    with pytest.raises(OverrideError, match=rf"takes no argument '{other}'\. Did you mean '{word}'\?"):
        LazyConfig.apply_overrides(L(build)(**kwargs), [f"{other}=True"])
    with pytest.raises(TypeError, match=rf"{build.__name__}.*'{other}'"):
        build(**kwargs, **{other: True})
