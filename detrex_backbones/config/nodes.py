"""What the config layer does to omegaconf's nodes beyond omegaconf's public interface, all in this one place."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, cast

import omegaconf
from omegaconf import AnyNode, DictConfig, ListConfig, Node, OmegaConf

__all__ = [
    "ALLOW_OBJECTS",
    "SEQUENCES",
    "adopt",
    "as_config",
    "clone",
    "is_call",
    "made_at",
    "path_text",
    "peek",
    "set_made_at",
    "structured_type",
    "take",
    "to_plain",
]

NodeT = TypeVar("NodeT", bound=Node)

ALLOW_OBJECTS = {"allow_objects": True}

# omegaconf 2.4 keeps tuples apart from lists; 2.3 has no such class, and makes a ListConfig of a tuple.
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
    state = vars(node)
    if isinstance(state, _Later) and "_content" not in state:  # not read: what it would be copied from can be shared
        return _later(state.source, node, parent)
    twin = object.__new__(type(node))
    copied = state.copy()
    copied["_metadata"] = _clone_metadata(state["_metadata"])
    copied["_parent"], copied["_flags_cache"] = parent, None
    if "_content" in copied:
        copied["_content"] = _clone_content(copied["_content"], twin)
    object.__setattr__(twin, "__dict__", copied)  # DictConfig.__setattr__ would make a key of it
    return twin


def _clone_content(content: Any, owner: Node) -> Any:
    if isinstance(content, dict):
        return {key: clone(child, owner) for key, child in content.items()}
    if isinstance(content, list):
        return [clone(child, owner) for child in content]
    return clone(content, owner) if isinstance(content, Node) else content


def _clone_metadata(metadata: Any) -> Any:
    twin = object.__new__(type(metadata))
    state = vars(metadata).copy()
    state["flags"] = dict(state["flags"] or ())
    state["resolver_cache"] = state["resolver_cache"].copy()
    twin.__dict__ = state
    return twin


class _Later(dict[str, Any]):
    """The `__dict__` of a node whose content is copied from `source` when somebody first asks for it.

    omegaconf reads a node's content as `node.__dict__["_content"]`, so that `__missing__` sees whoever comes first.
    """

    source: Any = None  # a node that nobody else has, and nobody changes
    owner: Any = None

    def __missing__(self, key: str) -> Any:
        if key == "_content" and (source := self.source) is not None:
            self.setdefault(key, _clone_content(vars(source)[key], self.owner))
            self.source = self.owner = None
        if key not in self:  # it may have been another thread that put it there
            raise KeyError(key)
        return self[key]

    def __copy__(self) -> dict[str, Any]:  # what pickle asks for
        return {"_content": self["_content"], **self}


def _later(source: Node, like: NodeT, parent: Node | None = None) -> NodeT:
    """A copy of `source`, with the metadata of `like`, whose content is copied when it is first read.

    A chain grown around a named node copies what that node holds at every level, and so the innermost n times. Put
    off like this, what was copied once and not looked at since is handed on.
    """
    twin = object.__new__(type(like))
    state = _Later(vars(like))
    state.pop("_content", None)
    state["_metadata"] = _clone_metadata(like._metadata)
    state["_parent"], state["_flags_cache"] = parent, None
    state.source, state.owner = source, twin
    object.__setattr__(twin, "__dict__", state)
    return twin


def adopt(parent: Node, key: Any, node: Node) -> None:
    """Make `node` itself, not a copy as omegaconf would, the child of `parent` at `key`."""
    node._set_parent(parent)  # type: ignore[arg-type]
    node._set_key(key)
    vars(parent)["_content"][key] = node


def _children(node: Node) -> Iterator[Node]:
    content = vars(node)["_content"]
    return iter(content.values() if isinstance(content, dict) else content if isinstance(content, list) else ())


def _count_of_a_lone_value() -> int:
    holder = {"key": object()}
    return sys.getrefcount(holder["key"])


# Where the interpreter doesn't count references, nothing ever looks unshared, and `take` always copies.
_LONE = _count_of_a_lone_value() if hasattr(sys, "getrefcount") else -1


def unshared(holder: Any, key: Any) -> bool:
    """Whether nobody but `holder` refers to `holder[key]`, so that nobody could tell it from a copy.

    A count of exactly one is a proof: whatever else can reach the value would have been counted. Children point at
    their parent, so each counts for one. (Whoever kept a node from deeper inside would see later edits; from Python
    3.11 on a call's temporary arguments come out as unshared, before they don't and are copied.)
    """
    if _LONE < 0:
        return False
    inside = 0
    if isinstance(holder[key], Node):
        inside = sum(vars(child)["_parent"] is holder[key] for child in _children(holder[key]))
    return sys.getrefcount(holder[key]) == _LONE + inside


def take(holder: Any, key: Any, owned: bool) -> Node:
    """The node `holder[key]` for use in another parent: itself if nobody else has it, else a copy.

    Neither is copied once more at every level, so that nested calls are linear in time: one written inside the next
    is not copied, and of one with a name the copy is put off level by level.
    """
    if owned and holder[key]._get_node_flag("allow_objects") and unshared(holder, key):
        return holder[key]  # type: ignore[no-any-return]
    snapshot = clone(cast(Node, holder[key]))
    return _later(snapshot, snapshot)


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
        return items if isinstance(value, ListConfig) else tuple(items)
    return value
