"""`detrex-backbones compare`: two backbones, or two checkpoints of one."""

from __future__ import annotations

import argparse
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from detrex_backbones.cli.common import (
    add_command,
    add_draw_argument,
    add_json_argument,
    check_writable,
    is_file,
    output_folder,
    print_written,
    write_file,
)
from detrex_backbones.cli.completion import complete_config
from detrex_backbones.cli.terminal import print_json, print_table, say
from detrex_backbones.text import visible

if TYPE_CHECKING:
    from detrex_backbones.evaluation import Comparison

EXAMPLES = """\
examples:
  detrex-backbones compare resnet50 resnet50-dc5 --image photo.jpg
  detrex-backbones compare before.pth after.pth --config my_config.py
  detrex-backbones compare resnet50 timm/resnet50 --picture maps.png
"""

ABOUT = (
    "Report the differences between two backbones in config, weights (one row per module) and feature maps of a photo: "
    "the cosine similarity of maps with equal numbers of channels, and linear CKA, which doesn't depend on the order "
    "of channels. With --config, A and B are two checkpoints of that config."
)
SHOWN = 40  # rows of a table


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    summary = "report the differences between two backbones or two checkpoints"
    parser = add_command(subparsers, "compare", run, summary=summary, about=ABOUT, examples=EXAMPLES)
    for name in ("A", "B"):
        about = "a config, or with --config a checkpoint" if name == "A" else "the one to compare with"
        action: Any = parser.add_argument(name.lower(), metavar=name, help=about)
        action.completer = complete_config
    parser.add_argument("overrides", metavar="OVERRIDE", nargs="*", default=[], help="key=value changes both configs")
    parser.add_argument("--config", metavar="CONFIG", help="the config whose checkpoints A and B are")
    parser.add_argument("--image", metavar="FILE", help="the photo (default: a sample photo of matplotlib)")
    add_draw_argument(parser)
    parser.add_argument(
        "--picture", metavar="FILE", help="where the picture of both's maps goes (default: output/compare_A_B.png)"
    )
    parser.add_argument("--no-picture", action="store_true", help="write no picture")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Compare, print the tables, draw the maps."""
    from detrex_backbones.backbones.images.tensors import read_image
    from detrex_backbones.evaluation import compare_models
    from detrex_backbones.features.reading import local_file
    from detrex_backbones.features.sources import one_image
    from detrex_backbones.view import sample_photo
    from detrex_backbones.view.colours import check_draw
    from detrex_backbones.zoo.whole_config import read_config

    if args.no_picture and args.picture:
        args.parser.error("--picture names the picture and --no-picture leaves it out: give one of them")
    configs = [read_config(args.config or name, args.overrides) for name in (args.a, args.b)]
    if args.config:
        for cfg, checkpoint in zip(configs, (args.a, args.b), strict=True):
            cfg.train.init_checkpoint = checkpoint
    image = one_image(args.image or str(sample_photo()))
    photo = read_image(local_file(image.path))
    if not args.no_picture:
        check_draw(args.draw, photo.shape, image.name)
        if args.picture:
            check_writable(args.picture, "--picture")
        else:
            args.picture = output_folder("output") / f"compare_{_stem(args.a)}_{_stem(args.b)}.png"
    comparison = compare_models(configs[0], configs[1], photo)
    if args.json:
        print_json({**comparison.to_dict(), "picture": args.picture and str(args.picture)})
    else:
        print_comparison(comparison)
    if args.picture:
        figure = draw_comparison(comparison, photo, args)
        write_file(args.picture, lambda file: figure.savefig(file, format="png", dpi=100), "--picture")
        if not args.json:
            print_written(args.picture)


def draw_comparison(comparison: Comparison, photo: Any, args: argparse.Namespace) -> Any:
    """The maps of both over the photo, those of one pair below each other."""
    from detrex_backbones.view import draw_sheet

    pairs = [(row["a"], row["b"]) for row in comparison.maps]
    names = [one if one == other else f"{one} / {other}" for one, other in pairs]
    maps = [
        {name: found[pair[side]] for name, pair in zip(names, pairs, strict=True)}
        for side, found in enumerate((comparison.a, comparison.b))
    ]
    strides = {name: row["stride"] or 0 for name, row in zip(names, comparison.maps, strict=True)}
    return draw_sheet({f"A: {args.a}": photo, f"B: {args.b}": photo}, maps, strides, args.draw, large=True)


def _stem(name: str) -> str:
    """A part of a file's name: of a file its own, of a config its words."""
    stem = PurePosixPath(name).stem if is_file(name) else name.removesuffix(".py")
    return re.sub(r"[^\w.-]+", "-", stem)[-60:]


def print_comparison(comparison: Comparison) -> None:
    """Three tables: config, weights, maps; what is the same in both is left out of the first."""
    if comparison.config:
        rows = [(key, _text(a), _text(b)) for key, (a, b) in comparison.config.items()]
        print_table(("config", "A", "B"), rows[:SHOWN])
        if len(rows) > SHOWN:
            say(f"and {len(rows) - SHOWN} more keys: --json has all")
    else:
        say("the configs are the same")
    counts = ("only_a", "only_b", "other_shape")
    weights = [
        (row["module"], row["tensors"], _difference(row["difference"]), *(row[count] for count in counts))
        for row in comparison.weights
    ]
    titles = ("module", "in both", "|A-B| / |A|", "only A", "only B", "other shape")
    print_table(titles, weights[:SHOWN], right={2})
    if len(weights) > SHOWN:
        say(f"and {len(weights) - SHOWN} more modules: --json has all")
    maps = [
        (
            row["a"] if row["a"] == row["b"] else f"{row['a']} / {row['b']}",
            row["stride"] or "?",
            *("x".join(map(str, row[shape])) for shape in ("shape_a", "shape_b")),
            "-" if row["cosine"] is None else f"{row['cosine']:.4f}",
            f"{row['cka']:.4f}",
        )
        for row in comparison.maps
    ]
    print_table(("map", "stride", "A", "B", "cosine", "CKA"), maps, right={1, 4, 5})


def _text(value: object) -> str:
    return "-" if value is None else visible(value, 60)


def _difference(value: float | None) -> str:
    return "-" if value is None else "0" if value == 0 else f"{value:.2e}"
