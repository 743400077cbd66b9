"""Whether the submodule that names led to is a whole part of the model, and what else the file has for the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from detrex_backbones.checkpoint.entry import Shapes, Status
from detrex_backbones.checkpoint.match.first_convolution import takes_image
from detrex_backbones.checkpoint.match.leftovers import OWN
from detrex_backbones.checkpoint.match.suffixes import Plan
from detrex_backbones.checkpoint.names.conventions import conventions
from detrex_backbones.checkpoint.names.readings import Reading
from detrex_backbones.text import shorten

__all__ = ["take_all", "why_a_piece"]


def why_a_piece(plan: Plan, model: Shapes) -> str:
    """Why a scope that was found by names is no whole part of the model, and what to do; "" where it is one.

    A whole part is what a detector holds under one name and calls with images: a backbone. The last stage of a network
    isn't, nor are its blocks without the patch embedding, though names and shapes of a file fit them. What shows it is
    the convolution that takes the image: the model has it outside the scope, and none inside.

    Args:
        plan: with the scope that was found.
        model: name -> shape.
    """
    if not plan.scope or not plan.matched:
        return ""
    first = [key for key, shape in model.items() if takes_image(shape)]
    if not first or any(key.startswith(plan.scope) for key in first):
        return ""
    scope = plan.scope.rstrip(".")
    return (
        f"{len(plan.matched)} of its tensors have the names and shapes of {scope!r}, which is a piece of a network: "
        f"images go into {first[0]!r}, outside it. {_rest(plan)}Rename the keys to those of the whole "
        f"network, or build the network that the file is for. To load only this part: scope={scope!r}."
    )


def _rest(plan: Plan) -> str:
    return f"Not in the file by these names: {shorten(plan.outside)}. " if plan.outside else ""


def take_all(plan: Plan, reading: Reading, model: Shapes) -> str:
    """Take what the file and the model have alike around the network that was found: a pyramid, say.

    Alike is what has the same names and shapes behind some beginning of the prefix in the file, and behind some
    beginning of the scope in the model. A ViTDet's file has `backbone.net.*` and `backbone.simfp_2.*`, a pyramid of
    ours `net.timm_model.*` and `simfp_2.*`. Where that is all that this part of the model has, scope and prefix become
    the beginnings.

    Args:
        plan: with the scope that was found; changed where all is taken.
        reading: its prefix and its entries likewise.
        model: name -> shape.

    Returns:
        Why the rest of the file may be meant, too, where only some of it is alike; "" otherwise.
    """
    left_out = conventions()[OWN].why_left_out  # mean and standard deviation are in every detector
    rest = {entry.clean: entry for entry in reading.entries if entry.status is Status.OUTSIDE}
    aside = {key for key in plan.outside if left_out(key)}

    def alike(keys: Iterable[str], scope: str, prefix: str) -> dict[str, str]:
        names = {key: prefix + key[len(scope) :] for key in keys if key.startswith(scope)}
        return {key: name for key, name in names.items() if name in rest and rest[name].shape == model[key]}

    outside = [key for key in plan.outside if key not in aside] if rest else []
    most: tuple[dict[str, str], str, str] = ({}, "", "")
    for scope in _beginnings(plan.scope):
        for prefix in _beginnings(reading.prefix):
            same = alike(outside, scope, prefix)
            if same and len(same) >= len(most[0]):  # the last of equal ones is the smallest part
                most = (same, scope, prefix)
    same, scope, prefix = most
    if not same:
        return ""
    if len(same) == sum(key.startswith(scope) for key in outside) and not reading.named.keys() & same.values():
        _widen(plan, reading, scope, prefix, same | alike(aside, scope, prefix))
        return ""
    place = plan.scope.rstrip(".")
    return (
        f"its {len(plan.matched)} tensors in the names of {reading.source} go to {place!r}, but outside it "
        f"the model has the names and shapes of {len(same)} more, which would be left out: {shorten(same)}. To load "
        f"only the former: scope={place!r}. To load all of them: build the model with the file's names, or rename "
        f"the file's keys to the model's."
    )


def _widen(plan: Plan, reading: Reading, scope: str, prefix: str, more: Mapping[str, str]) -> None:
    """Make the part of the model larger by these keys, and what is read of the file by all behind the prefix."""
    plan.scope, reading.prefix = scope, prefix
    plan.matched |= more
    plan.outside = [key for key in plan.outside if key not in more]
    for entry in reading.entries:
        if entry.status is Status.OUTSIDE and not entry.clean.startswith(prefix):
            entry.set(Status.OUTSIDE, f"outside {prefix.rstrip('.')!r}")
        elif entry.status is Status.OUTSIDE:
            entry.ours = entry.clean
            entry.set(Status.NO_PLACE)
            reading.named[entry.ours] = entry


def _beginnings(path: str) -> Iterator[str]:
    """ "", "a." and "a.b." of "a.b."."""
    yield ""
    for at, letter in enumerate(path):
        if letter == ".":
            yield path[: at + 1]
