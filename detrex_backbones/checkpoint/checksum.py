"""Whether a torch file is what was written: its zip directory, and the checksum of every entry.

`torch.load` maps a file without looking at checksums, so a byte that was flipped on its way would be a wrong weight.
They are looked at here: the directory first, then the whole file once, at the speed of zlib, on several threads, while
the names and shapes in it are read.
"""

from __future__ import annotations

import contextlib
import mmap
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

__all__ = ["Entry", "checked_archive"]

DIRECTORY_BYTES = 1 << 23  # a tensor takes about seventy
SHARE = 1 << 22  # bytes

END, END_64, END_64_PLACE = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
ENTRY, LOCAL = b"PK\x01\x02", b"PK\x03\x04"
ENTRY_FIELDS = struct.Struct("<4s4xHH4xIIIHHHHHII")
LOCAL_FIELDS = struct.Struct("<4s22xHH")
UNKNOWN_16, UNKNOWN_32 = 0xFFFF, 0xFFFFFFFF  # the number stands in an extra field, with 64 bits

ENCRYPTED = 1


@dataclass(frozen=True)
class Entry:
    """One file of an archive.

    Args:
        name: with the folder before it.
        start: bytes before it in the archive.
        size: its bytes.
        crc: what its CRC-32 was when it was written.
        stored: as it is, and neither compressed nor encrypted.
    """

    name: str
    start: int
    size: int
    crc: int
    stored: bool


@contextlib.contextmanager
def checked_archive(path: Path) -> Iterator[list[Entry]]:
    """What is in a zip file that torch wrote. At the end of the context it is certain that it is what was written.

    torch can write files without checksums: zero for every entry. Of these only the directory is checked.

    Raises:
        ValueError: it is TorchScript's, the directory contradicts itself or the file, or an entry is compressed, at
            the beginning; a checksum is another, at the end, whatever was raised in between.
    """
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    view = memoryview(mapped)
    try:
        entries = list(_entries(view, mapped))
    except struct.error as error:
        raise ValueError("the directory of the zip file is damaged") from error
    _check_kind(entries)
    entries.sort(key=lambda entry: entry.start)
    _check_apart(entries, len(view))
    shares = _shares(entries) if any(entry.crc for entry in entries) else []
    with ThreadPoolExecutor(max(1, min(8, torch.get_num_threads()))) as pool:
        counted = [pool.submit(_damaged, view, share) for share in shares]
        try:
            yield entries
        finally:
            damaged = [name for share in counted for name in share.result()]
            if damaged:
                raise ValueError(f"the checksum of {damaged[0]!r} is not the one that was written")


def _entries(view: memoryview, mapped: mmap.mmap) -> Iterator[Entry]:
    at, size, count = _directory(view, mapped)
    if size > DIRECTORY_BYTES:
        raise ValueError(f"its directory of {size} bytes is larger than weights need")
    names: set[str] = set()
    end = at + size
    while at < end:
        magic, flags, method, crc, packed, whole, name, extra, comment, *_, start = ENTRY_FIELDS.unpack_from(view, at)
        if magic != ENTRY:
            raise ValueError("the directory of the zip file is damaged")
        at += ENTRY_FIELDS.size
        text = str(view[at : at + name], "utf-8")
        packed, whole, start = _numbers_64(view[at + name : at + name + extra], (whole, packed, start))
        at += name + extra + comment
        if text in names:
            raise ValueError(f"two entries are called {text!r}")
        if ".." in text.split("/") or text.startswith("/") or "\\" in text or "\0" in text:
            raise ValueError(f"an entry is called {text!r}, which leads out of the archive")
        names.add(text)
        stored = not method and packed == whole and not flags & ENCRYPTED
        yield Entry(text, _data_start(view, start, text), packed, crc, stored)
    if len(names) != count or at != end:
        raise ValueError(f"its directory has {len(names)} entries and says that it has {count}")


def _directory(view: memoryview, mapped: mmap.mmap) -> tuple[int, int, int]:
    """Where the directory starts, its size, and how many entries it has."""
    end = len(view) - 22  # torch puts no comment behind it
    if end < 0 or view[end : end + 4] != END:
        end = mapped.rfind(END)
        raise ValueError("the directory of the zip file is not at its end" if end >= 0 else "the zip file has no end")
    count, size, start = struct.unpack_from("<HII", view, end + 10)
    if count == UNKNOWN_16 or UNKNOWN_32 in (size, start):
        place = end - 20
        if place < 0 or view[place : place + 4] != END_64_PLACE:
            raise ValueError("the directory of the zip file is damaged")
        end = struct.unpack_from("<Q", view, place + 8)[0]
        if view[end : end + 4] != END_64:
            raise ValueError("the directory of the zip file is damaged")
        count, size, start = struct.unpack_from("<QQQ", view, end + 32)
    if start + size > end:
        raise ValueError("the directory of the zip file reaches past its end")
    return start, size, count


def _numbers_64(extra: memoryview, numbers: tuple[int, int, int]) -> tuple[int, int, int]:
    """Size, packed size and start, read from the extra field where they didn't fit into 32 bits."""
    whole, packed, start = numbers
    at = 0
    while UNKNOWN_32 in (whole, packed, start) and at + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            wide = iter(struct.unpack_from(f"<{size // 8}Q", extra, at + 4))
            whole, packed, start = (next(wide, n) if n == UNKNOWN_32 else n for n in (whole, packed, start))
            break
        at += 4 + size
    return packed, whole, start


def _data_start(view: memoryview, start: int, name: str) -> int:
    """Where the bytes of an entry start: behind the header that stands before them, and that must be of this entry."""
    magic, name_size, extra_size = LOCAL_FIELDS.unpack_from(view, start)
    first = start + LOCAL_FIELDS.size
    if magic != LOCAL or view[first : first + name_size] != name.encode():
        raise ValueError(f"its entry {name!r} is not where the directory says")
    return int(first + name_size + extra_size)


def _check_kind(entries: list[Entry]) -> None:
    """Refuse TorchScript's archives and others that torch's `save` doesn't write."""
    if any(entry.name.rpartition("/")[2] == "constants.pkl" for entry in entries):
        raise ValueError("a TorchScript archive holds a program; save the module's state_dict() instead")
    for entry in entries:
        if not entry.stored:
            raise ValueError(f"its entry {entry.name!r} is compressed or encrypted, which torch never does")


def _check_apart(entries: list[Entry], size: int) -> None:
    """Refuse entries that overlap or reach past the end: a small file may then unfold into a large one."""
    end, before = 0, ""
    for entry in entries:
        if entry.start < end:
            raise ValueError(f"its entries {before!r} and {entry.name!r} overlap")
        end, before = entry.start + entry.size, entry.name
        if end > size:
            raise ValueError(f"its entry {entry.name!r} reaches past the end of the file")


def _shares(entries: list[Entry]) -> list[list[Entry]]:
    """Entries by what is worth a thread's while."""
    shares: list[list[Entry]] = [[]]
    held = 0
    for entry in entries:
        if held >= SHARE:
            shares.append([])
            held = 0
        shares[-1].append(entry)
        held += entry.size
    return shares


def _damaged(view: memoryview, entries: list[Entry]) -> list[str]:
    # zlib lets other threads run while it counts.
    return [entry.name for entry in entries if zlib.crc32(view[entry.start : entry.start + entry.size]) != entry.crc]
