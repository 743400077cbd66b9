"""`detrex-backbones export`: a config's model as a file that runs without this library."""

from __future__ import annotations

import argparse
from typing import Any

from detrex_backbones.cli.common import (
    COLUMNS,
    add_command,
    add_json_argument,
    add_overrides_argument,
    build_for_maps,
    check_writable,
    load_config,
    parse_size,
    print_written,
)
from detrex_backbones.cli.terminal import print_json, print_table, say
from detrex_backbones.errors import ExportError

EXAMPLES = """\
examples:
  detrex-backbones export resnet/resnet50.py resnet50.onnx
  detrex-backbones export resnet/resnet50.py r50.pt2 \\
      train.init_checkpoint=r50.pth
  detrex-backbones export resnet/resnet50.py n.onnx backbone=timm/convnext_tiny
"""
ABOUT = """\
Build a config's model, load its weights, fold its norms, and write it with its
preprocessing, as ONNX or as a torch.export archive. The input is images of shape
(N, C, H, W), RGB in 0-255, with any batch and image size; the outputs are named
after the feature maps. The exported program is run and compared with the model
before it is written."""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = add_command(
        subparsers,
        "export",
        run,
        summary="write a config's model as .onnx or .pt2",
        about=ABOUT,
        examples=EXAMPLES,
    )
    parser.add_argument(
        "config", metavar="CONFIG", help="name of a ready config, timm/<model>, or path to a config file"
    )
    parser.add_argument("output", metavar="OUT", help="the file to write: .onnx or .pt2")
    add_overrides_argument(parser)
    parser.add_argument(
        "--size", metavar="HxW", type=parse_size, default=(256, 320), help="size of the traced image (default: 256x320)"
    )
    parser.add_argument("--fixed", action="store_true", help="export for this image size only")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Write the file, and say what it holds and how near it comes to the model."""
    from detrex_backbones.export import check_path, export_model
    from detrex_backbones.features import check_extractor

    check_path(args.output)
    check_writable(args.output, "OUT")
    model, report = build_for_maps(load_config(args), args.overrides)
    try:
        done = export_model(check_extractor(model), args.output, args.size, fixed=args.fixed)
    except OSError as error:
        raise ExportError(f"{args.output!r} can't be written: {error.strerror or error}.") from error
    rows = [(name, channels, stride) for name, (channels, stride) in done.maps.items()]
    if args.json:
        maps = [dict(zip(COLUMNS, row, strict=False)) for row in rows]
        print_json({"path": str(done.path), "maps": maps, "difference": done.difference, "fixed": args.fixed})
        return
    if report:
        say(report)
    print_table(COLUMNS[:3], rows)
    if done.difference is None:
        say("not checked: onnxruntime is not installed")
    else:
        say(f"largest relative difference to the model: {done.difference:.1e}")
    print_written(done.path)
