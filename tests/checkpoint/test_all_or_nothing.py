"""The model is the old one whole or the new one whole, byte by byte, whatever fails and whenever."""

import signal

import numpy as np
import pytest
import torch
from torch import nn

from detrex_backbones import load_checkpoint
from detrex_backbones.checkpoint.checkpointer import DetectionCheckpointer
from detrex_backbones.errors import ArgumentError, CheckpointError, DetrexBackbonesError
from tests.checkpoint.nets import raw, snapshot

COUNT = 6


class Net(nn.Module):
    """Tensors of which one can be made odd."""

    def __init__(self, odd=None):
        super().__init__()
        for index in range(COUNT):
            self.register_buffer(f"t{index}", torch.full((3,), float(index)))
        if odd is not None:
            self.t4 = odd


def new_state():
    return {f"t{index}": torch.full((3,), 10.0 + index) for index in range(COUNT)}


@pytest.fixture
def path(tmp_path):
    torch.save(new_state(), tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def is_new(model):
    return snapshot(model) == {name: raw(value) for name, value in new_state().items()}


ODD = {
    "expanded": lambda tmp_path: torch.zeros(1).expand(3),
    "inference": lambda tmp_path: in_inference_mode(),
    "read-only map": lambda tmp_path: mapped(tmp_path),
    "bits": lambda tmp_path: torch.zeros(3, dtype=torch.bits8),
    "quantised": lambda tmp_path: torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8),
    "integer": lambda tmp_path: torch.zeros(3, dtype=torch.int64),
    "sparse": lambda tmp_path: torch.ones(3).to_sparse(),
    "meta": lambda tmp_path: torch.zeros(3, device="meta"),
}


def in_inference_mode():
    with torch.inference_mode():
        return torch.zeros(3)


def mapped(tmp_path):
    (tmp_path / "numbers").write_bytes(bytes(4096))
    return torch.from_numpy(np.memmap(tmp_path / "numbers", "f4", "r")[:3])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ODD)
def test_what_cannot_be_written_is_seen_before_the_first_write(path, tmp_path, monkeypatch, kind):
    model = Net(ODD[kind](tmp_path))
    written = []
    monkeypatch.setattr(torch.Tensor, "copy_", lambda self, *args: written.append(self))
    with pytest.raises((ArgumentError, CheckpointError)):
        load_checkpoint(model, path)
    # The question whether torch can cast at all is put to other tensors.
    assert not [one for one in written if any(one is held for held in model.buffers())]
    monkeypatch.undo()
    assert all(torch.equal(getattr(model, f"t{index}"), torch.full((3,), float(index))) for index in (0, 1, 2, 3, 5))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.complex64])
def test_what_can_be_cast_is(path, dtype):
    model = Net(torch.zeros(3, dtype=dtype))
    load_checkpoint(model, path)
    assert model.t4.dtype == dtype and torch.equal(model.t4.to(torch.complex64).real, torch.full((3,), 14.0))
    model.t4 = torch.zeros(3)
    assert torch.equal(model.t5, new_state()["t5"])


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16, torch.uint32, torch.uint64,
                                   torch.complex32, torch.bool, torch.int8])  # fmt: skip
def test_rare_dtypes_load_as_they_are(tmp_path, dtype):
    state = {**new_state(), "t4": torch.ones(3).to(dtype)}
    torch.save(state, tmp_path / "w.pth")
    model = Net(torch.zeros(3).to(dtype))
    load_checkpoint(model, tmp_path / "w.pth")
    assert snapshot(model) == {name: raw(value) for name, value in state.items()}


class Failing:
    """`Tensor.copy_` that fails at its nth call on a tensor of the model, once or ever after, before or after it."""

    def __init__(self, monkeypatch, model, at, error, after, held=None):
        self.calls, self.at, self.error, self.after = 0, at, error, after
        self.places = {value.data_ptr() for value in (held or model.state_dict().values())}
        self.usual = torch.Tensor.copy_
        failing = self
        monkeypatch.setattr(torch.Tensor, "copy_", lambda tensor, *args, **kwargs: failing(tensor, *args, **kwargs))

    def __call__(self, tensor, *args, **kwargs):
        if tensor.data_ptr() not in self.places:
            return self.usual(tensor, *args, **kwargs)
        self.calls += 1
        if self.calls == self.at and not self.after:
            raise self.error
        result = self.usual(tensor, *args, **kwargs)
        if self.calls == self.at:
            raise self.error
        return result


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, RuntimeError, SystemExit])
@pytest.mark.parametrize("at", range(1, COUNT + 1))
def test_an_error_at_every_tensor(path, monkeypatch, at, error, after):
    model = Net()
    failing = Failing(monkeypatch, model, at, error, after)
    with pytest.raises(error):
        load_checkpoint(model, path)
    monkeypatch.undo()
    assert failing.calls > at
    assert is_new(model)


@pytest.mark.parametrize("at", range(1, COUNT + 1))
def test_ctrl_c_at_every_tensor(path, monkeypatch, at):
    """A real signal: it acts when all is written."""
    model, usual, calls = Net(), torch.Tensor.copy_, []
    places = {value.data_ptr() for value in model.state_dict().values()}

    def copy(tensor, *args, **kwargs):
        if tensor.data_ptr() in places:
            calls.append(tensor)
            if len(calls) == at:
                signal.raise_signal(signal.SIGINT)
        return usual(tensor, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "copy_", copy)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        load_checkpoint(model, path)
    assert signal.getsignal(signal.SIGINT) is before
    assert len(calls) == COUNT and is_new(model)


class Hooked(Net):
    """A state dict that is looked at by code of somebody else, which fails from its nth call on."""

    def __init__(self, do, at):
        super().__init__()
        self.calls, self.at, self.do = 0, at, do
        self._register_state_dict_hook(Hooked.hook)

    def hook(self, state, prefix, metadata):
        state["t2"] = state["t2"].view(3)  # another object: what is written has to be looked at afterwards
        self.calls += 1
        if self.calls == self.at:
            self.do()


def interrupt():
    signal.raise_signal(signal.SIGINT)


def failing():
    raise RuntimeError("a hook of somebody else")


@pytest.mark.parametrize("do", [interrupt, failing])
@pytest.mark.parametrize("at", range(1, 5))
def test_a_hook_that_fails_or_is_interrupted(path, do, at):
    model = Hooked(do, at)
    old = {f"t{index}": raw(torch.full((3,), float(index))) for index in range(COUNT)}
    try:
        load_checkpoint(model, path)
        done = True
    except (KeyboardInterrupt, RuntimeError):
        done = None
    model.at = 0
    found = snapshot(model)
    new = {name: raw(value) for name, value in new_state().items()}
    assert found == new if done else found in (old, new)
    if do is failing and done is None:
        assert found == old


class Strange(torch.Tensor):
    """A tensor class whose copies fail at the nth."""

    left = 0

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is torch.Tensor.copy_:
            Strange.left -= 1
            if Strange.left == 0:
                raise RuntimeError("a class of somebody else")
        return super().__torch_function__(function, types, args, kwargs or {})


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_tensor_class_that_fails(path, at):
    model = Net()
    for index in (1, 3, 5):
        setattr(model, f"t{index}", torch.full((3,), float(index)).as_subclass(Strange))
    before = {name: value.as_subclass(torch.Tensor).tolist() for name, value in model.state_dict().items()}
    Strange.left = at
    with pytest.raises((RuntimeError, DetrexBackbonesError), match="a class of somebody else"):
        load_checkpoint(model, path)
    Strange.left = 0
    assert {name: value.as_subclass(torch.Tensor).tolist() for name, value in model.state_dict().items()} == before
    load_checkpoint(model, path)
    assert [float(value[0]) for value in model.state_dict().values()] == [10.0 + index for index in range(COUNT)]


# ------------------------------------------------------------------------------- the optimiser and scheduler with it


def run_of(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1 + seed)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    for _ in range(seed + 1):
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        scheduler.step()
    return model, optimizer, scheduler


def state_of(model, optimizer, scheduler):
    values = {f"{index}.{name}": raw(value) for index, state in optimizer.state_dict()["state"].items()
              for name, value in state.items()}  # fmt: skip
    groups = optimizer.state_dict()["param_groups"]
    return snapshot(model), values, groups, {key: repr(value) for key, value in scheduler.state_dict().items()}


def saved_run(tmp_path):
    model, optimizer, scheduler = run_of(2)
    DetectionCheckpointer(model, str(tmp_path), optimizer=optimizer, scheduler=scheduler).save("last")
    return tmp_path / "last.pth", state_of(model, optimizer, scheduler)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("at", range(1, 5))
def test_the_optimiser_and_the_scheduler_go_with_the_model(tmp_path, monkeypatch, at, error):
    path, new = saved_run(tmp_path)
    run = run_of(0)
    old = state_of(*run)
    assert old != new
    Failing(monkeypatch, run[0], at, error, False)
    with pytest.raises(error):
        DetectionCheckpointer(run[0], str(tmp_path), optimizer=run[1], scheduler=run[2]).load(path)
    monkeypatch.undo()
    assert state_of(*run) == new


@pytest.mark.parametrize("which", ["optimizer", "scheduler"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_optimiser_or_scheduler_that_fails_leaves_all_as_it_was(tmp_path, monkeypatch, which, error):
    path, _ = saved_run(tmp_path)
    run = run_of(0)
    old, owner = state_of(*run), run[1 if which == "optimizer" else 2]
    usual, calls = type(owner).load_state_dict, []

    def load(self, state):
        usual(self, state)
        calls.append(state)
        if len(calls) == 1:
            raise error("somebody else")

    monkeypatch.setattr(type(owner), "load_state_dict", load)
    with pytest.raises((KeyboardInterrupt, CheckpointError)):
        DetectionCheckpointer(run[0], str(tmp_path), optimizer=run[1], scheduler=run[2]).load(path)
    assert state_of(*run) == old


def test_a_hook_that_fails_takes_the_optimiser_back(tmp_path):
    path, _ = saved_run(tmp_path)
    run = run_of(0)
    calls = []

    def hook(module, state, prefix, metadata):
        calls.append(1)
        state["0.weight"] = state["0.weight"].view(3, 3)
        if hook.armed and sum(calls) == hook.armed:
            raise RuntimeError("a hook of somebody else")

    hook.armed = 0
    checkpointer = DetectionCheckpointer(run[0], str(tmp_path), optimizer=run[1], scheduler=run[2])
    run[0]._register_state_dict_hook(hook)
    old, reached = state_of(*run), 0
    for at in range(1, 8):
        calls.clear()
        hook.armed = at
        try:
            checkpointer.load(path)
        except RuntimeError:
            reached += 1
            hook.armed = 0
            assert state_of(*run) == old
        else:
            break
    assert reached >= 2
