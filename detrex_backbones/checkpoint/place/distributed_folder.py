"""Writing folders of torch.distributed.checkpoint (DCP): each process its part, and whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from detrex_backbones.atomic_write import move_whole
from detrex_backbones.checkpoint.place.ranks import Ranks
from detrex_backbones.checkpoint.place.sharded import placement
from detrex_backbones.checkpoint.read.distributed_folder import STRUCTURE
from detrex_backbones.checkpoint.read.nested import take_out
from detrex_backbones.errors import CheckpointFileError

__all__ = ["write_folder", "writing"]


def write_folder(ranks: Ranks, folder: Path, state: dict[str, Any]) -> None:
    """Save, each process its part. The folder appears once all of it is on the disk.

    Where there is one of this name already, it is moved aside for the moment between two renames: a crash just then
    leaves it beside, as `.NAME.before`.

    The tensors get the names that torch gives them, so that its own `load` reads them: {"model": {"a": t}} is
    "model.a". Everything else is kept in one entry, in a tuple: torch would take mappings apart and make
    text of their keys.

    Args:
        ranks: all who have a part.
        folder: not yet there, or to be replaced; seen by all.
        state: nested; the same names on all processes.

    Raises:
        CheckpointFileError: the folder can't be written to, or the disk is full.
        RankError: a process was lost, or has other names.
    """
    from torch.distributed.checkpoint.state_dict_saver import save

    structure, tensors = take_out(state)
    names = {name: f"{list(value.shape)} {placement(value)}" for name, value in tensors.items()}
    ranks.agree("what is saved", {**names, "to": str(folder)}, "Save the same objects on every process.")

    partial = folder.with_name(f".{folder.name}.partial")
    with writing(folder):
        ranks.together(lambda: _make_empty(partial, folder) if ranks.first else None)
        ranks.talk(lambda: save({**tensors, STRUCTURE: (structure,)}, checkpoint_id=partial, process_group=ranks.group))
        ranks.together(lambda: _finish(partial, folder) if ranks.first else None)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Errors of the disk as ours."""
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        yield
    except CheckpointFileError:
        raise
    except (OSError, CheckpointException) as error:
        raise CheckpointFileError(
            f"checkpoint {str(folder)!r} can't be written: {error}. The last one that is whole is still marked."
        ) from error


def _make_empty(partial: Path, folder: Path) -> None:
    with writing(folder):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)


def _finish(partial: Path, folder: Path) -> None:
    with writing(folder):
        move_whole(partial, folder)
