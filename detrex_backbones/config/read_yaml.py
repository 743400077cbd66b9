"""YAML as configs are written in it: plain data, tuples and paths. What it may ask of its reader is bounded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from detrex_backbones.errors import ConfigImportError, ConfigValueError, closest
from detrex_backbones.text import visible

__all__ = ["TUPLE", "parse_yaml", "read_yaml"]

TUPLE = "tag:yaml.org,2002:python/tuple"  # PyYAML's own tag, which detectron2's loader reads as well

DEPTH = 200
NODES = 10_000  # as many as omegaconf allows from its version 2.4 on
_BRACKETS = re.compile(r"[\[\]{}]")
# Each level of blocks takes at least one of these characters before the first word of a line.
_INDENT = re.compile(rf"^[ \t?:-]{{{4 * DEPTH}}}", re.MULTILINE)


def read_yaml(path: Path) -> Any:
    """A YAML file as a config that may hold any object.

    Raises:
        ConfigImportError: the file is missing, or isn't YAML.
        ConfigValueError: it holds what is no plain data, or nests or multiplies its values without end.
    """
    if not path.is_file():
        beside = [file.name for file in path.parent.glob("*")] if path.parent.is_dir() else []
        raise ConfigImportError(f"The config file {path} does not exist.{closest(path.name, beside)}")
    try:
        text = path.read_text(encoding="utf-8")
        _check_nesting(text, path)
        _check_aliases(text, path)
        cfg = OmegaConf.create(parse_yaml(text))
    except yaml.constructor.ConstructorError as error:
        raise ConfigValueError(_not_plain(path, error)) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        shown = " ".join(visible(line.strip()) for line in str(error).splitlines())
        raise ConfigImportError(f"The config file {path} isn't YAML: {shown}") from error
    except (OSError, RecursionError, OmegaConfBaseException) as error:
        raise ConfigImportError(f"The config file {path} can't be read: {visible(error)}") from error
    cfg._set_flag("allow_objects", True)
    return cfg


def parse_yaml(text: str) -> Any:
    """The plain data of a text, read as omegaconf reads it: no objects, 1e-4 is a number, a key stands once.

    Raises:
        yaml.YAMLError: the text isn't YAML, or holds what is no plain data.
    """
    found = yaml.load(text, Loader=_Loader)
    if isinstance(found, (dict, list, tuple)):
        return found
    return {} if found is None else {found: None}


class _Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == self.DEFAULT_SCALAR_TAG and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"found duplicate key {key.value}", key.start_mark)
            seen |= {key.value} if key.tag == self.DEFAULT_SCALAR_TAG else set()
        return node


def _path(loader: _Loader, node: Any) -> Path:
    return Path(*map(str, loader.construct_sequence(node)))


def _tuple(loader: _Loader, node: Any) -> tuple[Any, ...]:
    return tuple(loader.construct_sequence(node, deep=True))


_Loader.add_constructor(TUPLE, _tuple)
for _kind in ("Path", "PosixPath", "WindowsPath"):
    _Loader.add_constructor(f"tag:yaml.org,2002:python/object/apply:pathlib.{_kind}", _path)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, words) for tag, words in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def _not_plain(path: Path, error: yaml.constructor.ConstructorError) -> str:
    line = f":{error.problem_mark.line + 1}" if error.problem_mark is not None else ""
    text = f"{path}{line} doesn't hold plain data: {visible(error.problem)}."
    if "tag" in str(error.problem):
        text += (
            " YAML is read without Python tags, which could run code. What YAML can't hold was written beside it, "
            f"to {path.name}.pkl, if this package saved it; that file is loaded with pickle, if you trust it."
        )
    return text


def _check_nesting(text: str, path: object) -> None:
    """Refuse a text whose brackets or lines lie deeper in one another than any config's.

    Raises:
        ConfigValueError: it names the file and the limit.
    """
    depth = deepest = 0
    for bracket in _BRACKETS.findall(text):
        depth = depth + 1 if bracket in "[{" else max(0, depth - 1)
        deepest = max(deepest, depth)
    if deepest > DEPTH or _INDENT.search(text):
        raise ConfigValueError(f"{path} nests its values too deep; a config has at most {DEPTH} levels.")


def _check_aliases(text: str, path: object) -> None:
    """Refuse a text whose aliases (`*name`) stand for more values than any config has, or for themselves.

    Raises:
        ConfigValueError: it names the file and the limit.
        yaml.YAMLError: the text isn't YAML.
    """
    if "&" not in text or "*" not in text:
        return
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is not None and _count(root, {}) > NODES:
        raise ConfigValueError(
            f"{path} uses aliases (*name) that contain themselves, or stand for more than {NODES:,} values in all. "
            f"Write them out."
        )


def _count(node: yaml.Node, known: dict[int, float]) -> float:
    """The values in a node, each as often as aliases name it; infinite where one contains itself."""
    if id(node) not in known:
        known[id(node)] = float("inf")  # while it is looked into
        inside = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        parts = () if isinstance(node, yaml.ScalarNode) else inside
        known[id(node)] = 1 + sum(_count(part, known) for part in parts)
    return known[id(node)]
