"""From a URL to a file in the cache: once, checked, and never half of it."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import sys
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from detrex_backbones.cache import cache_folder, clean_step, keep
from detrex_backbones.checkpoint.fetch.content import what_is_wrong
from detrex_backbones.errors import CheckpointFileError
from detrex_backbones.text import LONGEST_PATH, visible

__all__ = ["Patience", "cache_path", "download", "hash_in_name"]

logger = logging.getLogger(__name__)

BLOCK = 1 << 20
# By torch.hub's and OpenMMLab's convention; eight decimal digits alone are rather a date.
NAME_HASH = re.compile(r"-(?=[0-9]*[a-f])([0-9a-f]{8,64})\.\w+(?:\.\w+)?$")
# Statuses after which the same request may succeed.
TEMPORARY = (408, 425, 429, 500, 502, 503, 504)
REDIRECTS = 10


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
    """An attempt that failed; `again` says whether another may succeed. Servers write some of its text."""

    def __init__(self, reason: str, again: bool = False) -> None:
        super().__init__(visible(" ".join(reason.split()), longest=300))
        self.again = again


def cache_path(url: str) -> Path:
    """Where the file of a URL lies in the cache, or would: `<cache>/<host>/<path of the URL>`.

    Raises:
        CheckpointFileError: a URL without a host or a file, or one that goes up by "..".
    """
    parts = _split_url(url)
    steps = [urllib.parse.unquote(step) for step in parts.path.split("/") if step not in ("", ".")]
    if not steps or not parts.hostname:
        raise CheckpointFileError(f"{visible(url)!r} names no file. Give the whole URL: https://host/folder/file.pth.")
    if not {".", ".."}.isdisjoint(re.split(r"[/\\]", "/".join(steps))):
        raise CheckpointFileError(f"{visible(url)!r} contains '..'. Give the URL that it leads to.")
    clean = [clean_step(step) for step in steps]
    if parts.query or clean != steps:  # what is spelt otherwise is another file
        digest = hashlib.sha256(f"{parts.path}?{parts.query}".encode() if clean != steps else parts.query.encode())
        clean[-1] = f"{digest.hexdigest()[:8]}_{clean[-1]}"
    host = parts.hostname + (f"_{parts.port}" if parts.port else "")
    return cache_folder().joinpath(re.sub(r"[^\w.-]", "_", host), *clean)


def hash_in_name(url: str) -> str:
    """The hash that the name of a file carries, of whatever algorithm: "any:11ad3fa6"; "" for none."""
    match = NAME_HASH.search(re.split("[?#]", url)[0])
    return f"any:{match[1]}" if match else ""


def download(url: str, hash: str = "", *, patience: Patience | None = None, checkpoint: bool = True) -> Path:
    """The file of a URL: from the cache, or fetched into it.

    Processes that ask for the same file at once cause one download. A file appears in the cache only when it is whole,
    has the announced length and the expected hash. Certificates are verified, and nothing but http and https is
    followed. No credentials are sent. A cache where strangers may write is not used.

    Args:
        url: http or https.
        hash: "sha256:11ad3fa6", the beginning of the digest; "any:..." for an algorithm that isn't known, "" for none.
        patience: None for `PATIENCE`.
        checkpoint: whether the file has to be one.

    Raises:
        CheckpointFileError: it can't be had; the text says which file to put where by hand.
    """
    target = cache_path(url)
    try:
        return keep(target, url, lambda file: _fetch(url, hash, file, patience or PATIENCE, checkpoint))
    except _FailedError as error:
        raise CheckpointFileError(f"can't download {visible(url)}: {error}. {_by_hand(hash, target)}") from error


def _split_url(url: str) -> urllib.parse.SplitResult:
    try:
        parts = urllib.parse.urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise CheckpointFileError(f"{visible(url)!r} is no URL: {visible(error)}.") from error
    if parts.username or parts.password:
        raise CheckpointFileError(
            f"the URL of {visible(parts.hostname)}{visible(parts.path)} holds a user name or password, which are not "
            f"sent. Fetch the file yourself and give its path."
        )
    if parts.scheme not in ("http", "https"):
        raise CheckpointFileError(f"{visible(url)!r} is no http or https URL; only these are downloaded.")
    return parts


def _by_hand(hash: str, target: Path) -> str:
    algorithm, _, prefix = hash.partition(":")
    name = "hash" if algorithm == "any" else algorithm
    check = f" ({name} {prefix}{'...' if len(prefix) < 32 else ''})" if prefix else ""
    return f"To do it by hand, fetch that file{check} and put it at {visible(target, LONGEST_PATH)}"


def _fetch(url: str, hash: str, file: BinaryIO, patience: Patience, checkpoint: bool) -> None:
    """Fill the file with what the URL gives, and check it before it gets its name."""
    for attempt in range(patience.attempts):
        try:
            _attempt(url, file, patience.timeout)
            break
        except _FailedError as error:
            if not error.again or attempt == patience.attempts - 1:
                raise
            wait = patience.backoff * 2**attempt
            logger.warning("%s: %s; trying again in %g s", visible(url), error, wait)
            time.sleep(wait)
    file.flush()
    wrong = what_is_wrong(Path(file.name), hash, checkpoint)
    if wrong:
        raise _FailedError(wrong)


def _attempt(url: str, file: BinaryIO, timeout: float) -> None:
    """One request, from the beginning; the file holds the whole body afterwards."""
    import requests

    session = requests.Session()
    session.trust_env = False  # which would send what .netrc has, to where a redirect leads too
    session.max_redirects = REDIRECTS
    session.hooks["response"] = [_check_redirect]
    file.seek(0)
    file.truncate()
    try:
        with session.get(
            url,
            stream=True,
            timeout=timeout,
            headers={"User-Agent": "detrex-backbones", "Accept-Encoding": "identity"},
            proxies=requests.utils.get_environ_proxies(url),
            verify=os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or True,
        ) as response:
            _check_headers(response)
            _copy(response, file)
    except requests.RequestException as error:
        raise _failure_of(error) from error
    except ValueError as error:  # of a URL that the server names, or that no codec knows
        raise _FailedError(f"the URL is invalid, or redirects to an invalid one ({error})") from error


def _failure_of(error: Exception) -> _FailedError:
    from requests import exceptions
    from urllib3.exceptions import MaxRetryError, ProtocolError, ReadTimeoutError

    cause = error.args[0] if error.args else None
    if isinstance(error, exceptions.SSLError):
        return _FailedError(f"its certificate is not valid, or the connection is not safe ({error})")
    if isinstance(error, exceptions.Timeout) or isinstance(cause, ReadTimeoutError):
        return _FailedError("the server stopped answering", again=True)
    if isinstance(error, exceptions.TooManyRedirects):
        return _FailedError(f"it redirects more than {REDIRECTS} times")
    if isinstance(cause, ProtocolError):
        return _FailedError(f"the connection broke off, or the server's answer can't be read ({cause})", again=True)
    if isinstance(error, exceptions.ConnectionError):
        reason = cause.reason if isinstance(cause, MaxRetryError) else error
        return _FailedError(f"no connection ({reason}); is there a network?")
    return _FailedError(f"the URL is invalid, or redirects to an invalid one ({error})")


def _check_redirect(response: Any, **_: Any) -> None:
    """Redirects stay within http and https, never lead from the second to the first, and their own text isn't read."""
    if not response.is_redirect:
        return
    target = urllib.parse.urljoin(response.url, response.headers["Location"])
    scheme = urllib.parse.urlsplit(target).scheme
    response.close()
    if scheme not in ("http", "https") or (scheme == "http" and response.url.startswith("https:")):
        raise _FailedError(f"it redirects to {target}, which is not followed: only https, or http from http")


def _check_headers(response: Any) -> None:
    if response.status_code != 200:
        again = response.status_code in TEMPORARY
        raise _FailedError(f"the server says {response.status_code} {response.reason}, not 200 OK", again)
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding != "identity":
        raise _FailedError(f"the server sent it encoded as {encoding}, which was not requested")
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml"):
        raise _FailedError(f"a web page was received ({kind}), not the file")


def _copy(response: Any, file: BinaryIO) -> None:
    from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore]

    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdigit() else None
    name = visible(urllib.parse.urlsplit(response.url).path.rpartition("/")[2])
    received = 0
    # disable=None: only on a terminal.
    with tqdm(total=total, unit="B", unit_scale=True, desc=name, file=sys.stderr, disable=None) as bar:
        for block in response.iter_content(BLOCK):
            file.write(block)
            received += len(block)
            bar.update(len(block))
    if total is not None and received != total:
        raise _FailedError(f"{received:,} bytes were received, {total:,} were announced", again=True)
