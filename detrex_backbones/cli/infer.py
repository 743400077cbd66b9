"""`detrex-backbones infer`: the lazy config of the backbone inside a checkpoint."""

from __future__ import annotations

import argparse
from typing import Any

from detrex_backbones.cli.common import add_command, add_container_argument, add_json_argument, add_source_argument
from detrex_backbones.cli.terminal import print_json, say

EXAMPLES = """\
examples:
  detrex-backbones infer resnet50.pth > config.py
  detrex-backbones infer detector.pkl --prefix backbone.bottom_up
  detrex-backbones infer resnet50.pth --json
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = add_command(
        subparsers,
        "infer",
        run,
        summary="print the config of the backbone in a checkpoint",
        about="Find out which network a checkpoint holds, and print its lazy config: a ResNet's\n"
        "from its key names and shapes, any other's by trying the ready configs and timm's\n"
        "models. Settings that the file doesn't determine are marked as assumed.",
        examples=EXAMPLES,
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="path, URL, or name of known weights")
    add_source_argument(parser, "--source")
    parser.add_argument("--prefix", metavar="P", help="prefix of the keys in the file (default: found automatically)")
    add_container_argument(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Print the config."""
    from detrex_backbones.zoo import infer_config
    from detrex_backbones.zoo.own_names import find_convention

    inferred = infer_config(args.checkpoint, find_convention(args.source), args.prefix, args.container)
    if not args.json:
        say(inferred.to_py(args.checkpoint), end="")
        return
    print_json(inferred.to_dict())
