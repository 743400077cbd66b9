"""What the model's own loading code makes of a file in the model's names: those of its older versions among them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from detrex_backbones.checkpoint.entry import Entry, Status
from detrex_backbones.checkpoint.files import Checkpoint, load_values
from detrex_backbones.checkpoint.match.loading_code import (
    Task,
    Trial,
    inside_of,
    same_tensor,
    tensors_of,
    try_task,
)
from detrex_backbones.checkpoint.names.readings import Reading
from detrex_backbones.checkpoint.read import GivenTensor
from detrex_backbones.checkpoint.read.module_states import EXTRA_STATE
from detrex_backbones.checkpoint.read.nested import take_out
from detrex_backbones.errors import CheckpointMatchError
from detrex_backbones.text import counted

__all__ = ["ByModules", "read_by_modules"]


@dataclass
class ByModules:
    """How the modules of a model read a file.

    Args:
        reading: with the names that they lead to.
        tasks: what each of them is to load by itself.
        shapes: model key -> shape that it has then.
        missing: model keys of extra states that they'd have had a value for.
    """

    reading: Reading
    tasks: list[Task] = field(default_factory=list)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


def read_by_modules(
    reading: Reading, scope: str, modules: list[tuple[str, nn.Module]], checkpoint: Checkpoint
) -> ByModules:
    """Ask each module with loading code of its own what it makes of a file.

    Args:
        reading: of the file, in the model's names.
        scope: path of the submodule that the file is for, "" or ending with a dot.
        modules: of that submodule, see `loading_modules`.
        checkpoint: the file, open.

    Raises:
        CheckpointMatchError: a module's code fails.
    """
    made = ByModules(reading)
    entries, kept = {id(entry): entry for entry in reading.entries}, dict(reading.kept)
    names, more = sorted(reading.named), []
    for path, module in modules:
        # No module can do anything with a tensor without values; what it is is said of it as anywhere.
        found = {name[len(path) :]: reading.named[name] for name in inside_of(path, names)}
        inside = {name: entry for name, entry in found.items() if not entry.values.unread}
        task = _task(scope, path, inside, reading, checkpoint)
        trial = _tried(module, task, inside, checkpoint)
        if trial is None:
            continue
        made.tasks.append(task)
        told = f"the loading code of {type(module).__name__}"
        for name, old, new in _placed(trial, inside, task.values, told):
            key = task.path + name
            if new is None:
                kept[key] = f"{told} asks for no value"
                continue
            new.ours = path + name
            made.shapes[key] = new.shape
            task.gives[key] = new.adapted == ""
            task.beyond |= name not in trial.before or trial.before[name].shape != new.shape
            if old is None:
                more.append(new)
            else:
                entries[id(old)] = new
        for name in trial.missing:
            if name.endswith(EXTRA_STATE) and name not in trial.after:
                made.missing.append(task.path + name)
        for name, entry in inside.items():
            if entries[id(entry)] is entry and name not in trial.unexpected and name not in trial.missing:
                entries[id(entry)] = taken = replace(entry, ours="")
                taken.set(Status.PART_OF_ANOTHER, f"taken by {told}")
    made.reading = replace(reading, entries=[*entries.values(), *more], kept=kept)
    return made


def _task(scope: str, path: str, inside: dict[str, Entry], reading: Reading, checkpoint: Checkpoint) -> Task:
    """What the file has for a module, and the versions of it and of those in it."""
    heads = (
        entry.checkpoint_key.removesuffix(name) for name, entry in inside.items() if entry.checkpoint_key.endswith(name)
    )
    head = next(heads, reading.prefix + path)
    extra = {name[len(head) :]: value for name, value in checkpoint.states.items() if name.startswith(head)}
    metadata = {
        f"{name}."[len(head) :].rstrip("."): value
        for name, value in checkpoint.metadata.items()
        if not head or f"{name}.".startswith(head)
    }
    structure, stored = take_out({name: entry.values for name, entry in inside.items()} | extra)
    values = load_values(checkpoint, stored, owned=False)
    return Task(scope + path, structure, values, metadata, beyond=bool(extra))


def _tried(module: nn.Module, task: Task, inside: dict[str, Entry], checkpoint: Checkpoint) -> Trial | None:
    """What a module makes of it; where it refuses, without what has another shape. None where it isn't asked."""
    try:
        return try_task(module, task)
    except Exception as error:  # whatever its code does
        tensors = tensors_of(module)
        others = [name for name, entry in inside.items() if name in tensors and entry.shape != tensors[name].shape]
        if others:
            task.structure = {name: value for name, value in task.structure.items() if name not in others}
            return _tried(module, task, {name: inside[name] for name in inside if name not in others}, checkpoint)
        if not inside:
            return None
        place = task.path.rstrip(".") or "the model"
        raise CheckpointMatchError(
            f"checkpoint {str(checkpoint.path)!r} has {counted(len(inside), 'tensor')} for {place!r}, and the loading "
            f"code of {type(module).__name__} fails with them: {type(error).__name__}: {error}. "
            f"Build the model that the file is for."
        ) from error


def _placed(
    trial: Trial, inside: dict[str, Entry], values: dict[str, Tensor], told: str
) -> Iterator[tuple[str, Entry | None, Entry | None]]:
    """Each key that needs no other value, with the entry of the file that it had, and with what it gets.

    The latter is None where the module gave it no value, and asks for none.
    """
    given = {name: value for name, value in trial.after.items() if name not in trial.missing}
    same = {name for name, value in given.items() if name in values and same_tensor(values[name], value)}
    free: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for name, entry in inside.items():
        if name not in same and name not in trial.unexpected and name not in trial.missing:
            free[entry.shape].append(name)
    for name, value in given.items():
        shape = tuple(value.shape)
        if name in same:
            yield name, inside[name], replace(inside[name])
            continue
        origin = next((other for other in free[shape] if same_tensor(values[other], value)), None)
        if origin is not None:
            free[shape].remove(origin)
            yield name, inside[origin], replace(inside[origin], rule=told)
        elif name in inside or name not in trial.before or not same_tensor(trial.before[name], value):
            yield name, inside.get(name), _changed(inside.get(name), name, value, told)
        else:
            yield name, None, None


def _changed(entry: Entry | None, name: str, value: Tensor, told: str) -> Entry:
    """A tensor that is in no file as it is."""
    tensor = GivenTensor(value.cpu())
    made = Entry(name, clean=name, theirs=name) if entry is None else replace(entry)
    made.tensor, made.shape, made.adapted, made.rule = tensor, tuple(value.shape), f"by {told}", told
    return made
