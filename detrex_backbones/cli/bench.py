"""`detrex-backbones bench`: backbones side by side on this machine."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from detrex_backbones.cli.common import add_command, add_json_argument, check_writable, parse_size, write_output
from detrex_backbones.cli.completion import complete_config
from detrex_backbones.cli.figures import known_weights, print_figures, sort_figures
from detrex_backbones.cli.terminal import print_json, print_note, say
from detrex_backbones.errors import ArgumentError
from detrex_backbones.text import LONGEST_PATH, visible

EXAMPLES = """\
examples:
  detrex-backbones bench resnet50 resnet101-dc5 timm/convnext_tiny
  detrex-backbones bench resnet50 timm/convnext_tiny --size 800x1333 \\
      --batch-size 8 --dtype bfloat16 --channels-last --device cuda
  detrex-backbones bench resnet18 resnet34 resnet50 --picture bench.png
  detrex-backbones bench my_config.py --images coco/val2017 --json
"""

ABOUT = (
    "Measure latency (the median and the 95th percentile), images per second and peak memory of backbones with random "
    "weights, by torch.utils.benchmark's timers, and list parameters, GFLOPs and the best known ImageNet top-1 with "
    "its top-5."
)

SORTS = ("name", "median", "p95", "images_per_second", "top1", "top5", "parameters", "gflops", "memory")


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    summary = "measure the speed of backbones on this machine"
    parser = add_command(subparsers, "bench", run, summary=summary, about=ABOUT, examples=EXAMPLES)
    action: Any = parser.add_argument("names", metavar="NAME", nargs="+", help="a CONFIG, as for the other commands")
    action.completer = complete_config
    parser.add_argument(
        "--size", metavar="HxW", type=parse_size, default=(224, 224), help="image size in pixels (default: 224x224)"
    )
    parser.add_argument("--batch-size", metavar="N", type=int, default=1, help="images per batch (default: 1)")
    parser.add_argument("--dtype", metavar="T", default="float32", help="float32, bfloat16 or float16")
    parser.add_argument("--device", metavar="D", default="", help="cpu, cuda, cuda:1 (default: a GPU if there is one)")
    parser.add_argument("--compile", action="store_true", help="through torch.compile")
    parser.add_argument("--channels-last", action="store_true", help="use the channels-last memory format")
    parser.add_argument("--fuse", action="store_true", help="fold batch norms into convolutions")
    parser.add_argument("--seconds", metavar="S", type=float, default=2.0, help="minimum time to run each (default: 2)")
    parser.add_argument(
        "--images",
        metavar="DIR",
        help="measure the mean time of preprocessing and forward over these images, one by one, without reading them",
    )
    parser.add_argument(
        "--limit", metavar="N", type=int, default=2000, help="maximum number of images of --images (default: 2000)"
    )
    parser.add_argument("--sort", metavar="COLUMN", choices=SORTS, help=f"sort by one of {', '.join(SORTS)}")
    parser.add_argument("--picture", metavar="FILE", help="plot accuracy against latency: .png or .svg")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Measure one after the other, print the table."""
    from detrex_backbones.evaluation.speed import Conditions, check_speed, measure_speed
    from detrex_backbones.zoo.whole_config import read_config

    suffix = _check_picture(args.picture)
    conditions = Conditions(
        size=args.size,
        batch_size=args.batch_size,
        dtype=args.dtype,
        device=args.device,
        compiled=args.compile,
        channels_last=args.channels_last,
        fused=args.fuse,
        seconds=args.seconds,
    )
    photos = _photos(args.images, args.limit) if args.images else []
    configs = {name: read_config(name) for name in args.names}
    for cfg in configs.values():  # all of them before the first is timed
        check_speed(cfg, conditions, photos)
    rows = []
    for name, cfg in configs.items():
        speed = measure_speed(name, cfg, conditions, photos)
        known = {} if Path(name).is_file() else known_weights(name)
        rows.append({**asdict(speed), "top1": known.get("top1"), "top5": known.get("top5")})
    rows = sort_figures(rows, args.sort)
    about = describe(args, len(photos))
    if args.json:
        print_json({"conditions": {**asdict(conditions), "images": len(photos)}, "machine": machine(), "rows": rows})
    else:
        print_figures(rows)
        say(f"{about}; {machine()}")
    if args.picture:
        from detrex_backbones.view import draw_speed

        figure = draw_speed(rows, about)
        write_output("--picture", args.picture, lambda file: figure.savefig(file, format=suffix, dpi=110))


def describe(args: argparse.Namespace, photos: int) -> str:
    """The conditions in words."""
    height, width = args.size
    what = f"mean over {photos} images" if photos else f"{args.batch_size} x {height} x {width} pixels"
    more = [word for word in ("compile", "channels_last", "fuse") if getattr(args, word)]
    return ", ".join([what, args.dtype, *(word.replace("_", " ") for word in more)])


def machine() -> str:
    """What it was measured on."""
    import platform

    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    chip = gpu or platform.processor() or platform.machine()
    return f"torch {torch.__version__}, {chip}, {torch.get_num_threads()} threads"


def _photos(folder: str, limit: int) -> list[str]:
    from detrex_backbones.features import find_images

    if limit < 1:
        raise ArgumentError(f"--limit {limit} is too small: at least 1.")
    images = find_images([folder])
    if len(images) > limit:
        print_note(f"the first {limit} of {len(images)} images")
    return [image.path for image in images[:limit]]


def _check_picture(file: str | None) -> str:
    if not file:
        return ""
    suffix = Path(file).suffix.lower()
    if suffix not in (".png", ".svg"):
        raise ArgumentError(f"--picture '{visible(file, LONGEST_PATH)}': the picture can be .png or .svg.")
    check_writable(file, "--picture")
    return suffix[1:]
