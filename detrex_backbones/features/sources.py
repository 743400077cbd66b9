"""Which images there are, and what each is called: names that don't collide."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from detrex_backbones.errors import InputError, closest
from detrex_backbones.remote import is_remote
from detrex_backbones.text import LONGEST_PATH, visible

__all__ = ["EXTENSIONS", "ImageSource", "find_images", "is_url", "one_image"]

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".avif")
MAGIC = "*?["


@dataclass(frozen=True)
class ImageSource:
    """One image.

    Args:
        name: what it is called in the results: "cats/1.jpg".
        path: its file, or its URL.
    """

    name: str
    path: str

    @property
    def identity(self) -> str:
        """What tells it from others: its URL, or its absolute path; links are not followed."""
        return self.path if is_url(self.path) else os.path.abspath(self.path)  # noqa: PTH100

    def beside(self, known: Mapping[str, str]) -> ImageSource:
        """Itself, or, where its name is another image's already, called by its whole path.

        Args:
            known: name -> identity.
        """
        return self if known.get(self.name, self.identity) == self.identity else self.by_whole_path()

    def by_whole_path(self) -> ImageSource:
        """The same image by a name that no other has: its whole path, or its whole URL."""
        return ImageSource(self.path if is_url(self.path) else _posix(Path(self.identity)), self.path)


def find_images(sources: Iterable[str | os.PathLike[str]]) -> list[ImageSource]:
    """The images that are meant, each once, in the order given.

    Args:
        sources: folders (all images below them), image files, globs (`**` goes into folders), text files (`.txt`, a
            path or URL a line, from the folder of the text file), and URLs. An image is called by its path from the
            folder or from the fixed part of the glob, otherwise by its file's name; where two would be called alike,
            both are called by their whole path.

    Raises:
        InputError: a source that isn't there, or without images.
    """
    found: dict[str, ImageSource] = {}
    for source in sources:
        for image in _images_of(os.fspath(source)):
            found.setdefault(image.identity, image)
    counts = Counter(image.name for image in found.values())
    return [image if counts[image.name] == 1 else image.by_whole_path() for image in found.values()]


def is_url(text: str) -> bool:
    """Whether it is fetched, and not opened."""
    return text.lower().startswith(("http://", "https://")) or is_remote(text)


def one_image(source: str) -> ImageSource:
    """The image of a path or of a URL, whether or not it is there."""
    if is_url(source):
        parts = urlsplit(source)
        return ImageSource(f"{parts.hostname}{parts.path}", source)
    path = _as_path(source)
    return ImageSource(Path(path).name, path)


def _as_path(source: str) -> str:
    """The path that a file:// URL stands for; a path is given back as it is."""
    if not source.lower().startswith("file://"):
        return source
    from detrex_backbones.checkpoint.fetch import fetch_image

    return str(fetch_image(source))


def _images_of(source: str) -> Iterator[ImageSource]:
    source = _as_path(source)
    path = Path(source)
    if is_url(source):
        yield one_image(source)
    elif path.is_dir():
        yield from _in_folder(path)
    elif path.suffix.lower() == ".txt" and path.is_file():
        yield from _in_list(path)
    elif path.is_file():
        yield one_image(source)
    elif any(letter in source for letter in MAGIC):
        yield from _by_glob(source)
    else:
        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise InputError(
            f"'{visible(source, LONGEST_PATH)}' does not exist.{closest(path.name, beside)} Give images, folders, "
            f"globs, a .txt with a path a line, or URLs."
        )


def _in_folder(folder: Path) -> list[ImageSource]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS and path.is_file())
    if not paths:
        raise InputError(
            f"the folder '{visible(folder, LONGEST_PATH)}' holds no images. Known are {', '.join(EXTENSIONS)}."
        )
    return [ImageSource(path.relative_to(folder).as_posix(), str(path)) for path in paths]


def _by_glob(pattern: str) -> list[ImageSource]:
    fixed = Path(*Path(pattern).parts[: _first_magic(pattern)])
    paths = [Path(path) for path in sorted(glob.glob(pattern, recursive=True)) if Path(path).is_file()]  # noqa: PTH207
    if not paths:
        raise InputError(f"no file matches '{visible(pattern, LONGEST_PATH)}'.")
    return [ImageSource(path.relative_to(fixed).as_posix(), str(path)) for path in paths]


def _first_magic(pattern: str) -> int:
    return next(place for place, step in enumerate(Path(pattern).parts) if any(letter in step for letter in MAGIC))


def _in_list(file: Path) -> Iterator[ImageSource]:
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the list '{visible(file, LONGEST_PATH)}' can't be read: {visible(error)}.") from error
    if not any(lines):
        raise InputError(f"the list '{visible(file, LONGEST_PATH)}' is empty.")
    for line in filter(None, lines):
        if is_url(line) or line.lower().startswith("file://"):
            yield one_image(line)
        else:  # a line whose image is missing is told with the others that can't be read
            yield ImageSource(_posix(Path(line)), str(file.parent / line))


def _posix(path: Path) -> str:
    return path.as_posix().removeprefix(path.anchor.replace("\\", "/"))
