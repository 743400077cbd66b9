"""What the subcommands share: the config argument, tables, and where files go."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from detrex_backbones.errors import ConfigImportError, DetrexBackbonesError

__all__ = [
    "COLUMNS",
    "add_command",
    "add_config_arguments",
    "add_json_argument",
    "add_overrides_argument",
    "load_config",
    "output_folder",
    "parse_size",
    "print_json",
    "print_note",
    "print_table",
    "write_output",
]

COLUMNS = ("name", "channels", "stride", "height", "width")  # of a feature map


def add_command(
    subparsers: Any, name: str, run: Callable[[argparse.Namespace], None], *, summary: str, about: str, examples: str
) -> argparse.ArgumentParser:
    """A subcommand: `summary` stands in the list of them, `about` and `examples` in its own help."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=summary,
        description=about,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, parser=parser)
    return parser


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """CONFIG and its overrides."""
    parser.add_argument("config", metavar="CONFIG", help="a ready config, or a path to a config file")
    add_overrides_argument(parser)


def add_overrides_argument(parser: argparse.ArgumentParser) -> None:
    """OVERRIDE ..."""
    parser.add_argument(
        "overrides",
        metavar="OVERRIDE",
        nargs="*",
        default=[],
        help="key=value, changes the config; backbone=NAME swaps the backbone, before all others",
    )


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    """--json."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def load_config(args: argparse.Namespace) -> Any:
    """The config that the arguments name, overrides applied.

    `backbone=NAME` swaps the backbone and says on standard error what that changed; the other overrides come after it.
    """
    from detrex_backbones.config import LazyConfig
    from detrex_backbones.zoo import config_file

    path = Path(args.config)
    if not path.is_file():
        try:
            path = config_file(args.config)
        except ConfigImportError as error:
            raise ConfigImportError(f"{error} Nor is there a file {args.config!r}.") from None
    cfg = LazyConfig.load(path)
    overrides = list(args.overrides)
    if "backbone" not in cfg:  # else it is a key like any other
        swaps = [text for text in overrides if text.partition("=")[0].strip() == "backbone" and "=" in text]
        overrides = [text for text in overrides if text not in swaps]
        for text in swaps[-1:]:  # as with every key, the last one stands
            _swap(cfg, text.partition("=")[2].strip())
    return LazyConfig.apply_overrides(cfg, overrides)


def _swap(cfg: Any, name: str) -> None:
    from detrex_backbones.zoo.swap import swap_backbone

    for change in swap_backbone(cfg, name):
        print_note(str(change))


def output_folder(path: str) -> Path:
    """The folder, made if it isn't there."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DetrexBackbonesError(f"--output {path!r} can't be used as a folder: {error}.") from error
    return folder


def write_output(option: str, path: str | Path, write: Callable[[Any], object]) -> None:
    """Write the file of an option, whole or not at all, and say so on standard error.

    Args:
        option: as the user gave it: "--graph".
        path: of the file.
        write: given the opened binary file.
    """
    from detrex_backbones.atomic_write import write_whole

    try:
        write_whole(Path(path), write)
    except OSError as error:
        raise DetrexBackbonesError(f"{option} {str(path)!r} can't be written: {error}.") from error
    print_note(f"wrote {path}")


def parse_size(text: str) -> tuple[int, int]:
    """ "800x1333" -> (800, 1333): height and width in pixels."""
    height, _, width = text.lower().partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: HEIGHTxWIDTH in pixels, such as 800x1333")
    return int(height), int(width)


def print_json(content: Any) -> None:
    """As JSON on standard output."""
    print(json.dumps(content, indent=2))


def print_note(text: str) -> None:
    """On standard error, in lines of 80 columns."""
    lines = textwrap.wrap(text, 80, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    print("\n".join(lines), file=sys.stderr)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Aligned columns: text on the left, numbers on the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        numeric = all(isinstance(row[index], int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(str(value) for value in row))
    Console().print(table)
