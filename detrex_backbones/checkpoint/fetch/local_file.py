"""From whatever names a checkpoint to a file on this machine."""

from __future__ import annotations

import os
import re
import urllib.parse
import urllib.request
from pathlib import Path

from detrex_backbones.checkpoint.fetch import hub
from detrex_backbones.checkpoint.fetch.catalog import detectron2, timm_weights
from detrex_backbones.checkpoint.fetch.catalog.lookup import SOURCES, find_weight, hash_of
from detrex_backbones.checkpoint.fetch.catalog.weight import Weight
from detrex_backbones.checkpoint.fetch.http_file import download, hash_in_name
from detrex_backbones.errors import ArgumentError, CheckpointFileError, closest
from detrex_backbones.text import visible

__all__ = ["resolve"]

# A drive letter is no scheme.
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")


def resolve(name: str | os.PathLike[str]) -> Path:
    """The local file of a checkpoint, fetched if it isn't here.

    Args:
        name: a path, a `file://` URL, an `http(s)://` URL, `hf-hub:org/name[@revision][:file]`, or a name of the
            catalogue: `torchvision://`, `timm://`, `gluon://`, `detectron2://`, `catalog://`, `pycls://`,
            `open-mmlab://`, `mmcls://`, `detr://`, `moco://`. A path is given back as it is, whether there is a
            file or not.

    Raises:
        CheckpointFileError: an unknown name, with the closest ones, or a file that can't be had.
    """
    text = os.fspath(name)
    if text.startswith(hub.SCHEME):
        return hub.from_hub(*hub.split(text))
    match = SCHEME.match(text)
    if match is None:
        return Path(text)
    scheme = match[1].lower()
    if scheme == "file":
        return _local(text)
    if scheme in ("http", "https"):
        return download(text, hash_of(text) or hash_in_name(text))
    if match[0] not in SOURCES:
        allowed = [*(key.removesuffix("://") for key in SOURCES), "https", "http", "file"]
        raise CheckpointFileError(
            f"{visible(text)!r} has an unknown scheme.{closest(scheme, allowed)} "
            f"Allowed: {', '.join(allowed)}, hf-hub:, a path."
        )
    try:
        weight = find_weight(text)
    except ArgumentError as error:
        raise CheckpointFileError(str(error)) from error
    return _fetch(weight)


def _fetch(weight: Weight) -> Path:
    if weight.hub and weight.url == timm_weights.HUB_URL.format(hub=weight.hub):
        return hub.from_hub(weight.hub)
    try:
        return download(weight.url, weight.hash)
    except CheckpointFileError as error:
        path = weight.name.removeprefix(detectron2.SCHEME)
        if weight.name.startswith(detectron2.SCHEME) and path not in detectron2.WEIGHTS:
            raise CheckpointFileError(f"{error}.{closest(path, detectron2.WEIGHTS)}") from error
        raise


def _local(url: str) -> Path:
    parts = urllib.parse.urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise CheckpointFileError(
            f"{visible(url)!r} names a file of another machine. A local one has three slashes: file:///..."
        )
    return Path(urllib.request.url2pathname(parts.path))
