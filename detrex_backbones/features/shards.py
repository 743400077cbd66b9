"""The files that features stand in: some hundred images each, written whole, and an index that says what is where."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detrex_backbones.atomic_write import write_whole
from detrex_backbones.errors import DetrexBackbonesError, InputError
from detrex_backbones.features.sources import ImageSource
from detrex_backbones.remote import AnyPath, RemotePath, local_copy
from detrex_backbones.text import LONGEST_PATH, visible

__all__ = ["FORMATS", "Row", "ShardWriter", "import_parquet", "list_shards", "read_parquet", "read_safetensors"]

FORMATS = {"safetensors": ".safetensors", "parquet": ".parquet"}
IMAGES = "images"  # key of a shard's metadata
MOST_BYTES = 256 << 20  # of a shard


@dataclass
class Row:
    """The features of one image.

    Args:
        image: its name and its path.
        size: height and width in pixels, as it went into the network.
        maps: name -> (C, h, w) or (C,).
    """

    image: ImageSource
    size: tuple[int, int]
    maps: dict[str, Tensor]

    @property
    def entry(self) -> list[Any]:
        """What an index has of it."""
        return [self.image.name, *self.size, self.image.identity]


@dataclass
class ShardWriter:
    """Collects rows, and writes a shard whenever there are enough.

    Args:
        folder: where shards go.
        rank: of this process; it is part of every file's name, so that no two processes write the same file.
        file_format: "safetensors" or "parquet".
        pool: whether maps are vectors.
        metadata: written into every shard.
        shard_images: rows of a shard.
    """

    folder: AnyPath
    rank: int
    file_format: str
    pool: bool
    metadata: Mapping[str, str]
    shard_images: int
    rows: list[Row] = field(default_factory=list)
    bytes: int = 0

    @cached_property
    def token(self) -> str:
        """On storage without locks, what keeps two runs of one rank from writing over each other's shards."""
        return f"-{secrets.token_hex(4)}" if isinstance(self.folder, RemotePath) else ""

    def add(self, rows: Iterable[Row]) -> None:
        """Keep rows, and write them once they fill a shard."""
        for row in rows:
            self.rows.append(row)
            self.bytes += sum(value.nbytes for value in row.maps.values())
            if len(self.rows) >= self.shard_images or self.bytes >= MOST_BYTES:
                self.flush()

    def flush(self) -> None:
        """Write what is kept: first the shard, then its line of the index. A kill between them loses nothing."""
        rows, self.rows, self.bytes = self.rows, [], 0  # first of all, so that an interruption writes none twice
        if not rows:
            return
        number = f"{self._next():06d}{self.token}"
        path = self.folder / f"part-{self.rank:05d}-{number}{FORMATS[self.file_format]}"
        write = _write_parquet if self.file_format == "parquet" else _write_safetensors
        metadata = {**self.metadata, IMAGES: json.dumps([row.entry for row in rows])}
        try:
            write_whole(path, lambda file: write(file, rows, self.pool, metadata))
            line = json.dumps({"shard": path.name, IMAGES: [row.entry for row in rows]})
            if isinstance(self.folder, RemotePath):  # an object can't be added to: one for each shard
                write_whole(self.folder / f"index-{path.stem[5:]}.jsonl", lambda file: file.write(line.encode()))
            else:
                _append(self.folder / f"index-{self.rank:05d}.jsonl", line)
        except OSError as error:
            raise DetrexBackbonesError(
                f"'{visible(path, LONGEST_PATH)}' can't be written: {visible(error.strerror or error)}. What was "
                f"written before is kept, and the same command goes on from there."
            ) from error

    def _next(self) -> int:
        numbers = [int(path.stem.split("-")[2]) for path in self.folder.glob(f"part-{self.rank:05d}-*")]
        return max(numbers, default=-1) + 1


def _append(file: Path, line: str) -> None:
    """A line that begins at the beginning of a line, also behind one that a kill has cut."""
    with file.open("ab") as opened:
        opened.write(f"\n{line}\n".encode())
        opened.flush()
        os.fsync(opened.fileno())


def list_shards(folder: AnyPath) -> dict[str, list[list[Any]]]:
    """File name of every shard -> [name, height, width, path] of its images, in the order of the names.

    By the index, and for a shard that it lacks, as after a kill, by what the shard itself says.

    Raises:
        InputError: a shard that can't be read.
    """
    known: dict[str, list[list[Any]]] = {}
    for text in _texts(folder, "index-*.jsonl"):
        for line in text.splitlines():
            try:
                content = json.loads(line) if line else {}
            except ValueError:  # cut by a kill
                continue
            if content:
                known[content["shard"]] = content[IMAGES]
    found: list[AnyPath] = [path for suffix in FORMATS.values() for path in folder.glob(f"part-*{suffix}")]
    files = sorted(found, key=lambda path: path.name)
    return {path.name: known[path.name] if path.name in known else _images_in(path) for path in files}


def _texts(folder: AnyPath, pattern: str) -> list[str]:
    if isinstance(folder, RemotePath):
        return folder.texts(pattern)
    return [path.read_text(encoding="utf-8", errors="replace") for path in sorted(folder.glob(pattern))]


def _images_in(shard: AnyPath) -> list[list[Any]]:
    path = local_copy(shard)
    try:
        if path.suffix == ".parquet":
            metadata = {
                key.decode(): text.decode() for key, text in import_parquet().read_schema(path).metadata.items()
            }
        else:
            from safetensors import safe_open

            with safe_open(path, framework="pt") as opened:
                metadata = opened.metadata()
        return json.loads(metadata[IMAGES])  # type: ignore[no-any-return]
    except DetrexBackbonesError:
        raise
    except Exception as error:  # of a library, or of a file that is another's
        raise InputError(
            f"'{visible(shard, LONGEST_PATH)}' can't be read as features: {visible(error)}. If it was damaged, delete "
            f"it: the same command computes its images again."
        ) from error


def _write_safetensors(file: Any, rows: Sequence[Row], pool: bool, metadata: dict[str, str]) -> None:
    from safetensors.torch import save

    if pool:
        tensors = {name: torch.stack([row.maps[name] for row in rows]) for name in rows[0].maps}
    else:
        tensors = {f"{index}.{name}": value for index, row in enumerate(rows) for name, value in row.maps.items()}
    file.write(save(tensors, metadata))


def read_safetensors(path: Path, pool: bool, row: int, names: Sequence[str]) -> dict[str, Tensor]:
    """The maps of one row; of the file only their bytes are read."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as opened:
        if pool:
            return {name: opened.get_slice(name)[row] for name in names}
        return {name: opened.get_tensor(f"{row}.{name}") for name in names}


def _write_parquet(file: Any, rows: Sequence[Row], pool: bool, metadata: dict[str, str]) -> None:
    import pyarrow

    columns: dict[str, Any] = {
        "name": [row.image.name for row in rows],
        "height": [row.size[0] for row in rows],
        "width": [row.size[1] for row in rows],
    }
    for name in rows[0].maps:
        matrix = torch.stack([row.maps[name] for row in rows])
        numbers = (matrix.float() if matrix.dtype == torch.bfloat16 else matrix).numpy()  # Parquet has no bfloat16
        columns[name] = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(numbers.reshape(-1)), matrix.shape[1])
    import_parquet().write_table(pyarrow.table(columns).replace_schema_metadata(metadata), file)


def read_parquet(path: Path, name: str) -> Tensor:
    """One column of vectors, as a matrix (rows, C)."""
    column = import_parquet().read_table(path, columns=[name], memory_map=True)[name].combine_chunks()
    return torch.from_numpy(np.array(column.flatten().to_numpy(zero_copy_only=False)).reshape(len(column), -1))


def import_parquet() -> Any:
    """`pyarrow.parquet`.

    Raises:
        InputError: it isn't installed.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise InputError("Parquet needs pyarrow: pip install 'detrex-backbones[parquet]'.") from error
    return pyarrow.parquet
