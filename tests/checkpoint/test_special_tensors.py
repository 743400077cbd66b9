"""Tensors that are no plain views of a storage: read where their values are in the file, else named."""

from __future__ import annotations

import re
import sys
import types

import pytest
import torch
import torchvision
from torch import nn

from detrex_backbones import load_checkpoint
from detrex_backbones.checkpoint.files import read_checkpoint
from detrex_backbones.errors import CheckpointFileError, CheckpointMatchError
from tests.checkpoint.nets import assert_same_tensors, empty, refused, save, snapshot, weights

KEY, OURS = "layer2.0.conv1.weight", "res3.0.conv1.weight"


@pytest.fixture
def mesh(tmp_path):
    """A mesh of one process."""
    from torch.distributed.tensor import init_device_mesh

    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


@pytest.fixture
def in_module(monkeypatch):
    """A class as if it were of a library that isn't installed; its module is there only while files are written."""

    def make(module: str, kind: type) -> type:
        kind.__module__, kind.__qualname__ = module, kind.__name__
        parts = module.split(".")
        for at in range(1, len(parts) + 1):
            name = ".".join(parts[:at])
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        setattr(sys.modules[module], kind.__name__, kind)
        return kind

    return make


class Marked(torch.Tensor):
    """Nothing but a name of its own for a tensor, as fastai, kornia and torchvision have."""


class OfOthers(torch.Tensor):
    """A tensor that makes its values of others when they are asked for: torchao's, quanto's, MaskedTensor."""

    @staticmethod
    def __new__(cls, data, scale):
        return torch.Tensor._make_wrapper_subclass(cls, data.shape, dtype=scale.dtype)

    def __init__(self, data, scale):
        self.data_of, self.scale = data, scale

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return NotImplemented


class Packed(nn.Parameter):
    """A parameter of packed numbers with what unpacks them in an attribute: bitsandbytes' Params4bit and Int8Params."""


def loads(path, value):
    """The value comes through to the model, with all others."""
    state = weights()
    torch.save({"model": {**state, KEY: value}}, path)
    model, expected = empty(), empty()
    assert load_checkpoint(model, path).coverage == 1.0
    load_checkpoint(expected, state)
    assert_same_tensors(model.state_dict(), expected.state_dict())


def refusal(path, value) -> str:
    """The message for one such tensor, and for a file of nothing else; the model keeps its values."""
    state = weights()
    torch.save({"model": {**state, KEY: value}}, path)
    model = empty()
    before = snapshot(model)
    with pytest.raises(CheckpointMatchError) as caught:
        load_checkpoint(model, path)
    assert snapshot(model) == before
    text = str(caught.value)
    assert KEY in text and "not in the file" not in text and "another architecture" not in text
    assert caught.value.report.missing == [OURS]
    report = load_checkpoint(model, path, allow_missing=[OURS])
    assert report.left_over[KEY] in text
    assert read_checkpoint(path).unread == {KEY: report.left_over[KEY]}
    return report.left_over[KEY]


def plain():
    return weights()[KEY].clone()


def test_subclasses_and_attributes_of_plain_values(tmp_path):
    noted = plain()
    noted.note, noted.spec = "text", torch.ones(2)
    parameter = nn.Parameter(plain())
    parameter.ds_id, parameter.shards = 3, torch.ones(2)
    marked = plain().as_subclass(Marked)
    marked.origin = "somewhere"
    for value in (noted, parameter, marked, plain().as_subclass(Marked), nn.Buffer(plain())):
        loads(tmp_path / "weights.pth", value)


@pytest.mark.filterwarnings("ignore")
def test_a_dtensor_of_which_this_is_all(tmp_path, mesh):
    from torch.distributed.tensor import DTensor, Replicate, Shard

    for placement in (Shard(0), Shard(1), Replicate()):
        whole = DTensor.from_local(plain(), mesh, [placement])
        loads(tmp_path / "weights.pth", whole)
        loads(tmp_path / "weights.pth", nn.Parameter(whole))


@pytest.mark.filterwarnings("ignore")
def test_a_dtensor_of_which_this_is_a_part(tmp_path, mesh):
    from torch.distributed.tensor import DTensor, Partial, Shard

    local, shape = plain()[:48], plain().shape
    a_shard = DTensor.from_local(local, mesh, [Shard(0)], run_check=False, shape=shape, stride=plain().stride())
    for value in (a_shard, nn.Parameter(a_shard), DTensor.from_local(plain(), mesh, [Partial()])):
        assert refusal(tmp_path / "weights.pth", value) == (
            f"one process's part of a DTensor of shape {tuple(shape)}; save tensor.full_tensor()"
        )


def rows():
    return plain().flatten(1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: plain().to_sparse(), "a sparse tensor; save tensor.to_dense()"),
        (lambda: plain().to_sparse().coalesce(), "a sparse tensor; save tensor.to_dense()"),
        (lambda: rows().to_sparse_csr(), "a sparse tensor; save tensor.to_dense()"),
        (lambda: rows().to_sparse_csc(), "a sparse tensor; save tensor.to_dense()"),
        (lambda: rows().to_sparse_bsr((2, 2)), "a sparse tensor; save tensor.to_dense()"),
        (lambda: torch.quantize_per_tensor(plain(), 0.1, 0, torch.qint8), "a quantised tensor; save"),
        (lambda: torch.quantize_per_tensor(plain(), 0.1, 0, torch.qint32), "a quantised tensor; save"),
        (
            lambda: torch.quantize_per_channel(plain(), torch.ones(128), torch.zeros(128), 0, torch.quint8),
            "a quantised tensor; save tensor.dequantize()",
        ),
        (lambda: plain().to("meta"), "a tensor of the meta device, which has no values"),
        (lambda: torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(1, 3)]), "a nested tensor; save its parts"),
        (
            lambda: torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(1, 3)], layout=torch.jagged),
            "a nested tensor; save its parts, tensor.unbind()",
        ),
        (lambda: torch.masked.masked_tensor(plain(), plain() > 0), "MaskedTensor>, made of other tensors; save"),
    ],
)
def test_kinds_of_torch_are_named(tmp_path, make, kind):
    assert kind in refusal(tmp_path / "weights.pth", make())


@pytest.mark.parametrize("module", ["torchao.dtypes.affine", "optimum.quanto.tensor", "modelopt.torch.quantization"])
def test_classes_of_other_libraries_are_named(tmp_path, in_module, module):
    kind = in_module(module, type("Quantised", (OfOthers,), {}))
    text = refusal(tmp_path / "weights.pth", kind(plain().to(torch.int8), torch.ones(1)))
    assert text.startswith(f"a tensor of the class <{module}.Quantised>, made of other tensors; save")


def test_torchaos_own_are_named(tmp_path):
    torchao = pytest.importorskip("torchao.quantization")
    net = nn.Sequential(nn.Linear(64, 128, bias=False))
    torchao.quantize_(net, torchao.Int8WeightOnlyConfig())
    assert "a tensor of the class <torchao." in refusal(tmp_path / "weights.pth", net.state_dict()["0.weight"])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32])
def test_packed_parameters_are_named(tmp_path, in_module, dtype):
    state_of = in_module("bitsandbytes.functional", type("QuantState", (), {}))
    value = Packed(plain().to(dtype), requires_grad=False)
    value.quant_state, value.blocksize = state_of(), 64
    text = refusal(tmp_path / "weights.pth", value)
    assert text.startswith(f"a quantised tensor, of {dtype} with the attributes 'quant_state'; save")
    value = plain().to(dtype)
    value.SCB = torch.ones(128)
    assert "with the attributes 'SCB'" in refusal(tmp_path / "weights.pth", value)


@pytest.mark.parametrize(
    "name", ["_rebuild_xla_tensor", "_rebuild_device_tensor_from_numpy", "_rebuild_device_tensor_from_cpu_tensor"]
)
def test_tensors_of_a_tpu_are_read(tmp_path, monkeypatch, name):
    def rebuild(*args):
        raise AssertionError("nothing of the file is called")

    rebuild.__module__, rebuild.__qualname__, rebuild.__name__ = "torch._utils", name, name
    monkeypatch.setattr(torch._utils, name, rebuild, raising=False)

    class OnXla:
        def __reduce__(self):
            value = plain() if name.endswith("cpu_tensor") else plain().numpy()
            return rebuild, (value, torch.float32, "xla:0", False)

    loads(tmp_path / "weights.pth", OnXla())


@pytest.mark.parametrize("module", ["jax._src.array", "torch.nn.parameter", "mxnet.ndarray"])
def test_objects_under_a_tensors_name_are_named(tmp_path, in_module, monkeypatch, module):
    kind = in_module(module, type("Array", (), {})) if module != "torch.nn.parameter" else nn.UninitializedParameter
    text = refusal(tmp_path / "weights.pth", kind())
    assert text.startswith(f"an object of the class <{module}.{kind.__name__}>; save a plain tensor of it")


@pytest.mark.parametrize("count", [101, 5000])
def test_attributes_are_few(tmp_path, count):
    """Any number of tensors can share one state, which is looked at in each."""
    value = plain()
    value.__dict__.update({f"a{number}": number for number in range(count)})
    torch.save({**weights(), KEY: value}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointFileError, match="a tensor has more than 100 attributes"):
        load_checkpoint(empty(), tmp_path / "weights.pth")


def test_a_mapping_in_memory(tmp_path):
    for value in (plain().to_sparse(), rows().to_sparse_csr(), torch.quantize_per_tensor(plain(), 0.1, 0, torch.qint8)):
        with pytest.raises(CheckpointMatchError, match=r"a sparse or quantised tensor; give tensor\.to_dense"):
            load_checkpoint(empty(), {**weights(), KEY: value})


@pytest.mark.filterwarnings("ignore")
def test_a_file_of_nothing_else(tmp_path):
    state = {key: torch.quantize_per_tensor(value.float(), 0.1, 0, torch.qint8) for key, value in weights().items()}
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(CheckpointMatchError, match=r"has 100 of the model's tensors without plain values: a quantised"):
        load_checkpoint(empty(), tmp_path / "weights.pth")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("key", ["layer3.0.downsample.0.weight", "layer4.1.bn2.bias", "conv1.weight"])
def test_names_that_shapes_tell_apart(tmp_path, key):
    """A tensor without a shape gets the name all the same."""
    value = torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(1, 3)])
    torch.save({**weights(), key: value}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointMatchError, match=rf"1 of the model's tensors without plain values.*{key}") as caught:
        load_checkpoint(empty(), tmp_path / "weights.pth")
    assert caught.value.report.missing == [
        {"layer3.0.downsample.0.weight": "res4.0.shortcut.weight", "conv1.weight": "stem.conv1.weight"}.get(
            key, "res5.1.conv2.norm.bias"
        )
    ]


class Counted(nn.Linear):
    """A module that keeps more than tensors."""

    def get_extra_state(self):
        return {"steps": 3}

    def set_extra_state(self, state):
        self.steps = state["steps"]


LOADING = {
    "torchvision's frozen norm": lambda: torchvision.ops.FrozenBatchNorm2d(4),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
    "an extra state": lambda: Counted(4, 4),
}
SPECIAL = {
    "sparse": lambda value: value.to_sparse(),
    "quantised": lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8),
    "of the meta device": lambda value: value.to("meta"),
}


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("name", LOADING)
def test_modules_with_loading_code_are_not_asked_about_them(tmp_path, name, kind):
    model = nn.Sequential(LOADING[name](), nn.Linear(4, 4))
    state = model.state_dict()
    key = next(key for key, value in state.items() if isinstance(value, torch.Tensor))
    path, before = tmp_path / "file.pth", snapshot(model[1])
    torch.save({**state, key: SPECIAL[kind](state[key].detach())}, path)
    with pytest.raises(CheckpointMatchError, match=rf"without plain values: a.*{kind}.*{key}"):
        load_checkpoint(model, path)
    assert snapshot(model[1]) == before


@pytest.mark.parametrize("scale", ["weight_scale", "scale_weight", "weight_scale_inv", "SCB", "weight_absmax"])
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_codes_are_no_weights_though_their_scale_may_be_left(tmp_path, dtype, scale):
    state = dict(weights())
    place = "layer3.0.conv1."
    state[f"{place}weight"] = torch.ones(state[f"{place}weight"].shape).to(dtype)
    load_checkpoint(empty(), save(tmp_path, state))  # plain numbers of eight bits are cast, and that is said
    state[place + scale] = torch.tensor(0.01)
    message = "codes of a quantised network, with their scales beside them.*layer3.0.conv1.weight"
    assert re.search(message, str(refused(empty(), save(tmp_path, state), allow_unused=["*"])))
