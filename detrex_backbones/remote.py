"""Files on object storage and on the Hugging Face hub: read through a copy in the cache, written whole, by fsspec."""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from detrex_backbones.cache import cache_folder, clean_step, keep
from detrex_backbones.errors import ArgumentError, RemoteError
from detrex_backbones.text import LONGEST_PATH, visible

__all__ = ["AnyPath", "RemotePath", "as_path", "is_remote", "local_copy"]

logger = logging.getLogger(__name__)

# Scheme -> the package that speaks it, and where it looks for credentials.
DRIVERS = {
    "s3": ("s3fs", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile by AWS_PROFILE, as of the AWS CLI"),
    "gs": ("gcsfs", "gcloud auth application-default login, or GOOGLE_APPLICATION_CREDENTIALS=file.json"),
    "hf": ("huggingface_hub", "hf auth login, or HF_TOKEN"),
}
SCHEME = re.compile(rf"({'|'.join(DRIVERS)})://", re.IGNORECASE)
# Names of the drivers' exceptions, which can't be imported where the driver isn't installed.
NO_CREDENTIALS = re.compile(r"Credential|ProfileNotFound|TokenRetrieval|TokenNotFound|UnauthorizedSSOToken")
NO_CONNECTION = re.compile(r"Connect|Timeout|gaierror|OfflineMode|HTTPClientError|ServerDisconnected")


def is_remote(name: object) -> bool:
    """Whether a name is that of a file which fsspec reaches: s3://, gs:// or hf://."""
    return isinstance(name, str) and SCHEME.match(name) is not None


@dataclass(frozen=True, order=True)
class RemotePath:
    """A file or a folder of remote storage, with those methods of `pathlib.Path` that this library needs.

    Folders need not be made there. A method that asks the storage raises `RemoteError` where it gives no answer.

    Args:
        scheme: "s3", "gs" or "hf".
        path: "bucket/folder/file".
    """

    scheme: str
    path: PurePosixPath

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path}"

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(self.scheme, self.path / name)

    name = property(lambda self: str(self.path.name))
    stem = property(lambda self: str(self.path.stem))
    suffix = property(lambda self: str(self.path.suffix))

    @property
    def parent(self) -> RemotePath:
        """The folder."""
        return RemotePath(self.scheme, self.path.parent)

    def with_name(self, name: str) -> RemotePath:
        """Another file of the same folder."""
        return RemotePath(self.scheme, self.path.with_name(name))

    @property
    def bucket(self) -> str:
        """The bucket, or the hub's repository."""
        steps = self.path.parts
        typed = steps[0] in ("datasets", "spaces", "buckets")
        return "/".join(steps[: 1 if self.scheme != "hf" else 3 if typed else 2])

    def exists(self) -> bool:
        """Whether there is such a file, or files below it."""
        with self._told("read") as storage:
            return bool(storage.exists(str(self.path)))

    def mkdir(self, *, parents: bool = True, exist_ok: bool = True) -> None:
        """Nothing needs to be made; whether the bucket is there is looked at, as far as the credentials allow."""
        with self._told("written") as storage:
            try:
                storage.info(self.bucket)
            except PermissionError:  # one may be allowed to write, and not to look
                return

    def is_dir(self) -> bool:
        """Whether files can be put below it: always, unless the bucket can't be reached, which is an error."""
        self.mkdir()
        return True

    def read_text(self, encoding: str = "utf-8") -> str:
        """What is in a small file."""
        with self._told("read") as storage:
            return str(storage.cat_file(str(self.path)), encoding)

    def glob(self, pattern: str) -> list[RemotePath]:
        """The files of the folder whose names match, sorted."""
        with self._told("read") as storage:
            try:
                found = storage.ls(str(self.path), detail=False)
            except FileNotFoundError:
                storage.info(self.bucket)  # nothing has been written yet, or there is no bucket
                found = []
        names = [PurePosixPath(path).name for path in found]
        return [self / name for name in sorted(fnmatch.filter(names, pattern))]

    def texts(self, pattern: str) -> list[str]:
        """What is in the small files of the folder whose names match, asked for at once."""
        paths = [str(file.path) for file in self.glob(pattern)]
        with self._told("read") as storage:
            found = storage.cat(paths) if paths else {}
        return [found[path].decode("utf-8", "replace") for path in paths]

    def write_whole(self, write: Callable[[Any], object]) -> None:
        """Write the file here first and put it there in one piece: others see the old one, the new one, never a part.

        Args:
            write: given an opened binary file of this machine.
        """
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / self.name
            with file.open("wb") as opened:
                write(opened)
            with self._told("written") as storage:
                storage.put_file(str(file), str(self.path))

    def info(self) -> dict[str, Any]:
        """What the storage says of the file: "size", and "version", which another content doesn't have.

        Raises:
            RemoteError: it isn't there, or is a folder.
        """
        with self._told("read") as storage:
            found = storage.info(str(self.path))
            if found["type"] == "directory":
                raise IsADirectoryError(errno.EISDIR, "it is a folder: name a file of it")
        keys = ("ETag", "etag", "blob_id", "LastModified", "mtime")
        return {"size": found["size"], "version": str(next((found[key] for key in keys if found.get(key)), ""))}

    def fetch(self, file: Any, wrong: Callable[[Path], str]) -> None:
        """Fill an opened file with the content, and see that all of it came; see `local_copy`."""
        from fsspec.callbacks import TqdmCallback

        before = self.info()
        # disable=None: only on a terminal.
        bar = TqdmCallback({"unit": "B", "unit_scale": True, "desc": visible(self.name), "disable": None})
        with self._told("read") as storage:
            storage.get_file(str(self.path), file.name, callback=bar)
            bar.close()
        size = os.stat(file.name).st_size  # noqa: PTH116
        if self.info() != before:
            raise self._error("read", "it was replaced while it was read. Read it again")
        if size != before["size"]:
            raise self._error("read", f"{size:,} bytes were received, {before['size']:,} were announced")
        reason = wrong(Path(file.name))
        if reason:
            raise self._error("read", reason)

    @contextmanager
    def _told(self, doing: str) -> Iterator[Any]:
        """The file system of the driver; whatever it raises becomes a sentence of ours."""
        try:
            import fsspec

            storage = fsspec.filesystem(self.scheme)
            storage.invalidate_cache()  # what it listed before may have changed
            yield storage
        except RemoteError:
            raise
        except Exception as error:  # each driver has errors of its own
            raise self._error(doing, *self._reason(error)) from error

    def _error(self, doing: str, reason: str, offline: bool = False) -> RemoteError:
        shown = visible(" ".join(reason.split()), longest=400)
        error = RemoteError(f"'{visible(self, LONGEST_PATH)}' can't be {doing}: {shown}.")
        error.strerror, error.offline = shown, offline
        return error

    def _reason(self, error: Exception) -> tuple[str, bool]:
        """What an error of the driver means, and whether it is that there is no network."""
        driver, credentials = DRIVERS[self.scheme]
        kinds = " ".join(kind.__name__ for kind in type(error).__mro__)
        if isinstance(error, ImportError):
            return f"{self.scheme}:// needs {driver}, which is not installed: pip install {driver}", False
        if NO_CREDENTIALS.search(kinds):
            return f"no credentials were found ({error}): {credentials}", False
        if isinstance(error, PermissionError):
            return f"the storage refuses these credentials ({error}): {credentials}", False
        if isinstance(error, FileNotFoundError):
            return self._what_is_missing(), False
        if NO_CONNECTION.search(kinds):
            return f"no connection ({error}); is there a network?", True
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return said or type(error).__name__, False

    def _what_is_missing(self) -> str:
        import fsspec

        kind = "repository" if self.scheme == "hf" else "bucket"
        try:
            fsspec.filesystem(self.scheme).info(self.bucket)
        except FileNotFoundError:
            return f"there is no {kind} {self.bucket!r}"
        except Exception:  # one may be allowed to read, and not to look
            return "there is no such file"
        return f"there is no such file in the {kind} {self.bucket!r}"


AnyPath = Path | RemotePath


def as_path(name: str | os.PathLike[str] | RemotePath) -> AnyPath:
    """A path of this machine, or of remote storage where the name has one of its schemes.

    Raises:
        ArgumentError: a URL without a bucket, or one that goes up by "..".
    """
    if isinstance(name, RemotePath):
        return name
    match = SCHEME.match(os.fspath(name))
    if match is None:
        return Path(name)
    steps = os.fspath(name)[match.end() :].removesuffix("/").split("/")
    if not {"", ".", ".."}.isdisjoint(steps):
        raise ArgumentError(
            f"{visible(name)!r} can't be read. The form is {match[1].lower()}://bucket/folder/file, without '..'."
        )
    return RemotePath(match[1].lower(), PurePosixPath(*steps))


def local_copy(path: AnyPath, wrong: Callable[[Path], str] = lambda part: "") -> Path:
    """A file of this machine with the content that a remote one has now.

    It is asked for the version each time, and fetched where the cache doesn't have that one. Without a network the copy
    that was fetched last is given, with a warning.

    Args:
        path: one of this machine is given back.
        wrong: looks at what came before it gets its name, and says what is wrong with it, or "".

    Raises:
        RemoteError: it can't be had.
        CheckpointFileError: the cache can't be used.
    """
    if isinstance(path, Path):
        return path
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    folder = cache_folder().joinpath(path.scheme, *map(clean_step, path.parent.path.parts))
    name = clean_step(path.name)
    try:
        info = path.info()
    except RemoteError as error:
        kept = sorted(folder.glob(f"{digest}-*/{name}"), key=lambda file: file.stat().st_mtime)
        if not error.offline or not kept:
            raise
        logger.warning("%s The copy that was fetched last is taken: %s", error, visible(kept[-1], LONGEST_PATH))
        return kept[-1]
    version = hashlib.sha256(f"{info['version']} {info['size']}".encode()).hexdigest()[:16]
    return keep(folder / f"{digest}-{version}" / name, str(path), lambda file: path.fetch(file, wrong))
