"""From a checkpoint and a model's names to what a load would do: the reading that fits best, and its report."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch

from detrex_backbones.checkpoint.files import Checkpoint
from detrex_backbones.checkpoint.match.first_convolution import fit_stem
from detrex_backbones.checkpoint.match.suffixes import Plan, Shapes, make_plan
from detrex_backbones.checkpoint.names.conventions import conventions
from detrex_backbones.checkpoint.names.readings import NO_NAME, OUTSIDE, Reading, each_reading
from detrex_backbones.checkpoint.read import LazyTensor, load_tensors
from detrex_backbones.checkpoint.report import Loaded, LoadReport, Mismatch, shorten

OWN = "detectron2"  # the convention of this library's own names

NO_PLACE = "no place in the model"

# Where the numbered blocks of one stage stand, in this library's, torchvision's and timm's names. A stage is loaded
# whole or not at all: what the model's has no place for shows that the file is of another architecture.
STAGE = re.compile(r"^(?:.*\.)?(?:res[2-5]|layer[1-4]|stages[._]\d+\.blocks)(?=\.\d+\.)")

__all__ = ["Attempt", "plan_checkpoint"]


@dataclass(frozen=True)
class Attempt:
    """What a load would do.

    Args:
        report: of every key.
        plan: model key -> our name for what fills it.
        reading: our name -> tensor.
    """

    report: LoadReport
    plan: Plan
    reading: Reading

    @property
    def values(self) -> dict[str, LazyTensor]:
        """Model key -> what it will hold."""
        return _values(self.plan, self.reading)


def plan_checkpoint(
    model: Shapes,
    checkpoint: Checkpoint,
    *,
    source: str | None = None,
    prefix: str | None = None,
    scope: str | None = None,
    stem_adapt: str = "error",
    swap_channels: bool = False,
) -> Attempt:
    """What a load would do. Names and shapes of the model are enough; nothing is refused yet, see `check.check_report`.

    Args:
        model: name -> shape.
        checkpoint: the file.
        source: as of `load_checkpoint`.
        prefix: as of `load_checkpoint`.
        scope: as of `load_checkpoint`.
        stem_adapt: as of `load_checkpoint`.
        swap_channels: as of `load_checkpoint`.

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
        plan.ambiguous = _in_two_namings(plan, reading, model, checkpoint)
    fit_stem(plan, reading, model, stem_adapt, swap_channels)
    return Attempt(_report(checkpoint, reading, plan, model), plan, reading)


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


def _in_two_namings(plan: Plan, reading: Reading, model: Shapes, checkpoint: Checkpoint) -> str:
    """What to say where the rest of the file, too, has a place in the model, by its names as they are."""
    own = conventions()[OWN]  # mean and deviation are in every detector
    same = [
        key
        for key in plan.outside
        if reading.left_over.get(key, "").startswith(OUTSIDE)
        and tuple(checkpoint.tensors[key].shape) == tuple(model[key])
        and not own.why_left_out(key)
    ]
    if not same:
        return ""
    return (
        f"its {len(plan.matched)} tensors in the names of {reading.source} go to {plan.scope.rstrip('.')!r}, but "
        f"{len(same)} others have names and shapes that the model has outside it, and would be left out: "
        f"{shorten(same)}. Only the former are meant: scope={plan.scope.rstrip('.')!r}. All are: build the model with "
        f"the file's names, or give all of them the model's."
    )


def _report(checkpoint: Checkpoint, reading: Reading, plan: Plan, model: Shapes) -> LoadReport:
    origin, adapted, rule = reading.origin, reading.adapted, _rules(plan, reading)
    loaded = [
        Loaded(key, origin[stored], model[key], rule(key, stored), "", adapted.get(stored, ""))
        for key, stored in plan.matched.items()
    ]
    mismatched = [
        Mismatch(key, origin[stored], model[key], tuple(reading.tensors[stored].shape))
        for key, stored in plan.mismatched.items()
    ]
    unused = {origin[ours]: _why_unused(ours, reading) for ours in plan.unused}
    kept = {key: why for key in plan.missing if (why := _why_kept(key, reading.source))}
    return LoadReport(
        path=str(checkpoint.path),
        format=checkpoint.format,
        container=checkpoint.container,
        source=reading.source,
        prefix=reading.prefix,
        scope=plan.scope.rstrip("."),
        loaded=loaded,
        missing=[key for key in plan.missing if key not in kept],
        mismatched=mismatched,
        kept=kept,
        left_over={**unused, **reading.left_over},
        unplaced=_unplaced(plan, unused, reading),
        outside=plan.outside,
        ambiguous=plan.ambiguous,
        twins=reading.twins,
    )


def _rules(plan: Plan, reading: Reading) -> Callable[[str, str], str]:
    """What tells by which rule a stored name came to a model's key."""
    places = ("the same name", "in the scope", "the end of the name")
    same, inside, end = (f"{reading.source}: {place}" for place in places)
    return lambda key, ours: same if key == ours else inside if key == plan.scope + ours else end


def _unplaced(plan: Plan, unused: Mapping[str, str], reading: Reading) -> list[str]:
    """The file's names of what is left over of stages of which other tensors found a place."""
    # What has a name of ours is looked at by it; what has none, by its name in the file.
    named = {ours: reading.origin[ours] for ours in plan.unused if unused[reading.origin[ours]] == NO_PLACE}
    nameless = [key for key, why in reading.left_over.items() if why.startswith(NO_NAME)]
    if not named and not nameless:
        return []
    taken = [*plan.matched.values(), *plan.mismatched.values()]
    ours, theirs = _stages(taken), _stages(reading.origin[name] for name in taken)
    return [key for name, key in named.items() if _stages([name]) & ours] + [
        key for key in nameless if _stages([key]) & theirs
    ]


def _stages(names: Iterable[str]) -> set[str]:
    return {found[0] for name in names if (found := STAGE.match(name))}


def _why_unused(ours: str, reading: Reading) -> str:
    """What a tensor is that nothing in the model asked for, in the words of its convention or of our own names."""
    known = conventions()
    theirs = reading.theirs.get(ours, ours)
    kin = [(known[name], theirs[len(place) :]) for name, place in reading.kin if theirs.startswith(place)]
    reasons = (convention.why_left_out(name) for convention, name in (*kin, (known[OWN], ours)))
    return next(filter(None, reasons), NO_PLACE)


def _why_kept(key: str, source: str) -> str:
    """What a model's key is that files of a source never hold. Names used as stored may be of any source of ours."""
    known = conventions()
    sources = [known[source]] if source in known else [other for other in known.values() if not other.pairs]
    return next(filter(None, (convention.why_kept(key) for convention in sources)), "")


def _values(plan: Plan, reading: Reading) -> dict[str, LazyTensor]:
    return {key: reading.tensors[stored] for key, stored in plan.matched.items()}


def _same(one: dict[str, LazyTensor], other: dict[str, LazyTensor]) -> bool:
    """Whether the model would get the same values: some trainers write a network twice."""
    if one.keys() != other.keys():
        return False
    different = [key for key, tensor in one.items() if tensor is not other[key]]
    if any((one[key].shape, one[key].dtype) != (other[key].shape, other[key].dtype) for key in different):
        return False
    values = load_tensors([lazy for key in different for lazy in (one[key], other[key])])
    return all(map(torch.equal, values[::2], values[1::2]))
