"""One backbone as everything that it can be exported to, each beside itself as it runs in Python."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from benchmarks.export_kinds import Kind
from detrex_backbones.layers import Conv2d
from detrex_backbones.layers.fuse import is_batch_norm, loose_norms

__all__ = ["COLUMNS", "Cell", "Subject", "difference", "run_cell"]

Maps = Mapping[str, Tensor]
SAME = 1e-4  # of maps in float32
BFLOAT16 = 5e-2
INT8 = 2e-1


@dataclass
class Cell:
    """What came of a kind in a column: the largest relative difference of its maps, or why there is none."""

    works: bool
    text: str = ""
    difference: float | None = None
    reason: str = ""


class Subject:
    """A kind's network with weights that hide nothing, images, and its maps.

    Args:
        kind: what is built.
        backend: of `torch.compile`.
    """

    def __init__(self, kind: Kind, backend: str = "aot_eager") -> None:
        torch.manual_seed(0)
        self.kind, self.backend = kind, backend
        self.net = _randomised(kind.build()).eval()
        self.images, self.others = self._noise(2, 2, 3), self._noise(3, *((2, 3) if kind.fixed else (4, 2)))
        with torch.no_grad():
            self.names = list(self.net(self.images))
            self.maps: dict[str, Tensor] = self.net(self.others)
        self._program: ExportedProgram | None = None

    def _noise(self, count: int, height: int, width: int) -> Tensor:
        step = self.kind.step
        times = 1 if step >= 56 else 64 // step if step > 1 else 41
        images = torch.rand(count, 3, height * times * step, width * times * step)
        return images * 255 if self.kind.pixels else images * 4 - 2

    def sizes(self) -> dict[int, Any]:
        """Batch, height and width of the exported program."""
        if self.kind.fixed:
            return {0: Dim.DYNAMIC}
        step = self.kind.step
        if step == 1:
            return dict.fromkeys((0, 2, 3), Dim.DYNAMIC)
        return {0: Dim.DYNAMIC, 2: step * Dim("height"), 3: step * Dim("width")}

    def program(self) -> ExportedProgram:
        if self._program is None:
            self._program = torch.export.export(self.net, (self.images,), dynamic_shapes=(self.sizes(),))
        return self._program


def _randomised(net: nn.Module) -> nn.Module:
    """Statistics that aren't the identity, and offsets that aren't whole."""
    with torch.no_grad():
        for name, value in [*net.named_parameters(), *net.named_buffers()]:
            if name.endswith("running_mean"):
                value.normal_(0, 0.1)
            elif name.endswith("running_var"):
                value.uniform_(0.5, 1.5)
            elif name.endswith("conv2_offset.weight"):
                value.normal_(0, 0.02)
    return net


def difference(maps: Maps, expected: Maps) -> float:
    """The largest `||ours - theirs|| / ||theirs||` of all maps; not a number where names or shapes differ."""
    if {name: value.shape for name, value in maps.items()} != {name: value.shape for name, value in expected.items()}:
        return float("nan")
    pairs = [(maps[name].double(), value.double()) for name, value in expected.items()]
    return max(((ours - theirs).norm() / theirs.norm()).item() for ours, theirs in pairs)


def exported(subject: Subject) -> Cell:
    file = io.BytesIO()
    torch.export.save(subject.program(), file)
    file.seek(0)
    return _compared(torch.export.load(file).module()(subject.others), subject.maps, SAME)


def onnx(subject: Subject) -> Cell:
    import onnxruntime

    program: Any = torch.onnx.export(
        subject.program(), dynamo=True, input_names=["images"], output_names=subject.names, verbose=False
    )
    file = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    values = session.run(subject.names, {"images": subject.others.numpy()})
    maps = {name: torch.from_numpy(value) for name, value in zip(subject.names, values, strict=True)}
    return _compared(maps, subject.maps, SAME)


def compiled(subject: Subject) -> Cell:
    torch._dynamo.reset()
    net = torch.compile(subject.net, backend=subject.backend, fullgraph=True, dynamic=not subject.kind.fixed)
    net(subject.images)
    cell = _compared(net(subject.others), subject.maps, SAME)
    torch._dynamo.reset()
    return cell


def autocast(subject: Subject) -> Cell:
    with torch.autocast("cpu", torch.bfloat16):
        return _compared(subject.net(subject.others), subject.maps, BFLOAT16)


def bfloat16(subject: Subject) -> Cell:
    net = copy.deepcopy(subject.net).bfloat16()
    maps = net(subject.others if subject.kind.pixels else subject.others.bfloat16())
    if {value.dtype for value in maps.values()} != {torch.bfloat16}:
        return Cell(False, reason="the maps are not bfloat16")
    return _compared(maps, subject.maps, BFLOAT16)


def channels_last(subject: Subject) -> Cell:
    net = copy.deepcopy(subject.net).to(memory_format=torch.channels_last)
    maps = net(subject.others.contiguous(memory_format=torch.channels_last))
    cell = _compared(maps, subject.maps, SAME)
    if not all(value.is_contiguous(memory_format=torch.channels_last) for value in maps.values()):
        cell.text += ", maps channels first"
    return cell


def fused(subject: Subject) -> Cell:
    net: Any = copy.deepcopy(subject.net)
    before = _norms(net)
    if not before:
        return Cell(True, "no batch norms")
    cell = _compared(net.fuse()(subject.others), subject.maps, SAME)
    cell.text += f", {before - _norms(net)} of {before} norms"
    return cell


def int8(subject: Subject) -> Cell:
    """torchao's post-training quantisation for x86, with the images that it then is asked for."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    net: Any = copy.deepcopy(subject.net)
    # Strict: the quantiser looks for the functions that were called, which the other way of tracing doesn't note.
    sizes = (subject.sizes(),)
    program = torch.export.export(net.fuse(), (subject.images,), dynamic_shapes=sizes, strict=True)
    prepared = prepare_pt2e(program.module(), quantizer)
    prepared(subject.images)
    prepared(subject.others)
    quantised = convert_pt2e(prepared)
    weights = [node for node in quantised.graph.nodes if "dequantize_per_channel" in str(node.target)]
    if not weights:
        return Cell(False, reason="nothing was quantised")
    cell = _compared(quantised(subject.others), subject.maps, INT8)
    cell.text += f", {len(weights)} layers"
    return cell


def _norms(net: nn.Module) -> int:
    own = [part.norm for part in net.modules() if isinstance(part, Conv2d)]
    return sum(is_batch_norm(norm) for norm in own) + len(loose_norms(net))


def _compared(maps: Maps, expected: Maps, tolerance: float) -> Cell:
    found = difference(maps, expected)
    if found <= tolerance:
        return Cell(True, f"{found:.0e}" if found else "0", found)
    return Cell(False, difference=found, reason=f"the maps differ by a relative {found:.1e}")


COLUMNS: dict[str, Callable[[Subject], Cell]] = {
    "torch.export": exported,
    "ONNX": onnx,
    "torch.compile": compiled,
    "autocast bf16": autocast,
    "bfloat16": bfloat16,
    "channels_last": channels_last,
    "fuse()": fused,
    "int8": int8,
}


@torch.no_grad()
def run_cell(subject: Subject, column: str) -> Cell:
    """A failure is a cell of the table, not the end of it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return COLUMNS[column](subject)
    except Exception as error:
        return Cell(False, reason=f"{type(error).__name__}: {' '.join(str(error).split())}")
