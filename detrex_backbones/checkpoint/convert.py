"""From one source's names to another's, and back."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detrex_backbones.atomic_write import write_whole
from detrex_backbones.checkpoint.entry import Entry
from detrex_backbones.checkpoint.files import Checkpoint, load_values, only, open_checkpoint
from detrex_backbones.checkpoint.names.conventions import Convention, conventions, sources
from detrex_backbones.checkpoint.names.readings import AS_STORED, Reading, readings
from detrex_backbones.checkpoint.report import reasons
from detrex_backbones.errors import ArgumentError, CheckpointError, CheckpointFileError, closest
from detrex_backbones.remote import AnyPath, as_path
from detrex_backbones.text import counted, shorten

__all__ = ["Conversion", "convert_checkpoint"]


@dataclass(frozen=True)
class Conversion:
    """What a conversion did.

    Args:
        source: the convention that was read.
        target: the convention that was written.
        names: name in the old file -> name in the new one.
        left_out: name in the old file -> why it is not in the new one.
    """

    source: str
    target: str
    names: dict[str, str]
    left_out: dict[str, str]


def convert_checkpoint(
    path: str | Path,
    output: str | Path,
    *,
    to: str | Convention,
    source: str | Convention | None = None,
    prefix: str = "",
    container: str | None = None,
) -> Conversion:
    """Write a checkpoint again in another source's names.

    Values keep their bytes, unless the source's own rules change them: a DETR's class rows, say.

    Args:
        path: the file to read.
        output: the file to write; its extension chooses the container: .pth, .pt and .bin (names to tensors), .pkl
            (as detectron2's tools write it), .safetensors, .pyth (pycls), .ckpt and .pth.tar (under "state_dict").
        to: name of the convention to write, or one of your own.
        source: name of the convention to read, or one of your own; None to recognise it.
        prefix: put before every name that is written: "backbone".
        container: where the weights are in the file, as of `load_checkpoint`; None for those whose names are known.

    Raises:
        ArgumentError: an unknown convention or extension.
        CheckpointFileError: a file that can't be read or written.
        CheckpointError: names that fit two conventions, or a tensor that the target has no name for. Nothing is
            written then.
    """
    target_file = as_path(output)
    save = _writer(target_file)
    targets = _targets(to)
    with open_checkpoint(path, container) as opened:
        checkpoint = only(opened, lambda each: _is_recognised(each, source))
        reading = _only_reading(readings({**checkpoint.tensors, **checkpoint.special}, source), str(path))
        names, target = _rename(reading, targets, str(path))
        _check_read([reading.named[ours] for ours in names], str(path))
        tensors = load_values(checkpoint, {ours: reading.named[ours].values for ours in names})
    dotted = prefix.rstrip(".") + "." if prefix else ""
    try:
        save({dotted + name: tensors[ours] for ours, name in names.items()}, reading.source, target_file)
    except OSError as error:
        raise CheckpointFileError(
            f"output {str(output)!r} can't be written: {error.strerror or error}. Nothing was written."
        ) from error
    return Conversion(
        reading.source,
        target,
        {reading.named[ours].checkpoint_key: dotted + name for ours, name in names.items()},
        {entry.checkpoint_key: entry.why for entry in reading.entries if not entry.ours},
    )


def _targets(to: str | Convention) -> list[Convention]:
    if isinstance(to, Convention):
        return [to]
    if to not in sources():
        raise ArgumentError(f"to={to!r} is not known. Allowed: {', '.join(sources())}.{closest(to, sources())}")
    return [conventions()[name] for name in sources()[to]]


def _is_recognised(checkpoint: Checkpoint, source: str | Convention | None) -> bool:
    """Whether the names of these weights bear the marks of a convention."""
    return any(reading.source != AS_STORED for reading in readings(checkpoint.tensors, source))


def _check_read(entries: list[Entry], path: str) -> None:
    """Refuse tensors whose values are not plainly in the file."""
    unread = {entry.checkpoint_key: entry.values.unread for entry in entries if entry.values.unread}
    if unread:
        raise CheckpointError(
            f"checkpoint {path!r} has {counted(len(unread), 'tensor')} without plain values: "
            f"{'; '.join(reasons(unread))}. Nothing was written."
        )


def _only_reading(found: list[Reading], path: str) -> Reading:
    """The convention whose marks the file bears; where a part of it bears those of another, the one of the whole."""
    recognised = [reading for reading in found if reading.source != AS_STORED]
    if not recognised:
        names = shorten(entry.checkpoint_key for entry in found[0].named.values())
        raise CheckpointError(
            f"checkpoint {path!r} bears the marks of no known convention. It has: {names}. "
            f"Known: {', '.join(conventions())}."
        )
    most = max(len(reading.named) for reading in recognised)
    widest = [reading for reading in recognised if len(reading.named) == most]
    if len(widest) > 1:
        places = ", ".join(f"{reading.source} at {reading.prefix or 'the top'!r}" for reading in widest)
        raise CheckpointError(
            f"checkpoint {path!r} can be read in {len(widest)} ways: {places}. Say which by source= (--from)."
        )
    return widest[0]


def _rename(reading: Reading, targets: list[Convention], path: str) -> tuple[dict[str, str], str]:
    """Our name -> the target's, for every tensor; and which target it is, of those that an alias stands for."""
    problems = []
    for target in targets:
        names = {ours: target.write(ours, len(entry.shape)) for ours, entry in reading.named.items()}
        found = {ours: name for ours, name in names.items() if name is not None}
        nameless = [reading.named[ours].checkpoint_key for ours, name in names.items() if name is None]
        if target.one_way:
            problems.append(f"{target.name}: {target.one_way}")
        elif nameless:
            problems.append(
                f"{target.name}: {counted(len(nameless), 'tensor', 'have')} no name there: {shorten(nameless)}"
            )
        elif len(set(found.values())) != len(found) or not _is_of(target, found.values()):
            problems.append(f"{target.name}: it is another network")
        else:
            return found, target.name
    raise CheckpointError(
        f"checkpoint {path!r}, read as {reading.source}, can't be expressed in these names ({'; '.join(problems)}). "
        f"Nothing was written."
    )


def _is_of(target: Convention, names: Iterable[str]) -> bool:
    """Whether names bear the marks of a convention; a table of pairs without marks is its own proof."""
    return bool(target.prefixes(names)) or (bool(target.pairs) and not target.anchors)


def _save_torch(tensors: Mapping[str, Tensor], source: str, path: AnyPath) -> None:
    write_whole(path, lambda file: torch.save(dict(tensors), file))


def _save_pickle(tensors: Mapping[str, Tensor], source: str, path: AnyPath) -> None:
    if any(tensor.dtype == torch.bfloat16 for tensor in tensors.values()):
        raise CheckpointError("arrays of a .pkl can't hold bfloat16. Choose another extension. Nothing was written.")
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    content = {"model": arrays, "__author__": source, "matching_heuristics": True}
    write_whole(path, lambda file: pickle.dump(content, file))


def _save_safetensors(tensors: Mapping[str, Tensor], source: str, path: AnyPath) -> None:
    from safetensors.torch import save

    # Two names of one tensor are written twice: the format has no sharing.
    data = save({name: tensor.clone() for name, tensor in tensors.items()}, metadata={"format": "pt"})
    write_whole(path, lambda file: file.write(data))


def _under(key: str) -> Callable[[Mapping[str, Tensor], str, AnyPath], None]:
    def save(tensors: Mapping[str, Tensor], source: str, path: AnyPath) -> None:
        write_whole(path, lambda file: torch.save({key: dict(tensors)}, file))

    return save


WRITERS: dict[str, Any] = {
    ".pth": _save_torch,
    ".pt": _save_torch,
    ".bin": _save_torch,
    ".pkl": _save_pickle,
    ".safetensors": _save_safetensors,
    ".pyth": _under("model_state"),
    ".ckpt": _under("state_dict"),
    ".tar": _under("state_dict"),  # .pth.tar
}


def _writer(output: AnyPath) -> Callable[[Mapping[str, Tensor], str, AnyPath], None]:
    if output.suffix not in WRITERS:
        raise ArgumentError(
            f"output {str(output)!r} has the extension {output.suffix!r}. Allowed: {', '.join(WRITERS)}."
        )
    if not (output.absolute() if isinstance(output, Path) else output).parent.is_dir():
        raise CheckpointFileError(f"output {str(output)!r}: the folder {str(output.parent)!r} does not exist.")
    return WRITERS[output.suffix]  # type: ignore[no-any-return]
