"""Files of the Hugging Face hub, through huggingface_hub and its cache."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from detrex_backbones.errors import CheckpointFileError
from detrex_backbones.text import visible

__all__ = ["SCHEME", "from_hub", "split"]

SCHEME = "hf-hub:"
NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?(?::(?P<file>[^:]+))?")


def split(name: str) -> tuple[str, str | None, str | None]:
    """ "hf-hub:org/name@revision:file" -> repository, revision or None, file or None."""
    match = NAME.fullmatch(name.removeprefix(SCHEME).removeprefix("//"))
    steps = re.split(r"[/@:\\]", name.removeprefix(SCHEME).removeprefix("//"))
    if match is None or not name.isprintable() or not {"", ".", ".."}.isdisjoint(steps):
        raise CheckpointFileError(
            f"{visible(name)!r} can't be read. The form is hf-hub:org/name[@revision][:file], without '..'."
        )
    return match["repo"], match["revision"], match["file"]


def from_hub(repo: str, revision: str | None = None, file: str | None = None) -> Path:
    """A file of a repository, from the hub's own cache or fetched into it.

    Args:
        repo: "org/name".
        revision: branch, tag or commit; None for the main branch.
        file: its path in the repository; None for the first of `WEIGHT_FILES` that is there. With an index or a
            piece of a checkpoint in several files, all of these are fetched.

    Raises:
        CheckpointFileError: it isn't there, or can't be reached; the text says what to do without a network.
    """
    from detrex_backbones.checkpoint.read import WEIGHT_FILES, piece_names  # needs torch, which the tables don't

    found, name = _first_of(repo, revision, (file,) if file else WEIGHT_FILES)
    steps = PurePosixPath(name)
    for piece in piece_names(found):  # of the same commit, whose name is that of the folder
        _first_of(repo, found.parents[len(steps.parts) - 1].name, (str(steps.with_name(piece)),))
    return found


def _first_of(repo: str, revision: str | None, wanted: tuple[str, ...]) -> tuple[Path, str]:
    """The first of some files that a repository has, and its name."""
    hub = _import_hub()
    for candidate in wanted:  # what is there already needs no network
        with suppress(hub.errors.LocalEntryNotFoundError, hub.errors.HFValidationError):
            return Path(hub.hf_hub_download(repo, candidate, revision=revision, local_files_only=True)), candidate
    _check_network(hub, repo, wanted)
    for candidate in wanted:
        try:
            with _without_retries_told():
                path = hub.hf_hub_download(repo, candidate, revision=revision, library_name="detrex-backbones")
            return Path(path), candidate
        except hub.errors.LocalEntryNotFoundError as error:  # before the next: it is one of them
            if getattr(getattr(error.__cause__, "response", None), "status_code", None) == 404:
                continue  # a mirror, which doesn't say what it is that isn't there
            raise _unreachable(hub, repo, wanted, error) from error
        except hub.errors.EntryNotFoundError:
            continue
        except (hub.errors.HfHubHTTPError, hub.errors.HFValidationError) as error:
            reason = visible(" ".join(str(error).split()))
            raise CheckpointFileError(f"the hub returned nothing for {repo!r}: {reason}") from error
        except (OSError, RuntimeError) as error:
            raise _unreachable(hub, repo, wanted, error) from error
    raise CheckpointFileError(
        f"the hub's repository {repo!r} has no file {' or '.join(map(visible, wanted))}. Name one: hf-hub:{repo}:FILE."
    )


def _import_hub() -> Any:
    try:
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ImportError as error:
        raise CheckpointFileError(
            f"hf-hub: names need huggingface_hub: {error}. pip install huggingface_hub"
        ) from error
    return huggingface_hub


def _check_network(hub: Any, repo: str, files: tuple[str, ...]) -> None:
    """Refuse at once where the hub's name leads nowhere: its client asks five times more, for half a minute.

    Behind a proxy, which knows the names, only the client can tell.
    """
    host = urlsplit(hub.constants.ENDPOINT)
    if hub.constants.HF_HUB_OFFLINE or getproxies() or not host.hostname:
        return
    try:
        socket.getaddrinfo(host.hostname, host.port or 443)
    except OSError as error:
        raise _unreachable(hub, repo, files, error) from error


@contextmanager
def _without_retries_told() -> Iterator[None]:
    """What the hub's client says of each attempt stays unsaid: the error says it once."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _unreachable(hub: Any, repo: str, files: tuple[str, ...], error: Exception) -> CheckpointFileError:
    reason = visible(" ".join(str(error).split())[:120])
    return CheckpointFileError(
        f"can't fetch {files[0]} of {repo!r} from {hub.constants.ENDPOINT} ({type(error).__name__}: {reason}...). "
        f"Without a network, fetch {hub.constants.ENDPOINT}/{repo}/resolve/main/{files[0]} elsewhere and give the "
        f"file's path, or copy the hub's cache {hub.constants.HF_HUB_CACHE} from a machine that has it."
    )
