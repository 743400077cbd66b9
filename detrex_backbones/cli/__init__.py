"""The command line: one module a subcommand, each with `add_parser` and `run`."""

from __future__ import annotations

import argparse
import gc
from collections.abc import Sequence
from typing import Any

from detrex_backbones.cli import (
    bench,
    compare,
    convert,
    demo,
    evaluate,
    export,
    features,
    infer,
    list_configs,
    match,
    show,
    weights,
)
from detrex_backbones.cli.completion import offer_completions
from detrex_backbones.cli.terminal import HelpFormatter, Parser, escaped_logs, flush_output, print_error, say
from detrex_backbones.cli.user_errors import explain
from detrex_backbones.errors import SUGGESTION, DetrexBackbonesError
from detrex_backbones.text import visible

__all__ = ["command", "main"]

FINE, OUR_ERROR, USAGE, INTERRUPTED = 0, 1, 2, 130
SELDOM = 50_000  # objects that a process makes before it searches for garbage; Python's own number is at most 2,000

COMMANDS = (demo, features, show, list_configs, weights, bench, compare, match, infer, convert, evaluate, export)

EPILOG = """\
CONFIG is a ready config (detrex-backbones list) or a path to a config file.
OVERRIDE changes it: model.backbone.stages.depth=101  model.pixel_std=[1,1,1]

exit status: 0 success, 1 an error (with a message), 2 wrong usage, 130 interrupted
"""


def command() -> int:
    """`main` as a process of its own. It leaves without a search for garbage, which would go through all of torch."""
    gc.set_threshold(SELDOM)
    try:
        return main()
    finally:
        gc.freeze()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Args:
        argv: the arguments; None for those of the process.

    Returns:
        The exit status: 0 success, 1 an error (with a message), 2 wrong usage, 130 interrupted.
    """
    status = _run(argv)
    error = flush_output()
    if error is not None and status == FINE:
        print_error(_in_one_line(error))
        return OUR_ERROR
    return status


def _run(argv: Sequence[str] | None) -> int:
    try:
        with escaped_logs():
            parser = _parser()
            offer_completions(parser)
            args = _parse(parser, argv)
            args.run(args)
    except SystemExit as stop:  # argparse has said what is wrong, or printed the help
        return stop.code if isinstance(stop.code, int) else USAGE
    except DetrexBackbonesError as error:
        print_error(error, getattr(error, "__notes__", []))
        return OUR_ERROR
    except KeyboardInterrupt:
        print_error("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # the reader has seen enough: `| head`
        return FINE
    except (OSError, MemoryError) as error:
        print_error(_in_one_line(error))
        return OUR_ERROR
    except Exception as error:
        notes = explain(error)
        if not notes:
            raise
        lines = str(error).splitlines() or [""]  # omegaconf's further lines repeat the place
        told = lines[0] if type(error).__module__.startswith("omegaconf") else str(error)
        if any(SUGGESTION in note for note in notes):
            told = told.partition(SUGGESTION)[0]  # Python's own
        print_error(f"{type(error).__name__}: {told}", notes)
        return OUR_ERROR
    return FINE


def _in_one_line(error: OSError | MemoryError) -> str:
    """What the system says of a file, a disk or the memory, where none of our errors says it."""
    if isinstance(error, MemoryError):
        return "there is not enough memory."
    name = f" '{visible(error.filename)}'" if error.filename is not None else ""
    return visible(f"{error.strerror or error}{name}.")


class _Version(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        import detrex_backbones

        say(f"detrex-backbones {detrex_backbones.__version__}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="detrex-backbones",
        description="Lazy-config detection backbones, and a checkpoint loader that proves what it loaded.",
        epilog=EPILOG,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser


def _parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    # argparse gives up on `CONFIG --image F key=value`: its positional list has ended before the option.
    args, rest = parser.parse_known_args(argv)
    unknown = [argument for argument in rest if argument.startswith("-") or not hasattr(args, "overrides")]
    if unknown:
        args.parser.unknown_options(unknown)
    if rest:
        args.overrides = [*args.overrides, *rest]
    return args
