"""Every module of timm as a backbone: `python -m benchmarks.timm_sweep [--limit N] [--json FILE] [--markdown FILE]`.

Of each module the smallest model is made, its batch norms frozen, loaded from a checkpoint of the plain model with
random weights, and run at two odd sizes padded to its `size_divisibility`. The maps must have the shapes that
`output_shape()` promises, and freezing must not change them.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import tempfile
import time
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from benchmarks.timm_table import markdown
from detrex_backbones import TimmBackbone
from detrex_backbones.checkpoint.load import load_checkpoint
from detrex_backbones.errors import DetrexBackbonesError, InputError

LARGEST = 140_000_000
SIZES = ((161, 227), (250, 99))
# What the smaller members of a family have in their names. Making all 1,300 models takes minutes.
SMALL = re.compile(r"tiny|small|nano|pico|femto|atto|lite|_xx?s|_s|_t|_[bm]?0|a0|_m\d|b_0|14|18|26|50|121|r18")
TRIED = 25


@dataclass
class Row:
    """What came of one module."""

    module: str
    model: str = ""
    millions: float = 0.0
    wrapper: str = ""
    layout: str = ""
    maps: str = ""
    strides: str = ""
    divisibility: int | None = None
    sizes: list[str] = field(default_factory=list)
    result: str = ""

    @property
    def works(self) -> bool:
        return self.result.startswith("works")


def smallest(module: str) -> tuple[str, int]:
    """The model of a timm module with the fewest parameters, and their number."""
    names = timm.list_models(module=module)
    small = sorted((name for name in names if SMALL.search(name)), key=len)
    sizes = {}
    for name in (small or names)[:TRIED]:
        with torch.device("meta"):
            sizes[name] = sum(parameter.numel() for parameter in timm.create_model(name).parameters())
    best = min(sizes, key=lambda name: (sizes[name], name))
    return best, sizes[best]


def check_model(name: str, row: Row, **kwargs: Any) -> None:
    """Fill a row with what comes of a model, whose result "works" where everything holds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plain.pth"
        torch.save(plain_weights(name, **kwargs), path)
        frozen = made(name, path, norm_layer="FrozenBN", **kwargs)
        trained = made(name, path, **kwargs)
    describe(frozen, row)
    images = [torch.randn(1, 3, *padded(size, frozen.size_divisibility)) for size in sizes_of(kwargs)]
    row.sizes = [f"{image.shape[2]}x{image.shape[3]}" for image in images]
    for image in images:
        with torch.no_grad():
            maps, expected = frozen(image), trained(image)
        for key, spec in frozen.output_shape().items():
            shape = (1, spec.channels, *(-(-side // spec.stride) for side in image.shape[2:]))
            if tuple(maps[key].shape) != shape:
                row.result = f"{key} of {tuple(image.shape[2:])} is {tuple(maps[key].shape)}, not {shape}"
                return
            error = (maps[key] - expected[key]).norm() / expected[key].norm().clamp_min(1e-12)
            if not error < 1e-4:
                row.result = f"freezing changes {key} by a relative {error:.1e}"
                return
    row.result = "works"


def plain_weights(name: str, **kwargs: Any) -> dict[str, torch.Tensor]:
    """A plain model's weights: random, statistics included."""
    torch.manual_seed(0)
    kwargs.pop("feature_cls", None)
    net = timm.create_model(name, **kwargs)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.state_dict()


def made(name: str, path: Path, **kwargs: Any) -> TimmBackbone:
    """A backbone with the maps that timm chooses, and with the weights of a file."""
    net = TimmBackbone(name, out_indices=None, **kwargs).eval()
    load_checkpoint(net, path)
    return net


def describe(net: TimmBackbone, row: Row) -> None:
    shapes = net.output_shape()
    row.wrapper = type(net.timm_model).__name__
    row.layout = "NHWC" if net._channels_last else "NCHW"
    row.maps = "/".join(str(spec.channels) for spec in shapes.values())
    row.strides = "/".join(str(spec.stride) for spec in shapes.values())
    row.divisibility = net.size_divisibility


def sizes_of(kwargs: dict[str, Any]) -> Iterable[tuple[int, int]]:
    return [kwargs["img_size"]] if "img_size" in kwargs else SIZES


def padded(size: tuple[int, int], step: int) -> tuple[int, int]:
    height, width = (-(-side // max(step, 1)) * max(step, 1) for side in size)
    return height, width


def check_module(module: str) -> Row:
    """The row of one module: as it comes, and if that can't run the sizes, made for another size."""
    row = Row(module)
    try:
        row.model, parameters = smallest(module)
        row.millions = round(parameters / 1e6, 1)
        if parameters > LARGEST:
            row.result = f"not tried: its smallest model has {row.millions}M parameters"
            return row
        try:
            check_model(row.model, row)
        except InputError as error:
            row.result = str(error)
            check_at_another_size(row)
    except DetrexBackbonesError as error:
        row.result = f"{type(error).__name__}: {error}"
    except Exception as error:  # one model's failure is a row of the table, not the end of it
        row.result = f"{type(error).__name__} (not ours): {error}"
    return row


def check_at_another_size(row: Row) -> None:
    """Where a model is bound to its size: is it another when made with `img_size=`?"""
    own = timm.get_pretrained_cfg(row.model).input_size[-1]
    for size in ((192, 256), (own, own)):
        again = Row(row.module, row.model, row.millions)
        try:
            check_model(row.model, again, img_size=size)
        except Exception as error:  # one size that it isn't made for; the reason is told if there is no other
            again.result = f"{type(error).__name__} with img_size={size}: {error}"
        if again.works:
            vars(row).update(vars(again))
            row.result = "works at the size that it is made for: img_size=(H, W)"
            return
        row.sizes, row.result = again.sizes, again.result


def sweep(modules: list[str]) -> list[Row]:
    """The rows of some modules, printed as they come."""
    rows = []
    for module in modules:
        started = time.perf_counter()
        row = check_module(module)
        rows.append(row)
        result = " ".join(row.result.split())[:150]
        print(
            f"{row.module:26} {row.model:34} {row.wrapper:22} {row.layout:5} {row.maps:28} {row.strides:14} "
            f"{row.divisibility!s:5} {' '.join(row.sizes):16} {time.perf_counter() - started:5.1f} s  {result}",
            flush=True,
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, help="only the first N modules")
    parser.add_argument("--only", nargs="+", help="only these modules")
    parser.add_argument("--json", type=Path, help="write the rows there")
    parser.add_argument("--markdown", type=Path, help="write the table there")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    started = time.perf_counter()
    rows = sweep((options.only or timm.list_modules())[: options.limit])
    print(f"{sum(row.works for row in rows)} of {len(rows)} modules work; {time.perf_counter() - started:.0f} s")
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(markdown(rows))


if __name__ == "__main__":
    main()
