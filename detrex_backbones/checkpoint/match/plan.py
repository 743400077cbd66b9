"""From a checkpoint and a model's names to what a load would do: the reading that fits best, and its report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from detrex_backbones.checkpoint.entry import Shapes, Status
from detrex_backbones.checkpoint.fetch.catalog.lookup import find_known
from detrex_backbones.checkpoint.files import Checkpoint
from detrex_backbones.checkpoint.match.by_modules import ByModules, read_by_modules
from detrex_backbones.checkpoint.match.first_convolution import fit_stem
from detrex_backbones.checkpoint.match.leftovers import explain_leftovers
from detrex_backbones.checkpoint.match.loading_code import Task, loading_modules
from detrex_backbones.checkpoint.match.model_facts import ModelFacts
from detrex_backbones.checkpoint.match.positions import POSITION_TABLES, fit_positions, take_back_resizing
from detrex_backbones.checkpoint.match.suffixes import Plan, make_plan
from detrex_backbones.checkpoint.match.whole_part import take_all, why_a_piece
from detrex_backbones.checkpoint.names.conventions import Convention
from detrex_backbones.checkpoint.names.original_files import ORIGINAL
from detrex_backbones.checkpoint.names.readings import AS_STORED, Reading, each_reading, original_readings
from detrex_backbones.checkpoint.names.renaming import rename_checkpoint
from detrex_backbones.checkpoint.read import LazyTensor, load_tensors
from detrex_backbones.checkpoint.report import LoadReport
from detrex_backbones.errors import ArgumentError

__all__ = ["Attempt", "plan_checkpoint", "same_values"]


@dataclass(frozen=True)
class Attempt:
    """What a load would do.

    Args:
        report: of every key; it holds no values, and so outlives the file.
        values: model key -> what it will hold.
        extra: what is stored beside the weights that it is of.
        tasks: what modules with loading code of their own are to load themselves.
    """

    report: LoadReport
    values: dict[str, LazyTensor]
    extra: dict[str, Any] = field(default_factory=dict)
    tasks: list[Task] = field(default_factory=list)


def plan_checkpoint(
    model: Shapes,
    checkpoint: Checkpoint,
    *,
    source: str | Convention | None = None,
    prefix: str | None = None,
    scope: str | None = None,
    rename: Sequence[tuple[str, str]] = (),
    stem_adapt: str = "error",
    swap_channels: bool = False,
    resize_positions: bool = True,
    facts: ModelFacts | None = None,
) -> Attempt:
    """What a load would do. Names and shapes of the model are enough; nothing is refused yet: see `check_report`.

    Args:
        model: name -> shape.
        checkpoint: the file.
        source: as of `load_checkpoint`.
        prefix: as of `load_checkpoint`.
        scope: as of `load_checkpoint`.
        rename: as of `load_checkpoint`, in pairs.
        stem_adapt: as of `load_checkpoint`.
        swap_channels: as of `load_checkpoint`.
        resize_positions: as of `load_checkpoint`.
        facts: what its modules tell beyond names and shapes.

    Raises:
        ArgumentError: an unknown source, scope or way to adapt; "original", where no network reads the file; names
            that can't be changed.
        CheckpointMatchError: the file has none of the names that `source` is known by.
    """
    facts = facts or ModelFacts()
    checkpoint, stored = rename_checkpoint(checkpoint, rename) if rename else (checkpoint, {})
    found = _plans(model, {**checkpoint.tensors, **checkpoint.special}, source, prefix, scope, facts)
    best = max(found, key=lambda pair: len(pair[0].matched))
    plan, reading = best
    by_modules = _by_modules(plan, reading, checkpoint, facts)
    if by_modules is not None:
        model, reading = {**model, **by_modules.shapes}, by_modules.reading
        plan = make_plan(model, reading.shapes, plan.scope)
        plan.missing += by_modules.missing
        found = [(plan, reading) if pair is best else pair for pair in found]
    plan.ambiguous = (why_a_piece(plan, model) if scope is None else "") or plan.ambiguous
    rivals = _rivals(plan, reading, found)
    if plan.matched and not plan.ambiguous and rivals:
        places = ", ".join(repr(candidate.prefix.rstrip(".")) for candidate in (reading, *rivals))
        plan.ambiguous = f"it holds {len(rivals) + 1} networks that fit: {places}. Say which: prefix='...'."
    if scope is None and prefix is None and not plan.ambiguous:
        plan.ambiguous = take_all(plan, reading, model)
    fit_stem(plan, reading, model, stem_adapt, swap_channels)
    if any(key.endswith(POSITION_TABLES) for key in model):
        grids = facts.position_grids()
        take_back_resizing(plan, reading, model, grids)
        if resize_positions:
            fit_positions(plan, reading, model, grids)
    if checkpoint.special:
        _take_out_unread(plan, reading)
    values = _values(plan, reading)
    _keep_tied(plan, reading, facts)
    report = _report(checkpoint, reading, plan, model, facts.whole_networks)
    for entry in report.entries:
        entry.tensor = None
        entry.checkpoint_key = stored.get(entry.checkpoint_key, entry.checkpoint_key)
    return Attempt(report, values, checkpoint.extra, by_modules.tasks if by_modules else [])


def _by_modules(plan: Plan, reading: Reading, checkpoint: Checkpoint, facts: ModelFacts) -> ByModules | None:
    """What the modules make of names that are the model's own; None where none has loading code."""
    root = facts.submodule(plan.scope) if reading.source == AS_STORED and not plan.ambiguous else None
    modules = list(loading_modules(root)) if root is not None else []
    return read_by_modules(reading, plan.scope, modules, checkpoint) if modules else None


def _keep_tied(plan: Plan, reading: Reading, facts: ModelFacts) -> None:
    """A tensor with several names has its value by any of them."""
    for keys in facts.same_tensors() if plan.missing else ():
        loaded = sorted(keys & plan.matched.keys())
        reading.kept |= {key: f"the same tensor as {loaded[0]!r}" for key in keys - plan.matched.keys() if loaded}


def _plans(
    model: Shapes,
    tensors: Mapping[str, Tensor | LazyTensor],
    source: str | Convention | None,
    prefix: str | None,
    scope: str | None,
    facts: ModelFacts,
) -> list[tuple[Plan, Reading]]:
    """Every reading with its plan, except those that can be no better than the first."""
    found: list[tuple[Plan, Reading]] = []
    for reading in each_reading(tensors, source, prefix, model) if source != ORIGINAL else ():
        # Other conventions aren't asked for names that fill the whole model as they are.
        if found and len(found[0][0].matched) == len(model) and reading.source != found[0][1].source:
            break
        found.append((make_plan(model, reading.shapes, scope), reading))
        # Where all of the file has a place, or too little is left for a second network, there is nothing else in it.
        filled = len(found[0][0].matched)
        left = len(tensors) - filled
        if not left or (filled == len(model) and left < filled):
            break
    # A filled network may still have norms for its maps around it, which only its own reader knows.
    original = any(_leads_to_authors(reading) for _, reading in found)
    if source != AS_STORED and (original or not any(_is_filled(plan, model) for plan, _ in found)):
        readers = facts.original_readers()
        for path, reading in original_readings(tensors, source, prefix, model, readers):
            if scope in (None, path):
                found.append((make_plan(model, reading.shapes, path), reading))
    if not found:
        raise ArgumentError(
            f"source={ORIGINAL!r}: no network of the model reads its authors' files, or this isn't one of them. "
            f"Networks of TimmBackbone do. Leave source out to have the names recognised."
        )
    return found


def _take_out_unread(plan: Plan, reading: Reading) -> None:
    """Let the model's keys whose values are not plainly in the file be missing, and say what the file has for them."""
    for places in (plan.matched, plan.mismatched):
        for key in [key for key, ours in places.items() if reading.named[ours].values.unread]:
            entry = reading.named[places.pop(key)]
            entry.model_key = key
            entry.set(Status.UNREAD, entry.values.unread)
            plan.missing.append(key)


def _leads_to_authors(reading: Reading) -> bool:
    return reading.convention is not None and reading.convention.original


def _is_filled(plan: Plan, model: Shapes) -> bool:
    """Whether a whole part of the model gets all of its values, tables of positions maybe in another size."""
    others = [key for key in plan.mismatched if not key.endswith(POSITION_TABLES)]
    return bool(plan.matched) and not plan.missing and not others and not why_a_piece(plan, model)


def _rivals(plan: Plan, reading: Reading, others: list[tuple[Plan, Reading]]) -> list[Reading]:
    """Other networks of the file that fit as well, and would give the model other values."""
    values = _values(plan, reading) if len(others) > 1 else {}
    return [
        candidate
        for other, candidate in others
        if candidate is not reading
        and candidate.source == reading.source
        and len(other.matched) == len(plan.matched)
        and not same_values(values, _values(other, candidate))
    ]


def _report(
    checkpoint: Checkpoint, reading: Reading, plan: Plan, model: Shapes, whole: Callable[[], Shapes]
) -> LoadReport:
    loaded = Status.LOADED.value  # an Enum takes its time over it, and most tensors are loaded
    for key, ours in plan.matched.items():
        entry = reading.named[ours]
        entry.model_key, entry.rule = key, entry.rule or _rule(plan, reading, key, ours)
        entry.set(Status.LOADED, loaded)
    computed = {key: _why_kept(key, reading) for key in plan.mismatched if _is_computed(key, reading)}
    for key, ours in plan.mismatched.items():
        entry = reading.named[ours]
        if key in computed:  # rotary positions of another size: the model has made its own
            entry.set(Status.NOT_OF_NETWORK, computed[key])
            continue
        entry.model_key, entry.model_shape = key, tuple(model[key])
        entry.set(Status.OTHER_SHAPE)
    explain_leftovers(reading, whole)
    kept = {key: why for key in plan.missing if (why := _why_kept(key, reading))} | computed
    lookalikes = reading.lookalikes
    return LoadReport(
        path=str(checkpoint.path),
        format=checkpoint.format,
        container=checkpoint.container,
        source=reading.source,
        prefix=reading.prefix,
        scope=plan.scope.rstrip("."),
        entries=reading.entries,
        missing=[key for key in plan.missing if key not in kept],
        kept=kept,
        outside=plan.outside,
        ambiguous=plan.ambiguous,
        lookalikes=lookalikes if lookalikes and not find_known(checkpoint.path) else "",
    )


def _rule(plan: Plan, reading: Reading, key: str, ours: str) -> str:
    """By which rule a stored name came to a model's key."""
    place = "the same name" if key == ours else "in the scope" if key == plan.scope + ours else "the end of the name"
    return f"{reading.source}: {place}"


def _why_kept(key: str, reading: Reading) -> str:
    """What a key of the model is that files of this source, or of one whose marks they bear, never hold."""
    reasons = (convention.why_kept(key) for convention, _ in reading.known_by)
    return reading.kept.get(key) or next(filter(None, reasons), "")


def _is_computed(key: str, reading: Reading) -> bool:
    return any(convention.is_computed(key) for convention, _ in reading.known_by)


def _values(plan: Plan, reading: Reading) -> dict[str, LazyTensor]:
    return {key: reading.named[stored].values for key, stored in plan.matched.items()}


def same_values(one: dict[str, LazyTensor], other: dict[str, LazyTensor]) -> bool:
    """Whether the model would get the same values: some trainers write a network twice."""
    if one.keys() != other.keys():
        return False
    different = [key for key, tensor in one.items() if tensor is not other[key]]
    if any((one[key].shape, one[key].dtype) != (other[key].shape, other[key].dtype) for key in different):
        return False
    if any(one[key].unread or other[key].unread for key in different):
        return False
    values = load_tensors([lazy for key in different for lazy in (one[key], other[key])])
    return all(map(torch.equal, values[::2], values[1::2]))
