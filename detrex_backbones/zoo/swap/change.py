"""What a swap changes in a config: how it is written there, and how it is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from detrex_backbones.config.nodes import clone, is_call, to_plain
from detrex_backbones.config.targets import describe
from detrex_backbones.errors import ConfigValueError
from detrex_backbones.zoo.swap.rewire import Path, read

__all__ = ["Change", "apply", "changes_of"]


@dataclass(frozen=True)
class Change:
    """One value of a config that a swap changed.

    Args:
        path: where it stands: "model.neck.in_features".
        old: what it was, None for nothing.
        new: what it is now.
        why: what else there is to say: why a setting was not carried over, what to look at.
    """

    path: str
    old: Any
    new: Any
    why: str = ""

    def __str__(self) -> str:
        why = f" ({self.why})" if self.why else ""
        return f"{self.path}: {_short(self.old)} -> {_short(self.new)}{why}"


def changes_of(cfg: DictConfig, edits: dict[Path, Any]) -> list[Change]:
    """Those of the edits that make a difference, in order."""
    pairs = [(path, read(cfg, path), new) for path, new in edits.items()]
    return [Change(".".join(map(str, path)), old, new) for path, old, new in pairs if to_plain(old) != _stored(new)]


def _stored(value: Any) -> Any:
    """As it reads once it is in a config, where a dataclass becomes a node."""
    return to_plain(OmegaConf.create({"value": value}, flags={"allow_objects": True})["value"])


def apply(cfg: DictConfig, edits: dict[Path, Any]) -> None:
    """Set every value, or none.

    Raises:
        ConfigValueError: the config is read-only somewhere, or another value was read off what is no more there.
    """
    try:
        before = to_plain(cfg.model)
    except Exception:  # it was broken before: nothing to compare with
        before = None
    rehearsal = clone(cfg)
    try:
        for path, new in edits.items():
            _set(rehearsal, path, new)
        if before is not None:
            to_plain(rehearsal.model)
    except Exception as error:
        raise ConfigValueError(
            f"the config can't be changed: {str(error).rstrip('.')}. It may be read-only, or have an interpolation "
            f"that leads into the old backbone: write its value instead. Nothing was changed."
        ) from error
    for path, new in edits.items():
        _set(cfg, path, new)


def _set(cfg: Any, path: Path, value: Any) -> None:
    node = cfg
    for key in path[:-1]:
        if isinstance(node, DictConfig) and node.get(key) is None:
            with open_dict(node):
                node[key] = {}
        node = node[key]
    value = clone(value) if isinstance(value, DictConfig) else value
    if isinstance(node, DictConfig):
        with open_dict(node):
            node[path[-1]] = value
    else:
        node[path[-1]] = value


def _short(value: Any) -> str:
    """A value in a line: a node by its target and what tells it from others."""
    if isinstance(value, DictConfig) and is_call(value):
        return _short_call(value)
    plain = to_plain(value)
    if isinstance(plain, dict):
        channels = {
            str(key): item.get("channels", item) if isinstance(item, dict) else item for key, item in plain.items()
        }
        return "{" + ", ".join(f"{key}: {getattr(item, 'channels', item)}" for key, item in channels.items()) + "}"
    return repr(plain)


def _short_call(node: DictConfig) -> str:
    telling = [f"{key}={_short(node[key])}" for key in ("net", "bottom_up", "model_name") if key in node]
    stages = node.get("stages")
    if isinstance(stages, DictConfig):
        said = [key for key in stages if key not in ("_target_", "norm", "stride_in_1x1")]
        telling += [f"{key!s}={stages[key]!r}" for key in said]
    telling += [f"scale_factors={list(node.scale_factors)!r}"] if "scale_factors" in node else []
    maps = node.get("out_features", node.get("out_indices"))
    telling += [f"maps={list(maps)!r}"] if maps is not None else []
    return f"{describe(node['_target_']).rpartition('.')[2]}({', '.join(telling)})"
