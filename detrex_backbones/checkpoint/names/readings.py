"""The ways to read a file's names: as they are stored, or as each convention whose marks they bear."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from detrex_backbones.checkpoint.match.suffixes import Shapes
from detrex_backbones.checkpoint.names.conventions import Convention, conventions, sources
from detrex_backbones.checkpoint.names.model_names import ModelNames
from detrex_backbones.checkpoint.names.wrappers import clean_names
from detrex_backbones.checkpoint.read import LazyTensor, as_lazy
from detrex_backbones.checkpoint.report import shorten
from detrex_backbones.errors import ArgumentError, CheckpointMatchError, closest

__all__ = ["AS_STORED", "Reading", "each_reading", "readings"]

AS_STORED = "as stored"
TIMM = "timm"
NO_NAME = "no name of"
OUTSIDE = "outside "


@dataclass
class Reading:
    """One way to read a file.

    Args:
        source: name of the convention, or `AS_STORED`.
        prefix: what stands before the network's names in the file.
        tensors: our name -> tensor.
        origin: our name -> name in the file.
        theirs: our name -> the convention's, or the whole clean name where names are used as stored.
        adapted: our name -> what was done to the values.
        left_over: name in the file -> why this reading has no use for it.
        twins: what else these names can be.
        kin: the conventions that know what `theirs` are, and what stands before the names that they know.
    """

    source: str
    prefix: str = ""
    tensors: dict[str, LazyTensor] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    theirs: dict[str, str] = field(default_factory=dict)
    adapted: dict[str, str] = field(default_factory=dict)
    left_over: dict[str, str] = field(default_factory=dict)
    twins: str = ""
    kin: list[tuple[str, str]] = field(default_factory=list)

    @property
    def shapes(self) -> Shapes:
        """Our name -> shape."""
        return {name: tensor.shape for name, tensor in self.tensors.items()}


def readings(
    given: Mapping[str, Tensor | LazyTensor],
    source: str | None = None,
    prefix: str | None = None,
    model: Shapes | None = None,
) -> list[Reading]:
    """Every way to read the file, as `each_reading` gives them one by one."""
    return list(each_reading(given, source, prefix, model))


def each_reading(
    given: Mapping[str, Tensor | LazyTensor],
    source: str | None = None,
    prefix: str | None = None,
    model: Shapes | None = None,
) -> Iterator[Reading]:
    """Every way to read the file: as stored first, then by each convention, at each prefix where its marks are.

    Args:
        given: name in the file -> tensor.
        source: name or alias of conventions; None for all whose marks the names bear.
        prefix: what stands before the network's names; None for all places where the marks are.
        model: name -> shape of the model in hand. With it, names stored behind a prefix are found without marks, and
            names of timm's plain networks become those that its feature wrappers have.

    Raises:
        ArgumentError: an unknown source.
        CheckpointMatchError: the file has none of the names that `source` is known by.
    """
    wanted = _wanted(source)
    tensors = {name: as_lazy(tensor) for name, tensor in given.items()}
    own = ModelNames(model or {})
    cleaned, aside = clean_names(tensors, own)
    stored = {name: tensors[key] for name, key in cleaned.items()}
    firsts = tuple({first for convention in wanted for first, *_ in convention.anchors})
    marked = [name for name in cleaned if name.endswith(firsts)]
    places = {convention.name: _places(convention, stored, marked, source, prefix) for convention in wanted}
    none = True
    if source in (None, AS_STORED):
        # Comes first, and so wins where a renaming gains nothing.
        marks = [(name, place) for name, found_at in places.items() for place in found_at]
        yield _flattened(_as_stored(tensors, cleaned, aside, _dotted(prefix), marks), own)
        for head in own.prefixes({name: tensor.shape for name, tensor in stored.items()}) if prefix is None else ():
            if head:
                yield _flattened(_as_stored(tensors, cleaned, aside, head, marks), own)
        none = False
    for convention in wanted if source != AS_STORED else ():
        for place in places[convention.name]:
            yield _flattened(_read(convention, place, tensors, cleaned, aside), own)
            none = False
    if none:
        raise _not_there(tensors, str(source), prefix, wanted)


def _wanted(source: str | None) -> list[Convention]:
    known = conventions()
    if source is None or source == AS_STORED:
        return list(known.values())
    if source not in sources():
        allowed = [AS_STORED, *sources()]
        raise ArgumentError(f"source={source!r} is not known. Allowed: {', '.join(allowed)}.{closest(source, allowed)}")
    return [known[name] for name in sources()[source]]


def _places(
    convention: Convention,
    stored: Mapping[str, LazyTensor],
    marked: Iterable[str],
    source: str | None,
    prefix: str | None,
) -> list[str]:
    """The prefixes behind which the file is to be read by a convention."""
    if convention.name == source and not convention.anchors:
        return [_dotted(prefix)]
    found = convention.prefixes(stored, marked)
    # Whoever names a convention himself means it, whatever the shapes are.
    fitting = [place for place in found if convention.name == source or convention.fits(place, stored)]
    return [place for place in fitting if prefix is None or place == _dotted(prefix)]


def _not_there(
    tensors: Mapping[str, LazyTensor], source: str, prefix: str | None, wanted: Iterable[Convention]
) -> CheckpointMatchError:
    anchors = " or ".join(", ".join(names) for convention in wanted for names in convention.anchors)
    where = "" if prefix is None else f" behind prefix={prefix!r}"
    return CheckpointMatchError(
        f"the checkpoint has none of the names that source={source!r} is known by{where}: {anchors}. "
        f"It has: {shorten(tensors)}."
    )


def _flattened(reading: Reading, own: ModelNames) -> Reading:
    """The reading with the names that timm's feature wrappers in the model have, where they differ."""
    names = own.flattened(reading.tensors)
    if names:
        reading.source = TIMM if reading.source == AS_STORED else reading.source
        for kept in ("tensors", "origin", "theirs", "adapted"):
            setattr(reading, kept, {names.get(name, name): value for name, value in getattr(reading, kept).items()})
    return reading


def _as_stored(
    tensors: Mapping[str, LazyTensor],
    cleaned: Mapping[str, str],
    aside: Mapping[str, str],
    prefix: str,
    marks: list[tuple[str, str]],
) -> Reading:
    reading = Reading(AS_STORED, prefix, left_over=dict(aside), kin=[*marks, (TIMM, prefix)])
    reading.theirs = {name[len(prefix) :]: name for name in cleaned if name.startswith(prefix)}
    reading.origin = {ours: cleaned[name] for ours, name in reading.theirs.items()}
    reading.tensors = {ours: tensors[key] for ours, key in reading.origin.items()}
    # Whoever has the names of the model itself may all the same be told apart by nothing but them.
    known = conventions()
    reading.twins = next(filter(None, (known[name].twins for name, _ in marks)), "")
    reading.left_over |= _outside(tensors, [*reading.origin.values(), *aside], prefix)
    return reading


def _read(
    convention: Convention,
    prefix: str,
    tensors: Mapping[str, LazyTensor],
    cleaned: Mapping[str, str],
    aside: Mapping[str, str],
) -> Reading:
    reading = Reading(convention.name, prefix, left_over=dict(aside), twins=convention.twins)
    reading.kin = [(convention.name, "")]
    inside = {}
    for name, key in cleaned.items():
        theirs = _relative(name, prefix, convention.elsewhere)
        if theirs is not None:
            inside[theirs] = key
    network = {theirs: tensors[key] for theirs, key in inside.items()}
    done: dict[str, str] = {}
    if convention.adapt is not None:
        network, done = convention.adapt(network)
    for theirs, tensor in network.items():
        ours = convention.read(theirs, tensor.dim())
        if ours is None or ours in reading.tensors:
            continue
        reading.tensors[ours] = tensor
        reading.origin[ours] = inside.get(theirs, theirs)
        reading.theirs[ours] = theirs
        if theirs in done:
            reading.adapted[ours] = done[theirs]
    used = set(reading.origin.values())
    for theirs, key in inside.items():
        if key not in used:
            why = convention.why_left_out(theirs)
            reading.left_over[key] = why or done.get(theirs, "") or f"{NO_NAME} {convention.name}"
    reading.left_over |= _outside(tensors, [*inside.values(), *aside], prefix)
    return reading


def _relative(name: str, prefix: str, elsewhere: Mapping[str, str]) -> str | None:
    if name.startswith(prefix):
        return name[len(prefix) :]
    for beginning, inside in elsewhere.items():
        if name.startswith(beginning):
            return inside + name[len(beginning) :]
    return None


def _outside(tensors: Iterable[str], used: Iterable[str], prefix: str) -> dict[str, str]:
    used = set(used)
    return {key: f"{OUTSIDE}{prefix.rstrip('.')!r}" for key in tensors if key not in used}


def _dotted(prefix: str | None) -> str:
    return prefix.rstrip(".") + "." if prefix else ""
