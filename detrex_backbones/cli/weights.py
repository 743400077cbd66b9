"""`detrex-backbones weights`: the weights that can be had by name."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from detrex_backbones.checkpoint.fetch.catalog import timm_weights
from detrex_backbones.cli.common import add_command, add_json_argument
from detrex_backbones.cli.terminal import print_json, say
from detrex_backbones.errors import ArgumentError

if TYPE_CHECKING:
    from detrex_backbones.checkpoint.fetch import Weight

EXAMPLES = """\
examples:
  detrex-backbones weights
  detrex-backbones weights resnet50
  detrex-backbones weights 'timm://resnet*d.*'
  detrex-backbones weights gluon --json
"""

TIMM = timm_weights.SCHEME
INDENT = 38  # of the config
WIDTH = 80


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = add_command(
        subparsers,
        "weights",
        run,
        summary="list the weights that can be had by name",
        about="The weights that train.init_checkpoint takes by name, with their ImageNet top-1\n"
        "as published, parameters, pixels (channel order, and whose mean and std), and\n"
        "the ready config that loads them with the overrides that it needs. --json has\n"
        "all that is known: URL, hash, mean, std, evaluation recipe, licence.\n"
        "Without PATTERN, timm's are only counted.",
        examples=EXAMPLES,
    )
    parser.add_argument("pattern", metavar="PATTERN", nargs="?", default="", help="a part of a name, or a glob")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Print the weights whose names match."""
    from detrex_backbones.checkpoint.fetch import SOURCES, list_weights

    schemes = tuple(scheme for scheme in SOURCES if args.pattern or scheme != "timm://")
    found = list_weights(args.pattern, schemes)
    if not found:
        raise ArgumentError(f"no weights match {args.pattern!r}.{_near(args.pattern)}")
    if args.json:
        print_json([to_dict(weight) for weight in found])
        return
    for weight in found:
        say("\n".join(_lines(weight)))
    if not args.pattern:
        count = len(SOURCES["timm://"].names())
        say(f"\nand {count} of timm: detrex-backbones weights 'timm://*'")
    say("\nA file, a URL, hf-hub:org/name and hf-hub:org/name:file are taken too.")


def to_dict(weight: Weight) -> dict[str, Any]:
    """Everything that is known of a weight, in types that JSON knows; `overrides` are all that the config needs."""
    return {**asdict(weight), "overrides": overrides_of(weight), "traits": weight.traits}


def overrides_of(weight: Weight) -> list[str]:
    """What to change in the weight's config, so that network and preprocessing are the weight's."""
    pixels = weight.preprocessing
    if not weight.config or pixels is None:
        return list(weight.overrides)
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


def _lines(weight: Weight) -> Iterator[str]:
    yield weight.name
    top1 = f"{weight.top1:.2f} %" if weight.top1 is not None else "-"
    parameters = f"{weight.parameters / 1e6:.1f} M" if weight.parameters else "-"
    pixels = f"{weight.preprocessing.input_format} {weight.preprocessing.name}" if weight.preprocessing else "-"
    figures = f"  {top1:>9}  {parameters:>9}  {pixels:<13} "
    if weight.name.startswith(TIMM) and weight.config == timm_weights.TIMM_CONFIG:
        config, overrides = f"timm/{weight.name.removeprefix(TIMM)}", []  # a name that is a config itself
    else:
        config, overrides = weight.config or "-", overrides_of(weight)
    fits = len(figures + config) <= WIDTH
    yield figures + config if fits else figures.rstrip()
    for text in overrides if fits else [config, *overrides]:
        yield " " * max(2, min(INDENT, WIDTH - len(text))) + text


def _near(pattern: str) -> str:
    from detrex_backbones.checkpoint.fetch import SOURCES
    from detrex_backbones.errors import closest

    scheme, separator, rest = pattern.partition("://")
    names = [(key, name) for key, source in SOURCES.items() for name in source.names()]
    if separator:
        return closest(rest, [name for key, name in names if key == scheme + separator])
    return closest(pattern, [name for _, name in names])
