"""Checkpoints of timm's plain networks into its feature networks, for every kind of wrapper."""

import copy

import pytest
import timm
import torch
from torch import nn

from detrex_backbones import TimmBackbone, load_checkpoint
from detrex_backbones.checkpoint.names.model_names import ModelNames
from detrex_backbones.errors import CheckpointMatchError
from tests.checkpoint.conventions.files import (
    assert_same,
    load,
    write_lightning,
    write_timm_training,
    write_torch,
)
from tests.checkpoint.conventions.nets import our_timm, timm_features, timm_maps, timm_plain
from tests.reference import noise

# Network, its wrapper (None: its own), side of its images.
KINDS = [
    ("resnet18", None, 64),  # list, the same names
    ("convnext_atto", None, 64),  # list, flattened
    ("densenet121", None, 64),  # list, features.conv0 -> features_conv0
    ("swin_tiny_patch4_window7_224", None, 224),  # list, flattened, maps with channels last
    ("resnet18", "dict", 64),
    ("vit_tiny_patch16_224", None, 224),  # getter
    ("convnext_atto", "getter", 64),
    ("convnext_atto", "hook", 64),
    ("pit_ti_224", None, 224),  # hook, body.
    ("resnet18", "hook", 64),
    ("resnet18", "fx", 64),
    ("mobilenetv3_small_050", None, 64),  # a class of its own
    ("hrnet_w18_small", None, 64),
]
# Less of the same where all of it takes long.
SMALL = {
    "swin_tiny_patch4_window7_224": {"depths": (1, 2, 1, 1), "embed_dim": 24, "num_heads": (1, 2, 4, 8)},
    "vit_tiny_patch16_224": {"depth": 3, "embed_dim": 48},
    "densenet121": {"block_config": (2, 2, 2, 2)},
}


@pytest.mark.few(3)
@pytest.mark.parametrize(("name", "wrapper", "side"), KINDS)
def test_plain_into_features(name, wrapper, side, tmp_path):
    small = SMALL.get(name, {})
    plain = timm_plain(name, **small)
    kwargs = {"feature_cls": wrapper, **small} if wrapper else small
    model = nn.Module()
    model.backbone = nn.Module()
    model.backbone.timm_model = timm_features(name, **kwargs)
    report = load(model, write_torch(tmp_path / "file.pth", plain.state_dict()), known=False)
    assert report.coverage == 1 and not report.outside
    image = noise(1, 3, side, side)
    with torch.no_grad():
        assert_same(model.backbone.timm_model(image), timm_maps(plain, name, image, **kwargs))


@pytest.mark.parametrize("source", [None, "timm"])
def test_convnext_into_a_backbone(source, tmp_path):
    plain = timm_plain("convnext_atto")
    report = load(our_timm("convnext_atto"), write_torch(tmp_path / "file.pth", plain.state_dict()), source=source)
    assert report.source == "timm" and report.scope == "timm_model"
    assert set(report.left_over) == {"head.norm.weight", "head.norm.bias", "head.fc.weight", "head.fc.bias"}
    assert set(report.left_over.values()) == {"head"}


def test_names_of_the_wrapper_itself_stay(tmp_path):
    trained = our_timm("convnext_atto").requires_grad_(False)
    for value in trained.state_dict().values():
        value.fill_(1.0)
    report = load(our_timm("convnext_atto"), write_torch(tmp_path / "file.pth", {"model": trained.state_dict()}))
    assert report.source == "as stored" and not report.left_over


def test_training_file_of_timm(tmp_path):
    """timm itself prefers the averaged weights."""
    raw = timm_plain("convnext_atto")
    averaged = copy.deepcopy(raw)
    averaged.stem[0].weight.data += 1
    path = write_timm_training(tmp_path / "file.pth.tar", raw.state_dict(), averaged.state_dict())
    model = our_timm("convnext_atto")
    report = load(model, path)
    assert report.container == "state_dict_ema"
    assert torch.equal(model.timm_model.stem_0.weight, averaged.stem[0].weight)
    load(model, path, container="state_dict")
    assert torch.equal(model.timm_model.stem_0.weight, raw.stem[0].weight)


@pytest.mark.parametrize("attribute", ["model", "net", "module.model.encoder"])
def test_names_behind_any_prefix(attribute, tmp_path):
    plain = timm_plain("convnext_atto")
    model = our_timm("convnext_atto")
    report = load(model, write_lightning(tmp_path / "file.ckpt", plain.state_dict(), attribute))
    assert report.prefix == attribute.removeprefix("module.") + "."
    assert set(report.left_over.values()) == {"head"}
    assert torch.equal(model.timm_model.stem_0.weight, plain.stem[0].weight)


def test_prefix_of_chance_is_no_prefix():
    """Blocks of unrelated networks share names: a few hits don't make a place."""
    model = ModelNames({"a.conv1.weight": (4, 4), "a.bn1.weight": (4,), "a.fc.weight": (2, 4)})
    file = {f"layer1.0.{name}": (4,) for name in ("bn1.weight", "bn1.bias", "bn2.weight", "bn2.bias")}
    assert model.prefixes(file) == []
    assert model.prefixes({f"net.{name}": (4,) for name in ("bn1.weight",)}) == ["net."]
    assert model.prefixes({"bn1.weight": (4,)}) == [""]


def test_network_with_a_part_called_module(tmp_path):
    """`module` is no wrapper where the network itself has it."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = nn.Module()
            self.block.module = nn.Linear(2, 3)
            self.stem = nn.Linear(2, 2)

    trained = Net()
    for prefix in ("", "module.", "_orig_mod.module."):
        model = Net()
        state = {prefix + key: value for key, value in trained.state_dict().items()}
        load(model, write_torch(tmp_path / "file.pth", state))
        assert torch.equal(model.block.module.weight, trained.block.module.weight)


def test_hrnet_of_a_detector_has_maps_of_its_stages(tmp_path):
    state = timm.create_model("hrnet_w18_small").state_dict()
    classifiers = ("incre_modules.", "downsamp_modules.", "final_layer.", "classifier.")
    state = {f"backbone.{key}": value for key, value in state.items() if not key.startswith(classifiers)}
    torch.save({"state_dict": state}, tmp_path / "hrnet.pth")
    with pytest.raises(CheckpointMatchError, match=r"HRNet's classifier.*feature_location=''\) gives .*takes the file"):
        load_checkpoint(TimmBackbone("hrnet_w18_small"), tmp_path / "hrnet.pth")
    net = TimmBackbone("hrnet_w18_small", feature_location="")
    assert load_checkpoint(net, tmp_path / "hrnet.pth").coverage == 1
