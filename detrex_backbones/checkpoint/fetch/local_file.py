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
from detrex_backbones.checkpoint.fetch.content import what_is_wrong
from detrex_backbones.checkpoint.fetch.http_file import download, hash_in_name
from detrex_backbones.errors import ArgumentError, CheckpointFileError, RemoteError, closest
from detrex_backbones.remote import as_path, is_remote, local_copy
from detrex_backbones.text import visible

__all__ = ["fetch_image", "resolve"]

# A drive letter is no scheme.
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
# hf://org/name@revision/folder/file, of a model; data sets and spaces have their kind before it.
HF_MODEL = re.compile(
    r"(?!(?:datasets|spaces|buckets)/)(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/@]+))?(?:/(?P<file>.+))?"
)
HEURISTICS = "matching_heuristics=True"


def resolve(name: str | os.PathLike[str]) -> Path:
    """The local file of a checkpoint, fetched if it isn't here.

    Args:
        name: a path, a `file://` URL, an `http(s)://` URL, a file of remote storage (`s3://`, `gs://`, `hf://`),
            `hf-hub:org/name[@revision][:file]`, or a name of the catalogue: `torchvision://`, `timm://`, `gluon://`,
            `detectron2://`, `catalog://`, `detrex://`, `pycls://`, `open-mmlab://`, `mmcls://`, `detr://`, `moco://`;
            each with detectron2's `?matching_heuristics=True` behind it or without. A detector of detectron2's is also
            taken as its `model_zoo` takes it: `COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml`. A path is given back as it
            is, whether there is a file or not.

    Raises:
        CheckpointFileError: an unknown name, with the closest ones, or a file that can't be had.
    """
    text = _without_options(os.fspath(name))
    text = (not _is_there(text) and detectron2.zoo_name(text)) or text
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
    if is_remote(text):
        return _from_storage(text)
    if match[0] not in SOURCES:
        allowed = [*(key.removesuffix("://") for key in SOURCES), "https", "http", "file", "s3", "gs", "hf"]
        raise CheckpointFileError(
            f"{visible(text)!r} has an unknown scheme.{closest(scheme, allowed)} "
            f"Allowed: {', '.join(allowed)}, hf-hub:, a path."
        )
    try:
        weight = find_weight(text)
    except ArgumentError as error:
        raise CheckpointFileError(str(error)) from error
    return _fetch(weight)


def fetch_image(url: str) -> Path:
    """The local file of an image's URL: `file://`, `http(s)://`, `s3://`, `gs://` or `hf://`.

    Raises:
        CheckpointFileError: it can't be had.
    """
    if url.lower().startswith("file://"):
        return _local(url)
    if not is_remote(url):
        return download(url, checkpoint=False)
    try:
        return local_copy(as_path(url), lambda part: what_is_wrong(part, checkpoint=False))
    except (ArgumentError, RemoteError) as error:
        raise CheckpointFileError(str(error)) from error


def _without_options(text: str) -> str:
    """The name without detectron2's `?matching_heuristics=True`, which says what is done here with every file.

    Other options stay where they are: a URL's belong to it, and a file's name can have a question mark.
    """
    given, (name, mark, query) = text, text.partition("?")
    options = query.split("&") if mark else []
    kept = [option for option in options if option != HEURISTICS]
    if len(kept) < len(options):
        text = f"{name}?{'&'.join(kept)}" if kept else name
    elif any(option.startswith(HEURISTICS.partition("=")[0]) for option in kept):
        raise CheckpointFileError(
            f"{visible(given)!r}: of detectron2's options only {HEURISTICS} is supported. Leave it out; names are "
            f"taken as they are stored with source='as stored'."
        )
    is_local = SCHEME.match(text) is None and not text.startswith(hub.SCHEME)
    if kept and is_local and not _is_there(text) and _is_there(name):
        raise CheckpointFileError(
            f"{visible(given)!r} is no file, and {visible(name)!r} takes no options but {HEURISTICS}."
        )
    return text


def _is_there(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # a name that no file can have
        return False


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


def _from_storage(url: str) -> Path:
    """A file of the hub by the hub's own cache, all others by ours."""
    scheme, _, rest = url.partition("://")
    model = HF_MODEL.fullmatch(rest) if scheme.lower() == "hf" else None
    if model:
        return hub.from_hub(model["repo"], urllib.parse.unquote(model["revision"] or "") or None, model["file"])
    hash = hash_in_name(url)
    try:
        return local_copy(as_path(url), lambda part: what_is_wrong(part, hash))
    except (ArgumentError, RemoteError) as error:
        raise CheckpointFileError(str(error)) from error


def _local(url: str) -> Path:
    parts = urllib.parse.urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise CheckpointFileError(
            f"{visible(url)!r} names a file on another machine. A local file has three slashes: file:///..."
        )
    if parts.query:
        raise CheckpointFileError(f"{visible(url)!r} has options, and a local file takes none but {HEURISTICS}.")
    return Path(urllib.request.url2pathname(parts.path))
