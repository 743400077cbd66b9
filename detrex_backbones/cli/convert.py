"""`detrex-backbones convert`: a checkpoint in another source's names."""

from __future__ import annotations

import argparse
from typing import Any

from detrex_backbones.cli.common import (
    add_command,
    add_container_argument,
    add_json_argument,
    add_source_argument,
    check_writable,
    print_written,
)
from detrex_backbones.cli.terminal import print_json, say
from detrex_backbones.errors import ArgumentError
from detrex_backbones.text import counted, visible

EXAMPLES = """\
examples:
  detrex-backbones convert resnet50.pth r50.pkl --to detectron2
  detrex-backbones convert r50.pkl resnet50.safetensors --to torchvision
  detrex-backbones convert detr-r50.pth detr.pth --to detrex
  detrex-backbones convert --source_model resnet50.pth --output_model r50.pkl \\
      --to detectron2 --verbose
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = add_command(
        subparsers,
        "convert",
        run,
        summary="convert a checkpoint to another source's key names",
        about="Convert a checkpoint to another source's key names. OUT's extension chooses the\n"
        "file format: .pth .pt .bin .pkl .safetensors .pyth .ckpt. A checkpoint that can't\n"
        "be expressed in these names is refused, and nothing is written.",
        examples=EXAMPLES,
    )
    parser.add_argument("path", metavar="IN", nargs="?", help="the checkpoint to read")
    parser.add_argument("output", metavar="OUT", nargs="?", help="the checkpoint to write")
    parser.add_argument(
        "--source_model", "--source-model", metavar="IN", help="the same as IN, as detrex's converters call it"
    )
    parser.add_argument("--output_model", "--output-model", metavar="OUT", help="the same as OUT")
    add_source_argument(parser, "--to", "to write", required=True)
    add_source_argument(parser, "--from", "to read (default: recognised)", dest="source")
    add_container_argument(parser)
    parser.add_argument("--prefix", metavar="P", default="", help="prefix to put before every key that is written")
    parser.add_argument("--verbose", action="store_true", help="print a line for each tensor: old -> new")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Convert, and say what became of every tensor."""
    from detrex_backbones.checkpoint.convert import convert_checkpoint
    from detrex_backbones.checkpoint.report import reasons
    from detrex_backbones.zoo.own_names import find_convention

    path, output = _one(args, "path", "source_model", "IN"), _one(args, "output", "output_model", "OUT")
    check_writable(output, "OUT")
    done = convert_checkpoint(
        path,
        output,
        to=find_convention(args.to),
        source=find_convention(args.source),
        prefix=args.prefix,
        container=args.container,
    )
    if args.json:
        print_json(
            {
                "source": done.source,
                "target": done.target,
                "output": output,
                "names": done.names,
                "left_out": done.left_out,
            }
        )
        return
    for old, new in done.names.items() if args.verbose else ():
        say(f"{visible(old)} -> {visible(new)}")
    say(f"{counted(len(done.names), 'tensor')}, {done.source} -> {done.target}")
    if done.left_out:
        say(f"left out    {', '.join(map(visible, reasons(done.left_out)))}")
    print_written(output)


def _one(args: argparse.Namespace, name: str, option: str, shown: str) -> str:
    """A file that is given by its place or by an option, not by both."""
    given = [value for value in (getattr(args, name), getattr(args, option)) if value is not None]
    if len(given) != 1:
        how = "is missing" if not given else "is given twice"
        raise ArgumentError(f"{shown} {how}: give it as a positional argument or by --{option}, once.")
    return str(given[0])
