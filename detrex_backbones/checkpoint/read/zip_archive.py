"""The directory of a zip archive: name -> the bytes of the file that an entry is.

One strict reading. What two readers could understand in two ways (a second directory, names that are equal but for
case, an entry whose own header says something else) is refused, so there is nothing to choose between.
Source: PKWARE's APPNOTE.TXT 6.3.9, and what `torch.save` and `numpy.savez` write.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from detrex_backbones.checkpoint.read.source import DamagedError, Piece, Source, read_pieces

__all__ = ["ArchiveError", "ZipArchive"]

END = struct.Struct("<4s4H2IH")  # end of the directory
END_64 = struct.Struct("<4sQ2H2I4Q")
LOCATOR = struct.Struct("<4sIQI")
ENTRY = struct.Struct("<4s6H3I5H2I")
LOCAL = struct.Struct("<4s5H3I2H")

ENCRYPTED, SIZES_FOLLOW, UTF_8 = 0x01, 0x08, 0x800
KNOWN_FLAGS = SIZES_FOLLOW | UTF_8
USUAL_EXTRA = 128  # bytes; torch fills up to a multiple of 64
NAME_BYTES = 255  # readers written in C cut longer ones


class ArchiveError(DamagedError):
    """An archive that is damaged, or that readers could understand in several ways."""


@dataclass(frozen=True)
class _Header:
    """What the directory says of an entry."""

    name: bytes
    flags: int
    crc: int
    size: int
    start: int  # of its own header
    packed: str  # how, "" where it's stored as it is


class ZipArchive:
    """A zip archive whose entries are stored as they are.

    Args:
        source: the bytes that it stands in.
        start: of its first byte there.
        size: in bytes; None for all that follows.

    Raises:
        ArchiveError: see above.
    """

    def __init__(self, source: Source, start: int = 0, size: int | None = None) -> None:
        self._source, self._start = source, start
        self._size = source.size - start if size is None else size
        directory, end, count = self._directory()
        headers = list(_headers(self._read(directory, end - directory), count))
        self._with_checksums = any(header.crc for header in headers)  # torch can be told to write none: then all are 0
        self._headers, self._end = headers, directory
        self.names = [header.name.decode("utf-8", "replace") for header in headers]

    @property
    def compressed(self) -> bool:
        """Whether an entry is, so that none is read."""
        return any(header.packed == "compressed" for header in self._headers)

    @cached_property
    def entries(self) -> dict[str, Piece]:
        """Name -> bytes of each entry, where all of them are as a checkpoint's are."""
        return self._entries(self._headers, self._end)

    def read(self, name: str) -> bytes:
        """The bytes of an entry, whose checksum is right."""
        piece = self.entries[name]
        return bytes(read_pieces([piece])[piece])

    def _read(self, at: int, size: int) -> bytes:
        if at < 0 or at + size > self._size:
            raise ArchiveError("its directory points outside the file")
        return self._source.read(self._start + at, size)

    def _directory(self) -> tuple[int, int, int]:
        """Where the directory starts and ends, and how many entries it has."""
        at = self._size - END.size
        magic, disk, first_disk, here, count, size, start, comment = END.unpack(self._read(at, END.size))
        if magic != b"PK\x05\x06" or comment:
            raise ArchiveError(
                "the directory of the zip archive is not at its end: the file is cut, or is no zip archive"
            )
        if disk or first_disk or here != count:
            raise ArchiveError("it is a part of an archive of several files")
        end = at
        place = at - LOCATOR.size
        locator = LOCATOR.unpack(self._read(place, LOCATOR.size)) if place >= 0 else (b"",)
        if locator[0] == b"PK\x06\x07":
            end, count, size, start = self._directory_64(place, locator, (count, size, start))
        elif count == 0xFFFF or 0xFFFFFFFF in (size, start):
            raise ArchiveError("the end of its directory is damaged")
        if start + size != end:
            raise ArchiveError("its directory is not where the end of it says")
        return start, end, count

    def _directory_64(self, place: int, locator: tuple[int, ...], narrow: tuple[int, ...]) -> tuple[int, int, int, int]:
        """The same from the wide record, which must agree with the narrow one and stand right before the locator."""
        end = place - END_64.size
        magic, length, _, _, disk, first_disk, here, *wide = END_64.unpack(self._read(end, END_64.size))
        agrees = all(
            short in (long, limit) for short, long, limit in zip(narrow, wide, (0xFFFF, *2 * [0xFFFFFFFF]), strict=True)
        )
        if (
            magic != b"PK\x06\x06"
            or length != END_64.size - 12
            or disk
            or first_disk
            or here != wide[0]
            or not agrees
            or locator[1:] != (0, end, 1)
        ):
            raise ArchiveError("the two ends of its directory disagree")
        count, size, start = wide
        return end, count, size, start

    def _entries(self, headers: list[_Header], directory: int) -> dict[str, Piece]:
        found: dict[str, Piece] = {}
        folded: set[str] = set()
        end = 0
        for header in sorted(headers, key=lambda header: header.start):
            name = _checked_name(header)
            if header.packed:
                raise ArchiveError(f"its entry {name!r} is {header.packed}, which entries of checkpoints never are")
            if name.casefold() in folded:
                raise ArchiveError(f"two entries are called {name!r}")
            folded.add(name.casefold())
            if header.start < end:
                raise ArchiveError(f"its entry {name!r} overlaps the one before it")
            start = self._data_start(header, name)
            end = start + header.size
            if end > directory:
                raise ArchiveError(f"its entry {name!r} reaches past its place")
            crc = header.crc if self._with_checksums else None
            found[name] = Piece(self._source, self._start + start, header.size, crc, name)
        return found

    def _data_start(self, header: _Header, name: str) -> int:
        """Where the bytes of an entry start: behind its own header, which must say what the directory says."""
        first = LOCAL.size + len(header.name)
        local = self._read(header.start, min(first + USUAL_EXTRA, self._size - header.start))
        if len(local) < first:
            raise ArchiveError(f"its entry {name!r} is cut")
        magic, _, flags, method, _, _, crc, packed, size, name_size, extra_size = LOCAL.unpack_from(local)
        if (magic, local[LOCAL.size : first], name_size) != (b"PK\x03\x04", header.name, len(header.name)):
            raise ArchiveError(f"its entry {name!r} is not where the directory says")
        if 0xFFFFFFFF in (packed, size):
            packed, size = _wide_numbers(self._read(header.start + first, extra_size), (packed, size))
        same = (crc, packed, size) == (header.crc, header.size, header.size)
        later = flags & SIZES_FOLLOW and not crc and not packed and not size
        if flags != header.flags or method or not (same or later):
            raise ArchiveError(f"its entry {name!r} and the directory disagree about it")
        return header.start + first + int(extra_size)


def _headers(data: bytes, count: int) -> Iterator[_Header]:
    at = found = 0
    while at < len(data):
        if at + ENTRY.size > len(data):
            raise ArchiveError("its directory is cut")
        magic, _, _, flags, method, _, _, crc, packed, size, *sizes, disk, _, _, start = ENTRY.unpack_from(data, at)
        name_size, extra_size, comment_size = sizes
        at += ENTRY.size
        name = bytes(data[at : at + name_size])
        extra = data[at + name_size : at + name_size + extra_size]
        at += name_size + extra_size + comment_size
        if magic != b"PK\x01\x02" or at > len(data) or disk:
            raise ArchiveError("its directory is damaged")
        if 0xFFFFFFFF in (size, packed, start):
            size, packed, start = _wide_numbers(extra, (size, packed, start))
        strange = method or packed != size or flags & ~KNOWN_FLAGS
        how = "" if not strange else "encrypted" if flags & ENCRYPTED else "compressed"
        found += 1
        yield _Header(name, flags, crc, size, start, how)
    if found != count:
        raise ArchiveError(f"its directory has {found} entries and says that it has {count}")


def _wide_numbers(extra: bytes, numbers: tuple[int, ...]) -> list[int]:
    """Numbers that didn't fit into 32 bits, from the extra field that holds them in this order."""
    wide = iter(())
    at = seen = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, at)
        if at + 4 + size > len(extra):
            break
        if kind == 1:
            seen += 1
            wide = iter(struct.unpack_from(f"<{size // 8}Q", extra, at + 4))
        at += 4 + size
    if seen > 1:
        raise ArchiveError("an entry has its size twice")
    return [next(wide, number) if number == 0xFFFFFFFF else number for number in numbers]


def _checked_name(header: _Header) -> str:
    try:
        name = header.name.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ArchiveError(f"an entry has the name {header.name!r}, which is no text") from error
    steps = name.split("/")
    if (
        len(header.name) > NAME_BYTES
        or not name.isprintable()
        or not all(steps)
        or {".", ".."} & {*steps}
        or "\\" in name
    ):
        raise ArchiveError(f"an entry has the name {name[:80]!r}, which no checkpoint has")
    return name
