"""Python text that is made of values, and read again to see that it says what was meant and nothing else."""

from __future__ import annotations

import ast
import json
import keyword
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from detrex_backbones.errors import ConfigValueError
from detrex_backbones.text import visible, visible_in_comment

__all__ = ["Call", "Name", "Source", "assignment", "check_text", "expression", "is_dotted", "is_name", "write_config"]

LONGEST = 100_000  # characters of an object's repr


@dataclass(frozen=True)
class Name:
    """A dotted name, such as "torch.nn.ReLU"."""

    text: str


@dataclass(frozen=True)
class Source:
    """The repr of an object: Python where it can be parsed, otherwise one line to be read by people."""

    text: str

    def __str__(self) -> str:
        # In brackets too, which a comment would leave open.
        if _parsed(self.text) is not None and _parsed(f"({self.text})") is not None:
            return self.text
        shown = visible(self.text, LONGEST)
        return shown if shown.startswith("<") else f"<{shown}>"


@dataclass(frozen=True)
class Call:
    """A call with named arguments; `function` is a Name or another Call."""

    function: Name | Call | Source
    arguments: Mapping[Any, Any] = field(default_factory=dict)
    positional: tuple[Any, ...] = ()


def is_name(key: object) -> bool:
    """Whether a key can stand before "=" in a call, or behind a dot."""
    return isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key)


def is_dotted(text: str) -> bool:
    """Whether a text is a dotted name and nothing else."""
    return all(is_name(part) for part in text.split("."))


def expression(value: Any, indent: int | None = None) -> str:
    """A value as a Python expression.

    Args:
        value: None, bool, number, text, list, tuple, dict, Name, Source, Call, and what is made of these.
        indent: put every argument of a call that contains calls on a line of its own, this many spaces further in than
            the call; None for one line.
    """
    if isinstance(value, Call):
        return _call(value, indent)
    if isinstance(value, Name | Source):
        return str(value) if isinstance(value, Source) else value.text
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{expression(key)}: {expression(item)}" for key, item in value.items()) + "}"
    if type(value) is list:
        return "[" + ", ".join(map(expression, value)) + "]"
    if type(value) is tuple:
        return "(" + ", ".join(map(expression, value)) + ("," if len(value) == 1 else "") + ")"
    if type(value) is str:
        return json.dumps(value, ensure_ascii=False) if value.isprintable() else repr(value)
    return str(Source(repr(value)))


def assignment(place: str, value: Any) -> str:
    """ "place = value" on one line, checked.

    Raises:
        ConfigValueError: it would say something else.
    """
    text = f"{place} = {expression(value)}"
    check_text(text, {place: value})
    return text


def write_config(title: str, imports: Sequence[str], notes: Sequence[str], values: Mapping[str, Any]) -> str:
    """A config file: docstring, imports, comments, and one assignment for each value; checked.

    Args:
        title: of the docstring; words of a stranger's file may stand in it.
        imports: whole lines.
        notes: comments; as `title`.
        values: name -> value, as of `expression`.

    Raises:
        ConfigValueError: the text would say something else than was meant.
    """
    docstring = visible_in_comment(title)
    comments = [f"# {visible_in_comment(note)}" for note in notes]
    assignments = [f"{name} = {expression(value, indent=0)}" for name, value in values.items()]
    text = "\n".join([f'"""{docstring}"""', "", *imports, "", *comments, *assignments, ""])
    check_text(text, values, docstring, imports)
    return text


def check_text(text: str, meant: Mapping[str, Any], docstring: str = "", imports: Sequence[str] = ()) -> None:
    """Parse Python text and compare it with what was meant: docstring, imports, then assignments.

    An object whose repr is no Python (`Source`) leaves its line unparsed; it is one line all the same.

    Raises:
        ConfigValueError: it says something else, or something more.
    """
    parsed = _parsed(text, "exec")
    if parsed is None and len(text.splitlines()) == len(meant) and not docstring:
        return
    body = parsed.body if isinstance(parsed, ast.Module) else []
    beginning = [ast.Expr(ast.Constant(docstring))] if docstring else []
    wanted = [*beginning, *(statement for line in imports for statement in ast.parse(line).body)]
    before, rest = body[: len(body) - len(meant)], body[len(body) - len(meant) :] if meant else []
    begins = list(map(ast.dump, before)) == list(map(ast.dump, wanted)) and len(rest) == len(meant)
    if not begins or not all(map(_assigns, rest, meant, meant.values())):
        raise ConfigValueError(f"the config can't be written as Python: {visible(text)!r} would say something else.")


def _call(call: Call, indent: int | None) -> str:
    split = indent is not None and any(isinstance(value, Call) for value in call.arguments.values())
    inner = indent + 4 if indent is not None and split else indent
    arguments = [expression(value) for value in call.positional]
    arguments += [f"{key}={expression(value, inner)}" for key, value in call.arguments.items() if is_name(key)]
    others = {key: value for key, value in call.arguments.items() if not is_name(key)}
    arguments += [f"**{expression(others)}"] if others else []
    function = expression(call.function)
    if not split:
        return f"{function}({', '.join(arguments)})"
    lines = "".join(f"{' ' * (inner or 0)}{argument},\n" for argument in arguments)
    return f"{function}(\n{lines}{' ' * (indent or 0)})"


def _parsed(text: str, mode: str = "eval") -> ast.AST | None:
    try:
        return ast.parse(text, mode=mode)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _assigns(statement: ast.stmt, place: str, value: Any) -> bool:
    if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
        return False
    return ast.unparse(statement.targets[0]) == ast.unparse(ast.parse(place, mode="eval")) and _says(
        statement.value, value
    )


def _says(node: ast.expr, value: Any) -> bool:
    """Whether a parsed expression is the one that a value was to become."""
    if isinstance(value, Call):
        named = {key: item for key, item in value.arguments.items() if is_name(key)}
        others = {key: item for key, item in value.arguments.items() if not is_name(key)}
        given = [*named.items(), *([(None, others)] if others else [])]
        return (
            isinstance(node, ast.Call)
            and _says(node.func, value.function)
            and len(node.args) == len(value.positional)
            and all(map(_says, node.args, value.positional))
            and [keyword.arg for keyword in node.keywords] == [key for key, _ in given]
            and all(_says(keyword.value, item) for keyword, (_, item) in zip(node.keywords, given, strict=True))
        )
    if isinstance(value, Name):
        return isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node) == value.text
    if isinstance(value, Mapping):
        keys = node.keys if isinstance(node, ast.Dict) else []
        return (
            isinstance(node, ast.Dict)
            and len(keys) == len(value)
            and all(
                key is not None and _says(key, wanted) and _says(item, content)
                for key, item, (wanted, content) in zip(keys, node.values, value.items(), strict=True)
            )
        )
    if type(value) in (list, tuple):
        kind = ast.List if type(value) is list else ast.Tuple
        return isinstance(node, kind) and len(node.elts) == len(value) and all(map(_says, node.elts, value))
    if type(value) is str:
        return isinstance(node, ast.Constant) and node.value == value
    text = _parsed(value.text if isinstance(value, Source) else repr(value))
    return isinstance(text, ast.Expression) and ast.unparse(node) == ast.unparse(text)
