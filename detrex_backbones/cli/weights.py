"""`detrex-backbones weights`: the weights that can be had by name."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from detrex_backbones.cli.common import add_command, add_json_argument, print_json, print_table
from detrex_backbones.errors import ArgumentError

if TYPE_CHECKING:
    from detrex_backbones.checkpoint.catalog import Weight

EXAMPLES = """\
examples:
  detrex-backbones weights
  detrex-backbones weights resnet50
  detrex-backbones weights 'timm://resnet*d.*'
  detrex-backbones weights gluon --json
"""

COLUMNS = ("name", "top-1", "params", "pixels", "config")


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = add_command(
        subparsers,
        "weights",
        run,
        summary="list the weights that can be had by name",
        about="The weights that train.init_checkpoint takes by name, with ImageNet top-1 (per\n"
        "cent, as published), parameters (millions), pixels (channel order and which mean\n"
        "and std) and the ready config that loads them. --json has all that is known:\n"
        "URL, hash, mean, std, overrides, evaluation recipe, licence.\n"
        "Without PATTERN, timm's are only counted.",
        examples=EXAMPLES,
    )
    parser.add_argument("pattern", metavar="PATTERN", nargs="?", default="", help="a part of a name, or a glob")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Print the weights whose names match."""
    from detrex_backbones.checkpoint.catalog import list_weights
    from detrex_backbones.checkpoint.catalog.lookup import SOURCES

    schemes = tuple(scheme for scheme in SOURCES if args.pattern or scheme != "timm://")
    found = list_weights(args.pattern, schemes)
    if not found:
        raise ArgumentError(f"no weights match {args.pattern!r}.{_near(args.pattern)}")
    if args.json:
        print_json([to_dict(weight) for weight in found])
        return
    print_table(COLUMNS, [_row(weight) for weight in found])
    if not args.pattern:
        count = len(SOURCES["timm://"].names())
        print(f"and {count} of timm: detrex-backbones weights 'timm://*'")
    print("A file, a URL, hf-hub:org/name and hf-hub:org/name:file are taken too.")


def to_dict(weight: Weight) -> dict[str, Any]:
    """Everything that is known of a weight, in types that JSON knows."""
    return {**asdict(weight), "traits": weight.traits}


def _row(weight: Weight) -> tuple[str, ...]:
    pixels = weight.preprocessing
    return (
        weight.name,
        f"{weight.top1:.2f}" if weight.top1 is not None else "",
        f"{weight.parameters / 1e6:.1f}" if weight.parameters else "",
        f"{pixels.input_format} {pixels.name}" if pixels else "",
        "\n".join([weight.config, *weight.overrides]) if weight.config else "",
    )


def _near(pattern: str) -> str:
    from detrex_backbones.checkpoint.catalog.lookup import SOURCES
    from detrex_backbones.errors import closest

    scheme, separator, rest = pattern.partition("://")
    names = [(key, name) for key, source in SOURCES.items() for name in source.names()]
    if separator:
        return closest(rest, [name for key, name in names if key == scheme + separator])
    return closest(pattern, [name for _, name in names])
