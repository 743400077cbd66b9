"""What follows a backbone in a config: what names its maps or counts their channels, and what that becomes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from detrex_backbones.config.nodes import SEQUENCES, clone, structured_type, to_plain

__all__ = ["Path", "Shapes", "consumers", "read", "rewire", "rewire_top_block"]

Path = tuple[Any, ...]
Shapes = Mapping[str, Any]

CONTAINERS: tuple[Any, ...] = (DictConfig, *SEQUENCES)
TOP_FEATURE = "res5"  # what detectron2's LastLevelP6P7 looks at unless it is told


def consumers(cfg: DictConfig, top: Path, backbone: Path, old: Shapes, *, deep: bool) -> dict[Path, list[str]]:
    """Path of every list or mapping after the backbone that names its maps -> these names."""
    found = {}
    for path, node in _nodes(read(cfg, top), top, backbone, deep):
        for key in node:
            if key in ("in_features", "input_shapes", "input_shape", "in_feature") and not OmegaConf.is_missing(
                node, key
            ):
                names = _names(node[key])
                if names and set(names) <= set(old):
                    place = (*path, key)
                    found[place] = names
    return found


def _nodes(node: Any, path: Path, skip: Path, deep: bool) -> Iterator[tuple[Path, DictConfig]]:
    if path == skip or not isinstance(node, CONTAINERS) or node._is_none():
        return
    if isinstance(node, DictConfig):
        yield path, node
    keys: Any = node if isinstance(node, DictConfig) else range(len(node))
    for key in keys if deep else ():
        # A value that an interpolation leads to stands somewhere else, too.
        if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key):
            yield from _nodes(node._get_node(key), (*path, key), skip, deep)


def _names(value: Any) -> list[str]:
    names: list[Any] = [value] if isinstance(value, str) else list(value) if isinstance(value, CONTAINERS) else []
    return names if all(isinstance(name, str) for name in names) else []


def rewire(
    cfg: DictConfig, place: Path, value: list[str], names: Mapping[str, str], old: Shapes, new: Shapes
) -> dict[Path, Any]:
    """The names at one place, and the channels that stand beside them."""
    key, node = place[-1], read(cfg, place[:-1])
    if key.startswith("input_shape"):
        specs = {names[name]: _spec(node[key][name], new[names[name]]) for name in value}
        return {place: specs}
    edits: dict[Path, Any] = {place: [names[name] for name in value] if key == "in_features" else names[value[0]]}
    channels = to_plain(node.get("in_channels"))
    if isinstance(channels, int) and channels == old[value[-1]].channels:
        edits[_beside(place, "in_channels")] = new[names[value[-1]]].channels
    elif isinstance(channels, list | tuple) and list(channels) == [old[name].channels for name in value]:
        edits[_beside(place, "in_channels")] = [new[names[name]].channels for name in value]
    return edits


def _beside(place: Path, key: str) -> Path:
    return (*place[:-1], key)


def _spec(old: Any, new: Any) -> Any:
    """The old entry of `input_shapes`, of its own type, with the new channels, and the stride where it had one."""
    values = {"channels": new.channels}
    had = old.get("stride") if isinstance(old, Mapping) else getattr(old, "stride", None)
    if had is not None:
        values["stride"] = new.stride
    kind = structured_type(old)
    if kind is not None:
        return kind(**values)
    if isinstance(old, DictConfig):
        twin = clone(old)
        twin.update(values)
        return twin
    return type(old)(**values)


def rewire_top_block(
    cfg: DictConfig, pyramid: Path, names: Mapping[str, str], old: Shapes, new: Shapes
) -> dict[Path, Any]:
    """What makes p6 and p7 of the backbone's last map."""
    block = read(cfg, pyramid).get("top_block")
    if not isinstance(block, DictConfig):
        return {}
    feature = str(block.get("in_feature", TOP_FEATURE))
    if feature not in names or block.get("in_channels") != old[feature].channels:
        return {}
    place = (*pyramid, "top_block")
    edits: dict[Path, Any] = {(*place, "in_channels"): new[names[feature]].channels}
    if names[feature] != feature:
        edits[_beside((*place, ""), "in_feature")] = names[feature]
    return edits


def read(cfg: Any, path: Path) -> Any:
    """What stands at a path; None for nothing."""
    for key in path:
        if isinstance(cfg, DictConfig) and (key not in cfg):
            return None
        cfg = cfg[key]
    return cfg
