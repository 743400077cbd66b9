"""Whether the submodule that names led to is a whole part of the model, and all that the file has for the model."""

from __future__ import annotations

from collections.abc import Iterator

from detrex_backbones.checkpoint.entry import Shapes, Status
from detrex_backbones.checkpoint.match.first_convolution import takes_image
from detrex_backbones.checkpoint.match.leftovers import OWN
from detrex_backbones.checkpoint.match.suffixes import Plan
from detrex_backbones.checkpoint.names.conventions import conventions
from detrex_backbones.checkpoint.names.readings import Reading
from detrex_backbones.text import shorten

__all__ = ["why_a_piece", "why_not_all"]


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
        f"images go into {first[0]!r}, outside it. {_rest(plan)}Give the file the names of the whole network, or "
        f"build the network that it is for. Only this piece is meant: scope={scope!r}."
    )


def _rest(plan: Plan) -> str:
    return f"Not in the file by these names: {shorten(plan.outside)}. " if plan.outside else ""


def why_not_all(plan: Plan, reading: Reading, model: Shapes) -> str:
    """Why the rest of the file, too, may be meant: the model has it by its names as they are; "" where it hasn't.

    As they are means: behind some beginning of the prefix in the file, and behind some beginning of the scope in the
    model. A ViTDet's file has `backbone.net.*` and `backbone.simfp_2.*`, a pyramid of ours `net.timm_model.*` and
    `simfp_2.*`.
    """
    left_out = conventions()[OWN].why_left_out  # mean and standard deviation are in every detector
    rest = {entry.clean: entry.shape for entry in reading.entries if entry.status is Status.OUTSIDE}
    outside = [key for key in plan.outside if not left_out(key)] if rest else []
    found: list[str] = []
    for scope in _beginnings(plan.scope):
        inside = [key for key in outside if key.startswith(scope)]
        for prefix in _beginnings(reading.prefix):
            same = [key for key in inside if rest.get(prefix + key[len(scope) :]) == model[key]]
            found = max(found, same, key=len)
    if not found:
        return ""
    scope = plan.scope.rstrip(".")
    return (
        f"its {len(plan.matched)} tensors in the names of {reading.source} go to {scope!r}, but {len(found)} others "
        f"have names and shapes that the model has outside it, and would be left out: {shorten(found)}. Only the "
        f"former are meant: scope={scope!r}. All are: build the model with the file's names, or give all of them the "
        f"model's."
    )


def _beginnings(path: str) -> Iterator[str]:
    """ "", "a." and "a.b." of "a.b."."""
    yield ""
    for at, letter in enumerate(path):
        if letter == ".":
            yield path[: at + 1]
