"""A folder of features: what it was made with, and its maps by the names of the images."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from detrex_backbones.atomic_write import write_whole
from detrex_backbones.errors import InputError, RemoteError, closest
from detrex_backbones.features.shards import list_shards, read_parquet, read_safetensors
from detrex_backbones.remote import AnyPath, RemotePath, as_path, local_copy
from detrex_backbones.text import LONGEST_PATH, shorten, visible

__all__ = ["ABOUT", "FeatureFolder", "claim", "open_features"]

ABOUT = "features.json"


def open_features(folder: str | os.PathLike[str] | RemotePath) -> FeatureFolder:
    """The features that `detrex-backbones features` or `extract_features` wrote.

        features = open_features("output")
        features["cats/1.jpg"]["res4"]      # (C, H, W), or (C,) where they were pooled
        names, vectors = features.vectors("res5")

    Args:
        folder: where they were written, here or on remote storage, whose shards are copied to the cache when they are
            asked for; whether or not all of it is done.

    Raises:
        InputError: there are none.
    """
    path = as_path(folder)
    try:
        about = json.loads((path / ABOUT).read_text(encoding="utf-8"))
    except RemoteError as error:
        raise InputError(f"'{visible(path, LONGEST_PATH)}' holds no features that can be read: {error}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"'{visible(path, LONGEST_PATH)}' holds no features: {ABOUT} can't be read.") from error
    return FeatureFolder(path, about)


class FeatureFolder(Mapping[str, Mapping[str, Tensor]]):
    """name of an image -> name of a map -> tensor; each is read when it is asked for.

    Args:
        folder: where they are.
        about: what `features.json` says: `config`, `weights`, `preprocessing`, `maps`, `pool`, `dtype`, `resize`.
    """

    def __init__(self, folder: AnyPath, about: Mapping[str, Any]) -> None:
        self.folder = folder
        self.about = about
        self.maps = list(about["maps"])
        self.shards = list_shards(folder)
        self._files: dict[str, Path] = {}  # shard -> itself, or its copy of remote storage
        self._places = {
            entry[0]: (shard, row, (entry[1], entry[2]), entry[3])
            for shard, entries in self.shards.items()
            for row, entry in enumerate(entries)
        }

    def __getitem__(self, name: str) -> Mapping[str, Tensor]:
        if name not in self._places:
            raise KeyError(f"there is no image {name!r}.{closest(name, self._places)} It has {len(self)}.")
        shard, row, *_ = self._places[name]
        return _Maps(self, shard, row)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __repr__(self) -> str:
        return f"<features of {len(self)} images: {', '.join(self.maps)}; {self.folder}>"

    def size(self, name: str) -> tuple[int, int]:
        """Height and width in pixels of an image as it went into the network."""
        return self._places[name][2]

    def path(self, name: str) -> str:
        """The file or the URL that an image was read from."""
        return str(self._places[name][3])

    def vectors(self, name: str) -> tuple[list[str], Tensor]:
        """All vectors of one map, where they were pooled: names of the images, and a matrix (images, C).

        Raises:
            InputError: they were not pooled, or there is no such map.
        """
        if not self.about["pool"] or name not in self.maps:
            raise InputError(f"there are no vectors {name!r}. Maps: {', '.join(self.maps)}; pool={self.about['pool']}.")
        parts = [self._matrix(shard, name) for shard in self.shards]
        return [entry[0] for entries in self.shards.values() for entry in entries], torch.cat(parts)

    def dataset(self) -> IterableDataset[tuple[str, dict[str, Tensor]]]:
        """`(name, {map: tensor})` of every image for a `DataLoader`, whose workers share the shards."""
        return _Dataset(self)

    def _file(self, shard: str) -> Path:
        if shard not in self._files:  # one that was written stays as it is: its version is asked for once
            self._files[shard] = local_copy(self.folder / shard)
        return self._files[shard]

    def _matrix(self, shard: str, name: str) -> Tensor:
        path = self._file(shard)
        if path.suffix == ".parquet":
            return _column(path, name)
        from safetensors import safe_open

        with safe_open(path, framework="pt") as opened:
            return opened.get_tensor(name)  # type: ignore[no-any-return]

    def _read(self, shard: str, row: int, name: str) -> Tensor:
        path = self._file(shard)
        if path.suffix == ".parquet":
            return _column(path, name)[row]
        return read_safetensors(path, self.about["pool"], row, [name])[name]


@functools.lru_cache(maxsize=4)
def _column(path: Path, name: str) -> Tensor:
    return read_parquet(path, name)


class _Maps(Mapping[str, Tensor]):
    """The maps of one image."""

    def __init__(self, features: FeatureFolder, shard: str, row: int) -> None:
        self._features, self._shard, self._row = features, shard, row

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._features.maps:
            raise KeyError(f"there is no map {name!r}.{closest(name, self._features.maps)} {self!r}")
        return self._features._read(self._shard, self._row, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._features.maps)

    def __len__(self) -> int:
        return len(self._features.maps)

    def __repr__(self) -> str:
        return f"<maps: {', '.join(self)}>"


class _Dataset(IterableDataset[tuple[str, dict[str, Tensor]]]):
    def __init__(self, features: FeatureFolder) -> None:
        super().__init__()
        self.features = features

    def __len__(self) -> int:
        return len(self.features)

    def __iter__(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        worker = get_worker_info()
        shards = list(self.features.shards)
        for shard in shards[worker.id :: worker.num_workers] if worker else shards:
            for entry in self.features.shards[shard]:
                yield entry[0], dict(self.features[entry[0]])


def claim(folder: AnyPath, about: dict[str, Any]) -> None:
    """Make a folder one of these features, or see that it already is.

    Raises:
        InputError: it holds features that were made otherwise.
    """
    file = folder / ABOUT
    if not file.exists():
        write_whole(file, lambda opened: opened.write((json.dumps(about, indent=2) + "\n").encode()))
    there = open_features(folder).about
    differing = [key for key in about if there.get(key) != json.loads(json.dumps(about[key]))]
    if differing:
        raise InputError(
            f"'{visible(folder, LONGEST_PATH)}' holds features that differ in {shorten(differing)}: these "
            f"can't be mixed. Give another --output."
            + (
                " Random weights are others in every run: name some, train.init_checkpoint=..."
                if differing == ["weights"] and not about["checkpoint"]
                else ""
            )
        )
