"""What `features` and `demo` write: maps with what they are of, a picture of them, a contact sheet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from detrex_backbones.cli.common import write_file
from detrex_backbones.errors import InputError
from detrex_backbones.remote import AnyPath

if TYPE_CHECKING:
    from torch import Tensor

    from detrex_backbones.backbones.images.extractor import FeatureExtractor
    from detrex_backbones.features import FeatureFolder, ImageSource
    from detrex_backbones.features.reading import Resize

__all__ = ["check_point", "describe", "save", "write_sheet"]

SHEET = 24  # images of a contact sheet


def describe(extractor: FeatureExtractor, maps: Mapping[str, Tensor]) -> list[tuple[Any, ...]]:
    """A row of `COLUMNS` for each map."""
    shapes = extractor.output_shape()
    return [(name, value.shape[0], shapes[name].stride, *value.shape[1:]) for name, value in maps.items()]


def save(
    cfg: Any,
    extractor: FeatureExtractor,
    image: ImageSource,
    photo: Any,
    maps: Mapping[str, Tensor],
    centres: Mapping[str, float],
    folder: AnyPath,
    stem: str,
    draw: str | None = "norm",
) -> list[AnyPath]:
    """Write the maps as .safetensors, with the metadata of `extract_features`' files, and a picture of them as .png.

    Args:
        cfg: of the model.
        extractor: the model.
        image: what the photo is called and where it was read.
        photo: (H, W) or (H, W, C) array.
        maps: of the photo.
        centres: as of `draw_features`.
        folder: where the files go.
        stem: of their names.
        draw: how the picture is drawn; None for no picture.

    Returns:
        What was written.
    """
    from safetensors.torch import save as to_bytes

    from detrex_backbones.features.about import about_features, as_metadata
    from detrex_backbones.features.shards import IMAGES, Row
    from detrex_backbones.view import draw_features

    tensors, picture = folder / f"{stem}.safetensors", folder / f"{stem}.png"
    shapes = {name: extractor.output_shape()[name] for name in maps}
    strides = {name: shape.stride or 0 for name, shape in shapes.items()}
    figure = None if draw is None else draw_features(photo, maps, strides, centres, draw)
    about = as_metadata(about_features(cfg, extractor, shapes))
    entry = Row(image, (photo.shape[0], photo.shape[1]), {}).entry
    kept = {name: value.contiguous().cpu() for name, value in maps.items()}
    content = to_bytes(kept, {**about, IMAGES: json.dumps([entry])})
    write_file(tensors, lambda file: file.write(content))
    if figure is None:
        return [tensors]
    write_file(picture, lambda file: figure.savefig(file, format="png", dpi=100))
    return [tensors, picture]


def _photos(images: Iterable[ImageSource], resize: Resize) -> dict[str, Any]:
    """Those of them that can be read, (H, W, C)."""
    from detrex_backbones.errors import CheckpointFileError
    from detrex_backbones.features.reading import read_tensor

    photos = {}
    for image in images:
        try:
            photos[image.name] = read_tensor(image.path, resize).permute(1, 2, 0).numpy()
        except (InputError, CheckpointFileError):  # it is broken, which the run says, or was moved since
            continue
    return photos


def check_point(paths: Sequence[str], resize: Resize, draw: str) -> None:
    """Raise, before the work, where `--draw similarity=X,Y` is outside of an image of the contact sheet."""
    from detrex_backbones.features import find_images
    from detrex_backbones.view.colours import check_draw, parse_draw

    if parse_draw(draw).kind == "similarity":
        images = sorted(find_images(paths), key=lambda image: image.name)
        for name, photo in _photos(images[:SHEET], resize).items():
            check_draw(draw, photo.shape, name)


def write_sheet(features: FeatureFolder, draw: str) -> tuple[AnyPath, str] | None:
    """A contact sheet of the first images and how many of them it has; None where none of them can be read."""
    from detrex_backbones.features import ImageSource
    from detrex_backbones.view import draw_sheet

    resize = features.about["resize"]
    images = [ImageSource(name, features.path(name)) for name in sorted(features)[:SHEET]]
    photos = _photos(images, tuple(resize) if isinstance(resize, list) else resize)
    maps = [{key: value for key, value in features[name].items() if value.dim() == 3} for name in photos]
    if not photos or not maps[0]:
        return None
    strides = {name: about["stride"] or 0 for name, about in features.about["maps"].items()}
    count = f"{len(photos):,} of {len(features):,} images"
    figure = draw_sheet(photos, maps, strides, draw, caption=count if len(photos) < len(features) else "")
    path = features.folder / "contact_sheet.png"
    write_file(path, lambda file: figure.savefig(file, format="png", dpi=100))
    return path, count
