"""How much a YAML file may ask of its reader: depth, which its parser takes the square of, and copies by aliases."""

from __future__ import annotations

import re

import yaml

from detrex_backbones.errors import ConfigValueError

__all__ = ["check_aliases", "check_nesting"]

DEPTH = 200
NODES = 10_000  # as many as omegaconf allows from its version 2.4 on
_BRACKETS = re.compile(r"[\[\]{}]")
# Each level of blocks takes at least one of these characters before the first word of a line.
_INDENT = re.compile(rf"^[ \t?:-]{{{4 * DEPTH}}}", re.MULTILINE)


def check_nesting(text: str, path: object) -> None:
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


def check_aliases(text: str, path: object) -> None:
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
