"""Values of the wrong kind: "no" is true in Python, and would turn on what it means to turn off."""

from __future__ import annotations

import functools
import inspect
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from typing import Any, TypeVar, cast

from detrex_backbones.errors import ArgumentError

__all__ = ["check_flag", "check_probabilities", "check_whole", "kinds_checked", "plain_containers"]


def check_flag(name: str, value: Any) -> bool:
    """The value, refused by an ArgumentError unless it is True or False.

    Args:
        name: what it was given as.
        value: to be checked.
    """
    if isinstance(value, bool):
        return value
    said = str(value).strip().lower()
    meant = "True" if said in ("1", "true", "yes", "on") else "False" if said in ("0", "false", "no", "off") else ""
    cure = f" Write {name}={meant}." if meant else ""
    raise ArgumentError(f"{name}={value!r} is of type {type(value).__name__}. Allowed: True or False.{cure}")


Checked = TypeVar("Checked", bound=Callable[..., Any])


def kinds_checked(function: Checked) -> Checked:
    """The function or class, whose arguments annotated as truth values or numbers are checked before it runs.

    Those annotated as `bool` by `check_flag`; those as `int`, `float` and sequences of them by `_check_number`.
    """
    if inspect.isclass(function):
        function.__init__ = kinds_checked(function.__init__)  # type: ignore[method-assign]
        return function
    signature = inspect.signature(function)
    hints = {name: one.annotation for name, one in signature.parameters.items()}
    words = {name: {*WORD.findall(str(getattr(hint, "__name__", hint)))} for name, hint in hints.items()}
    looked_at = {name: said for name, said in words.items() if said <= FLAG or (said <= NUMBERS and said & NUMERIC)}
    if not looked_at:
        return function

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        given: Mapping[str, Any] = {}
        with suppress(TypeError):  # the function itself says whose argument isn't right
            given = signature.bind_partial(*args, **kwargs).arguments
        for name, said in looked_at.items():
            if name in given and not (given[name] is None and "None" in said):
                _check_number(name, given[name], said) if said & NUMERIC else check_flag(name, given[name])
        return function(*args, **kwargs)

    return cast(Checked, checked)


WORD = re.compile(r"\w+")
NUMERIC = {"int", "float"}
SEQUENCES = {"Sequence", "Collection", "tuple", "list"}
FLAG, NUMBERS = {"bool", "None"}, {*NUMERIC, *SEQUENCES, "None"}


def _check_number(name: str, value: Any, said: set[str]) -> None:
    """Refuse texts, truth values and, for `int`, fractions; whatever else counts as a number is one, as numpy's."""
    is_text = isinstance(value, (str, bytes)) or type(value).__name__.startswith("bool")
    if said & SEQUENCES and not is_text and hasattr(value, "__len__"):
        for at, item in enumerate(value if isinstance(value, (Sequence, Set)) else ()):
            _check_number(f"{name}[{at}]", item, said)
        return
    with suppress(TypeError, ValueError):
        if not is_text and (float(value) if "float" in said else operator.index(value)) is not None:
            return
    allowed = "numbers" if "float" in said else "whole numbers"
    meant = _number_meant(name, value, said)
    raise ArgumentError(f"{name}={value!r} is of type {type(value).__name__}. Allowed: {allowed}.{meant}")


def _number_meant(name: str, value: Any, said: set[str]) -> str:
    """A sentence with the number that a text or a whole float stands for; empty if there is none."""
    with suppress(TypeError, ValueError, OverflowError):
        meant = float(value)
        if not isinstance(value, bool) and math.isfinite(meant) and ("float" in said or meant.is_integer()):
            return f" Write {name}={int(meant) if meant.is_integer() else meant}."
    return ""


def check_whole(name: str, value: Any, least: int = 0) -> int:
    """The value, refused by an ArgumentError unless it is a whole number from `least` on.

    Args:
        name: what it was given as.
        value: to be checked.
        least: the smallest that is allowed.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        kind = type(value).__name__
        raise ArgumentError(f"{name}={value!r} is of type {kind}. Allowed: whole numbers from {least} on.")
    return value


PROBABILITY = re.compile(r"(drop_rate|drop_path_rate|dropout|stochastic_depth_prob)$")


def check_probabilities(arguments: Mapping[str, Any]) -> None:
    """Refuse, by an ArgumentError, rates of dropout and stochastic depth that are no probabilities.

    Other libraries take them, and fail at the first step of the training, or never.

    Args:
        arguments: name -> value; of the others nothing is said.
    """
    for name, value in arguments.items():
        if PROBABILITY.search(name) and isinstance(value, (int, float)) and not 0 <= value <= 1:
            raise ArgumentError(f"{name}={value!r} is a probability: from 0 to 1.")


def plain_containers(value: Any) -> Any:
    """The value with lists and dicts in the place of a config's own containers; lists and tuples stay what they are.

    Other libraries ask for `list` or `tuple`, which omegaconf's containers are not.
    """
    if type(value) in (list, tuple):
        return type(value)(plain_containers(item) for item in value)
    if isinstance(value, Mapping):
        return {key: plain_containers(item) for key, item in value.items()}
    if isinstance(value, Sequence) and type(value).__module__.partition(".")[0] == "omegaconf":
        return [plain_containers(item) for item in value]
    return value
