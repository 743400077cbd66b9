"""What the subcommands share: the config argument, tables, and where files go."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from detrex_backbones.atomic_write import write_whole
from detrex_backbones.cli.completion import complete_config, complete_override
from detrex_backbones.cli.source_names import source_names_text
from detrex_backbones.cli.terminal import HelpFormatter, print_note, say
from detrex_backbones.errors import ArgumentError, DetrexBackbonesError, InputError
from detrex_backbones.remote import AnyPath, as_path
from detrex_backbones.text import LONGEST_PATH, visible

__all__ = [
    "COLUMNS",
    "WITHOUT_PYRAMID",
    "add_command",
    "add_config_argument",
    "add_config_arguments",
    "add_container_argument",
    "add_draw_argument",
    "add_json_argument",
    "add_overrides_argument",
    "add_source_argument",
    "build_for_maps",
    "check_writable",
    "is_file",
    "load_config",
    "output_folder",
    "parse_renaming",
    "parse_size",
    "print_note",
    "print_written",
    "write_file",
    "write_output",
]

WITHOUT_PYRAMID = "backbone.pyramid=false"
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
        formatter_class=HelpFormatter,
    )
    parser.set_defaults(run=run, parser=parser)
    return parser


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """CONFIG and its overrides."""
    add_config_argument(parser)
    add_overrides_argument(parser)


def add_config_argument(parser: argparse.ArgumentParser) -> None:
    """CONFIG alone."""
    about = "name of a ready config, timm/<model>, or path to a config file"
    action: Any = parser.add_argument("config", metavar="CONFIG", help=about)
    action.completer = complete_config


def add_overrides_argument(parser: argparse.ArgumentParser, others: str = "") -> None:
    """OVERRIDE ..., among which there may be paths of `others`."""
    about = (
        "key=value changes the config; backbone=NAME swaps the backbone, before all other overrides "
        "(backbone.pyramid=false: a plain ViT without a pyramid)"
    )
    action: Any = parser.add_argument(
        "overrides",
        metavar="PATH|OVERRIDE" if others else "OVERRIDE",
        nargs="*",
        default=[],
        help=f"{others}; and {about}" if others else about,
    )
    action.completer = complete_override


def add_container_argument(parser: Any) -> None:
    """--container."""
    about = "key of the weights in the file, such as ema.module or models.0 (default: found automatically)"
    parser.add_argument("--container", metavar="KEYS", help=about)


def add_draw_argument(parser: Any) -> None:
    """--draw."""
    about = "what the picture shows: norm (over the channels, default), pca, similarity=X,Y or channels=K"
    parser.add_argument("--draw", metavar="HOW", default="norm", type=_draw, help=about)


def _draw(text: str) -> str:
    from detrex_backbones.view.colours import parse_draw

    try:
        parse_draw(text)
    except ArgumentError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def add_source_argument(parser: Any, flag: str, what: str = "of the file (default: recognised)", **more: Any) -> None:
    """A flag for a naming convention: its name, or a file of the user's own."""
    about = f"naming convention {what}: one of those below, or a Python file that defines a CONVENTION"
    parser.add_argument(flag, metavar="NAME", help=about, **more)
    names = source_names_text()
    parser.epilog = f"{(parser.epilog or '').removesuffix(names).rstrip()}\n\n{names}"


def parse_renaming(text: str) -> tuple[str, str]:
    """ "^encoder\\.=" -> ("^encoder\\.", ""): what is renamed, and to what. The last equals sign counts."""
    old, equals, new = text.rpartition("=")
    if not equals or not old:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no renaming; write OLD=NEW, such as '^encoder\\.=' or bb.=backbone."
        )
    return old, new


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    """--json."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def load_config(args: argparse.Namespace) -> Any:
    """The config that the arguments name, overrides applied.

    `backbone=NAME` swaps the backbone and says on standard error what that changed; the other overrides come after it.
    With `backbone.pyramid=false` a plain ViT comes without ViTDet's pyramid.
    A config that is a backbone alone is given the model that it stands for.
    """
    from detrex_backbones.config import LazyConfig
    from detrex_backbones.zoo.whole_config import find_config, is_config_file, with_model

    cfg = LazyConfig.load(args.config) if is_config_file(args.config) else find_config(args.config)
    assumed = with_model(cfg)
    if assumed:
        print_note(assumed)
    overrides = list(args.overrides)
    if assumed or "backbone" not in cfg:  # else it is a key like any other
        swaps = [text for text in overrides if text.partition("=")[0].strip() == "backbone" and "=" in text]
        overrides = [text for text in overrides if text not in (*swaps, WITHOUT_PYRAMID)]
        for text in swaps[-1:]:  # as with every key, the last one stands
            _swap(cfg, text.partition("=")[2].strip(), pyramid=WITHOUT_PYRAMID not in args.overrides)
    return LazyConfig.apply_overrides(cfg, overrides)


def build_for_maps(cfg: Any, overrides: Sequence[str]) -> Any:
    """The model of a command's config and the report of its load, refused where its maps would be noise."""
    from detrex_backbones import zoo

    swapped = any(text.partition("=")[0].strip() == "backbone" for text in overrides)
    instead = f"The network's own map, without a pyramid: {WITHOUT_PYRAMID}. " if swapped else ""
    return zoo.build_for_maps(cfg, instead)


def _swap(cfg: Any, name: str, pyramid: bool) -> None:
    from detrex_backbones.zoo.swap import swap_backbone

    for change in swap_backbone(cfg, name, pyramid=pyramid):
        print_note(str(change))


def output_folder(path: str) -> AnyPath:
    """The folder, made if it isn't there."""
    folder = as_path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DetrexBackbonesError(
            f"--output '{visible(path, LONGEST_PATH)}' can't be used as a folder: {visible(error.strerror or error)}."
        ) from error
    return folder


def write_file(path: str | AnyPath, write: Callable[[Any], object], option: str = "") -> None:
    """Write a file for people: whole, or not at all.

    Args:
        path: of the file.
        write: given the opened binary file.
        option: as the user gave it, for the error: "--graph".

    Raises:
        DetrexBackbonesError: it can't be written; what was there before still is.
    """
    try:
        write_whole(as_path(path), write)
    except OSError as error:
        raise DetrexBackbonesError(f"{_can_not_write(path, option)}: {visible(error.strerror or error)}.") from error


def write_output(option: str, path: str | AnyPath, write: Callable[[Any], object]) -> None:
    """Write the file of an option, as `write_file` does, and say so on standard error."""
    write_file(path, write, option)
    print_note(f"wrote {visible(path, LONGEST_PATH)}")


def check_writable(path: str | AnyPath, option: str) -> None:
    """Raise before the work is done that a file could not take."""
    path = as_path(path)
    try:
        if not isinstance(path, Path):
            path.mkdir()
            return
        reason = "it is a folder" if path.is_dir() else "" if path.parent.is_dir() else "its folder isn't there"
        reason = reason or ("" if os.access(path.parent, os.W_OK) else "its folder is read-only")
    except OSError as error:  # a name that is too long
        reason = visible(error.strerror, longest=400)
    if reason:
        raise InputError(f"{_can_not_write(path, option)}: {reason}.")


def is_file(path: str | Path) -> bool:
    """Whether a path is that of an ordinary file; a name that no file can have is none."""
    try:
        return Path(path).is_file()
    except OSError:
        return False


def _can_not_write(path: str | AnyPath, option: str) -> str:
    return f"{option} '{visible(path, LONGEST_PATH)}' can't be written".lstrip()


def print_written(path: str | AnyPath, what: str = "") -> None:
    """Where a file went, and what it holds."""
    say(f"wrote {visible(path, LONGEST_PATH)}" + (f" ({what})" if what else ""))


def parse_size(text: str) -> tuple[int, int]:
    """ "800x1333" -> (800, 1333): height and width in pixels."""
    height, _, width = text.lower().partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: HEIGHTxWIDTH in pixels, such as 800x1333")
    return int(height), int(width)
