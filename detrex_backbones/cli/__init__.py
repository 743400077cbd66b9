"""The command line: one module a subcommand, each with `add_parser` and `run`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from detrex_backbones.cli import convert, demo, evaluate, export, features, infer, list_configs, match, show, weights
from detrex_backbones.errors import DetrexBackbonesError

__all__ = ["main"]

FINE, OUR_ERROR, USAGE = 0, 1, 2

COMMANDS = (demo, features, show, list_configs, weights, match, infer, convert, evaluate, export)

EPILOG = """\
CONFIG is a ready config (detrex-backbones list) or a path to a config file.
OVERRIDE changes it: model.backbone.stages.depth=101  model.pixel_std=[1,1,1]

exit status: 0 fine, 1 an error that is explained, 2 wrong usage
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Args:
        argv: the arguments; None for those of the process.

    Returns:
        The exit status: 0 fine, 1 an error that is explained, 2 wrong usage.
    """
    parser = argparse.ArgumentParser(
        prog="detrex-backbones",
        description="From a lazy config to the features of a photo, with proof that the weights loaded.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(subparsers)
    try:
        args = _parse(parser, argv)
    except SystemExit as stop:  # argparse has said what is wrong, or printed the help
        return stop.code if isinstance(stop.code, int) else USAGE
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        args.run(args)
        sys.stdout.flush()
    except DetrexBackbonesError as error:
        print("\n".join([f"error: {error}", *getattr(error, "__notes__", [])]), file=sys.stderr)
        return OUR_ERROR
    except BrokenPipeError:  # the reader has seen enough: `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FINE


def _parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    # argparse gives up on `CONFIG --image F key=value`: its positional list has ended before the option.
    args, rest = parser.parse_known_args(argv)
    unknown = [argument for argument in rest if argument.startswith("-") or not hasattr(args, "overrides")]
    if unknown:
        args.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if rest:
        args.overrides = [*args.overrides, *rest]
    return args
