"""The ways to read a file's names: as they are stored, or as each convention whose marks they bear."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from detrex_backbones.checkpoint.entry import Entry, Shapes, Status
from detrex_backbones.checkpoint.names.conventions import Convention, conventions, sources
from detrex_backbones.checkpoint.names.model_names import ModelNames
from detrex_backbones.checkpoint.names.original_files import (
    ORIGINAL,
    FromOriginal,
    original_entries,
    original_prefixes,
    read_as_authors,
)
from detrex_backbones.checkpoint.names.wrappers import clean_names
from detrex_backbones.checkpoint.read import LazyTensor, as_lazy
from detrex_backbones.errors import ArgumentError, CheckpointMatchError, closest
from detrex_backbones.text import shorten

__all__ = ["AS_STORED", "Reading", "each_reading", "original_readings", "readings"]

AS_STORED = "as stored"
TIMM = "timm"

Names = Mapping[str, str]
"""Clean name -> name in the file."""


@dataclass
class Reading:
    """One way to read a file.

    Args:
        source: name of the convention, or `AS_STORED`.
        prefix: what stands before the network's names in the file.
        entries: every tensor of the file, and those that the convention makes of several.
        lookalikes: what else these names can be.
        known_by: the conventions that know what the entries' `theirs` are, and what stands before the names that they
            know.
        kept: model key -> why it needs no value of the file.
        convention: that of the source; None for `AS_STORED`, timm's and the authors' own names.
    """

    source: str
    prefix: str
    entries: list[Entry]
    lookalikes: str = ""
    known_by: list[tuple[Convention, str]] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    convention: Convention | None = None

    def __post_init__(self) -> None:
        self.named = {entry.ours: entry for entry in self.entries if entry.ours}

    @property
    def shapes(self) -> Shapes:
        """Our name -> shape."""
        return {name: entry.shape for name, entry in self.named.items()}


def readings(
    given: Mapping[str, Tensor | LazyTensor],
    source: str | Convention | None = None,
    prefix: str | None = None,
    model: Shapes | None = None,
) -> list[Reading]:
    """Every way to read the file, as `each_reading` gives them one by one."""
    return list(each_reading(given, source, prefix, model))


def each_reading(
    given: Mapping[str, Tensor | LazyTensor],
    source: str | Convention | None = None,
    prefix: str | None = None,
    model: Shapes | None = None,
) -> Iterator[Reading]:
    """Every way to read the file: as stored first, then by each convention, at each prefix where its marks are.

    Args:
        given: name in the file -> tensor.
        source: name or alias of conventions, or one of the user's own; None for all whose marks the names bear.
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
    cleaned, aside = clean_names(tensors, own, model or {})
    stored = {name: tensors[key] for name, key in cleaned.items()}
    firsts = tuple({first for convention in wanted for first, *_ in convention.anchors})
    marked = [name for name in cleaned if name.endswith(firsts)]
    places = {convention.name: _places(convention, stored, marked, source, prefix) for convention in wanted}
    none = True
    if source in (None, AS_STORED):
        # Comes first, and so wins where a renaming gains nothing.
        marks = [(convention, place) for convention in wanted for place in places[convention.name]]
        yield _flattened(_as_stored(tensors, cleaned, aside, _dotted(prefix), marks), own)
        for head in own.prefixes({name: tensor.shape for name, tensor in stored.items()}) if prefix is None else ():
            if head:
                yield _flattened(_as_stored(tensors, cleaned, aside, head, marks), own)
        none = False
    for convention in wanted if source != AS_STORED else ():
        for place in places[convention.name]:
            yield _flattened(_read(convention, place, tensors, cleaned, aside), own)
            for other in convention.others if model else ():
                yield _flattened(_read(convention, place, tensors, cleaned, aside, conventions()[other]), own)
            none = False
    if none:
        raise _not_there(tensors, wanted[0].name if isinstance(source, Convention) else str(source), prefix, wanted)


def original_readings(
    given: Mapping[str, Tensor | LazyTensor],
    source: str | Convention | None,
    prefix: str | None,
    model: Shapes,
    readers: Mapping[str, FromOriginal],
) -> Iterator[tuple[str, Reading]]:
    """Every way in which the model's own networks can read the file as one of their authors', each with its path.

    The authors' names are those that are stored, or those that a convention leads to.

    Args:
        given: name in the file -> tensor.
        source: `ORIGINAL`, or as of `each_reading`.
        prefix: what stands before the network's names; None for all places where a network may be.
        model: name -> shape of the model in hand.
        readers: path of each network in the model -> how it reads such files.
    """
    tensors = {name: as_lazy(tensor) for name, tensor in given.items()}
    cleaned, aside = clean_names(tensors, ModelNames(model), model)
    marks = [(each, each.prefixes(cleaned)) for each in conventions().values()] if readers else []
    for path, read in readers.items():
        if source in (None, ORIGINAL):
            count = sum(key.startswith(f"{path}.") for key in model) if path else len(model)
            for head in original_prefixes(cleaned, count) if prefix is None else [_dotted(prefix)]:
                entries = original_entries(tensors, cleaned, head, read, by_order=source == ORIGINAL)
                if entries is not None:
                    known_by = [(each, "") for each, heads in marks if head in heads]
                    entries += _set_aside(tensors, aside)
                    yield path, Reading(ORIGINAL, head, entries, known_by=[*known_by, (conventions()[TIMM], "")])
        for reading in _leading_to_authors(given, source, prefix):
            more = read_as_authors({entry.ours: entry for entry in reading.entries if entry.ours}, read)
            if more is not None:
                reading.named = {entry.ours: entry for entry in (*reading.entries, *more) if entry.ours}
                reading.entries += more
                yield path, reading


def _leading_to_authors(
    given: Mapping[str, Tensor | LazyTensor], source: str | Convention | None, prefix: str | None
) -> Iterator[Reading]:
    """The readings by conventions whose pairs lead to the authors' names."""
    wanted = [] if source == ORIGINAL else [convention.name for convention in _wanted(source) if convention.original]
    found = each_reading(given, source, prefix) if wanted else ()
    return (reading for reading in found if reading.source in wanted)


def _wanted(source: str | Convention | None) -> list[Convention]:
    known = conventions()
    if isinstance(source, Convention):
        return [source]
    if source is None or source == AS_STORED:
        return list(known.values())
    if not isinstance(source, str) or source not in sources():
        allowed = [AS_STORED, ORIGINAL, *sources()]
        raise ArgumentError(f"source={source!r} is not known. Allowed: {', '.join(allowed)}.{closest(source, allowed)}")
    return [known[name] for name in sources()[source]]


def _places(
    convention: Convention,
    stored: Mapping[str, LazyTensor],
    marked: Iterable[str],
    source: str | Convention | None,
    prefix: str | None,
) -> list[str]:
    """The prefixes behind which the file is to be read by a convention."""
    named = source in (convention, convention.name)
    if named and not convention.anchors:
        return [_dotted(prefix)]
    found = convention.prefixes(stored, marked)
    # Whoever names a convention himself means it, whatever the shapes are.
    fitting = [place for place in found if named or convention.fits(place, stored)]
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
    names = own.flattened(reading.named)
    if names:
        reading.source = TIMM if reading.source == AS_STORED else reading.source
        for entry in reading.entries:
            entry.ours = names.get(entry.ours, entry.ours)
        reading.named = {entry.ours: entry for entry in reading.entries if entry.ours}
    return reading


def _as_stored(
    tensors: Mapping[str, LazyTensor],
    cleaned: Names,
    aside: Mapping[str, str],
    prefix: str,
    marks: list[tuple[Convention, str]],
) -> Reading:
    entries = []
    for name, key in cleaned.items():
        entry = Entry(key, tensors[key], tensors[key].shape, name, name)
        if name.startswith(prefix):
            entry.ours = name[len(prefix) :]
        else:
            entry.set(Status.OUTSIDE, f"outside {prefix.rstrip('.')!r}")
        entries.append(entry)
    # Whoever has the names of the model itself may all the same be told apart by nothing but them.
    undecided = (convention.undecided(place, cleaned) for convention, place in marks)
    lookalikes = next(filter(None, undecided), "")
    known_by = [*marks, (conventions()[TIMM], prefix)]
    return Reading(AS_STORED, prefix, entries + _set_aside(tensors, aside), lookalikes, known_by)


def _read(
    convention: Convention,
    prefix: str,
    tensors: Mapping[str, LazyTensor],
    cleaned: Names,
    aside: Mapping[str, str],
    other: Convention | None = None,
) -> Reading:
    entries, inside = [], {}
    for name, key in cleaned.items():
        entry = Entry(key, tensors[key], tensors[key].shape, name)
        theirs = _relative(name, prefix, convention.elsewhere)
        if theirs is None:
            entry.set(Status.OUTSIDE, f"outside {prefix.rstrip('.')!r}")
        else:
            entry.theirs = theirs
            inside[theirs] = entry
        entries.append(entry)
    network = {theirs: entry.values for theirs, entry in inside.items()}
    done: dict[str, str] = {}
    if convention.adapt is not None:
        shapeless = {theirs: tensor for theirs, tensor in network.items() if tensor.shapeless}
        given = {theirs: tensor for theirs, tensor in network.items() if theirs not in shapeless}
        network, done = convention.adapt(given)
        network = {**network, **shapeless}
    for theirs in network.keys() - inside.keys():  # what is in no file, but follows from what is
        inside[theirs] = Entry(theirs, None, (), theirs, theirs)
        entries.append(inside[theirs])
    taken: set[str] = set()
    numbered = convention.renumber(network) if convention.renumber is not None else {}
    for theirs, entry in inside.items():
        if theirs in network:
            entry.tensor, entry.shape = network[theirs], network[theirs].shape
            rank = None if entry.values.shapeless else entry.values.dim()
            ours = convention.read(numbered.get(theirs, theirs), rank)
            if ours is not None and other is not None:
                ours = other.write(ours, entry.values.dim())
            if ours is not None and ours not in taken:
                taken.add(ours)
                entry.ours, entry.adapted = ours, done.get(theirs, "")
                continue
        why = convention.why_left_out(theirs)
        if why:
            entry.set(Status.NOT_OF_NETWORK, why)
        elif theirs in done:
            entry.set(Status.PART_OF_ANOTHER, done[theirs])
        else:
            entry.set(Status.NO_NAME, f"no name of {convention.name}")
    entries += _set_aside(tensors, aside)
    lookalikes = convention.undecided(prefix, cleaned)
    return Reading(convention.name, prefix, entries, lookalikes, [(convention, "")], convention=convention)


def _set_aside(tensors: Mapping[str, LazyTensor], aside: Mapping[str, str]) -> list[Entry]:
    known = Status.NOT_OF_NETWORK
    return [Entry(key, tensors[key], tensors[key].shape, status=known, why=why) for key, why in aside.items()]


def _relative(name: str, prefix: str, elsewhere: Mapping[str, str]) -> str | None:
    if name.startswith(prefix):
        return name[len(prefix) :]
    for beginning, inside in elsewhere.items():
        if name.startswith(beginning):
            return inside + name[len(beginning) :]
    return None


def _dotted(prefix: str | None) -> str:
    return prefix.rstrip(".") + "." if prefix else ""
