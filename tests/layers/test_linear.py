"""Linear layers as 1x1 convolutions: torch's numbers, and only where nobody else has to see a linear layer."""

import importlib.util
import io
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from detrex_backbones import InternImage
from detrex_backbones.layers import linear as module
from detrex_backbones.layers.linear import FastLinear, apply_linear
from tests.backbones import test_contract as small
from tests.reference import noise

FAMILIES = {
    "internimage_scaled": lambda: InternImage(**small.INTERNIMAGE, center_feature_scale=True),
    **{f"swin_{name}": build for name, build in small.SWINS.items()},
    **{f"vit_{name}": build for name, build in small.VITS.items()},
    **{f"mvit_{name}": build for name, build in small.MVITS.items()},
    **{f"stas_{name}": build for name, build in small.STAS.items()},
    **small.WINDOWED,
    **{
        name: build
        for name, build in (small.ROUNDING_UP | small.ROUNDING_DOWN).items()
        if name.startswith(("focalnet", "internimage", "convnext", "eva", "pvt"))
    },
}

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


class Calls(TorchDispatchMode):
    """Counts convolutions and matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = self.products = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.convolutions += func is torch.ops.aten.convolution.default
        self.products += func in (torch.ops.aten.addmm.default, torch.ops.aten.mm.default)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def slow_mkl(monkeypatch):
    """A processor on which convolutions are the faster way, however little there is to do, and several threads."""
    monkeypatch.setattr(module, "_mkl_is_slow", lambda: True)
    monkeypatch.setattr(module, "WORK", 1)
    monkeypatch.setattr(module, "ONE_IMAGE", 0)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def convolutions(call) -> int:
    with Calls() as calls:
        call()
    return calls.convolutions


def gradients_of(call, *tensors: Tensor) -> tuple[Tensor, ...]:
    tensors = tuple(tensor.detach().requires_grad_() for tensor in tensors)
    result = call(*tensors)
    assert result.is_contiguous()
    return result, *torch.autograd.grad(result.sin().sum(), tensors)


@needs_onednn
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 16, 16, 12), (2, 7, 19, 12), (1, 1025, 12), (640, 12), (3, 37, 12)])
def test_results_and_gradients_are_torchs(slow_mkl, shape, bias):
    tensors = [noise(*shape), noise(21, 12), *([noise(21)] if bias else [])]
    assert convolutions(lambda: apply_linear(*tensors)) == 1
    for ours, theirs in zip(gradients_of(apply_linear, *tensors), gradients_of(F.linear, *tensors), strict=True):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@needs_onednn
@pytest.mark.parametrize("images", [1, 4, 16])
def test_results_for_views_and_gradients_of_gradients_are_torchs(slow_mkl, images):
    x, weight = noise(images, 12, 16, 9).permute(0, 2, 3, 1), noise(12, 30).t()

    def twice(function):
        leaf = x.detach().requires_grad_()
        slope = torch.autograd.grad(function(leaf, weight).sin().sum(), leaf, create_graph=True)[0]
        return torch.autograd.grad(slope.square().sum(), leaf)[0]

    found = apply_linear(x, weight)
    assert found.is_contiguous()
    torch.testing.assert_close(found, F.linear(x, weight), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(twice(apply_linear), twice(F.linear), rtol=1e-4, atol=1e-4)


@needs_onednn
@pytest.mark.parametrize(("rows", "threads", "count"), [(256, 1, 1), (255, 1, 0), (255, 2, 1), (240, 1, 0), (0, 2, 0)])
def test_a_single_thread_needs_many_images(slow_mkl, rows, threads, count):
    torch.set_num_threads(threads)
    x, layer = noise(rows, 8), FastLinear(8, 8)
    assert convolutions(lambda: layer(x)) == count
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias), rtol=1e-5, atol=1e-5)


@needs_onednn
@pytest.mark.parametrize(("rows", "width", "count"), [(256, 128, 1), (256, 127, 0), (241, 133, 1), (102, 200, 0)])
def test_for_little_work_or_a_small_map_it_is_torchs(slow_mkl, monkeypatch, rows, width, count):
    monkeypatch.undo()
    monkeypatch.setattr(module, "_mkl_is_slow", lambda: True)
    layer = FastLinear(width, 128 if rows == 256 else 500)
    assert convolutions(lambda: layer(noise(rows, width))) == count


@needs_onednn
@pytest.mark.parametrize(("rows", "threads"), [(256, 1), (256, 2), (241, 2)])
def test_the_convolution_is_onednns(slow_mkl, monkeypatch, rows, threads):
    monkeypatch.undo()
    monkeypatch.setattr(module, "_mkl_is_slow", lambda: True)
    torch.set_num_threads(threads)
    with torch.profiler.profile() as profiler:
        FastLinear(160, 160)(noise(rows, 160))
    assert "aten::mkldnn_convolution" in {event.key for event in profiler.key_averages()}


@needs_onednn
@pytest.mark.parametrize("shape", [(8, 0), (0, 8)])
def test_layers_without_weights_are_torchs(slow_mkl, shape):
    layer = FastLinear(*shape, bias=False)
    x = noise(512, shape[0])
    assert torch.equal(layer(x), F.linear(x, layer.weight))


class OtherTensor(Tensor):
    """As of a library that replaces weights."""


def of_other_numbers(dtype):
    return lambda: FastLinear(8, 8).to(dtype)(noise(512, 8).to(dtype))


def with_autocast():
    with torch.autocast("cpu"):
        assert FastLinear(8, 8)(noise(512, 8)).dtype == torch.bfloat16


def without_onednn():
    with torch.backends.mkldnn.flags(enabled=False):
        FastLinear(8, 8)(noise(512, 8))


def with_another_weight():
    layer = FastLinear(8, 8)
    layer.weight = nn.Parameter(layer.weight.detach().as_subclass(OtherTensor))
    layer(noise(512, 8))


def of_two_kinds(first, second):
    with pytest.raises(RuntimeError, match=r"dtype|same type"):
        apply_linear(noise(512, 8).to(first), noise(8, 8).to(second))


CALLS = {
    "float64": of_other_numbers(torch.float64),
    "bfloat16": of_other_numbers(torch.bfloat16),
    "another dtype of the input": lambda: of_two_kinds(torch.float64, torch.float32),
    "another dtype of the weight": lambda: of_two_kinds(torch.float32, torch.float64),
    "autocast": with_autocast,
    "no oneDNN": without_onednn,
    "meta": lambda: FastLinear(8, 8, device="meta")(noise(512, 8).to("meta")),
    "another input": lambda: FastLinear(8, 8)(noise(512, 8).as_subclass(OtherTensor)),
    "another weight": with_another_weight,
    "sparse": lambda: FastLinear(8, 8)(noise(512, 8).to_sparse()),
    "nested": lambda: FastLinear(8, 8)(torch.nested.nested_tensor([noise(256, 8), noise(300, 8)])),
    "a bias that is broadcast": lambda: apply_linear(noise(512, 8), noise(8, 8), noise(1)),
}


@needs_onednn
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_what_torch_does_as_fast_or_in_its_own_way_stays_with_torch(slow_mkl, call):
    assert convolutions(lambda: FastLinear(8, 8)(noise(512, 8))) == 1
    assert convolutions(call) == 0


@needs_onednn
@pytest.mark.parametrize("moved", [0, 2])
def test_a_tensor_on_another_device_is_torchs_error(slow_mkl, moved):
    tensors = [noise(512, 8), noise(8, 8), noise(8)]
    tensors[moved] = tensors[moved].to("meta")
    with pytest.raises(RuntimeError) as theirs:
        F.linear(*tensors)
    with pytest.raises(RuntimeError) as ours:
        apply_linear(*tensors)
    assert str(ours.value) == str(theirs.value)


@needs_onednn
def test_a_shape_that_does_not_fit_is_torchs_error(slow_mkl):
    for x in (noise(512, 9), noise(9)):
        with pytest.raises(RuntimeError, match=r"cannot be multiplied|size mismatch"):
            FastLinear(8, 8)(x)


@needs_onednn
def test_exporters_see_a_linear_layer(slow_mkl):
    layer, x = FastLinear(8, 8), noise(512, 8)
    program = torch.export.export(layer, (x,))
    assert [str(node.target) for node in program.graph.nodes if node.op == "call_function"] == ["aten.linear.default"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(layer, x)
    assert "aten::linear" in str(traced.inlined_graph)


def test_compilers_see_a_linear_layer_in_a_process_that_begins_with_it():
    seen = []

    def backend(graph, inputs):
        seen.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph.forward

    module._mkl_is_slow.cache_clear()
    torch._dynamo.reset()
    torch.compile(FastLinear(8, 8), backend=backend, fullgraph=True)(noise(512, 8))
    assert len(seen) == 1
    assert "linear" in seen[0]


@pytest.mark.parametrize(
    ("vector", "maker", "slow"),
    [
        ("AVX512", "vendor_id\t: AuthenticAMD", True),
        ("AVX2", "vendor_id\t: AuthenticAMD", False),
        ("AVX512", "vendor_id\t: GenuineIntel", False),
        ("DEFAULT", "", False),
    ],
)
def test_which_processors_are_meant(monkeypatch, vector, maker, slow):
    libraries = (torch.backends.mkl, torch.backends.mkldnn)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: vector)
    monkeypatch.setattr(module, "_processor", lambda: maker)
    for missing in (None, *libraries):
        for library in libraries:
            monkeypatch.setattr(library, "is_available", lambda there=library is not missing: there)
        assert module._mkl_is_slow.__wrapped__() is (slow and missing is None)


def test_the_makers_line_is_read_and_where_there_is_none_python_is_asked(monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 26\n")
    monkeypatch.setattr(module, "Path", lambda path: tmp_path / Path(path).name)
    assert module._processor() == "vendor_id\t: AuthenticAMD\n"
    (tmp_path / "cpuinfo").unlink()
    monkeypatch.setattr("platform.processor", lambda: "AMD64 Family 25 Model 97 Stepping 2, AuthenticAMD")
    assert module._processor().endswith("AuthenticAMD")


@needs_onednn
@pytest.mark.parametrize("family", FAMILIES)
def test_networks_give_the_same_maps_and_gradients(slow_mkl, monkeypatch, family):
    net = FAMILIES[family]().eval()
    assert {type(layer) for layer in net.modules() if type(layer).__name__ in ("Linear", "FastLinear")} == {
        module.Linear
    }
    images = noise(2, 3, *((56, 84) if family in small.WINDOWED else (64, 96)))

    def run():
        net.zero_grad()
        maps = net(images)
        sum(value.square().mean() for value in maps.values()).backward()
        return maps, {name: value.grad.clone() for name, value in net.named_parameters() if value.grad is not None}

    monkeypatch.setattr(module, "_images", lambda input, weight, bias: 0)
    expected = run()
    # Whatever the size, and on whatever processor.
    monkeypatch.setattr(nn.Linear, "forward", FastLinear.forward)
    monkeypatch.setattr(module, "_images", lambda input, weight, bias: 1)
    found = run()
    with torch.no_grad(), Calls() as calls:
        net(images)
    assert calls.products == 0
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(("slow", "name"), [(True, "FastLinear"), (False, "Linear")])
def test_other_processors_have_torchs_own_class(monkeypatch, slow, name):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512" if slow else "AVX2")
    monkeypatch.setattr("pathlib.Path.open", lambda path: io.StringIO("vendor_id\t: AuthenticAMD\n"))
    for library in (torch.backends.mkl, torch.backends.mkldnn):
        monkeypatch.setattr(library, "is_available", lambda: True)
    again = importlib.util.module_from_spec(importlib.util.find_spec(module.__name__))
    again.__spec__.loader.exec_module(again)
    assert again.Linear.__name__ == name
    assert (again.Linear is nn.Linear) is not slow


def test_a_scripted_layer_is_torchs(slow_mkl):
    layer, x = FastLinear(8, 8), noise(512, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(layer)
    assert torch.equal(scripted(x), F.linear(x, layer.weight, layer.bias))
