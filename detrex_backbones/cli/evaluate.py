"""`detrex-backbones evaluate`: the accuracy of a config's weights on a folder of images."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detrex_backbones.cli.common import add_command, add_config_arguments, add_json_argument, load_config, print_json
from detrex_backbones.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from detrex_backbones.evaluation.evaluate import Prediction

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
        summary="top-1 and top-5 of a config's weights on a folder of images",
        about="Classify the images of a folder that has a folder for each class, such as\n"
        "ImageNet's validation set. Known weights are given the resize, crop and\n"
        "normalisation that their accuracy was published with.",
        examples=EXAMPLES,
    )
    add_config_arguments(parser)
    parser.add_argument("--data", metavar="DIR", required=True, help="a folder of images for each class")
    parser.add_argument("--classes", metavar="FILE", help="folder names, a line for each class of the classifier")
    parser.add_argument("--batch-size", metavar="N", type=int, default=64, help="images at a time (default: 64)")
    parser.add_argument("--workers", metavar="N", type=int, help="processes that read images; 0 for none")
    parser.add_argument("--limit", metavar="N", type=int, help="only this many images, spread over the folder")
    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1 (default: train.device)")
    parser.add_argument("--resize", metavar="N", type=_pixels, help="pixels of the shorter side before the crop")
    parser.add_argument("--crop", metavar="N", type=_pixels, help="pixels of the crop")
    parser.add_argument("--interpolation", choices=("bilinear", "bicubic"), help="of the resize")
    parser.add_argument("--predictions", metavar="FILE", help="write a CSV: path, label, the five best classes")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Print the accuracies, and what was decided on the way."""
    from omegaconf import OmegaConf

    from detrex_backbones.checkpoint.fetch import find_known
    from detrex_backbones.evaluation.evaluate import evaluate, override_recipe

    cfg = load_config(args)
    if args.device:
        OmegaConf.update(cfg, "train.device", args.device, force_add=True)
    weight = find_known(OmegaConf.select(cfg, "train.init_checkpoint", default="") or "")
    with _writer(args.predictions) as each:
        result = evaluate(
            cfg,
            args.data,
            batch_size=args.batch_size,
            workers=args.workers,
            limit=args.limit,
            classes=_read_classes(args.classes) if args.classes else None,
            recipe=override_recipe(weight, resize=args.resize, crop=args.crop, interpolation=args.interpolation),
            keep=[override.partition("=")[0].lstrip("+") for override in args.overrides],
            each=each,
        )
    content = result.to_dict()
    if args.json:
        print_json(content)
        return
    for note in result.notes:
        print(note)
    published = f" (published: {content['published_top1']:.3f} %)" if content["published_top1"] else ""
    print(f"top-1  {content['top1']:.3f} %{published}")
    print(f"top-5  {content['top5']:.3f} %")


def _read_classes(path: str) -> list[str]:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--classes {path!r} can't be read: {error}.") from error
    return [line.strip() for line in lines if line.strip()]


@contextmanager
def _writer(path: str | None) -> Iterator[Callable[[Prediction], None] | None]:
    """What writes a row for each prediction; opened first, as an evaluation takes long."""
    if path is None:
        yield None
        return
    with ExitStack() as stack:
        try:
            file = stack.enter_context(Path(path).open("w", newline="", encoding="utf-8"))
        except OSError as error:
            raise InputError(f"--predictions {path!r} can't be written: {error}.") from error
        rows = csv.writer(file)
        rows.writerow(("path", "label", "top5"))
        yield lambda item: rows.writerow((item.path, item.label, " ".join(map(str, item.top))))


def _pixels(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of pixels")
    return int(text)
