"""What trainers put around a network: wrappers' names in any order and place, containers, averages."""

import copy
import re

import pytest
import timm
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.utils import parametrizations, parametrize
from torch.optim.swa_utils import AveragedModel

from detrex_backbones.checkpoint.names.wrappers import clean_names
from detrex_backbones.errors import CheckpointMatchError
from tests.checkpoint.conventions.files import (
    assert_same,
    load,
    prefixed,
    write_lightning,
    write_mmengine,
    write_timm_training,
    write_torch,
)
from tests.checkpoint.conventions.nets import maps_of, our_resnet, our_timm
from tests.checkpoint.nets import assert_same_tensors, empty
from tests.reference import to_our_names, torchvision_net


@pytest.fixture(scope="module")
def net():
    return torchvision_net("resnet18")


def loaded(net, path, **kwargs):
    model = our_resnet()
    report = load(model, path, **kwargs)
    assert_same(maps_of(model), maps_of(net))
    return report


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "_orig_mod.",
        "_orig_mod.module.",
        "module._orig_mod.",
        "module.model.",
        "model._orig_mod.backbone.",
        "model.module.backbone._orig_mod.",
        "backbone.body.",
        "student_model.encoder.",
    ],
)
def test_prefix(prefix, net, tmp_path):
    report = loaded(net, write_torch(tmp_path / "file.pth", prefixed(net.state_dict(), prefix)))
    parts = [part for part in prefix.split(".") if part not in ("module", "_orig_mod")]
    assert report.prefix == ".".join(parts)


def test_part_that_was_compiled(net, tmp_path):
    """torch.compile of a submodule stands in the middle of the path."""
    state = {key.replace("layer3.", "layer3._orig_mod."): value for key, value in net.state_dict().items()}
    loaded(net, write_torch(tmp_path / "file.pth", state))


def test_real_wrappers(net, tmp_path):
    wrapped = nn.DataParallel(torch.compile(net))
    state = wrapped.state_dict()
    assert any(key.startswith("module._orig_mod.") for key in state)
    loaded(net, write_torch(tmp_path / "file.pth", state))


def test_averaged_model(net, tmp_path):
    report = loaded(net, write_torch(tmp_path / "file.pth", AveragedModel(net).state_dict()))
    assert report.left_over["n_averaged"] == "bookkeeping"


@pytest.mark.parametrize("attribute", ["model", "net", "backbone", "model.backbone"])
def test_lightning(attribute, net, tmp_path):
    report = loaded(net, write_lightning(tmp_path / "file.ckpt", net.state_dict(), attribute))
    assert (report.container, report.prefix) == ("state_dict", f"{attribute}.")


def test_averages_of_mmengine_are_in_the_state_dict_already(net, tmp_path):
    raw = {f"module.{key}": value + 1 for key, value in prefixed(net.state_dict(), "backbone.").items()}
    more = {"ema_state_dict": {**raw, "steps": torch.tensor(3)}, "param_schedulers": []}
    path = write_mmengine(tmp_path / "file.pth", prefixed(net.state_dict(), "backbone."), **more)
    assert loaded(net, path).format == "torch-legacy"


def test_raw_weights_of_mmengine_where_they_are_asked_for(net, tmp_path):
    other = {key: value + 1 for key, value in net.state_dict().items()}
    averaged = {**prefixed(net.state_dict(), "module.backbone."), "steps": torch.tensor(3)}
    path = write_mmengine(tmp_path / "file.pth", other, ema_state_dict=averaged)
    report = loaded(net, path, container="ema_state_dict")
    assert report.left_over["steps"] == "bookkeeping"


def test_timm_training_prefers_averages(net, tmp_path):
    other = {key: value + 1 for key, value in net.state_dict().items()}
    report = loaded(net, write_timm_training(tmp_path / "file.pth.tar", other, net.state_dict()))
    assert report.container == "state_dict_ema"


def test_detrex_training(net, tmp_path):
    """Its averages are beside the weights, under the same names; nothing says which are better."""
    other = {key: value + 1 for key, value in net.state_dict().items()}
    counted = {**net.state_dict(), "conv1.total_ops": torch.zeros(1), "conv1.total_params": torch.zeros(1)}
    content = {"model": counted, "ema_state": other, "optimizer": {}, "scheduler": {}, "iteration": 7, "trainer": {}}
    report = loaded(net, write_torch(tmp_path / "file.pth", content))
    assert report.container == "model"
    assert report.left_over["conv1.total_ops"] == "bookkeeping"
    report = load(our_resnet(), tmp_path / "file.pth", container="ema_state")
    assert report.container == "ema_state"


def test_detectron2_c4_detector_has_res5_in_its_head(net, tmp_path):
    state = {key: value for key, value in to_our_names(net.state_dict()).items() if not key.startswith("linear.")}
    state = {
        f"roi_heads.{key}" if key.startswith("res5.") else f"backbone.{key}": value for key, value in state.items()
    }
    state |= {"roi_heads.box_predictor.cls_score.weight": torch.ones(81, 4), "pixel_mean": torch.ones(3)}
    report = loaded(net, write_torch(tmp_path / "file.pkl", {"model": state, "__author__": "Detectron2 Model Zoo"}))
    assert (report.source, report.prefix) == ("detectron2", "backbone.")
    assert report.left_over["roi_heads.box_predictor.cls_score.weight"] == "outside 'backbone'"


def test_detectron2_fpn_detector(net, tmp_path):
    state = {key: value for key, value in to_our_names(net.state_dict()).items() if not key.startswith("linear.")}
    state = {**prefixed(state, "backbone.bottom_up."), "backbone.fpn_lateral2.weight": torch.ones(4)}
    report = loaded(net, write_torch(tmp_path / "file.pth", {"model": state, "iteration": 9}))
    assert (report.source, report.prefix) in [
        ("detectron2", "backbone.bottom_up."),
        ("as stored", "backbone.bottom_up."),
    ]
    assert report.left_over["backbone.fpn_lateral2.weight"] == "outside 'backbone.bottom_up'"


# Wrappers by rule: in any order, at any depth


class Doubled(nn.Module):
    """A parametrisation with nothing of its own."""

    def forward(self, x):
        return x


@pytest.mark.parametrize(
    ("pattern", "put"),
    [
        (r"^layer1\.0\.conv1\.", "module._orig_mod.layer1.0._checkpoint_wrapped_module.conv1."),
        (r"^", "_forward_module._orig_mod.model."),
        (r"^(layer\d)\.(\d)\.", r"\1._fsdp_wrapped_module._fpw_module.\2._orig_mod."),
        (r"^(\w+)\.", r"module.encoder.\1.module._checkpoint_wrapped_module._orig_mod."),
        (r"^(.*conv\d)\.weight", r"\1.base_layer.weight"),
        (r"^(layer2.*conv\d)\.weight", r"\1.base_layer.base_layer.weight"),
        (r"^(.*conv\d)\.weight", r"_original_module.\1.parametrizations.weight.original"),
        (r"^(layer4\.1)\.", r"\1.modules_to_save.default."),
    ],
)
def test_wrappers_in_any_order_and_place(pattern, put, net, tmp_path):
    state = {re.sub(pattern, put, key): value for key, value in net.state_dict().items()}
    report = loaded(net, write_torch(tmp_path / "file.pth", state))
    assert (report.source, report.coverage) == ("torchvision", 1)


def test_names_of_torchs_own_wrappers(net, tmp_path):
    wrapped = copy.deepcopy(net)
    wrapped.layer1[0] = checkpoint_wrapper(torch.compile(wrapped.layer1[0]))
    wrapped.layer2 = nn.DataParallel(checkpoint_wrapper(wrapped.layer2))
    parametrize.register_parametrization(wrapped.layer3[1].conv2, "weight", Doubled())
    wrapped = AveragedModel(torch.compile(wrapped))
    # As a FSDP model gives its names out of a hook of its own; the modules' names have all of them.
    state = {name: value.detach() for name, value in (*wrapped.named_parameters(), *wrapped.named_buffers())}
    assert "module._orig_mod.layer1.0._checkpoint_wrapped_module._orig_mod.conv1.weight" in state
    report = loaded(net, write_torch(tmp_path / "file.pth", state))
    assert report.left_over["n_averaged"] == "bookkeeping"


def test_adapters_beside_the_weights_are_another_network(net, tmp_path):
    """What peft writes: the weights alone are not what was trained."""
    layer = "base_model.model.layer1.0.conv1"
    state = prefixed(net.state_dict(), "base_model.model.")
    state[f"{layer}.base_layer.weight"] = state.pop(f"{layer}.weight")
    for name in ("weight", "bias"):
        trained = state.pop(f"base_model.model.fc.{name}")
        state[f"base_model.model.fc.original_module.{name}"] = trained + 1
        state[f"base_model.model.fc.modules_to_save.default.{name}"] = trained
    model = our_resnet(classes=1000)
    report = load(model, write_torch(tmp_path / "merged.pth", state))
    assert torch.equal(model.linear.weight, net.fc.weight)
    assert all("modules_to_save" in why for key, why in report.left_over.items() if "original_module" in key)
    state[f"{layer}.lora_A.default.weight"] = torch.ones(8, 64, 3, 3)
    with pytest.raises(CheckpointMatchError, match="lora_A"):
        load(our_resnet(), write_torch(tmp_path / "file.pth", state))


def test_a_parametrisation_that_changes_the_weights_is_another_network(net, tmp_path):
    normed = copy.deepcopy(net)
    parametrizations.spectral_norm(normed.layer1[0].conv1)
    with pytest.raises(CheckpointMatchError, match=r"parametrizations\.weight\.0\._u"):
        load(our_resnet(), write_torch(tmp_path / "file.pth", normed.state_dict()))
    same = copy.deepcopy(normed)
    load(same, tmp_path / "file.pth")
    assert_same_tensors(same.state_dict(), normed.state_dict())


OLD, NEW = nn.utils.weight_norm, parametrizations.weight_norm


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("wrap", ["", "module.", "model._orig_mod."])
@pytest.mark.parametrize(("ours", "theirs"), [(OLD, NEW), (NEW, OLD), (NEW, NEW), (OLD, OLD)])
def test_both_forms_of_weight_norm_are_one(ours, theirs, wrap, tmp_path):
    def made(norm, seed):
        torch.manual_seed(seed)
        head = norm(nn.Linear(6, 4))
        return nn.ModuleDict({"stem": nn.Conv2d(3, 6, 3), "head": head, "rnn": norm(nn.LSTM(4, 4), "weight_hh_l0")})

    model, file = made(ours, 0), made(theirs, 1)
    report = load(model, write_torch(tmp_path / "file.pth", prefixed(file.state_dict(), wrap)))
    assert report.coverage == 1 and report.left_over == {}
    image = torch.ones(2, 6)
    assert torch.equal(model["head"](image), file["head"](image))
    assert torch.equal(model["rnn"](image[:, :4])[0], file["rnn"](image[:, :4])[0])


@pytest.mark.parametrize("wrap", ["", "module.", "backbone.", "_fsdp_wrapped_module.backbone."])
def test_a_network_whose_own_name_is_that_of_a_wrapper(wrap, tmp_path):
    """timm's DLA calls its first layers `base_layer`."""
    plain = timm.create_model("dla34").eval()
    model = our_timm("dla34")
    report = load(model, write_torch(tmp_path / "file.pth", prefixed(plain.state_dict(), wrap)))
    assert report.coverage == 1


@pytest.mark.few(1)
@pytest.mark.parametrize("wrap", [nn.DataParallel, AveragedModel, torch.compile, lambda net: net])
def test_a_model_that_is_wrapped_itself(wrap, net, tmp_path):
    def wrapped():
        return wrap(empty(norm="BN"))

    filled = empty(norm="BN")
    load(filled, write_torch(tmp_path / "theirs.pth", net.state_dict()))
    saved = wrap(filled).state_dict()
    for number, prefix in enumerate(["", "module.", "_forward_module.", "model.module."]):
        model = wrapped()
        file = write_torch(tmp_path / f"{number}.pth", prefixed(saved, prefix))
        assert load(model, file).coverage == 1
        assert_same_tensors(model.state_dict(), saved)
    plain = empty(norm="BN")
    load(plain, file)
    assert_same(maps_of(plain), maps_of(net))


@pytest.mark.parametrize(
    ("name", "own", "expected"),
    [
        # The part that the model calls `module` stays, whatever is around it.
        ("module.neck.module.conv.weight", {"neck.module.conv.weight"}, "neck.module.conv.weight"),
        ("neck.module._orig_mod.conv.weight", {"neck.module.conv.weight"}, "neck.module.conv.weight"),
        ("neck._orig_mod.module.conv.weight", {"neck.module.conv.weight"}, "neck.module.conv.weight"),
        ("neck.module._orig_mod.w", {"neck.module._orig_mod.w"}, "neck.module._orig_mod.w"),
        ("backbone.module.conv.weight", {"module.conv.weight"}, "backbone.module.conv.weight"),
        # The model has one of that name elsewhere.
        ("net.module.w", {"ema.module.w", "module.w", "net.w", "w"}, "net.w"),
        ("a._gate_module.weight", {"a._gate_module.weight"}, "a._gate_module.weight"),
        ("a.parametrizations.w.original", {"a.parametrizations.w.original"}, "a.parametrizations.w.original"),
        # Names that only look like wrappers'.
        ("module", (), "module"),
        ("submodule.weight", (), "submodule.weight"),
        ("base_layer.0.weight", (), "base_layer.0.weight"),
        ("a.parametrizations.w.0.original", (), "a.parametrizations.w.0.original"),
        ("pos_g", (), "pos_g"),
        ("module." * 1000 + "w", {"module.w"}, "w"),
    ],
)
def test_the_model_is_asked_first(name, own, expected):
    assert clean_names([name], own) == ({expected: name}, {})


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("student.conv1.weight", "teacher.conv1.weight"),
        ("fc.original_module.weight", "fc.modules_to_save.default.weight"),
    ],
)
def test_what_stands_for_another_is_set_aside_only_where_the_other_is(name, beside):
    assert clean_names([name]) == ({name: name}, {})
    cleaned, aside = clean_names([name, beside])
    assert list(aside) == [name] and list(cleaned.values()) == [beside]
