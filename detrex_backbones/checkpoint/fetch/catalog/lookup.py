"""From a name, a URL or a file to what is known of it."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from detrex_backbones.checkpoint.fetch.catalog import (
    detectors,
    detectron2,
    gluon,
    openmmlab,
    published,
    pycls,
    timm_weights,
    torchvision_weights,
)
from detrex_backbones.checkpoint.fetch.catalog.weight import Weight
from detrex_backbones.errors import ArgumentError, closest
from detrex_backbones.glob_match import matcher
from detrex_backbones.text import visible

__all__ = ["SOURCES", "find_known", "find_weight", "hash_of", "list_weights"]

# The part of a file's name that is a hash; a browser adds " (1)" to a second download.
NAME_HASH = re.compile(r"[-_]([0-9a-f]{6,64})(?: ?\(\d+\))?$")
HUB_FOLDER = re.compile(r"^models--timm--(.+)$")  # of huggingface_hub's cache
EXTENSIONS = (".pth.tar", ".safetensors", ".pth", ".pt", ".pkl", ".pyth", ".bin", ".ckpt")


@dataclass(frozen=True)
class Source:
    """Somebody's weights: their names, and a weight by its name."""

    names: Callable[[], list[str]]
    get: Callable[[str], Weight | None]


def _table(weights: Mapping[str, Weight]) -> Source:
    return Source(lambda: list(weights), weights.get)


SOURCES = {
    torchvision_weights.SCHEME: Source(torchvision_weights.names, torchvision_weights.get),
    gluon.SCHEME: _table(gluon.WEIGHTS),
    detectron2.SCHEME: Source(lambda: list(detectron2.WEIGHTS), detectron2.by_path),
    detectron2.CATALOG_SCHEME: _table(detectron2.CATALOG_WEIGHTS),
    detectors.DETREX_SCHEME: Source(lambda: list(detectors.DETREX), detectors.detrex_detector),
    pycls.SCHEME: _table(pycls.WEIGHTS),
    openmmlab.SCHEME: _table(openmmlab.WEIGHTS),
    openmmlab.MMCLS_SCHEME: _table(openmmlab.MMCLS),
    published.DETR_SCHEME: _table(published.DETR),
    published.MOCO_SCHEME: _table(published.MOCO),
    timm_weights.SCHEME: Source(timm_weights.names, timm_weights.get),
}
"""Scheme of a name, such as "timm://" -> whose weights they are."""


def find_weight(name: str) -> Weight:
    """What is known of a weight that is called by name.

    Args:
        name: a scheme and a name: "torchvision://resnet50-v2", "gluon://resnet50_v1d".

    Raises:
        ArgumentError: an unknown scheme, or a name that the scheme doesn't have; the closest ones are suggested.
    """
    scheme, separator, rest = name.partition("://")
    source = SOURCES.get(scheme + separator)
    if source is None:
        known = [key.removesuffix("://") for key in SOURCES]
        raise ArgumentError(
            f"{visible(name)!r} has no scheme of a catalogue.{closest(scheme, known)} Known: {', '.join(SOURCES)}."
        )
    weight = source.get(rest.partition("?")[0])
    if weight is None:
        names = source.names()
        raise ArgumentError(
            f"{scheme} has no weights called {visible(rest)!r}.{closest(rest, names)} "
            f"`detrex-backbones weights '{scheme}://*'` shows all {len(names)}."
        )
    return weight


def list_weights(pattern: str = "", schemes: tuple[str, ...] = tuple(SOURCES)) -> list[Weight]:
    """The weights whose name matches, source by source.

    Args:
        pattern: a part of the name, or a glob of all of it, with or without the scheme: "resnet50", "timm://*swin*",
            "resnet50*"; "" for all.
        schemes: the sources to look in.
    """
    matches = matcher(pattern)
    found: list[Weight] = []
    for scheme in schemes:
        source = SOURCES[scheme]
        for name in source.names():
            if matches(scheme + name) or matches(name):
                weight = source.get(name)
                found += [] if weight is None else [weight]
    return found + [weight for url, weight in published.OLD_TORCHVISION.items() if matches(url)]


def find_known(name: str | Path, *, content: bool = False) -> Weight | None:
    """What is known of a weight, however it is called: a name, a URL, or a local file; None if nothing is.

    A file is recognised by the hash in its name, by a name that only one published file has, or by the end of its path,
    as in the caches of this library, detectron2 and the Hugging Face hub. Its content is not looked at.

    Args:
        name: a name, a URL or a path.
        content: hash a file (0.2 s for 100 MB) if its name says nothing.
    """
    text = detectron2.zoo_name(str(name)) or str(name)
    scheme = text.partition("://")[0] + "://"
    if scheme in SOURCES:
        try:
            return find_weight(text)
        except ArgumentError:
            return None
    if text.startswith("hf-hub:timm/"):
        return timm_weights.get(re.split("[@:]", text.removeprefix("hf-hub:timm/"))[0])
    path = PurePosixPath(text.removeprefix("file://").partition("?")[0].replace("\\", "/"))
    known = _by_path(path) or _by_hash(path.name) or _by_library(path.name)
    if known is None and content and Path(name).is_file():
        return _by_content(Path(name))
    return known


def hash_of(url: str) -> str:
    """The hash that our tables have for a URL; "" where they have none."""
    return next((weight.hash for weight in _tables() if weight.url == url), "")


@functools.cache
def _tables() -> tuple[Weight, ...]:
    """All weights that need nobody's metadata."""
    tables = (
        *(gluon.WEIGHTS, detectron2.WEIGHTS, detectron2.CATALOG_WEIGHTS, detectors.DETREX, pycls.WEIGHTS),
        *(openmmlab.WEIGHTS, openmmlab.MMCLS, published.DETR, published.MOCO, published.OLD_TORCHVISION),
    )
    return tuple(weight for table in tables for weight in table.values())


def _by_path(path: PurePosixPath) -> Weight | None:
    """A file of a name that one weight has, or whose folders are those of a weight's URL."""
    file = re.sub(r" ?\(\d+\)(?=\.)", "", path.name)  # a browser's second download
    same_name = [weight for weight in _tables() if weight.file == file]
    if len(same_name) == 1:
        return same_name[0]
    for weight in same_name:
        under_host = weight.url.split("/", 3)[3]  # detectron2/ImageNetPretrained/MSRA/R-50.pkl
        if f"/{path}".endswith(f"/{under_host}"):
            return weight
    for part in path.parts:
        match = HUB_FOLDER.match(part)
        if match:
            return timm_weights.get(match[1])
    return None


def _by_hash(file: str) -> Weight | None:
    digest = _hash_in(file)
    if digest is None:
        return None
    return next((weight for weight in _tables() if weight.hash.rpartition(":")[2] == digest), None)


def _by_library(file: str) -> Weight | None:
    """By the metadata of torchvision, then timm: only for names with a hash, as timm takes seconds to import."""
    digest = _hash_in(file)
    if digest is None or len(digest) < 8:
        return None
    return torchvision_weights.by_hash(digest) or timm_weights.by_hash(digest)


def _hash_in(file: str) -> str | None:
    stem = next((file.removesuffix(extension) for extension in EXTENSIONS if file.endswith(extension)), "")
    match = NAME_HASH.search(stem)
    # Six digits may be the number of an iteration, except where detectron2 puts its md5.
    return match[1] if match and (len(match[1]) >= 8 or stem.startswith("model_final_")) else None


def _by_content(path: Path) -> Weight | None:
    hashers = {"sha256": hashlib.sha256(), "md5": hashlib.md5(usedforsecurity=False)}
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            for hasher in hashers.values():
                hasher.update(block)
    digests = {algorithm: hasher.hexdigest() for algorithm, hasher in hashers.items()}
    candidates = [*_tables(), *list_weights(schemes=(torchvision_weights.SCHEME,))]
    for weight in candidates:
        algorithm, _, prefix = weight.hash.partition(":")
        # Six digits are too few to name a file by, among as many files as there are.
        if len(prefix) >= 8 and digests[algorithm].startswith(prefix):
            return weight
    return None
