"""Files of the Hugging Face hub, through huggingface_hub and its cache."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from detrex_backbones.errors import CheckpointFileError
from detrex_backbones.text import visible

__all__ = ["FILES", "SCHEME", "from_hub", "split"]

SCHEME = "hf-hub:"
FILES = ("model.safetensors", "pytorch_model.bin")  # looked for in this order
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
        file: its path in the repository; None for the first of `FILES` that is there.

    Raises:
        CheckpointFileError: it isn't there, or can't be reached; the text says what to do without a network.
    """
    hub = _import_hub()
    wanted = (file,) if file else FILES
    for candidate in wanted:  # what is there already needs no network
        with suppress(hub.errors.LocalEntryNotFoundError, hub.errors.HFValidationError):
            return Path(hub.hf_hub_download(repo, candidate, revision=revision, local_files_only=True))
    for candidate in wanted:
        try:
            return Path(hub.hf_hub_download(repo, candidate, revision=revision, library_name="detrex-backbones"))
        except hub.errors.LocalEntryNotFoundError as error:  # before the next: it is one of them
            raise _unreachable(hub, repo, wanted, error) from error
        except hub.errors.EntryNotFoundError:
            continue
        except (hub.errors.HfHubHTTPError, hub.errors.HFValidationError) as error:
            reason = visible(" ".join(str(error).split()))
            raise CheckpointFileError(f"the hub gives nothing for {repo!r}: {reason}") from error
        except (OSError, RuntimeError) as error:
            raise _unreachable(hub, repo, wanted, error) from error
    raise CheckpointFileError(
        f"the hub's repository {repo!r} has no file {' or '.join(wanted)}. Name one: hf-hub:{repo}:FILE."
    )


def _import_hub() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise CheckpointFileError(
            f"names of the hub need huggingface_hub: {error}. pip install huggingface_hub"
        ) from error
    return huggingface_hub


def _unreachable(hub: Any, repo: str, files: tuple[str, ...], error: Exception) -> CheckpointFileError:
    reason = visible(" ".join(str(error).split())[:120])
    return CheckpointFileError(
        f"can't fetch {files[0]} of {repo!r} from {hub.constants.ENDPOINT} ({type(error).__name__}: {reason}...). "
        f"Without a network, fetch {hub.constants.ENDPOINT}/{repo}/resolve/main/{files[0]} elsewhere and give the "
        f"file's path, or copy the hub's cache {hub.constants.HF_HUB_CACHE} from a machine that has it."
    )
