"""The bytes of a file: opened once, read by position, checked by their checksums while they are read.

Where the system can keep others from writing to the file (a lease, on Linux), it is mapped while it is open, so that a
load needs no second copy of it. Elsewhere it is read. What outlives the open file is always a copy.
"""

from __future__ import annotations

import io
import mmap
import os
import signal
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

try:  # four times as fast, where it is installed
    from isal.isal_zlib import crc32
except ImportError:
    from zlib import crc32

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = ["DamagedError", "OtherFormatError", "Piece", "Source", "open_source", "read_pieces"]

CHUNK = 1 << 20  # bytes that are read and counted at once, so that they are still in the processor's cache
UNIT = 1 << 22  # bytes that are worth a thread's while
GROUP = 1 << 26  # bytes that share one allocation
ALIGN = 64  # bytes; a tensor begins in memory where it would if the file began at such a multiple


class DamagedError(ValueError):
    """Bytes that aren't those that were written."""


class OtherFormatError(DamagedError):
    """A file that isn't read here, though it is whole.

    Args:
        what: it is: "is a tar archive".
        line: of Python that makes a file of it that is read, with FILE for its path; "" where none does.
    """

    def __init__(self, what: str, line: str = "") -> None:
        super().__init__(what)
        self.line = line


class Source:
    """A file or a buffer, as bytes at positions.

    Args:
        opened: read by position; where the system can, it isn't moved for it. None for a buffer.
        size: in bytes, as it was when it was opened.
        memory: all of the bytes, where they are in memory or mapped.
        mapped: whether `memory` is only good while the file is open.
    """

    def __init__(
        self, opened: io.FileIO | None, size: int, memory: memoryview | None = None, mapped: bool = False
    ) -> None:
        self._opened, self.size, self.memory, self.mapped = opened, size, memory, mapped
        self._lock = threading.Lock() if opened is not None else None

    @classmethod
    def of_memory(cls, data: bytes | memoryview) -> Source:
        """Bytes in memory. Those that can be written to belong to whoever reads them from now on, unless mapped."""
        view = memoryview(data)
        if view.readonly:
            view = memoryview(bytearray(view))
        return cls(None, len(view), view, isinstance(view.obj, mmap.mmap))

    def read_into(self, view: memoryview, start: int) -> None:
        """Fill a view with the bytes from `start` on.

        Raises:
            DamagedError: the file is shorter than it was when it was opened.
        """
        if self._opened is None:
            assert self.memory is not None
            view[:] = self.memory[start : start + len(view)]
            return
        done = 0
        while done < len(view):
            count = self._read_some(view[done:], start + done)
            if not count:
                raise DamagedError(f"the file ends at byte {start + done}, and was longer when it was opened")
            done += count

    def _read_some(self, view: memoryview, start: int) -> int:
        opened = self._opened
        assert opened is not None
        if hasattr(os, "preadv"):
            return os.preadv(opened.fileno(), [view], start)
        assert self._lock is not None
        with self._lock:
            opened.seek(start)
            return opened.readinto(view) or 0

    def read(self, start: int, size: int) -> bytes:
        """A copy of some of its bytes."""
        if start < 0 or size < 0 or start + size > self.size:
            raise DamagedError(f"bytes {start} to {start + size} lie outside the file of {self.size} bytes")
        if self._opened is not None and hasattr(os, "pread"):
            found = os.pread(self._opened.fileno(), size, start)
            if len(found) == size:
                return found
        data = bytearray(size)
        self.read_into(memoryview(data), start)
        return bytes(data)

    def read_whole(self) -> memoryview:
        """All of its bytes, mapped where they are, otherwise in memory that belongs to whoever reads them."""
        if self.memory is not None:
            return self.memory
        whole = _room([Piece(self, 0, self.size)])
        parts = (Piece(self, start, min(UNIT, self.size - start)) for start in range(0, self.size, UNIT))
        _run_jobs([(_read_all, [(part, whole[part.start :][: part.size])]) for part in parts])
        return whole


class Piece(NamedTuple):
    """Some bytes of a source.

    Args:
        source: they are in.
        start: bytes before them.
        size: in bytes.
        crc: CRC-32 of them; None where none was written.
        name: for messages.
    """

    source: Source
    start: int
    size: int
    crc: int | None = None
    name: str = ""


Views = list[tuple[Piece, memoryview]]
Job = tuple[Callable[[Views], None], Views]


@contextmanager
def open_source(path: str | Path) -> Iterator[Source]:
    """Open an ordinary file. A pipe or a device is refused without waiting for it.

    Raises:
        OSError: it isn't there, nobody may read it, or it is no ordinary file.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(descriptor, "rb", buffering=0) as opened:  # noqa: PTH123  (a descriptor)
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError("is no ordinary file")
        with _held_still(descriptor) as still:
            mapped = mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY) if still and found.st_size else None
            yield Source(opened, found.st_size, memoryview(mapped) if mapped else None, mapped is not None)


@contextmanager
def _held_still(descriptor: int) -> Iterator[bool]:
    """Keep everybody from writing to a file, if the system can and nobody has it open for writing.

    With a lease, whoever wants to write or to cut the file waits until the context ends. The signal that tells of it is
    one that nobody hears.
    """
    held = False
    if hasattr(fcntl, "F_SETLEASE"):
        with suppress(OSError):  # a file of somebody else, a file system without leases, a writer
            fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            held = True
    try:
        yield held
    finally:
        if held:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def read_pieces(pieces: Iterable[Piece], *, owned: bool = True) -> dict[Piece, memoryview]:
    """Read each piece once, on several threads, and compare its checksum.

    Args:
        pieces: of open sources.
        owned: whether the bytes have to outlive the sources; otherwise those of a mapped file stay where they are.

    Raises:
        DamagedError: a checksum is another, or the file has become shorter.
    """
    wanted = set(pieces)
    there = {piece for piece in wanted if piece.source.memory is not None and not (owned and piece.source.mapped)}
    found = {piece: piece.source.memory[piece.start : piece.start + piece.size] for piece in there}  # type: ignore[index]
    counted = [pair for pair in found.items() if pair[0].crc is not None]
    jobs: list[Job] = [(_compare_all, share) for share in _shares(counted)]
    for group in _neighbours(wanted - there, GROUP):
        room = _room(group)
        views = [(piece, room[piece.start - group[0].start :][: piece.size]) for piece in group]
        jobs += [(_read_all, share) for share in _shares(views)]
        found |= dict(views)
    _run_jobs(jobs)
    return found


def _run_jobs(jobs: list[Job]) -> None:
    """Do something with pieces, on several threads where there are several jobs."""
    threads = min(8, len(jobs), torch.get_num_threads())
    if threads < 2:
        for do, views in jobs:
            do(views)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda job: job[0](job[1]), jobs):
            pass


def _neighbours(pieces: set[Piece], size: int) -> Iterator[list[Piece]]:
    """Pieces that lie close together, at most so many bytes of them (or one that is larger) at a time."""
    group: list[Piece] = []
    for piece in sorted(pieces, key=lambda piece: (id(piece.source), piece.start)):
        if group and (
            group[0].source is not piece.source
            or piece.start + piece.size - group[0].start > size
            or piece.start > group[-1].start + group[-1].size + CHUNK
        ):
            yield group
            group = []
        group.append(piece)
    if group:
        yield group


def _room(group: list[Piece]) -> memoryview:
    """Memory for a group, in which each piece is as well aligned as it is in the file."""
    size = max(piece.start + piece.size for piece in group) - group[0].start
    room = np.empty(size + ALIGN, np.uint8)  # large ones of numpy's come in huge pages, which saves half of the time
    return memoryview(room.data)[(group[0].start - room.ctypes.data) % ALIGN :][:size]


def _shares(views: Views) -> Iterator[Views]:
    """Pieces by what is worth a thread's while."""
    share: Views = []
    held = 0
    for pair in views:
        share.append(pair)
        held += pair[0].size
        if held >= UNIT:
            yield share
            share, held = [], 0
    if share:
        yield share


def _read_all(views: Views) -> None:
    for piece, view in views:
        crc = 0
        for start in range(0, piece.size, CHUNK):
            chunk = view[start : start + CHUNK]
            piece.source.read_into(chunk, piece.start + start)
            if piece.crc is not None:
                crc = crc32(chunk, crc)
        _compare(piece, crc)


def _compare_all(views: Views) -> None:
    for piece, view in views:
        _compare(piece, crc32(view))


def _compare(piece: Piece, crc: int) -> None:
    if piece.crc is not None and crc != piece.crc:
        raise DamagedError(f"the checksum of {piece.name!r} is wrong: the file was damaged")
