"""A model as a file that runs without this library: a torch.export archive or ONNX, checked before it is written."""

from __future__ import annotations

import copy
import importlib.util
import io
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from detrex_backbones.atomic_write import write_whole
from detrex_backbones.backbones.images.extractor import FeatureExtractor
from detrex_backbones.errors import ArgumentError, ExportError
from detrex_backbones.kinds import kinds_checked
from detrex_backbones.remote import AnyPath, as_path

__all__ = ["Exported", "check_path", "export_model"]

TOLERANCE = 1e-4
METADATA = "detrex_backbones.json"  # in a .pt2; in ONNX its entries are the model's own metadata
ONNX = ("onnx", "onnxscript")
DIMENSIONS = ("batch", "height", "width")
MAX_BYTES = 2**31  # of one protocol buffer

Run = Callable[[Tensor], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Exported:
    """What was written.

    Args:
        path: path of the file.
        maps: name of each output -> (channels, stride).
        difference: the largest relative difference, `||file - model|| / ||model||`, of all maps, at another size and
            batch than those that were traced; None where onnxruntime isn't installed.
    """

    path: AnyPath
    maps: dict[str, tuple[int | None, int | None]]
    difference: float | None


@kinds_checked
def export_model(
    model: FeatureExtractor, path: str | AnyPath, size: tuple[int, int] = (256, 320), *, fixed: bool = False
) -> Exported:
    """Write a model with its preprocessing as `.onnx` or `.pt2`, norms folded into the convolutions.

    The file takes "images": (N, C, H, W), float32 of 0-255, RGB, and gives the maps under their names. It turns RGB
    into BGR where the weights want it, subtracts the mean, divides by the standard deviation, and pads to what the
    backbone takes.

    Args:
        model: on the CPU or a GPU; it is left as it is.
        path: its extension chooses the format.
        size: height and width that are traced, in pixels.
        fixed: allow images of this size alone; any number of them.

    Raises:
        ArgumentError: another extension.
        ExportError: a package is missing; the model can't be traced; the file computes something else. Nothing is
            written then.
        OSError: the file can't be written.
    """
    path = check_path(path)
    net = copy.deepcopy(model).cpu().float().eval()
    net.fuse()
    images, others = (_noise(net, *shape) for shape in ((2, *size), (3, *(size if fixed else size[::-1]))))
    with torch.no_grad():
        expected = net(others)
        net(images)  # the padding is measured here, where nothing is traced
    content, run = WRITERS[path.suffix](net, _trace(net, images, fixed))
    with torch.no_grad():
        found = None if run is None else _difference(run(others), expected)
    if found is not None and not found <= TOLERANCE:
        raise ExportError(f"the exported model's maps differ from the model's by a relative {found:.1e}: not written.")
    write_whole(path, lambda file: file.write(content))
    return Exported(path, _maps(net), found)


def check_path(path: str | AnyPath) -> AnyPath:
    """Refuse a file that can't be written, before anything is built for it; see `export_model`."""
    path = as_path(path)
    if path.suffix not in WRITERS:
        raise ArgumentError(f"{str(path)!r} has no extension that says what to write: {', '.join(WRITERS)}.")
    if not path.parent.is_dir():
        raise ArgumentError(f"{str(path)!r} can't be written: there is no folder {str(path.parent)!r}.")
    if path.suffix == ".onnx":
        _need_onnx()
    return path


def _noise(net: FeatureExtractor, count: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, len(net.pixel_mean), height, width, generator=generator) * 255


def _trace(net: FeatureExtractor, images: Tensor, fixed: bool) -> Any:
    dynamic = torch.export.Dim.DYNAMIC
    sizes = dict.fromkeys((0,) if fixed else (0, 2, 3), dynamic)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(net, (images,), dynamic_shapes=(sizes,))
    except Exception as error:
        cure = "" if fixed else " With one size alone it may be possible: fixed=True, or --fixed."
        raise ExportError(
            f"torch.export can't follow the model at {'a fixed size' if fixed else 'any size'}: "
            f"{type(error).__name__}: {_short(error)}.{cure}"
        ) from error


def _pt2(net: FeatureExtractor, program: Any) -> tuple[bytes, Run | None]:
    file = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.export.save(program, file, extra_files={METADATA: json.dumps(_metadata(net))})
        file.seek(0)
        run: Run = torch.export.load(file).module()
    except Exception as error:
        raise ExportError(f"torch.export can't save the model: {type(error).__name__}: {_short(error)}.") from error
    return file.getvalue(), run


def _onnx(net: FeatureExtractor, program: Any) -> tuple[bytes, Run | None]:
    names = list(_maps(net))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made: Any = torch.onnx.export(
                program, dynamo=True, input_names=["images"], output_names=names, verbose=False
            )
        proto = made.model_proto
        for key, value in _metadata(net).items():
            entry = proto.metadata_props.add()
            entry.key, entry.value = key, value if isinstance(value, str) else json.dumps(value)
        if proto.ByteSize() >= MAX_BYTES:
            raise ExportError("ONNX holds 2 GiB in one file, and the model is larger: write a .pt2.")
        content = proto.SerializeToString()
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(f"torch.onnx can't write the model: {type(error).__name__}: {_short(error)}.") from error
    return content, _onnx_session(content, names)


def _onnx_session(content: bytes, names: list[str]) -> Run | None:
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ExportError(f"onnxruntime can't run what torch.onnx wrote: {_short(error)}.") from error
    return lambda images: {
        name: torch.from_numpy(value)
        for name, value in zip(names, session.run(names, {"images": images.numpy()}), strict=True)
    }


WRITERS: dict[str, Callable[[FeatureExtractor, Any], tuple[bytes, Run | None]]] = {".onnx": _onnx, ".pt2": _pt2}


def _metadata(net: FeatureExtractor) -> dict[str, Any]:
    maps = {name: {"channels": channels, "stride": stride} for name, (channels, stride) in _maps(net).items()}
    return {
        "images": "(N, C, H, W), float32, RGB, 0-255; normalised and padded inside",
        "pixel_mean": net.pixel_mean.flatten().tolist(),
        "pixel_std": net.pixel_std.flatten().tolist(),
        "input_format": net.input_format,
        "maps": maps,
    }


def _maps(net: FeatureExtractor) -> dict[str, tuple[int | None, int | None]]:
    return {name: (spec.channels, spec.stride) for name, spec in net.output_shape().items()}


def _difference(maps: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    if {name: value.shape for name, value in maps.items()} != {name: value.shape for name, value in expected.items()}:
        return float("inf")
    pairs = [(maps[name].double(), value.double()) for name, value in expected.items()]
    return max(float((ours - theirs).norm() / theirs.norm().clamp_min(1e-12)) for ours, theirs in pairs)


def _need_onnx() -> None:
    missing = [name for name in ONNX if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(
            f"writing ONNX takes {' and '.join(missing)}, not installed here: pip install 'detrex-backbones[export]'."
        )


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 400 else f"{text[:400]} ..."
