"""An image file, opened with care: what a stranger calls a photo may be anything, and of any size."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

from detrex_backbones.backbones.images.png_chunks import without_broken_chunks
from detrex_backbones.errors import InputError
from detrex_backbones.text import LONGEST_PATH, visible

__all__ = ["MOST_PIXELS", "open_image", "upright"]

MOST_PIXELS = 8192 * 8192  # decoded and as float32 they are 0.8 GB; a file of a few kB can say that it holds more

ORIENTATION = 0x0112  # the tag of EXIF and TIFF
# Its values but 1, upright -> the name of Pillow's operation that makes it so.
TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


@contextmanager
def open_image(path: str | Path | BinaryIO) -> Iterator[Any]:
    """An image file as a PIL image that is not decoded yet.

    Whatever decoding raises inside the `with` is an InputError. Chunks of a PNG file that are broken and that viewers
    do without, such as gAMA or tEXt, are left out, with a warning.

    Args:
        path: of any format that Pillow reads; or the opened file itself.

    Raises:
        InputError: a file that is missing, is no image, or holds more than `MOST_PIXELS`.
    """
    from PIL import Image

    opened = not isinstance(path, str | Path)
    shown = "the image" if opened else f"image '{visible(path, LONGEST_PATH)}'"
    what = "" if opened else _what_is_wrong(Path(str(path)))
    if what:
        raise InputError(f"{shown} {what}. Give the path of an image file (JPEG, PNG, ...).")
    try:
        with warnings.catch_warnings():
            # Of an image inside the image, whose size is known when it is decoded.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with _sound(path, shown) as file, Image.open(file) as image:
                width, height = image.size
                if width * height > MOST_PIXELS:
                    raise InputError(
                        f"{shown} has {height:,} x {width:,} pixels. At most {MOST_PIXELS:,} (8,192 x 8,192) are "
                        f"decoded, as the memory for more is not given to a file unseen. Scale it down or cut it first."
                    )
                yield image
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(
            f"{shown} holds more than the {MOST_PIXELS:,} pixels (8,192 x 8,192) that are decoded: {visible(error)} "
            f"Scale it down or cut it first."
        ) from error
    except Exception as error:  # what a damaged file sets off in a decoder is not foreseeable
        raise InputError(
            f"{shown} can't be read as an image: {visible(error)}. Is the file complete, and is it an image?"
        ) from error


@contextmanager
def _sound(path: str | Path | BinaryIO, shown: str) -> Iterator[Any]:
    """The opened file without what of a PNG viewers do without, where it is broken; says so."""
    if not isinstance(path, str | Path) and not path.seekable():
        yield path
        return
    with Path(path).open("rb") if isinstance(path, str | Path) else nullcontext(path) as file:
        sound, broken = without_broken_chunks(file)
        if broken:
            chunks = "chunk" if len(broken) == 1 else "chunks"
            what = f"{shown}: the PNG {chunks} {visible(', '.join(broken))} can't be read: it is read without."
            warnings.warn(what, UserWarning, stacklevel=5)
        yield sound


def upright(image: Any, name: str) -> Any:
    """An open image, decoded and turned as its EXIF data asks for; of an animation the first frame.

    Viewers show an image whose EXIF data is broken, so that it is read as it is stored. Warns of that, and of frames
    that are left out.

    Args:
        image: as `open_image` gives it.
        name: of the file, for the warnings; "" where it isn't known.
    """
    from PIL import Image

    image.load()  # before its EXIF data: TIFF files are turned by this, PNG files may have theirs at the end
    try:
        turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception as error:  # what broken data sets off is not foreseeable
        turn = None
        _say(name, f"its EXIF data can't be read ({visible(error)}): it is taken as it is stored, not turned")
    turned = image.transpose(Image.Transpose[turn]) if turn else image.copy()
    if _is_animated(image):
        _say(name, "it has more than one frame: the first is read")
    return turned


def _is_animated(image: Any) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # of what is behind the first frame, which was read
        return False


def _say(name: str, what: str) -> None:
    shown = f"image '{visible(name, LONGEST_PATH)}'" if name else "an image"
    warnings.warn(f"{shown}: {what}.", UserWarning, stacklevel=4)


def _what_is_wrong(path: Path) -> str:
    """Why a path is not that of a file; "" where it is. Reading a pipe or a device might never end."""
    try:
        if path.is_file():
            return ""
        return "is a folder" if path.is_dir() else "is no ordinary file" if path.exists() else "does not exist"
    except OSError as error:  # a name that is too long
        return f"can't be looked at: {visible(error.strerror)}"
