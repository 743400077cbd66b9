"""Long lines of Python, laid out to be read."""

from __future__ import annotations

import ast

__all__ = ["lay_out"]

WIDTH = 80


def lay_out(source: str, width: int = WIDTH) -> str:
    """Break lines that are longer than the width at their calls, lists and dicts.

    Args:
        source: one assignment or expression a line; a line that is no Python stays as it is.
        width: in columns.
    """
    return "\n".join(_line(line, width) for line in source.splitlines())


def _line(line: str, width: int) -> str:
    try:
        (statement,) = ast.parse(line).body
    except (SyntaxError, ValueError):
        return line
    if len(line) <= width or not isinstance(statement, ast.Assign | ast.Expr):
        return line
    head = line[: statement.value.col_offset]
    return head + _expression(line, statement.value, width, indent=0, column=len(head))


def _expression(line: str, node: ast.expr, width: int, indent: int, column: int) -> str:
    """The node's own text, or, where that would pass the width, one part a line."""
    text = ast.get_source_segment(line, node) or ""
    parts = _parts(line, node)
    if column + len(text) + 1 <= width or not parts:
        return text
    opening = text[: text.index(parts[0][0] or ast.get_source_segment(line, parts[0][1]) or "")]
    inner = " " * (indent + 4)
    lines = [
        f"{inner}{label}{_expression(line, part, width, len(inner), len(inner) + len(label))},\n"
        for label, part in parts
    ]
    return f"{opening}\n{''.join(lines)}{' ' * indent}{text[-1]}"


def _parts(line: str, node: ast.expr) -> list[tuple[str, ast.expr]]:
    """What stands between the brackets: the text before each part, and the part."""
    if isinstance(node, ast.Call):
        return [(f"{keyword.arg}=" if keyword.arg else "**", keyword.value) for keyword in node.keywords]
    if isinstance(node, ast.List | ast.Tuple):
        return [("", element) for element in node.elts]
    if isinstance(node, ast.Dict):
        keys = [key for key in node.keys if key is not None]
        return [(f"{ast.get_source_segment(line, key)}: ", value) for key, value in zip(keys, node.values, strict=True)]
    return []
