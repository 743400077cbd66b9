"""The ways to read a file's names: as they are stored, or as each convention whose marks they bear."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from detrex_backbones.checkpoint.clean import clean_names
from detrex_backbones.checkpoint.conventions import Convention, conventions
from detrex_backbones.checkpoint.match import Shapes
from detrex_backbones.checkpoint.report import shorten
from detrex_backbones.errors import ArgumentError, CheckpointMatchError, closest

__all__ = ["AS_STORED", "Reading", "readings"]

AS_STORED = "as stored"


@dataclass
class Reading:
    """One way to read a file.

    Args:
        source: name of the convention, or `AS_STORED`.
        prefix: what stands before the network's names in the file.
        tensors: our name -> tensor.
        origin: our name -> name in the file.
        adapted: our name -> what was done to the values.
        left_over: name in the file -> why this reading has no use for it.
        twins: what else these names can be.
    """

    source: str
    prefix: str = ""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    adapted: dict[str, str] = field(default_factory=dict)
    left_over: dict[str, str] = field(default_factory=dict)
    twins: str = ""

    @property
    def shapes(self) -> Shapes:
        """Our name -> shape."""
        return {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}


def readings(tensors: Mapping[str, Tensor], source: str | None = None, prefix: str | None = None) -> list[Reading]:
    """Every way to read the file: as stored first, then by each convention, at each prefix where its marks are.

    Args:
        tensors: name in the file -> tensor.
        source: name of the convention; None for all whose marks the names bear.
        prefix: what stands before the network's names; None for all places where the marks are.

    Raises:
        ArgumentError: an unknown source.
        CheckpointMatchError: the file has none of the names that `source` is known by.
    """
    known = conventions()
    if source not in (None, AS_STORED, *known):
        allowed = [AS_STORED, *known]
        raise ArgumentError(f"source={source!r} is not known. Allowed: {', '.join(allowed)}.{closest(source, allowed)}")
    cleaned, aside = clean_names(tensors)
    found = []
    if source in (None, AS_STORED):
        # Comes first, and so wins where a renaming gains nothing.
        kept = {name: key for name, key in cleaned.items() if name.startswith(_dotted(prefix))}
        found.append(_as_stored(tensors, kept, aside, _dotted(prefix)))
    for convention in known.values():
        if source in (None, convention.name):
            places = [place for place in convention.prefixes(cleaned) if prefix is None or place == _dotted(prefix)]
            found += [_read(convention, place, tensors, cleaned, aside) for place in places]
    if not found:
        anchors = " or ".join(", ".join(names) for names in known[str(source)].anchors)
        where = "" if prefix is None else f" behind prefix={prefix!r}"
        raise CheckpointMatchError(
            f"the checkpoint has none of the names that source={source!r} is known by{where}: {anchors}. "
            f"It has: {shorten(tensors)}."
        )
    return found


def _as_stored(
    tensors: Mapping[str, Tensor], kept: Mapping[str, str], aside: Mapping[str, str], prefix: str
) -> Reading:
    reading = Reading(AS_STORED, prefix, left_over=dict(aside))
    for name, key in kept.items():
        reading.tensors[name[len(prefix) :]] = tensors[key]
        reading.origin[name[len(prefix) :]] = key
    # A file in this library's own names may leave the same things over as detectron2's.
    if prefix == "":
        reading.twins = next((c.twins for c in conventions().values() if not c.pairs and c.prefixes(kept)), "")
    reading.left_over |= _outside(tensors, [*reading.origin.values(), *aside], prefix)
    return reading


def _read(
    convention: Convention,
    prefix: str,
    tensors: Mapping[str, Tensor],
    cleaned: Mapping[str, str],
    aside: Mapping[str, str],
) -> Reading:
    reading = Reading(convention.name, prefix, left_over=dict(aside), twins=convention.twins)
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
        if theirs in done:
            reading.adapted[ours] = done[theirs]
    used = set(reading.origin.values())
    for theirs, key in inside.items():
        if key not in used:
            why = convention.why_left_out(theirs)
            reading.left_over[key] = why or done.get(theirs, "") or f"no name of {convention.name}"
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
    return {key: f"outside {prefix.rstrip('.')!r}" for key in tensors if key not in used}


def _dotted(prefix: str | None) -> str:
    return prefix.rstrip(".") + "." if prefix else ""
