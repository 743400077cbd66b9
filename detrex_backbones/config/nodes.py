"""What the config layer does to omegaconf's nodes beyond omegaconf's public interface, all in this one place."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import omegaconf
from omegaconf import AnyNode, DictConfig, ListConfig, Node, OmegaConf
from omegaconf.basecontainer import BaseContainer

__all__ = [
    "ALLOW_OBJECTS",
    "SEQUENCES",
    "adopt",
    "as_config",
    "clone",
    "is_call",
    "is_tuple",
    "list_config",
    "made_at",
    "nodes_below",
    "path_text",
    "peek",
    "set_made_at",
    "structured_type",
    "to_plain",
]

NodeT = TypeVar("NodeT", bound=Node)

ALLOW_OBJECTS = {"allow_objects": True}

# omegaconf 2.4 keeps tuples apart from lists. 2.3 has no such class, and makes a ListConfig of a tuple: see `is_tuple`.
SEQUENCES: tuple[Any, ...] = (ListConfig, *([omegaconf.TupleConfig] if hasattr(omegaconf, "TupleConfig") else []))


def as_config(value: Any) -> Any:
    """A dict as a DictConfig that may hold any object; anything else as it is."""
    return DictConfig(value, flags=dict(ALLOW_OBJECTS)) if isinstance(value, dict) else value


def is_call(value: object) -> bool:
    """Whether `value` is a mapping that describes a call, also where its target is still `???`."""
    return isinstance(value, Mapping) and "_target_" in value.keys()  # noqa: SIM118  (`in` a DictConfig skips ???)


def peek(container: Any, key: Any) -> Any:
    """`container[key]`, for a key that is there, without the checks of omegaconf where there is nothing to check."""
    content = vars(container)["_content"] if isinstance(container, Node) else None
    child = content[key] if isinstance(content, (dict, list)) else None
    if type(child) is AnyNode:
        value = child._value()
        # Text can be an interpolation, or the mark of what is missing.
        return container[key] if isinstance(value, str) and ("$" in value or value == "???") else value
    if isinstance(child, (DictConfig, ListConfig)) and isinstance(vars(child)["_content"], (dict, list)):
        return child
    return container[key]


def structured_type(node: object) -> type[Any] | None:
    """The dataclass or attrs class that the node was made from, if it was."""
    kind: Any = OmegaConf.get_type(node) if isinstance(node, DictConfig) else None
    return kind if dataclasses.is_dataclass(kind) or hasattr(kind, "__attrs_attrs__") else None


def made_at(node: object) -> str | None:
    """Where the node was written, as `file:line`, where that is known."""
    return vars(node._metadata).get("_made_at") if isinstance(node, Node) else None


def set_made_at(node: Node, place: str) -> None:
    """Remember where the node was written.

    It rides on omegaconf's metadata, which deepcopy, pickle, merge and assignment into a parent all carry along, and
    which no key, comparison or YAML shows.
    """
    vars(node._metadata)["_made_at"] = place


def path_text(path: Any) -> str:
    """The text of a path given as nested pairs `((None, "model"), "stages")`: `model.stages`, `list[2].x`."""
    keys = []
    while path is not None:
        path, key = path
        keys.append(key)
    text = ""
    for key in reversed(keys):
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else str(key)
    return text


def clone(node: NodeT, parent: Node | None = None) -> NodeT:
    """A copy of the node and all nodes below it that shares the objects they hold.

    `copy.deepcopy` would copy a model that stands in the config, and fails on a generator.
    """
    made = object.__new__(type(node))
    copied = vars(node).copy()
    copied["_metadata"] = _clone_metadata(copied["_metadata"])
    copied["_parent"], copied["_flags_cache"] = parent, None
    if "_content" in copied:
        copied["_content"] = _clone_content(copied["_content"], made)
    object.__setattr__(made, "__dict__", copied)  # DictConfig.__setattr__ would make a key of it
    return made


def _clone_content(content: Any, owner: Node) -> Any:
    if isinstance(content, dict):
        return {key: clone(child, owner) for key, child in content.items()}
    if isinstance(content, list):
        return [clone(child, owner) for child in content]
    return clone(content, owner) if isinstance(content, Node) else content


def _clone_metadata(metadata: Any) -> Any:
    made = object.__new__(type(metadata))
    state = vars(metadata).copy()
    state["flags"] = dict(state["flags"] or ())
    state["resolver_cache"] = state["resolver_cache"].copy()
    made.__dict__ = state
    return made


def adopt(parent: Node, key: Any, node: Node) -> None:
    """Make `node` itself, not a copy as omegaconf would, the child of `parent` at `key`."""
    node._set_parent(parent)  # type: ignore[arg-type]
    node._set_key(key)
    vars(parent)["_content"][key] = node


def nodes_below(node: Any) -> Iterator[Node]:
    """All nodes inside a node, whether they are values or containers."""
    content = vars(node)["_content"] if isinstance(node, BaseContainer) else None
    for child in content.values() if isinstance(content, dict) else content if isinstance(content, list) else ():
        yield child
        yield from nodes_below(child)


def is_tuple(value: object) -> bool:
    """Whether the value is a tuple, or a node that was made from one."""
    if isinstance(value, ListConfig):
        return bool(vars(value._metadata).get("_was_tuple"))
    return isinstance(value, (tuple, *SEQUENCES))


def _remember_tuples() -> None:
    """Let omegaconf 2.3, which makes a ListConfig of a tuple, note on it that it was one.

    Tuples come into a config by so many ways, such as `node.sizes = (1, 2)`, that only omegaconf sees them all. The
    note rides on the metadata, as the place where a node was written does, and changes nothing else.
    """
    original = ListConfig._set_value

    @functools.wraps(original)
    def set_value(self: ListConfig, value: Any, *args: Any, **kwargs: Any) -> None:
        original(self, value, *args, **kwargs)
        vars(self._metadata)["_was_tuple"] = is_tuple(value)

    ListConfig._set_value = set_value  # type: ignore[method-assign]


if len(SEQUENCES) == 1:
    _remember_tuples()


def list_config(items: list[Any]) -> ListConfig:
    """A ListConfig of what may be any objects; a tuple among them stays the tuple that it is.

    A ListConfig would copy nodes, and with them the objects they hold, and cut their interpolations off.
    """
    made = ListConfig([], flags=dict(ALLOW_OBJECTS))
    for index, item in enumerate(items):
        plain = to_plain(item)
        if isinstance(plain, list):
            child: Node = list_config(plain)
        elif isinstance(plain, dict):
            child = DictConfig(plain, flags=dict(ALLOW_OBJECTS))
        else:
            child = AnyNode(plain, flags=dict(ALLOW_OBJECTS))
        vars(made)["_content"].append(child)
        adopt(made, index, child)
    return made


def to_plain(value: Any, keep_calls: bool = False) -> Any:
    """Config containers as dict, list and tuple, resolved; every other object stays the same.

    Args:
        value: a config node, or anything.
        keep_calls: leave nodes with a `_target_` as they are.
    """
    if isinstance(value, DictConfig):
        if value._is_none() or (keep_calls and is_call(value)):
            return None if value._is_none() else value
        return {key: "???" if OmegaConf.is_missing(value, key) else to_plain(value[key], keep_calls) for key in value}
    if isinstance(value, SEQUENCES):
        if value._is_none():
            return None
        items = ["???" if OmegaConf.is_missing(value, i) else to_plain(value[i], keep_calls) for i in range(len(value))]
        return tuple(items) if is_tuple(value) else items
    return value
