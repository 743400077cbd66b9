"""detrex's backbones beside ours of the same names: the same arguments, the same weights, the same maps."""

import pytest
import torch

import detrex_backbones
from tests.interop.theirs import fill_norms, need_detrex
from tests.reference import assert_same_maps, noise

# How each is called, by keywords as in a config.
CALLS = {
    "ResNet": lambda module: module.ResNet(
        stem=module.BasicStem(in_channels=3, out_channels=64, norm="FrozenBN"),
        stages=module.ResNet.make_default_stages(depth=18, norm="FrozenBN"),
        out_features=["res2", "res5"],
        freeze_at=1,
    ),
    "make_stage": lambda module: module.ResNet(
        stem=module.BasicStem(norm="FrozenBN"),
        stages=module.make_stage(depth=50, norm="FrozenBN", res5_dilation=2),
        out_features=["res3", "res5"],
        freeze_at=2,
    ),
    "TimmBackbone": lambda module: module.TimmBackbone(
        model_name="resnet18d", features_only=True, pretrained=False, in_channels=3, out_indices=(1, 2, 3)
    ),
    "TorchvisionResNet": lambda module: module.TorchvisionResNet(
        name="resnet50", train_backbone=True, dilation=True, return_layers={"layer3": "res4", "layer4": "res5"}
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_are_called_alike_and_give_the_same(name):
    need_detrex()
    import detrex.modeling.backbone as theirs
    from detrex.modeling.backbone import torchvision_resnet

    module = torchvision_resnet if name == "TorchvisionResNet" else theirs
    torch.manual_seed(0)
    their_net = fill_norms(CALLS[name](module)).eval()
    our_net = CALLS[name](detrex_backbones).eval()
    assert list(our_net.state_dict()) == list(their_net.state_dict())
    our_net.load_state_dict(their_net.state_dict(), strict=True)
    learning = [[key for key, value in net.named_parameters() if value.requires_grad] for net in (our_net, their_net)]
    assert learning[0] == learning[1]
    with torch.no_grad():
        maps, their_maps = our_net(noise(1, 3, 64, 96)), their_net(noise(1, 3, 64, 96))
    assert list(maps) == list(their_maps)
    assert_same_maps(maps, their_maps, 1e-6)


def test_detectron2s_checkpointer_loads_nothing_of_what_detrex_dc5_starts_from(tmp_path):
    """detrex's config names torchvision's file, and its train_net imports detectron2's checkpointer."""
    need_detrex()
    import torchvision
    from detectron2.checkpoint import DetectionCheckpointer as TheirCheckpointer

    path = tmp_path / "resnet50.pth"
    torch.save(torchvision.models.resnet50(weights=None).state_dict(), path)
    model = torch.nn.Module()
    model.backbone = CALLS["TorchvisionResNet"](detrex_backbones)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    TheirCheckpointer(model).load(str(path))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    report = detrex_backbones.load_checkpoint(model, path)
    assert (report.scope, report.coverage) == ("backbone.body", 1)
    assert not torch.equal(model.backbone.body.conv1.weight, before["backbone.body.conv1.weight"])
