"""From a checkpoint and a model's names to what a load would do: the reading that fits best, and its report."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from detrex_backbones.checkpoint.entry import Entry, Shapes, Status
from detrex_backbones.checkpoint.files import Checkpoint
from detrex_backbones.checkpoint.match.first_convolution import fit_stem
from detrex_backbones.checkpoint.match.positions import Grid, fit_positions
from detrex_backbones.checkpoint.match.suffixes import Plan, make_plan
from detrex_backbones.checkpoint.names.conventions import conventions
from detrex_backbones.checkpoint.names.readings import Reading, each_reading
from detrex_backbones.checkpoint.read import LazyTensor, load_tensors
from detrex_backbones.checkpoint.report import LoadReport
from detrex_backbones.text import shorten

OWN = "detectron2"  # the convention of this library's own names

# Where the numbered blocks of one stage stand, in this library's, torchvision's and timm's names. A stage is loaded
# whole or not at all: what the model's has no place for shows that the file is of another architecture.
STAGE = re.compile(r"^(?:.*\.)?(?:res[2-5]|layer[1-4]|stages[._]\d+\.blocks)(?=\.\d+\.)")

__all__ = ["Attempt", "plan_checkpoint"]


@dataclass(frozen=True)
class Attempt:
    """What a load would do.

    Args:
        report: of every key; it holds no values, and so outlives the file.
        values: model key -> what it will hold.
    """

    report: LoadReport
    values: dict[str, LazyTensor]


def plan_checkpoint(
    model: Shapes,
    checkpoint: Checkpoint,
    *,
    source: str | None = None,
    prefix: str | None = None,
    scope: str | None = None,
    stem_adapt: str = "error",
    swap_channels: bool = False,
    resize_positions: bool = True,
    grids: Mapping[str, Grid] | None = None,
) -> Attempt:
    """What a load would do. Names and shapes of the model are enough; nothing is refused yet: see `check_report`.

    Args:
        model: name -> shape.
        checkpoint: the file.
        source: as of `load_checkpoint`.
        prefix: as of `load_checkpoint`.
        scope: as of `load_checkpoint`.
        stem_adapt: as of `load_checkpoint`.
        swap_channels: as of `load_checkpoint`.
        resize_positions: as of `load_checkpoint`.
        grids: of the model's tables of positions, see `positions.grids_of`.

    Raises:
        ArgumentError: an unknown source, scope or way to adapt.
        CheckpointMatchError: the file has none of the names that `source` is known by.
    """
    found = _plans(model, checkpoint, source, prefix, scope)
    plan, reading = max(found, key=lambda pair: len(pair[0].matched))
    rivals = _rivals(plan, reading, found)
    if plan.matched and not plan.ambiguous and rivals:
        places = ", ".join(repr(candidate.prefix.rstrip(".")) for candidate in (reading, *rivals))
        plan.ambiguous = f"it holds {len(rivals) + 1} networks that fit: {places}. Say which: prefix='...'."
    if scope is None and prefix is None and not plan.ambiguous:
        plan.ambiguous = _in_two_namings(plan, reading, model)
    fit_stem(plan, reading, model, stem_adapt, swap_channels)
    if resize_positions:
        fit_positions(plan, reading, model, grids or {})
    values = _values(plan, reading)
    report = _report(checkpoint, reading, plan, model)
    for entry in report.entries:
        entry.tensor = None
    return Attempt(report, values)


def _plans(
    model: Shapes, checkpoint: Checkpoint, source: str | None, prefix: str | None, scope: str | None
) -> list[tuple[Plan, Reading]]:
    """Every reading with its plan, except those that can be no better than the first."""
    found: list[tuple[Plan, Reading]] = []
    for reading in each_reading(checkpoint.tensors, source, prefix, model):
        # Other conventions aren't asked for names that fill the whole model as they are.
        if found and len(found[0][0].matched) == len(model) and reading.source != found[0][1].source:
            break
        found.append((make_plan(model, reading.shapes, scope), reading))
        # Where all of the file has a place, there is nothing else in it.
        if len(found[0][0].matched) == len(checkpoint.tensors):
            break
    return found


def _rivals(plan: Plan, reading: Reading, others: list[tuple[Plan, Reading]]) -> list[Reading]:
    """Other networks of the file that fit as well, and would give the model other values."""
    values = _values(plan, reading) if len(others) > 1 else {}
    return [
        candidate
        for other, candidate in others
        if candidate is not reading
        and candidate.source == reading.source
        and len(other.matched) == len(plan.matched)
        and not _same(values, _values(other, candidate))
    ]


def _in_two_namings(plan: Plan, reading: Reading, model: Shapes) -> str:
    """What to say where the rest of the file, too, has a place in the model, by its names as they are."""
    own = conventions()[OWN]  # mean and standard deviation are in every detector
    outside = {entry.checkpoint_key: entry for entry in reading.entries if entry.status is Status.OUTSIDE}
    same = [
        key
        for key in plan.outside
        if key in outside and outside[key].shape == tuple(model[key]) and not own.why_left_out(key)
    ]
    if not same:
        return ""
    scope = plan.scope.rstrip(".")
    return (
        f"its {len(plan.matched)} tensors in the names of {reading.source} go to {scope!r}, but {len(same)} others "
        f"have names and shapes that the model has outside it, and would be left out: {shorten(same)}. Only the former "
        f"are meant: scope={scope!r}. All are: build the model with the file's names, or give all of them the model's."
    )


def _report(checkpoint: Checkpoint, reading: Reading, plan: Plan, model: Shapes) -> LoadReport:
    for key, ours in plan.matched.items():
        entry = reading.named[ours]
        entry.model_key, entry.rule = key, _rule(plan, reading, key, ours)
        entry.set(Status.LOADED)
    for key, ours in plan.mismatched.items():
        entry = reading.named[ours]
        entry.model_key, entry.model_shape = key, tuple(model[key])
        entry.set(Status.OTHER_SHAPE)
    for ours in plan.unused:
        why = _why_not_of_network(reading.named[ours], reading)
        if why:
            reading.named[ours].set(Status.NOT_OF_NETWORK, why)
    _mark_other_architecture(reading)
    unread = [Entry(key, status=Status.UNREAD, why=what) for key, what in checkpoint.unread.items()]
    kept = {key: why for key in plan.missing if (why := _why_kept(key, reading.source))}
    return LoadReport(
        path=str(checkpoint.path),
        format=checkpoint.format,
        container=checkpoint.container,
        source=reading.source,
        prefix=reading.prefix,
        scope=plan.scope.rstrip("."),
        entries=[*reading.entries, *unread],
        missing=[key for key in plan.missing if key not in kept],
        kept=kept,
        outside=plan.outside,
        ambiguous=plan.ambiguous,
        lookalikes=reading.lookalikes,
    )


def _rule(plan: Plan, reading: Reading, key: str, ours: str) -> str:
    """By which rule a stored name came to a model's key."""
    place = "the same name" if key == ours else "in the scope" if key == plan.scope + ours else "the end of the name"
    return f"{reading.source}: {place}"


def _mark_other_architecture(reading: Reading) -> None:
    """Find what is left over of stages of which other tensors found a place."""
    placed = [entry for entry in reading.entries if entry.model_key]
    ours, theirs = _stages(entry.ours for entry in placed), _stages(entry.checkpoint_key for entry in placed)
    for entry in reading.entries:
        # What has a name of ours is looked at by it; what has none, by its name in the file.
        if (entry.status is Status.NO_PLACE and _stages([entry.ours]) & ours) or (
            entry.status is Status.NO_NAME and _stages([entry.checkpoint_key]) & theirs
        ):
            entry.set(Status.OTHER_ARCHITECTURE, entry.why)


def _stages(names: Iterable[str]) -> set[str]:
    return {found[0] for name in names if (found := STAGE.match(name))}


def _why_not_of_network(entry: Entry, reading: Reading) -> str:
    """What a tensor is that nothing in the model asked for, in the words of its convention or of our own names."""
    known = conventions()
    names = [
        (known[name], entry.theirs[len(place) :]) for name, place in reading.known_by if entry.theirs.startswith(place)
    ]
    reasons = (convention.why_left_out(name) for convention, name in (*names, (known[OWN], entry.ours)))
    return next(filter(None, reasons), "")


def _why_kept(key: str, source: str) -> str:
    """What a model's key is that files of a source never hold. Names used as stored may be of any source of ours."""
    known = conventions()
    sources = [known[source]] if source in known else [other for other in known.values() if not other.pairs]
    return next(filter(None, (convention.why_kept(key) for convention in sources)), "")


def _values(plan: Plan, reading: Reading) -> dict[str, LazyTensor]:
    return {key: reading.named[stored].values for key, stored in plan.matched.items()}


def _same(one: dict[str, LazyTensor], other: dict[str, LazyTensor]) -> bool:
    """Whether the model would get the same values: some trainers write a network twice."""
    if one.keys() != other.keys():
        return False
    different = [key for key, tensor in one.items() if tensor is not other[key]]
    if any((one[key].shape, one[key].dtype) != (other[key].shape, other[key].dtype) for key in different):
        return False
    values = load_tensors([lazy for key in different for lazy in (one[key], other[key])])
    return all(map(torch.equal, values[::2], values[1::2]))
