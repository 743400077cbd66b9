"""Values of the wrong kind: "no" is true in Python, and would turn on what it means to turn off."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

from detrex_backbones.errors import ArgumentError

__all__ = ["check_flag", "check_whole", "flags_checked", "plain_containers"]


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


def flags_checked(function: Checked) -> Checked:
    """The function or class, whose arguments annotated as `bool` are checked by `check_flag` before it runs."""
    if inspect.isclass(function):
        function.__init__ = flags_checked(function.__init__)  # type: ignore[method-assign]
        return function
    signature = inspect.signature(function)
    hints = {name: one.annotation for name, one in signature.parameters.items()}
    kinds = {name: str(getattr(hint, "__name__", hint)) for name, hint in hints.items()}
    flags = {name: kind for name, kind in kinds.items() if kind in ("bool", "bool | None")}
    if not flags:
        return function

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind_partial(*args, **kwargs).arguments
        for name in flags:
            if name in given and not (given[name] is None and "None" in flags[name]):
                check_flag(name, given[name])
        return function(*args, **kwargs)

    return cast(Checked, checked)


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
