"""What the value of an override becomes where it is put: a tuple for a tuple, the object of a name for an object."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig
from omegaconf.basecontainer import BaseContainer

from detrex_backbones.config._notes import short_repr
from detrex_backbones.config.by_name import OBJECT_NAMED
from detrex_backbones.config.lambda_text import lambda_text
from detrex_backbones.config.lambdas import lambda_of
from detrex_backbones.config.new_keys import known_target
from detrex_backbones.config.nodes import SEQUENCES, is_call, is_tuple
from detrex_backbones.config.signatures import named_parameters
from detrex_backbones.config.targets import dotted_name, is_dotted_name, locate
from detrex_backbones.config.values import written_leaf
from detrex_backbones.errors import ConfigImportError, OverrideError
from detrex_backbones.text import visible

__all__ = ["fitted", "place_of"]


def place_of(node: Any, key: Any = None) -> str:
    """Where a node, or a key of it, stands in the whole config: "model.backbone"."""
    return visible(node._get_full_key(key))


def fitted(node: Any, key: Any, value: Any, text: str) -> Any:
    """The value as what stands there asks for it.

    Args:
        node: the container.
        key: key or index in it.
        value: what the override gives.
        text: the override, in messages; one that begins with "+" sets texts as they are.

    Raises:
        OverrideError: a dotted name that leads nowhere, or a text that stands for an object and can't set it.
    """
    if key == "_target_":
        return value
    old = _standing(node, key)
    if old is None:
        target = known_target(node) if isinstance(node, DictConfig) and is_call(node) else None
        old = named_parameters(target).get(key) if target is not None else None
    return _shaped(value, old, place_of(node, key), text)


def _standing(node: Any, key: Any) -> Any:
    """What stands there; None for a new key, `???` and an interpolation that leads nowhere."""
    try:
        return node[key]
    except Exception:
        return None


def _shaped(value: Any, old: Any, place: str, text: str) -> Any:
    """A list over a tuple as a tuple, and so inside it, where what is longer goes on as it ended."""
    if isinstance(value, dict) and isinstance(old, (dict, DictConfig)):
        return {key: _shaped(item, _standing(old, key), f"{place}.{key}", text) for key, item in value.items()}
    if not isinstance(value, (list, tuple)):
        return _object_named(value, old, place, text)
    if not isinstance(old, (list, tuple, *SEQUENCES)):
        return value
    last = len(old) - 1  # type: ignore[arg-type]
    before = [_standing(old, min(index, last)) for index in range(len(value))]
    items = [_shaped(*pair, f"{place}[{at}]", text) for at, pair in enumerate(zip(value, before, strict=True))]
    return tuple(items) if is_tuple(old) or isinstance(value, tuple) else items


def _object_named(value: Any, old: Any, place: str, text: str) -> Any:
    """What a dotted name leads to, where an object stands that has one; the value otherwise."""
    if not isinstance(value, str) or text.startswith("+") or old is None or isinstance(old, str):
        return value
    if value.startswith("lambda") and lambda_text(old) is not None:
        return lambda_of(value)
    now = old.get("_name_") if is_call(old) and old["_target_"] == OBJECT_NAMED else dotted_name(old)
    has_text = isinstance(old, BaseContainer) or type(old) in (list, tuple, dict) or written_leaf(old) is not None
    if now is None and not has_text and value == visible(short_repr(old)):
        raise OverrideError(
            f"The override {text!r} gives {place} the text that is shown for the {type(old).__name__} there, "
            f"which no text can set. Leave this override out, or write '+{text}' to set the text."
        )
    if now is None or "." not in value or not is_dotted_name(value):
        return value
    try:
        return locate(value)
    except ConfigImportError as error:
        raise OverrideError(
            f"The override {text!r} names what is to stand at {place}, where {visible(now)} "
            f"stands now. {error} Write '+{text}' to set the text."
        ) from error
