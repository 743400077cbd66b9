"""PNG files whose ancillary chunks are broken: viewers show them without those, where Pillow refuses the file."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

__all__ = ["without_broken_chunks"]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
OF_FRAMES = (b"fcTL", b"fdAT")  # of an animation; their order counts, and the first picture needs none of them
EMPTY = 12  # bytes of a chunk without content: length, name, checksum


class _Chunk(NamedTuple):
    name: bytes
    start: int
    end: int

    @property
    def is_ancillary(self) -> bool:
        return self.name[:1].islower()


def without_broken_chunks(file: BinaryIO) -> tuple[BinaryIO, list[str]]:
    """The file itself, at its beginning; of a PNG file with broken ancillary chunks a copy in memory without them.

    A chunk is broken if Pillow can't open the header of the file with it.

    Args:
        file: an opened file of any format, seekable.

    Returns:
        The file, and the names of the chunks that were left out.
    """
    file.seek(0)
    if file.read(len(SIGNATURE)) != SIGNATURE:
        file.seek(0)
        return file, []
    chunks = list(_chunks(file))
    header = [chunk for chunk in chunks if chunk.name in (b"IHDR", b"PLTE")][:2]
    asked = [chunk for chunk in chunks if chunk.is_ancillary and chunk.name not in OF_FRAMES]
    broken: list[_Chunk] = []
    if not _opens(file, header + asked) and _opens(file, header):
        broken = [chunk for chunk in asked if not _opens(file, [*header, chunk])]
    if not broken:
        file.seek(0)
        return file, []
    kept = io.BytesIO(SIGNATURE + b"".join(_content(file, [chunk for chunk in chunks if chunk not in broken])))
    return kept, [chunk.name.decode("latin-1") for chunk in broken]


def _chunks(file: BinaryIO) -> Iterator[_Chunk]:
    start = len(SIGNATURE)
    end = file.seek(0, io.SEEK_END)
    while start < end:
        file.seek(start)
        head = file.read(8)
        if len(head) < 8:
            return
        length, name = struct.unpack(">I4s", head)
        yield _Chunk(name, start, start + EMPTY + length)
        start += EMPTY + length


def _content(file: BinaryIO, chunks: Iterable[_Chunk]) -> Iterator[bytes]:
    for chunk in chunks:
        file.seek(chunk.start)
        yield file.read(chunk.end - chunk.start)


def _opens(file: BinaryIO, chunks: Iterable[_Chunk]) -> bool:
    """Whether Pillow takes a file that begins with these chunks; the image data isn't read."""
    from PIL import Image

    content = SIGNATURE + b"".join(_content(file, chunks))
    try:
        with Image.open(io.BytesIO(content + struct.pack(">I4sI", 0, b"IDAT", zlib.crc32(b"IDAT")))):
            return True
    except Image.DecompressionBombError:  # of its size, which is said where the whole file is opened
        return True
    except Exception:  # what broken data sets off is not foreseeable
        return False
