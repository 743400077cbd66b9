"""`detrex-backbones features`: a config and a photo in, named feature maps out."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detrex_backbones.cli.common import (
    COLUMNS,
    add_command,
    add_config_arguments,
    add_json_argument,
    build_for_maps,
    output_folder,
    print_written,
    write_file,
)
from detrex_backbones.cli.terminal import print_json, print_table, say
from detrex_backbones.errors import ConfigTypeError

if TYPE_CHECKING:
    from torch import Tensor

    from detrex_backbones.backbones.images.extractor import FeatureExtractor

EXAMPLES = """\
examples:
  detrex-backbones features resnet/resnet50.py
  detrex-backbones features resnet/resnet50.py --image photo.jpg \\
      model.backbone.stages.depth=101 train.init_checkpoint=resnet101.pth
  detrex-backbones features resnet/resnet50.py backbone=timm/convnext_tiny
  detrex-backbones features my_config.py --image photo.png --output maps --json
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = add_command(
        subparsers,
        "features",
        run,
        summary="run a config's model on a photo and save its feature maps",
        about="Build a config's model, load its weights, run it on a photo, save its maps,\nand draw them over it.",
        examples=EXAMPLES,
    )
    add_config_arguments(parser)
    parser.add_argument("--image", metavar="FILE", help="the photo; without it, one that matplotlib ships")
    parser.add_argument("--output", metavar="DIR", default="output", help="where files go (default: output)")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Print the load report and the maps, write the maps and the picture."""
    from detrex_backbones.backbones.images.tensors import read_image
    from detrex_backbones.view import extract_maps, sample_photo

    photo_file = Path(args.image) if args.image else sample_photo()
    photo = read_image(photo_file)
    model, report = build_for_maps(args)
    extractor = check_extractor(model)
    maps, centres = extract_maps(extractor, photo)
    files = save(extractor, photo, maps, centres, output_folder(args.output), stem=f"{photo_file.stem}_features")
    if args.json:
        rows = [dict(zip(COLUMNS, row, strict=True)) for row in describe(extractor, maps)]
        print_json({"maps": rows, "report": report and report.to_dict(), "files": [str(file) for file in files]})
        return
    if report:
        say(report)
    print_table(COLUMNS, describe(extractor, maps))
    for file in files:
        print_written(file)


def check_extractor(model: Any) -> FeatureExtractor:
    """The model, if it is what images can be fed to."""
    from detrex_backbones.backbones.images.extractor import FeatureExtractor

    if not isinstance(model, FeatureExtractor):
        raise ConfigTypeError(
            f"model is a {type(model).__name__}, which does not say how a photo is normalised. Wrap the backbone: "
            f"model = L(FeatureExtractor)(backbone=..., pixel_mean=[...], pixel_std=[...], input_format='RGB')."
        )
    return model


def describe(extractor: FeatureExtractor, maps: Mapping[str, Tensor]) -> list[tuple[Any, ...]]:
    """A row of `COLUMNS` for each map."""
    shapes = extractor.output_shape()
    return [(name, value.shape[0], shapes[name].stride, *value.shape[1:]) for name, value in maps.items()]


def save(
    extractor: FeatureExtractor,
    photo: Any,
    maps: Mapping[str, Tensor],
    centres: Mapping[str, float],
    folder: Path,
    stem: str,
) -> tuple[Path, Path]:
    """Write the maps as .safetensors and a picture of them as .png."""
    from safetensors.torch import save as to_bytes

    from detrex_backbones.view import draw_features

    tensors, picture = folder / f"{stem}.safetensors", folder / f"{stem}.png"
    strides = {name: shape.stride or 0 for name, shape in extractor.output_shape().items()}
    content = to_bytes({name: value.contiguous().cpu() for name, value in maps.items()})
    write_file(tensors, lambda file: file.write(content))
    figure = draw_features(photo, maps, strides, centres)
    options: dict[str, Any] = {"dpi": 100, "pil_kwargs": {"optimize": True}}
    write_file(picture, lambda file: figure.savefig(file, format="png", **options))
    return tensors, picture
