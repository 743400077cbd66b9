"""What to write in a config in the place of an import from detectron2 or detrex, where they are not installed."""

from __future__ import annotations

import ast
import linecache
import sys

__all__ = ["import_instead"]

PEERS = ("detrex", "detectron2")
OURS = "detrex_backbones"
CONFIG_NAMES = ("LazyCall", "LazyConfig", "instantiate")


def import_instead(error: Exception, file: str, line: int) -> str:
    """The part of a message that says which line does the same here; "" where the error is another.

    Args:
        error: what the import raised.
        file: the config file.
        line: where in it, from 1.
    """
    if not isinstance(error, ModuleNotFoundError) or (error.name or "").partition(".")[0] not in PEERS:
        return ""
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:
        return ""
    public = {*getattr(sys.modules[OURS], "__all__", ())}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.lineno <= line <= (node.end_lineno or line):
            config = [alias for alias in node.names if alias.name in CONFIG_NAMES]
            others = [alias for alias in node.names if alias.name in public and alias not in config]
            lines = [(f"{OURS}.config", config), (OURS, others)]
            written = [f"'from {module} import {_text(names)}'" for module, names in lines if names]
            missing = [alias.name for alias in node.names if alias not in [*config, *others]]
            lacking = f" There is no {', '.join(missing)} here." if missing else ""
            return f" Write {' and '.join(written)} instead.{lacking}" if written else lacking
    return ""


def _text(names: list[ast.alias]) -> str:
    return ", ".join(f"{alias.name} as {alias.asname}" if alias.asname else alias.name for alias in names)
