"""Modules with loading code of their own load what `load_state_dict(strict=True)` loads, to the same state."""

import signal
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torchvision.models import VisionTransformer
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads
from torchvision.models.detection.retinanet import RetinaNetClassificationHead
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d

from detrex_backbones import DetectionCheckpointer, load_checkpoint
from detrex_backbones.errors import CheckpointError, CheckpointMatchError
from tests.checkpoint.nets import snapshot


def trained(model):
    """Values that no fresh model has."""
    with torch.no_grad():
        for value in model.state_dict().values():
            if isinstance(value, torch.Tensor):
                value.copy_(torch.rand_like(value) if value.is_floating_point() else value + 3)
    return model


def older(state, version, *pairs):
    """A state dict with other names, by modules of another version."""
    made = OrderedDict()
    for name, value in state.items():
        for new, old in pairs:
            name = name.replace(new, old)
        made[name] = value
    made._metadata = OrderedDict((path, {**said, "version": version}) for path, said in state._metadata.items())
    return made


def assert_same(ours, theirs):
    expected, found = theirs.state_dict(), ours.state_dict()
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(found[key], value, rtol=0, atol=0, equal_nan=True)
        else:
            assert found[key] == value


def load_both(make, path):
    """The report of a load, which made the model what torch makes of it."""
    theirs, ours = make(), make()
    content = torch.load(path, weights_only=True)
    theirs.load_state_dict(content)
    report = load_checkpoint(ours, path)
    assert_same(ours, theirs)
    return report, ours


def in_net(*parts):
    return nn.ModuleDict({"stem": nn.Conv2d(3, 4, 1), "part": parts[0] if len(parts) == 1 else nn.Sequential(*parts)})


def vit():
    return VisionTransformer(32, 16, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=3)


def mask_heads():
    return in_net(MaskRCNNHeads(8, (8, 8), 1))


def retina_head():
    return in_net(RetinaNetClassificationHead(8, 2, 3))


def pyramid():
    return in_net(FeaturePyramidNetwork([4, 8], 4))


OLDER = {
    "MLP of a ViT": (vit, ("mlp.0.", "mlp.linear_1."), ("mlp.3.", "mlp.linear_2.")),
    "mask head": (mask_heads, ("part.0.0.", "part.mask_fcn1."), ("part.1.0.", "part.mask_fcn2.")),
    "RetinaNet's head": (retina_head, *((f"conv.{at}.0.", f"conv.{2 * at}.") for at in range(4))),
    "pyramid": (pyramid, *((f"_blocks.{at}.0.", f"_blocks.{at}.") for at in range(2))),
}


@pytest.mark.parametrize("kind", OLDER)
def test_torchvisions_modules_read_their_older_names(tmp_path, kind):
    make, *pairs = OLDER[kind]
    torch.save(older(trained(make()).state_dict(), 1, *pairs), tmp_path / "older.pth")
    report, _ = load_both(make, tmp_path / "older.pth")
    assert report.coverage == 1 and not report.left_over and not report.missing
    assert any("the loading code of" in entry.rule for entry in report.loaded)


@pytest.mark.parametrize("around", ["model", "state_dict", "module."])
def test_older_names_in_a_container_or_a_wrapper(tmp_path, around):
    make, *pairs = OLDER["pyramid"]
    state = older(trained(make()).state_dict(), 1, *pairs)
    content = {f"{around}{name}": value for name, value in state.items()} if around == "module." else {around: state}
    torch.save(content, tmp_path / "older.pth")
    ours, theirs = make(), make()
    theirs.load_state_dict(state)
    load_checkpoint(ours, tmp_path / "older.pth")
    assert_same(ours, theirs)


def test_older_names_without_versions(tmp_path):
    make, *pairs = OLDER["mask head"]
    state = older(trained(make()).state_dict(), None, *pairs)
    save_file(dict(state), tmp_path / "older.safetensors")
    theirs, ours = make(), make()
    theirs.load_state_dict(dict(state))
    load_checkpoint(ours, tmp_path / "older.safetensors")
    assert_same(ours, theirs)


def test_a_part_of_a_model_in_older_names(tmp_path):
    make, *pairs = OLDER["MLP of a ViT"]
    state = older(trained(make()).state_dict(), 1, *pairs)
    torch.save(state, tmp_path / "older.pth")
    theirs, ours = make(), nn.ModuleDict({"backbone": make(), "head": nn.Linear(3, 2)})
    theirs.load_state_dict(state)
    report = load_checkpoint(ours, tmp_path / "older.pth")
    assert report.scope == "backbone" and report.random == ["head.weight", "head.bias"]
    assert_same(ours["backbone"], theirs)


NORMS = {
    "weight norm": lambda layer: parametrizations.weight_norm(layer),
    "old weight norm": lambda layer: nn.utils.weight_norm(layer),
    "spectral norm": lambda layer: parametrizations.spectral_norm(layer),
    "old spectral norm": lambda layer: nn.utils.spectral_norm(layer),
    "orthogonal": lambda layer: parametrizations.orthogonal(layer),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")
@pytest.mark.parametrize("kind", NORMS)
def test_parametrised_layers(tmp_path, kind):
    def make():
        return in_net(NORMS[kind](nn.Linear(6, 4)), nn.BatchNorm1d(4))

    torch.save(make().state_dict(), tmp_path / "w.pth")
    report, ours = load_both(make, tmp_path / "w.pth")
    assert report.coverage == 1
    assert ours["part"](torch.rand(2, 6)).shape == (2, 4)


def test_torchs_first_spectral_norm_computes_what_its_files_lack(tmp_path):
    def make():
        return in_net(nn.utils.spectral_norm(nn.Linear(6, 4)), nn.ReLU())

    state = make().state_dict()
    del state["part.0.weight_v"]
    state["part.0.weight"] = state["part.0.weight_orig"] / 2
    for said in state._metadata.values():
        said.pop("spectral_norm", None)
    torch.save(state, tmp_path / "w.pth")
    report, _ = load_both(make, tmp_path / "w.pth")
    made = {entry.model_key for entry in report.loaded if entry.adapted}
    assert made == {"part.0.weight_v"}
    assert "used" not in report.left_over.get("part.0.weight", "")
    assert "loading code" in report.left_over["part.0.weight"]


class Versioned(nn.Module):
    """Stored without eps, transposed and of one name less, before its version 3."""

    _version = 3

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(2, 5))
        self.register_buffer("running_var", torch.rand(5))
        self.register_buffer("steps", torch.tensor(0))
        self.seen = []

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *args):
        self.seen = [*self.seen, local_metadata.get("version")]
        if local_metadata.get("version", 1) < 3:
            state_dict[prefix + "running_var"] -= 0.5  # in place: the file's own tensor
            state_dict[prefix + "weight"] = state_dict[prefix + "weight"].t()
            state_dict[prefix + "steps"] = torch.tensor(7)
            assert float(state_dict.pop(prefix + "scale").sum()) > 0  # asks for values
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)


@pytest.mark.parametrize("given", ["file", "mapping"])
def test_a_module_that_changes_the_values_of_older_versions(tmp_path, given):
    def make():
        return in_net(Versioned(), nn.Linear(5, 5))

    state = make().state_dict()
    state["part.0.weight"] = torch.rand(5, 2)
    state["part.0.scale"] = torch.ones(2)
    del state["part.0.steps"]
    state._metadata["part.0"] = {"version": 2}
    torch.save(state, tmp_path / "w.pth")
    before = snapshot_of(state)
    theirs, ours = make(), make()
    theirs.load_state_dict(torch.load(tmp_path / "w.pth", weights_only=True))
    load_checkpoint(ours, tmp_path / "w.pth" if given == "file" else state)
    assert_same(ours, theirs)
    assert theirs["part"][0].seen == [2] and ours["part"][0].seen == [2]  # the trial is forgotten
    assert snapshot_of(state) == before == snapshot_of(torch.load(tmp_path / "w.pth", weights_only=True))
    current = make()
    torch.save(make().state_dict(), tmp_path / "now.pth")
    load_checkpoint(current, tmp_path / "now.pth")
    assert current["part"][0].seen == [3]


def snapshot_of(state):
    return {name: value.numpy().tobytes() for name, value in state.items()}


def rename_before(module):
    def hook(state, prefix, *rest):
        for key in [key for key in state if key.startswith(f"{prefix}old.")]:
            state[key.replace("old.", "0.", 1)] = state.pop(key)

    module._register_load_state_dict_pre_hook(hook)


def rename_public(module):
    def hook(module, state, prefix, *rest):
        for key in [key for key in state if key.startswith(f"{prefix}old.")]:
            state[key.replace("old.", "0.", 1)] = state.pop(key)

    module.register_load_state_dict_pre_hook(hook)


def fill(module):
    def hook(module, state, prefix, *rest):
        rename = {f"{prefix}old.weight": f"{prefix}0.weight", f"{prefix}old.bias": f"{prefix}0.bias"}
        for old, new in rename.items():
            state[new] = state.pop(old) * 2
        state.setdefault(f"{prefix}2.weight", torch.full((4, 4), 3.0))

    module.register_load_state_dict_pre_hook(hook)


def forgive(module):
    rename_before(module)

    def hook(module, incompatible):
        incompatible.missing_keys.clear()
        incompatible.unexpected_keys.clear()
        with torch.no_grad():
            module[2].weight.fill_(5)

    module.register_load_state_dict_post_hook(hook)


HOOKS = {"pre hook": rename_before, "public pre hook": rename_public, "changes": fill, "post hook": forgive}


@pytest.mark.parametrize("where", ["root", "part"])
@pytest.mark.parametrize("kind", HOOKS)
def test_hooks(tmp_path, kind, where):
    def make():
        part = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4, bias=False))
        HOOKS[kind](part)
        return part if where == "root" else in_net(part)

    state = {name.replace("0.", "old.", 1) if "stem" not in name else name: value
             for name, value in trained(make()).state_dict().items()}  # fmt: skip
    if kind in ("changes", "post hook"):
        state = {name: value for name, value in state.items() if not name.endswith("2.weight")}
    torch.save(state, tmp_path / "w.pth")
    report, _ = load_both(make, tmp_path / "w.pth")
    assert not report.missing
    assert {*report.left_over.values()} <= {"taken by the loading code of Sequential"}


class Counted(nn.Module):
    """What a module keeps beside tensors."""

    def __init__(self, state=None):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(3))
        self.state = state

    def get_extra_state(self):
        return self.state

    def set_extra_state(self, state):
        self.state = state


STATES = {
    "numbers": {"step": 3, "rates": [0.5, 1.5], "name": "a"},
    "a number": 7,
    "tensors": {"ema": [torch.rand(2), {"deep": torch.rand(3)}]},
    "a tensor": torch.rand(4),
}


@pytest.mark.parametrize("kind", STATES)
@pytest.mark.parametrize("around", ["", "module."])
def test_extra_states(tmp_path, kind, around):
    saved = in_net(Counted(STATES[kind]), nn.BatchNorm2d(3))
    state = {f"{around}{name}": value for name, value in saved.state_dict().items()}
    torch.save({"model": state, "iteration": 3}, tmp_path / "w.pth")
    ours = in_net(Counted(torch.zeros(4) if kind == "a tensor" else None), nn.BatchNorm2d(3))
    load_checkpoint(ours, tmp_path / "w.pth")
    assert snapshot(ours["part"][1]) == snapshot(saved["part"][1])
    assert repr(ours["part"][0].state) == repr(saved["part"][0].state)


def test_an_extra_state_that_the_file_lacks_is_missing(tmp_path):
    saved = in_net(Counted(3), nn.BatchNorm2d(3))
    state = saved.state_dict()
    del state["part.0._extra_state"]
    torch.save(state, tmp_path / "w.pth")
    model = in_net(Counted(5), nn.BatchNorm2d(3))
    with pytest.raises(RuntimeError, match="_extra_state"):
        model.load_state_dict(state)
    before = snapshot(model["stem"])
    with pytest.raises(CheckpointMatchError, match="_extra_state"):
        load_checkpoint(model, tmp_path / "w.pth")
    assert snapshot(model["stem"]) == before
    load_checkpoint(model, tmp_path / "w.pth", allow_missing=["part.0._extra_state"])
    assert model["part"][0].state == 5 and torch.equal(model["stem"].weight, saved["stem"].weight)


class Doubled(nn.Module):
    def forward(self, x):
        return x * 2

    def right_inverse(self, x):
        return x / 2


def test_a_parametrisation_of_somebodys_own(tmp_path):
    def make():
        layer = nn.Linear(4, 4)
        parametrize.register_parametrization(layer, "weight", Doubled())
        return in_net(layer, nn.ReLU())

    torch.save(trained(make()).state_dict(), tmp_path / "w.pth")
    load_both(make, tmp_path / "w.pth")


class Fussy(nn.Module):
    """Loading code that fails: at its first run, which is a trial, or at the second."""

    def __init__(self, at, error, where):
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.register_buffer("ranges", torch.rand(0))
        self.lazy = nn.LazyLinear(3)
        self.flags = {"loaded": False}
        self.at, self.error = at, error
        if where == "pre":
            self.register_load_state_dict_pre_hook(lambda module, *rest: module.fail())
        else:
            self.register_load_state_dict_post_hook(lambda module, rest: module.fail())

    def _load_from_state_dict(self, state_dict, prefix, *args):
        self.ranges.resize_(state_dict[prefix + "ranges"].shape)
        self.flags["loaded"] = True
        super()._load_from_state_dict(state_dict, prefix, *args)

    def fail(self):
        CALLS.append(1)
        if len(CALLS) == self.at:
            if self.error is signal.SIGINT:
                signal.raise_signal(signal.SIGINT)
            else:
                raise self.error("fussy")


CALLS = []


@pytest.mark.parametrize("where", ["pre", "post"])
@pytest.mark.parametrize("error", [ValueError, MemoryError, KeyboardInterrupt, SystemExit, signal.SIGINT])
@pytest.mark.parametrize("at", [1, 2])
def test_loading_code_that_fails_leaves_the_model_as_it_was(tmp_path, at, error, where):
    def make():
        return in_net(Fussy(at, error, where), nn.BatchNorm2d(2))

    saved = make()
    saved["part"][0].lazy(torch.rand(1, 5))
    saved["part"][0].ranges = torch.rand(4)
    torch.save(saved.state_dict(), tmp_path / "w.pth")
    CALLS.clear()
    model = make()
    fussy = model["part"][0]
    tensors = {key: (value, type(value)) for key, value in model.state_dict(keep_vars=True).items()}
    plain = {key: value.detach().clone() for key, (value, kind) in tensors.items() if "lazy" not in key}
    with pytest.raises((CheckpointError, error if error is not signal.SIGINT else KeyboardInterrupt)):
        load_checkpoint(model, tmp_path / "w.pth")
    if error is signal.SIGINT and at == 2:  # it waited until all was written
        assert_same(model, saved)
        return
    assert len(CALLS) == at
    now = model.state_dict(keep_vars=True)
    assert all(now[key] is value and type(now[key]) is kind for key, (value, kind) in tensors.items())
    assert all(torch.equal(now[key], value) for key, value in plain.items())
    assert fussy.flags == {"loaded": False}


TIED = {
    "embedding and head": lambda: tied(nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)),
    "two convolutions": lambda: tied(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)),
    "one module twice": lambda: twice(nn.Linear(4, 4)),
    "a buffer": lambda: tied(nn.BatchNorm2d(4), nn.BatchNorm2d(4), "running_mean"),
}


def tied(one, other, name="weight"):
    setattr(other, name, getattr(one, name))
    return in_net(one, other)


def twice(layer):
    return in_net(layer, nn.ReLU(), layer)


@pytest.mark.parametrize("kind", TIED)
@pytest.mark.parametrize("kept", [0, 1])
def test_one_name_of_a_tied_tensor_is_enough(tmp_path, kind, kept):
    saved, model = trained(TIED[kind]()), TIED[kind]()
    names = {}
    for key, value in saved.state_dict(keep_vars=True).items():
        names.setdefault(id(value), []).append(key)
    left_out = [keys[1 - kept] for keys in names.values() if len(keys) > 1]
    torch.save({key: value for key, value in saved.state_dict().items() if key not in left_out}, tmp_path / "w.pth")
    report = load_checkpoint(model, tmp_path / "w.pth")
    assert_same(model, saved)
    assert left_out and list(report.kept) == left_out and report.coverage == 1 and not report.missing
    save_model(saved, str(tmp_path / "w.safetensors"))
    again = TIED[kind]()
    load_checkpoint(again, tmp_path / "w.safetensors")
    assert_same(again, saved)


@pytest.mark.parametrize("kind", TIED)
def test_a_file_with_different_values_for_a_tied_tensor_is_refused(tmp_path, kind):
    model = TIED[kind]()
    state = {key: torch.full_like(value, at + 1) for at, (key, value) in enumerate(model.state_dict().items())}
    torch.save(state, tmp_path / "w.pth")
    before = snapshot(model)
    with pytest.raises(CheckpointMatchError, match="which are one tensor in the model"):
        load_checkpoint(model, tmp_path / "w.pth")
    assert snapshot(model) == before


def test_untied_weights_need_each_name(tmp_path):
    state = trained(TIED["two convolutions"]()).state_dict()
    del state["part.1.weight"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(CheckpointMatchError, match=r"part\.1\.weight"):
        load_checkpoint(in_net(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)), tmp_path / "w.pth")


def test_what_a_module_has_no_use_for_is_still_refused(tmp_path):
    """Both sides: a hook doesn't make the rest of the file disappear."""
    make = pyramid
    state = trained(make()).state_dict()
    state["part.inner_blocks.2.0.weight"] = torch.rand(4, 16, 1, 1)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(CheckpointMatchError, match=r"inner_blocks\.2"):
        load_checkpoint(make(), tmp_path / "w.pth")
    del state["part.inner_blocks.2.0.weight"], state["part.layer_blocks.0.0.bias"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(CheckpointMatchError, match=r"layer_blocks\.0\.0\.bias"):
        load_checkpoint(make(), tmp_path / "w.pth")


def test_frozen_norms_of_torchvision_drop_their_counter(tmp_path):
    def make():
        return in_net(FrozenBatchNorm2d(4), nn.Conv2d(4, 4, 1))

    state = trained(make()).state_dict()
    state["part.0.num_batches_tracked"] = torch.tensor(4)
    torch.save(state, tmp_path / "w.pth")
    report, _ = load_both(make, tmp_path / "w.pth")
    assert list(report.left_over) == ["part.0.num_batches_tracked"]


def test_a_lazy_layer_of_a_model_that_was_never_run(tmp_path):
    def make():
        return nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(2))

    saved = make()
    saved(torch.rand(2, 3, 8, 8))
    DetectionCheckpointer(saved, tmp_path).save("model")
    model = make()
    DetectionCheckpointer(model, tmp_path).resume_or_load("")
    assert_same(model, saved)
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(model.eval()(images), saved.eval()(images))


def test_hooks_draw_no_numbers_at_the_trial(tmp_path):
    def make():
        part = nn.Linear(3, 3)
        part.register_load_state_dict_pre_hook(
            lambda module, state, prefix, *rest: state.update({f"{prefix}bias": torch.rand(3)})
        )
        return in_net(part, nn.ReLU())

    torch.save(make().state_dict(), tmp_path / "w.pth")
    ours, theirs = make(), make()
    torch.manual_seed(0)
    theirs.load_state_dict(torch.load(tmp_path / "w.pth", weights_only=True))
    torch.manual_seed(0)
    load_checkpoint(ours, tmp_path / "w.pth")
    assert_same(ours, theirs)
