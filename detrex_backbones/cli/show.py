"""`detrex-backbones show`: what a config says, and what its model would be."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detrex_backbones.cli.common import (
    COLUMNS,
    add_command,
    add_config_arguments,
    add_json_argument,
    check_writable,
    load_config,
    parse_size,
    write_output,
)
from detrex_backbones.cli.terminal import output_width, print_json, print_note, print_table, say, say_paragraph
from detrex_backbones.config.layout import lay_out
from detrex_backbones.errors import ArgumentError, ConfigKeyError, ConfigTypeError
from detrex_backbones.remote import as_path
from detrex_backbones.text import LONGEST_PATH, visible

if TYPE_CHECKING:
    from detrex_backbones.backbones.base import Backbone

PICTURES = (".png", ".svg")
CONFIGS = (".py", ".yaml", ".yml")
MAP_COLUMNS = (*COLUMNS, "receptive_field")

ABOUT_MAPS = (
    "stride: input pixels between neighbours of the map. receptive field: how many input pixels, along the height, one "
    "pixel of the map can depend on."
)

USUAL = 224

EXAMPLES = """\
examples:
  detrex-backbones show resnet/resnet50.py
  detrex-backbones show resnet/resnet50.py --size 800x1333 \\
      model.backbone.stages.depth=101
  detrex-backbones show my_config.py backbone=resnet101-dc5
  detrex-backbones show timm/convnext_tiny --save convnext.py
  detrex-backbones show resnet/resnet50.py --graph resnet50.png
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = add_command(
        subparsers,
        "show",
        run,
        summary="print a config, its parameters, GFLOPs and output shapes",
        about="Print the resolved config, and the parameters, GFLOPs and output shapes of its\n"
        "model, without allocating its weights.",
        examples=EXAMPLES,
    )
    add_config_arguments(parser)
    parser.add_argument("--yaml", action="store_true", help="print the config as YAML instead of Python")
    parser.add_argument(
        "--size",
        metavar="HxW",
        type=parse_size,
        help="input size in pixels for the GFLOPs and shapes (default: 224x224, or the next size that it takes)",
    )
    parser.add_argument("--save", metavar="FILE", help="also write the config with its overrides: .py or .yaml")
    parser.add_argument("--graph", metavar="FILE", help="also draw the stages: .png or .svg")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Print the config and the figures."""
    from detrex_backbones.config import LazyConfig

    _check_file("--save", args.save, "the config", CONFIGS)
    _check_file("--graph", args.graph, "the picture", PICTURES)
    cfg = load_config(args)
    if "model" not in cfg:
        raise ConfigKeyError(f"the config has no 'model' to show. It has: {', '.join(map(str, cfg)) or 'nothing'}.")
    text = LazyConfig.to_yaml(cfg) if args.yaml else lay_out(LazyConfig.to_py(cfg), output_width())
    if args.save:
        save_config(cfg, args.save)
    backbone, channels = build_backbone(cfg.model)
    args.size = args.size or usual_size(backbone)
    figures = measure_backbone(backbone, args.size, channels)
    if args.graph:
        write_graph(args.graph, backbone, args.size, channels)
    if args.json:
        print_json({"config": text, "size": list(args.size), **figures})
        return
    height, width = args.size
    say(text.rstrip() + "\n")
    say(f"parameters  {figures['parameters']:,} ({figures['trainable']:,} trainable)")
    say(f"GFLOPs      {figures['gflops']:.2f} (multiply-adds for {height} x {width} pixels)")
    titles = [column.replace("_", " ") for column in MAP_COLUMNS]
    print_table(titles, [[row[column] for column in MAP_COLUMNS] for row in figures["maps"]])
    say_paragraph(ABOUT_MAPS)


def _check_file(option: str, file: str | None, what: str, suffixes: Sequence[str]) -> None:
    """Raise, before the work, for a file that could not be written or of an unknown kind."""
    if file is None:
        return
    if Path(file).suffix.lower() not in suffixes:
        raise ArgumentError(f"{option} '{visible(file, LONGEST_PATH)}': {what} can be {' or '.join(suffixes)}.")
    check_writable(file, option)


def usual_size(backbone: Backbone) -> tuple[int, int]:
    """The size that figures are given for: 224 x 224 pixels, or the next that the backbone runs."""
    step = max(backbone.size_divisibility, 1)
    side = -(-USUAL // step) * step
    return side, side


def save_config(cfg: Any, file: str) -> None:
    """Write the config as a file that loads, in the format that its name asks for."""
    from detrex_backbones.config import LazyConfig
    from detrex_backbones.config.write_py import write_py

    if Path(file).suffix.lower() == ".py":
        write_py(cfg, as_path(file))
    else:
        LazyConfig.save(cfg, file)
    print_note(f"wrote {visible(file, LONGEST_PATH)}")


def write_graph(file: str, backbone: Backbone, size: tuple[int, int], channels: int) -> None:
    """The picture of the stages, in the format that the file's name asks for."""
    from detrex_backbones.view import draw_stages

    figure = draw_stages(backbone, size, channels)
    options: dict[str, Any] = {"dpi": 110, "bbox_inches": "tight", "pad_inches": 0.2}
    write_output(
        "--graph", file, lambda opened: figure.savefig(opened, format=Path(file).suffix.lower()[1:], **options)
    )


def build_backbone(node: Any) -> tuple[Backbone, int]:
    """The backbone of a config's model, built without weights, and the channels of its image."""
    from detrex_backbones.backbones.base import Backbone
    from detrex_backbones.backbones.images.extractor import FeatureExtractor
    from detrex_backbones.zoo import build_on_meta

    model = build_on_meta(node)
    channels = len(model.pixel_mean) if isinstance(model, FeatureExtractor) else 3
    inner = getattr(model, "backbone", None)  # a FeatureExtractor's or a detector's
    backbone = inner if isinstance(inner, Backbone) else model
    if not isinstance(backbone, Backbone):
        raise ConfigTypeError(
            f"model is a {type(model).__name__}. show takes a Backbone, or a model with a Backbone as its backbone."
        )
    return backbone, channels


def measure_backbone(backbone: Backbone, size: tuple[int, int], channels: int) -> dict[str, Any]:
    """Parameters, GFLOPs and maps of a backbone on the meta device."""
    from detrex_backbones.backbones.cost import measure
    from detrex_backbones.backbones.declared import check_maps
    from detrex_backbones.view import receptive_fields

    shapes = backbone.output_shape()
    measures = measure(backbone, size, channels)
    check_maps(type(backbone).__name__, shapes, size, measures.shapes)
    fields = receptive_fields(backbone, size, {name: shape.stride or 0 for name, shape in shapes.items()}, channels)
    rows = [
        # A classifier's scores have no height and width.
        dict(
            zip(MAP_COLUMNS, (name, shape[0], shapes[name].stride, *(shape[1:] or ("", "")), fields[name]), strict=True)
        )
        for name, shape in measures.shapes.items()
    ]
    return {
        "parameters": measures.parameters,
        "trainable": measures.trainable,
        "gflops": round(measures.gflops, 3),
        "maps": rows,
    }
