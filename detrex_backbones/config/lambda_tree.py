"""What the text of a lambda may hold."""

from __future__ import annotations

import ast
from typing import Any

from detrex_backbones.config.targets import is_dotted_name
from detrex_backbones.errors import ConfigValueError
from detrex_backbones.text import visible

__all__ = ["checked", "refusal"]

LONGEST, DEEPEST = 2_000, 50  # characters of a text, and expressions in one another
PARTS: tuple[type[ast.AST], ...] = (
    *(ast.Constant, ast.Name, ast.Attribute, ast.IfExp, ast.BoolOp, ast.UnaryOp, ast.BinOp, ast.Compare, ast.Call),
    *(ast.Subscript, ast.Slice, ast.keyword, ast.Load, ast.And, ast.Or, ast.Tuple, ast.List, ast.Set),
    *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.Not, ast.USub, ast.UAdd, ast.cmpop),
)
# A default is worked out where the lambda is made, so that it calls and calculates nothing.
DEFAULTS: tuple[type[ast.AST], ...] = (
    ast.Constant,
    ast.Name,
    ast.Attribute,
    ast.Tuple,
    ast.UnaryOp,
    ast.USub,
    ast.Load,
)


def checked(text: Any) -> tuple[ast.Lambda, list[str]]:
    """The tree of a lambda's text, in which each dotted name is a single `ast.Name`, and these names.

    Raises:
        ConfigValueError: the text is no lambda of plain expressions.
    """
    if not isinstance(text, str) or len(text) > LONGEST:
        raise refusal(text, f"it is not a string of at most {LONGEST:,} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise refusal(text, f"it can't be parsed: {error}") from error
    if not isinstance(tree, ast.Lambda) or tree.args.vararg or tree.args.kwarg or tree.args.posonlyargs:
        raise refusal(text, "it isn't one lambda whose arguments can be given by name")
    level, depth = [tree], 0
    while level := [inner for node in level for inner in ast.iter_child_nodes(node)]:  # type: ignore[misc]
        depth += 1
        if depth > DEEPEST:
            raise refusal(text, f"it has more than {DEEPEST} expressions in one another")
    own = [one.arg for one in [*tree.args.args, *tree.args.kwonlyargs]]
    if len({*own}) < len(own):
        raise refusal(text, "it has an argument twice")
    checker = _Checker(text, {*own})
    tree.body = checker.visit(tree.body)
    checker.own, checker.parts = set(), DEFAULTS  # nor does a default know an argument
    tree.args.defaults = [checker.visit(default) for default in tree.args.defaults]
    tree.args.kw_defaults = [default and checker.visit(default) for default in tree.args.kw_defaults]
    return tree, list(dict.fromkeys(checker.names))


def refusal(text: Any, why: str) -> ConfigValueError:
    return ConfigValueError(
        f"{visible(repr(text))} is not a lambda that a config can hold: {visible(why)}. It may have constants, its "
        f"arguments, operators, if-else, subscripts and calls of names that can be imported. Write anything else as a "
        f"function of a module, and name that."
    )


class _Checker(ast.NodeTransformer):
    """Refuses what is no plain expression, collects the dotted names, and makes each of them one `ast.Name`."""

    def __init__(self, text: str, own: set[str]) -> None:
        self.text, self.own, self.parts, self.names = text, own, PARTS, list[str]()

    def visit(self, node: ast.AST) -> Any:
        if not isinstance(node, self.parts):
            raise refusal(self.text, f"it has a {type(node).__name__}")
        return super().visit(node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return node if node.id in self.own else self.name(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        return self.name(node)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if not isinstance(node.value, (str, bytes, int, float, type(None))):
            raise refusal(self.text, f"it has the constant {node.value!r}")
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if not isinstance(node.func, (ast.Name, ast.Attribute)) or getattr(node.func, "id", None) in self.own:
            raise refusal(self.text, f"it calls {ast.unparse(node.func)}, which is not an importable name")
        if not all(word.arg for word in node.keywords):
            raise refusal(self.text, "it calls with **")
        return self.generic_visit(node)

    def name(self, node: ast.expr) -> ast.AST:
        name = ast.unparse(node)
        first, *_ = name.split(".")
        if not is_dotted_name(name) or first in self.own or any(part.startswith("__") for part in name.split(".")):
            raise refusal(self.text, f"{name} is not an importable name")
        self.names.append(name)
        return ast.Name(name, ast.Load())
