"""`detrex-backbones features`: a config and images in, named feature maps out."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from detrex_backbones.cli.common import (
    COLUMNS,
    add_command,
    add_config_argument,
    add_container_argument,
    add_draw_argument,
    add_json_argument,
    add_overrides_argument,
    build_for_maps,
    load_config,
    output_folder,
    parse_size,
    print_written,
)
from detrex_backbones.cli.feature_files import check_point, describe, save, write_sheet
from detrex_backbones.cli.terminal import print_json, print_note, print_table, say
from detrex_backbones.text import LONGEST_PATH, visible

if TYPE_CHECKING:
    from detrex_backbones.features import Extraction

ABOUT = (
    "Build a config's model, load its weights, and save its feature maps: those of one photo, with a picture of them "
    "over the photo; or those of PATHS, any number of images, into files that open_features reads. An interrupted run "
    "continues where it stopped, and under torchrun the processes share the images."
)

EXAMPLES = """\
examples:
  detrex-backbones features resnet/resnet50.py
  detrex-backbones features resnet/resnet50.py --image photo.jpg \\
      model.backbone.stages.depth=101 train.init_checkpoint=resnet101.pth
  detrex-backbones features timm/convnext_tiny photos/ --pool --output vectors
  detrex-backbones features my_config.py 'photos/**/*.jpg' --maps res4,res5
  torchrun --nproc-per-node 2 -m detrex_backbones features my_config.py photos/
"""

OVERRIDE = re.compile(r"~[\w.]+|\+?[\w.\[\]]+=.*", re.DOTALL)
# Options that PATHS alone have -> their defaults.
MANY = {"pool": False, "resize": None, "dtype": "float32", "batch_size": 16, "workers": None, "format": "safetensors"}
SHOWN = 20  # broken images


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = add_command(
        subparsers,
        "features",
        run,
        summary="run a config's model on images and save its feature maps",
        about=ABOUT,
        examples=EXAMPLES,
    )
    add_config_argument(parser)
    add_overrides_argument(parser, others="images, folders, globs, a .txt with one path per line, or URLs")
    parser.add_argument(
        "--image",
        metavar="FILE",
        help="one photo, a file or a URL (default without PATHS: a sample photo of matplotlib)",
    )
    parser.add_argument(
        "--output", metavar="DIR", default="output", help="output folder, also s3://... (default: output)"
    )
    parser.add_argument(
        "--maps", metavar="NAMES", type=_names, help="feature maps to keep, such as res4,res5 (default: all)"
    )
    add_draw_argument(parser)
    add_container_argument(parser)
    parser.add_argument("--no-picture", action="store_true", help="write no picture")
    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1 (default: train.device)")
    many = parser.add_argument_group("options for PATHS")
    many.add_argument("--pool", action="store_true", help="save the mean of each map, a vector")
    many.add_argument("--resize", metavar="N|HxW", type=_size, help="resize to this shorter side, or height and width")
    many.add_argument("--dtype", metavar="T", help="float32, bfloat16 or float16 (default: float32)")
    many.add_argument("--batch-size", metavar="N", type=int, help="images per batch (default: 16)")
    many.add_argument("--workers", metavar="N", type=int, help="processes that read images; 0 for none")
    many.add_argument("--format", metavar="F", help="safetensors, or parquet for vectors (default: safetensors)")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Print the load report and the maps, write the maps and the picture."""
    paths, args.overrides = split_words(args.overrides)
    if args.container is not None:
        args.overrides = [*args.overrides, f"+train.load_options.container={json.dumps(args.container)}"]
    given = {name: value for name in MANY if (value := getattr(args, name)) is not None and value is not False}
    if paths and args.image:
        args.parser.error("--image is one photo: give either it or PATHS")
    if given and not paths:
        args.parser.error(f"--{next(iter(given)).replace('_', '-')} needs PATHS, and none are given")
    if paths:
        _run_many(args, paths, {**MANY, **given})
    else:
        _run_one(args)


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Paths and overrides: what looks like `key=value` and is no file is an override."""
    overrides = [word for word in words if OVERRIDE.fullmatch(word) and not Path(word).exists()]
    return [word for word in words if word not in overrides], overrides


def _run_many(args: argparse.Namespace, paths: Sequence[str], options: dict[str, Any]) -> None:
    from detrex_backbones.features import extract_features, open_features

    file_format = options.pop("format")
    picture = not args.no_picture and not options["pool"]
    if picture:
        check_point(paths, options["resize"], args.draw)
    result = extract_features(
        load_config(args),
        paths,
        args.output,
        maps=args.maps,
        device=args.device or "",
        file_format=file_format,
        **options,
    )
    sheet, count = (picture and not result.rank and write_sheet(open_features(result.folder), args.draw)) or (None, "")
    if args.json:
        content = {name: getattr(result, name) for name in ("images", "before", "written", "broken")}
        files = {"folder": str(result.folder), "contact_sheet": sheet and str(sheet)}
        print_json({**content, **files, "report": result.report and result.report.to_dict()})
    else:
        print_extraction(result)
        if sheet:
            print_written(sheet, count)


def print_extraction(result: Extraction) -> None:
    """What was written and what could not be read."""
    if result.report and result.rank == 0:
        say(result.report)
    before = f", {result.before:,} were already there" if result.before else ""
    folder = visible(result.folder, LONGEST_PATH)
    say(f"wrote the features of {result.written:,} of {result.images:,} images{before}: {folder}")
    for name, why in list(result.broken.items())[:SHOWN]:
        print_note(f"left out: {visible(name, LONGEST_PATH)}: {why}")
    if len(result.broken) > SHOWN:
        print_note(f"and {len(result.broken) - SHOWN} more; all are in --json")


def _run_one(args: argparse.Namespace) -> None:
    from detrex_backbones.backbones.base import check_names
    from detrex_backbones.backbones.images.tensors import read_image
    from detrex_backbones.features import check_extractor
    from detrex_backbones.features.reading import local_file
    from detrex_backbones.features.sources import one_image
    from detrex_backbones.view import extract_maps, sample_photo
    from detrex_backbones.view.colours import check_draw

    if args.device:
        args.overrides = [*args.overrides, f"+train.device={args.device}"]
    image = one_image(args.image or str(sample_photo()))
    photo = read_image(local_file(image.path))
    draw = None if args.no_picture else args.draw
    if draw:
        check_draw(draw, photo.shape, image.name)
    folder = output_folder(args.output)
    cfg = load_config(args)
    model, report = build_for_maps(cfg, args.overrides)
    extractor = check_extractor(model)
    names = check_names("maps", args.maps or list(extractor.output_shape()), extractor.output_shape())
    maps, centres = extract_maps(extractor, photo)
    maps = {name: maps[name] for name in names if name in maps}
    stem = f"{PurePosixPath(image.name).stem}_features"
    files = save(cfg, extractor, image, photo, maps, centres, folder, stem, draw)
    if args.json:
        rows = [dict(zip(COLUMNS, row, strict=True)) for row in describe(extractor, maps)]
        print_json({"maps": rows, "report": report and report.to_dict(), "files": [str(file) for file in files]})
        return
    if report:
        say(report)
    print_table(COLUMNS, describe(extractor, maps))
    for file in files:
        print_written(file)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _size(text: str) -> int | tuple[int, int]:
    return int(text) if text.isdecimal() else parse_size(text)
