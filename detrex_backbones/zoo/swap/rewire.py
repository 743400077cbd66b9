"""What follows a backbone in a config: what names its maps or counts their channels, and what that becomes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from detrex_backbones.config.nodes import SEQUENCES, clone, structured_type, to_plain
from detrex_backbones.errors import ArgumentError

__all__ = [
    "Path",
    "Shapes",
    "check_heads",
    "consumers",
    "nodes_below",
    "read",
    "rewire",
    "rewire_top_block",
    "spare_maps",
]

Path = tuple[Any, ...]
Shapes = Mapping[str, Any]

CONTAINERS: tuple[Any, ...] = (DictConfig, *SEQUENCES)
TOP_FEATURE = "res5"  # what detectron2's LastLevelP6P7 looks at unless it is told


def consumers(cfg: DictConfig, top: Path, backbone: Path, old: Shapes, *, deep: bool) -> dict[Path, list[str]]:
    """Path of every list or mapping after the backbone that names its maps -> these names."""
    found = {}
    inside = read(cfg, backbone)._get_full_key(None) + "."
    for path, node in nodes_below(read(cfg, top), top, backbone, deep=deep):
        for key in node:
            if not _names_maps(key) or OmegaConf.is_missing(node, key):
                continue
            names = _names(node[key])
            if names and set(names) <= set(old) and not _stands_elsewhere(node, key, inside):
                place = (*path, key)
                found[place] = names
    return found


def _names_maps(key: Any) -> bool:
    """in_features, head_in_features, input_shapes ..."""
    return str(key).endswith("in_features") or key in ("input_shapes", "input_shape", "in_feature")


def _stands_elsewhere(node: DictConfig, key: Any, inside: str) -> bool:
    """Whether it is an interpolation of a list or mapping that isn't in the backbone: then that is what is changed."""
    if not OmegaConf.is_interpolation(node, key) or not isinstance(node[key], CONTAINERS):
        return False
    return not node[key]._get_full_key(None).startswith(inside)


def nodes_below(node: Any, path: Path, skip: Path = (), *, deep: bool = True) -> Iterator[tuple[Path, DictConfig]]:
    """Every DictConfig from `node` down, with its path; what interpolations lead to stands somewhere else."""
    if path == skip or not isinstance(node, CONTAINERS) or node._is_none():
        return
    if isinstance(node, DictConfig):
        yield path, node
    keys: Any = node if isinstance(node, DictConfig) else range(len(node))
    for key in keys if deep else ():
        if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key):
            yield from nodes_below(node._get_node(key), (*path, key), skip)


def _names(value: Any) -> list[str]:
    names: list[Any] = [value] if isinstance(value, str) else list(value) if isinstance(value, CONTAINERS) else []
    return names if all(isinstance(name, str) for name in names) else []


def spare_maps(cfg: DictConfig, after: Mapping[Path, list[str]]) -> set[str]:
    """The maps that only necks with a number of `num_outs` take: these make coarser ones by themselves."""
    spare: set[str] = set()
    fixed: set[str] = set()
    for place, names in after.items():
        (spare if isinstance(read(cfg, place[:-1]).get("num_outs"), int) else fixed).update(names)
    return spare - fixed


def check_heads(
    cfg: DictConfig, after: Mapping[Path, list[str]], names: Mapping[str, str], old: Shapes, new: Shapes
) -> None:
    """Refuse where heads are made for more than the channels of the old maps.

    Raises:
        ArgumentError: detectron2's C4 heads, which go on with the old network's last stage; poolers and anchors that
            count on strides.
    """
    for place, value in after.items():
        node, where = read(cfg, place[:-1]), ".".join(map(str, place[:-1]))
        if isinstance(node.get("res5"), DictConfig):
            raise ArgumentError(
                f"{where}.res5 is the last stage of the old backbone (a C4 detector of detectron2) and doesn't fit "
                f"another one. Swap in a config with an FPN, or change model.backbone and {where}.res5 together by "
                f"hand. Nothing was changed."
            )
        same_strides = all(old[name].stride == new[names[name]].stride for name in value if name in names)
        same_channels = all(old[name].channels == new[names[name]].channels for name in value if name in names)
        counting = [key for key in ("pooler", "anchor_generator") if key in node]
        made_for_channels = "pooler" in node or "input_shape" in (node.get("head") or ())
        if (counting and not same_strides) or (made_for_channels and not same_channels):
            raise ArgumentError(
                f"{where} works directly on the backbone's maps, and its {', '.join(counting)} and heads are built "
                f"for their strides and channels. Swap in a config with an FPN, whose maps stay the same, or change "
                f"{where} by hand as well. Nothing was changed."
            )


def rewire(
    cfg: DictConfig, place: Path, value: list[str], names: Mapping[str, str], old: Shapes, new: Shapes
) -> dict[Path, Any]:
    """The names at one place, and the channels that stand beside them or in the head there."""
    key, node = place[-1], read(cfg, place[:-1])
    kept = [name for name in value if name in names]
    if key.startswith("input_shape"):
        return {place: {names[name]: _spec(node[key][name], new[names[name]]) for name in kept}}
    edits: dict[Path, Any] = {place: names[kept[0]] if isinstance(node[key], str) else [names[name] for name in kept]}
    for count in ((*place[:-1], "in_channels"), (*place[:-1], "head", "in_channels")):
        channels = to_plain(read(cfg, count))
        if isinstance(channels, int) and channels == old[value[-1]].channels:
            edits[count] = new[names[kept[-1]]].channels
        elif isinstance(channels, list | tuple) and list(channels) == [old[name].channels for name in value]:
            edits[count] = [new[names[name]].channels for name in kept]
    return edits


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
        entry = clone(old)
        entry.update(values)
        return entry
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
    channels, name = (*pyramid, "top_block", "in_channels"), (*pyramid, "top_block", "in_feature")
    edits: dict[Path, Any] = {channels: new[names[feature]].channels}
    if names[feature] != feature:
        edits[name] = names[feature]
    return edits


def read(cfg: Any, path: Path) -> Any:
    """What stands at a path; None for nothing."""
    for key in path:
        if isinstance(cfg, DictConfig) and (key not in cfg):
            return None
        cfg = cfg[key]
    return cfg
