"""`detrex-backbones weights`: the weights that can be had by name."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from detrex_backbones.checkpoint.fetch.catalog import timm_weights
from detrex_backbones.cli.common import add_command, add_json_argument
from detrex_backbones.cli.figures import print_figures, sort_figures
from detrex_backbones.cli.terminal import print_json, print_table, say
from detrex_backbones.errors import ArgumentError

if TYPE_CHECKING:
    from detrex_backbones.checkpoint.fetch import Weight

EXAMPLES = """\
examples:
  detrex-backbones weights
  detrex-backbones weights resnet50
  detrex-backbones weights 'timm://resnet*d.*' --sort top1
  detrex-backbones weights 'detrex://dino_swin*'
  detrex-backbones weights gluon --json
"""

DETECTORS = "detectors/"
TIMM = timm_weights.SCHEME
# Whose own code counts pixels from 0 to 1; the others' from 0 to 255, as here.
FROM_0_TO_1 = ("torchvision", "timm", "gluon", "pycls", "detr", "moco")

SORTS = ("name", "top1", "top5", "parameters")


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = add_command(
        subparsers,
        "weights",
        run,
        summary="list the weights that are known by name",
        about="List the weights that train.init_checkpoint takes by name, with their published\n"
        "ImageNet top-1 and top-5, parameters, preprocessing (channel order, and whose mean\n"
        "and std), and the backbone that loads them with the overrides that it needs. --json\n"
        "also has URL, hash, mean, std, evaluation recipe and licence. Without PATTERN,\n"
        "timm's weights are only counted.",
        examples=EXAMPLES,
    )
    parser.add_argument("pattern", metavar="PATTERN", nargs="?", default="", help="part of a name, or a glob")
    parser.add_argument(
        "--sort", metavar="COLUMN", choices=SORTS, help="sort by name, top1, top5 or parameters (default: by source)"
    )
    parser.add_argument("--min-top1", metavar="P", type=float, help="only weights with at least this top-1 in per cent")
    parser.add_argument("--max-params", metavar="M", type=float, help="only up to this many million parameters")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Print the weights whose names match."""
    from detrex_backbones.checkpoint.fetch import SOURCES, list_weights

    schemes = tuple(scheme for scheme in SOURCES if args.pattern or scheme != "timm://")
    found = list_weights(args.pattern, schemes)
    if not found:
        raise ArgumentError(f"no weights match {args.pattern!r}.{_near(args.pattern)}")
    rows = [row for row in map(_row, found) if _passes(row, args.min_top1, args.max_params)]
    if not rows:
        raise ArgumentError(f"none of the {len(found)} weights of that name passes the filters.")
    rows = sort_figures(rows, args.sort)
    if args.json:
        print_json([to_dict(row["weight"]) for row in rows])
        return
    _print(rows)
    if not args.pattern:
        count = len(SOURCES[TIMM].names())
        say(f"\nand {count} of timm: detrex-backbones weights 'timm://*'")
    say("\nA file, a URL, hf-hub:org/name and hf-hub:org/name:file are taken too.")


def _row(weight: Weight) -> dict[str, Any]:
    images = weight.preprocessing
    return {
        "weight": weight,
        "name": weight.name,
        "top1": weight.top1,
        "top5": weight.top5,
        "parameters": weight.parameters,
        "images": f"{images.input_format} {images.name}" if images else None,
    }


def _passes(row: dict[str, Any], min_top1: float | None, max_params: float | None) -> bool:
    good = min_top1 is None or (row["top1"] or 0) >= min_top1
    return good and (max_params is None or (row["parameters"] is not None and row["parameters"] <= max_params * 1e6))


def _print(rows: list[dict[str, Any]]) -> None:
    """The table; below it the overrides that several rows share, and what their images are."""
    notes: dict[tuple[str, ...], int] = {}
    for row in rows:
        backbone, overrides = backbone_of(row["weight"])
        mark = f" [{notes.setdefault(tuple(overrides), len(notes) + 1)}]" if overrides else ""
        row["backbone"] = backbone + mark if backbone else None
    print_figures(rows)
    for texts, number in notes.items():
        say(f"\n[{number}] with")
        say("\n".join(f"    {text}" for text in texts))
    say("\nimages (mean and std: for pixels of 0-255; scale: in the source's own code)")
    table = preprocessing_rows([row["weight"] for row in rows])
    print_table(("images", "mean", "std", "scale", "source"), table, dense=True)


def preprocessing_rows(weights: Iterable[Weight]) -> list[tuple[str, str, str, str, str]]:
    """What is done to images, a row each: order and name, mean, standard deviation, scale, source."""
    rows: dict[tuple[str, str, str, str], dict[str, None]] = {}
    for weight in weights:
        images, source = weight.preprocessing, weight.name.partition("://")[0]
        if images is not None:
            mean, std = (" ".join(f"{number:g}" for number in part) for part in (images.pixel_mean, images.pixel_std))
            scale = "0-1" if source in (*FROM_0_TO_1, "https") else "0-255"
            key = (f"{images.input_format} {images.name}", mean, std, scale)
            rows.setdefault(key, {})["torchvision" if source == "https" else source] = None
    return [(*key, ", ".join(sources)) for key, sources in sorted(rows.items())]


def backbone_of(weight: Weight) -> tuple[str, list[str]]:
    """The value of `backbone=` for a weight, "" for none, and the overrides that it needs beside."""
    if weight.name.startswith(TIMM):
        return f"timm/{weight.name.removeprefix(TIMM)}", []  # a name that is a backbone itself
    if weight.config.startswith(DETECTORS):
        return "", []
    return weight.config.removesuffix(".py"), overrides_of(weight)


def to_dict(weight: Weight) -> dict[str, Any]:
    """Everything that is known of a weight, in types that JSON knows; `overrides` are all that the backbone needs."""
    backbone, overrides = backbone_of(weight)
    return {**asdict(weight), "backbone": backbone, "overrides": overrides, "traits": weight.traits}


def overrides_of(weight: Weight) -> list[str]:
    """What to change in the weight's config, so that network and preprocessing are the weight's."""
    pixels = weight.preprocessing
    if not weight.config or pixels is None or weight.config.startswith(DETECTORS):
        return list(weight.overrides)  # torchvision's detectors normalise images themselves
    current = _pixels_of(weight.config)
    wanted = {
        "model.input_format": pixels.input_format,
        "model.pixel_mean": [f"{number:g}" for number in pixels.pixel_mean],
        "model.pixel_std": [f"{number:g}" for number in pixels.pixel_std],
    }
    texts = {key: value if isinstance(value, str) else f"[{','.join(value)}]" for key, value in wanted.items()}
    return [*weight.overrides, *(f"{key}={text}" for key, text in texts.items() if current[key] != text)]


@functools.cache
def _pixels_of(config: str) -> dict[str, str]:
    from detrex_backbones.zoo.ready_configs import preprocessing_of

    pixels = preprocessing_of(config)
    mean, std = (f"[{','.join(f'{number:g}' for number in pixels[key])}]" for key in ("pixel_mean", "pixel_std"))
    return {"model.input_format": pixels["input_format"], "model.pixel_mean": mean, "model.pixel_std": std}


def _near(pattern: str) -> str:
    from detrex_backbones.checkpoint.fetch import SOURCES
    from detrex_backbones.errors import closest

    scheme, separator, rest = pattern.partition("://")
    names = [(key, name) for key, source in SOURCES.items() for name in source.names()]
    if separator:
        return closest(rest, [name for key, name in names if key == scheme + separator])
    return closest(pattern, [name for _, name in names])
