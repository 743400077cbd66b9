"""`detrex-backbones evaluate`: the accuracy of a config's weights on a folder of images."""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detrex_backbones.cli.common import (
    add_command,
    add_config_arguments,
    add_json_argument,
    check_writable,
    is_file,
    load_config,
    write_file,
)
from detrex_backbones.cli.terminal import print_json, say
from detrex_backbones.errors import InputError
from detrex_backbones.text import visible, visible_in_cell

if TYPE_CHECKING:
    from detrex_backbones.evaluation import Evaluation

EXAMPLES = """\
examples:
  detrex-backbones evaluate resnet/resnet50.py --data imagenet/val \\
      train.init_checkpoint=torchvision://resnet50-v2
  detrex-backbones evaluate gluon/resnet50_v1d.py --data imagenet/val \\
      train.init_checkpoint=gluon://resnet50_v1d --limit 5000 --device cuda
  detrex-backbones evaluate my.py --data photos --classes names.txt --json
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = add_command(
        subparsers,
        "evaluate",
        run,
        summary="measure top-1 and top-5 of a config's weights on a folder of images",
        about="Classify the images of a folder that has one subfolder per class, such as\n"
        "ImageNet's validation set. For known weights, the resize, crop and normalisation\n"
        "are those with which their accuracy was published.",
        examples=EXAMPLES,
    )
    add_config_arguments(parser)
    parser.add_argument("--data", metavar="DIR", required=True, help="folder with one subfolder of images per class")
    parser.add_argument(
        "--classes", metavar="FILE", help="names of the subfolders, one per line, in the order of the classifier"
    )
    parser.add_argument("--batch-size", metavar="N", type=int, default=64, help="images per batch (default: 64)")
    parser.add_argument("--workers", metavar="N", type=int, help="processes that read images; 0 for none")
    parser.add_argument("--limit", metavar="N", type=int, help="only this many images, spread over the folder")
    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1 (default: train.device)")
    parser.add_argument("--resize", metavar="N", type=_pixels, help="pixels of the shorter side before the crop")
    parser.add_argument("--crop", metavar="N", type=_pixels, help="pixels of the crop")
    parser.add_argument("--interpolation", choices=("bilinear", "bicubic"), help="interpolation of the resize")
    parser.add_argument("--predictions", metavar="FILE", help="write a CSV with path, label and the five best classes")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Print the accuracies, and what was decided on the way."""
    from omegaconf import OmegaConf

    from detrex_backbones.checkpoint.fetch import find_known
    from detrex_backbones.evaluation import evaluate, override_recipe

    cfg = load_config(args)
    if args.device:
        OmegaConf.update(cfg, "train.device", args.device, force_add=True)
    weight = find_known(OmegaConf.select(cfg, "train.init_checkpoint", default="") or "")
    rows: list[tuple[object, ...]] = []
    if args.predictions:
        check_writable(args.predictions, "--predictions")  # an evaluation takes long
    result = evaluate(
        cfg,
        args.data,
        batch_size=args.batch_size,
        workers=args.workers,
        limit=args.limit,
        classes=_read_classes(args.classes) if args.classes else None,
        recipe=override_recipe(weight, resize=args.resize, crop=args.crop, interpolation=args.interpolation),
        keep=[override.partition("=")[0].lstrip("+") for override in args.overrides],
        each=lambda item: rows.append((visible_in_cell(item.path), item.label, " ".join(map(str, item.top)))),
    )
    _print_result(args, result)
    if args.predictions:  # at the end: the accuracies are told even where the disk is full
        table = io.StringIO(newline="")
        csv.writer(table).writerows([("path", "label", "top5"), *rows])
        write_file(args.predictions, lambda file: file.write(table.getvalue().encode()), "--predictions")


def _print_result(args: argparse.Namespace, result: Evaluation) -> None:
    content = result.to_dict()
    if args.json:
        print_json(content)
        return
    for note in result.notes:
        say(visible(note))
    for key in ("top1", "top5"):
        published = content[f"published_{key}"]
        say(f"top-{key[-1]}  {content[key]:.3f} %" + (f" (published: {published:.3f} %)" if published else ""))


def _read_classes(path: str) -> list[str]:
    if not is_file(path):  # a pipe might never end
        raise InputError(f"--classes '{visible(path)}' can't be read: it doesn't exist or is not a file.")
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--classes '{visible(path)}' can't be read: {visible(error)}.") from error
    return [line.strip() for line in lines if line.strip()]


def _pixels(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of pixels")
    return int(text)
