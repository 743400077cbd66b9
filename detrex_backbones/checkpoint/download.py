"""From a URL to a file in the cache: once, checked, and never half of it."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import re
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from detrex_backbones.errors import CheckpointFileError

__all__ = ["Patience", "cache_folder", "cache_path", "download", "hash_in_name"]

logger = logging.getLogger(__name__)

BLOCK = 1 << 20
# By torch.hub's and OpenMMLab's convention; eight decimal digits alone are rather a date.
NAME_HASH = re.compile(r"-(?=[0-9]*[a-f])([0-9a-f]{8,64})\.\w+(?:\.\w+)?$")
ALGORITHMS = {"sha256": hashlib.sha256, "sha1": hashlib.sha1, "md5": hashlib.md5}
# Statuses after which the same request may succeed.
TEMPORARY = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server.

    Args:
        attempts: how often to ask before giving up.
        backoff: seconds before the second attempt; doubled each time.
        timeout: seconds without a byte.
    """

    attempts: int = 4
    backoff: float = 1.0
    timeout: float = 30.0


PATIENCE = Patience()


class _FailedError(Exception):
    """An attempt that failed; `again` says whether another may succeed."""

    def __init__(self, reason: str, again: bool = False) -> None:
        # Servers write some of it: no line breaks and nothing that a terminal would obey.
        shown = "".join(letter if letter.isprintable() else " " for letter in reason)
        super().__init__(" ".join(shown.split())[:300])
        self.again = again


def cache_folder() -> Path:
    """`DETREX_BACKBONES_CACHE`, or `detrex_backbones` in the user's cache folder (`XDG_CACHE_HOME`, ~/.cache)."""
    own = os.environ.get("DETREX_BACKBONES_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "detrex_backbones"


def cache_path(url: str) -> Path:
    """Where the file of a URL lies in the cache, or would: `<cache>/<host>/<path of the URL>`."""
    parts = urllib.parse.urlsplit(url)
    steps = [urllib.parse.unquote(step) for step in parts.path.split("/")]
    steps = [re.sub(r"[^\w.+() -]", "_", step) for step in steps if step not in ("", ".", "..")]
    if not steps or not parts.hostname:
        raise CheckpointFileError(f"{url!r} names no file. Give the whole URL: https://host/folder/file.pth.")
    if parts.query:  # another query is another file
        steps[-1] = f"{hashlib.sha256(parts.query.encode()).hexdigest()[:8]}_{steps[-1]}"
    host = parts.hostname + (f"_{parts.port}" if parts.port else "")
    return cache_folder().joinpath(re.sub(r"[^\w.-]", "_", host), *steps)


def hash_in_name(url: str) -> str:
    """The hash that the name of a file carries, of whatever algorithm: "any:11ad3fa6"; "" for none."""
    match = NAME_HASH.search(urllib.parse.urlsplit(url).path)
    return f"any:{match[1]}" if match else ""


def download(url: str, hash: str = "", *, patience: Patience | None = None) -> Path:
    """The file of a URL: from the cache, or fetched into it.

    Processes that ask for the same file at once cause one download. A file appears in the cache only when it is whole,
    has the announced length and the expected hash. Certificates are verified, and nothing but http and https is
    followed. No credentials are sent.

    Args:
        url: http or https.
        hash: "sha256:11ad3fa6", the beginning of the digest; "any:..." for an algorithm that isn't known, "" for none.
        patience: None for `PATIENCE`.

    Raises:
        CheckpointFileError: it can't be had; the text says which file to put where by hand.
    """
    _check_url(url)
    target = cache_path(url)
    if target.is_file():
        return target
    patience = patience or PATIENCE
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _lock(url):
            if not target.is_file():  # it may have come while this process waited
                _fetch(url, hash, target, patience)
    except _FailedError as error:
        raise CheckpointFileError(f"can't download {url}: {error}. {_by_hand(url, hash, target)}") from error
    except OSError as error:
        raise CheckpointFileError(
            f"can't write {str(target)!r}: {error}. DETREX_BACKBONES_CACHE=/some/folder moves the cache."
        ) from error
    return target


def _check_url(url: str) -> None:
    try:
        parts = urllib.parse.urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise CheckpointFileError(f"{url!r} is no URL: {error}.") from error
    if parts.username or parts.password:
        raise CheckpointFileError(
            f"the URL of {parts.hostname}{parts.path} holds a user name or password, which are not sent. Fetch the "
            f"file yourself and give its path."
        )
    if parts.scheme not in ("http", "https"):
        raise CheckpointFileError(f"{url!r} is not http or https, which are all that is downloaded from.")


def _by_hand(url: str, hash: str, target: Path) -> str:
    algorithm, _, prefix = hash.partition(":")
    name = "hash" if algorithm == "any" else algorithm
    check = f" ({name} {prefix}{'...' if len(prefix) < 32 else ''})" if prefix else ""
    return f"To do it by hand, fetch that file{check} and put it at {target}"


def _lock(url: str) -> Any:
    from filelock import FileLock

    folder = cache_folder() / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.lock")


def _fetch(url: str, hash: str, target: Path, patience: Patience) -> None:
    part = target.with_name(f"{target.name}.part")
    try:
        with part.open("wb") as file:
            for attempt in range(patience.attempts):
                try:
                    _attempt(url, file, patience.timeout)
                    break
                except _FailedError as error:
                    if not error.again or attempt == patience.attempts - 1:
                        raise
                    wait = patience.backoff * 2**attempt
                    logger.warning("%s: %s; trying again in %g s", url, error, wait)
                    time.sleep(wait)
            file.flush()
            os.fsync(file.fileno())
        _check_content(part, hash)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _attempt(url: str, file: BinaryIO, timeout: float) -> None:
    """One request, from the beginning; the file holds the whole body afterwards."""
    request = urllib.request.Request(url, headers={"User-Agent": "detrex-backbones", "Accept-Encoding": "identity"})
    opener = urllib.request.build_opener(
        _Redirects(), urllib.request.HTTPSHandler(context=ssl.create_default_context())
    )
    file.seek(0)
    file.truncate()
    try:
        with opener.open(request, timeout=timeout) as response:
            _check_headers(response)
            _copy(response, file)
    except urllib.error.HTTPError as error:
        error.close()
        raise _FailedError(f"the server says {error.code} {error.reason}", again=error.code in TEMPORARY) from error
    except urllib.error.URLError as error:
        raise _no_connection(error.reason) from error
    except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
        raise _no_connection(error) from error
    except ValueError as error:  # of urllib and of the codec of host names
        raise _FailedError(f"that is no URL, or it redirects to none ({error})") from error


def _no_connection(reason: Any) -> _FailedError:
    if isinstance(reason, TimeoutError):
        return _FailedError("no byte came for too long", again=True)
    if isinstance(reason, http.client.InvalidURL):
        return _FailedError(f"that is no URL ({reason})")
    if isinstance(reason, ssl.SSLCertVerificationError):
        return _FailedError(f"its certificate is not valid ({reason.verify_message})")
    if isinstance(reason, http.client.IncompleteRead | ConnectionResetError | BrokenPipeError):
        return _FailedError(f"the connection broke off ({reason or type(reason).__name__})", again=True)
    if isinstance(reason, http.client.HTTPException):
        return _FailedError(f"the server's answer can't be read ({type(reason).__name__}: {reason})", again=True)
    return _FailedError(f"no connection ({reason}), as without a network")


def _check_headers(response: Any) -> None:
    if response.status != 200:
        raise _FailedError(f"the server says {response.status} {response.reason}, not 200 OK")
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding != "identity":
        raise _FailedError(f"the server sends it encoded as {encoding}, which was not asked for")
    kind = response.headers.get_content_type()
    if kind in ("text/html", "application/xhtml+xml"):
        raise _FailedError(f"a web page came ({kind}), no checkpoint")


def _copy(response: Any, file: BinaryIO) -> None:
    from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore]

    length = response.headers.get("Content-Length")
    total = int(length) if length and length.isdigit() else None
    name = urllib.parse.urlsplit(response.url).path.rpartition("/")[2]
    received = 0
    # disable=None: only on a terminal.
    with tqdm(total=total, unit="B", unit_scale=True, desc=name, file=sys.stderr, disable=None) as bar:
        while block := _read(response):
            file.write(block)
            received += len(block)
            bar.update(len(block))
    if total is not None and received != total:
        raise _FailedError(f"{received:,} bytes came, {total:,} were announced", again=True)


def _read(response: Any) -> bytes:
    # Apart from writing, whose errors are the disk's.
    try:
        return response.read(BLOCK)  # type: ignore[no-any-return]
    except (OSError, http.client.HTTPException) as error:
        raise _no_connection(error) from error


def _check_content(part: Path, hash: str) -> None:
    """Refuse what is empty, a page, no checkpoint, cut, or has another hash."""
    from detrex_backbones.checkpoint.read import HEAD, format_of, is_cut  # needs torch, which the tables don't

    with part.open("rb") as file:
        head = file.read(HEAD)
    size = part.stat().st_size
    if not size:
        raise _FailedError("nothing came (0 bytes)")
    if head.lstrip().startswith(b"<"):
        raise _FailedError(f"{size:,} bytes of a web page came ({head.lstrip()[:24]!r}...), no checkpoint")
    algorithm, _, prefix = hash.partition(":")
    if prefix:
        digests = _digests(part, list(ALGORITHMS) if algorithm == "any" else [algorithm])
        if not any(digest.startswith(prefix.lower()) for digest in digests.values()):
            found = ", ".join(f"{name} {digest[: max(8, len(prefix))]}" for name, digest in digests.items())
            raise _FailedError(f"another file came: {size:,} bytes with {found}, expected {prefix}")
    found = format_of(head, size)
    if not found:
        raise _FailedError(f"{size:,} bytes came that are no checkpoint: they start with {head[:24]!r}")
    if is_cut(part, found):
        raise _FailedError(f"{size:,} bytes came, which are not all of the file: its end is missing")


def _digests(path: Path, algorithms: list[str]) -> dict[str, str]:
    hashers = {name: ALGORITHMS[name](usedforsecurity=False) for name in algorithms}
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            for hasher in hashers.values():
                hasher.update(block)
    return {name: hasher.hexdigest() for name, hasher in hashers.items()}


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects within http and https, and never from the second to the first."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        scheme = urllib.parse.urlsplit(newurl).scheme
        if scheme not in ("http", "https") or (scheme == "http" and req.type == "https"):
            with suppress(OSError):
                fp.close()
            raise _FailedError(f"it redirects to {newurl}, which is not followed: only https, or http from http")
        # Before Python 3.11, 308 was not known to mean what 307 means.
        return super().redirect_request(req, fp, 307 if code == 308 else code, msg, headers, newurl)

    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302
