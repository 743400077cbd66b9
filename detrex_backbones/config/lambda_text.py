"""From a lambda of a config file to its text, in which every name is one that can be imported from anywhere."""

from __future__ import annotations

import ast
import builtins
import inspect
import linecache
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

from omegaconf import DictConfig

from detrex_backbones.config.lambda_tree import checked
from detrex_backbones.config.lambdas import LAMBDA_OF, Lambda
from detrex_backbones.config.nodes import is_call
from detrex_backbones.config.targets import dotted_name
from detrex_backbones.errors import ConfigValueError

__all__ = ["lambda_text", "with_names"]

FAR = 1_000_000  # a line that no source has


def lambda_text(value: Any) -> str | None:
    """The text from which `lambda_of` makes a function that does the same; None where there is none.

    There is none for what is no lambda, for one whose source isn't there or isn't what was compiled, and for one that
    is more than a plain expression. A free name becomes the dotted name of what it stands for; a constant of the file,
    or of a config that it reads such as `dataloader.train.total_batch_size`, its value at this moment.

    Args:
        value: a lambda, what `lambda_of` made of one, or the node under which it was saved.
    """
    try:
        text = _stored(value)
        text = text and ast.unparse(checked(text)[0])
    except Exception:  # whatever the reason, it has no text: its names may stand for objects that raise anything
        return None
    return None if not text or "${" in text else text  # which omegaconf would read as an interpolation


def _stored(value: Any) -> Any:
    if isinstance(value, Lambda):
        return value.text
    if isinstance(value, FunctionType) and value.__code__.co_name == "<lambda>":
        return ast.unparse(_closed(value))
    is_saved = is_call(value) and value["_target_"] == LAMBDA_OF and set(value) == {"_target_", "_text_"}
    return value["_text_"] if is_saved else None


def with_names(text: str, written: Callable[[str], str]) -> str:
    """The text of a lambda with each dotted name in it as `written` writes it."""
    tree, names = checked(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in names:
            node.id = written(node.id)
    return ast.unparse(tree)


def _closed(function: FunctionType) -> ast.Lambda:
    """The lambda's tree without free names."""
    tree = _tree(function.__code__)
    count = function.__code__.co_argcount + function.__code__.co_kwonlyargcount
    free = {**vars(builtins), **function.__globals__, **inspect.getclosurevars(function).nonlocals}
    tree.body = _Closed(set(function.__code__.co_varnames[:count]), free).visit(tree.body)
    words = function.__kwdefaults__ or {}
    tree.args.defaults = [_expression(value) for value in function.__defaults__ or ()]
    tree.args.kw_defaults = [_expression(words[one.arg]) if one.arg in words else None for one in tree.args.kwonlyargs]
    return tree


def _tree(code: CodeType) -> ast.Lambda:
    """The lambda of the source from which this code was compiled; one line may have several."""
    linecache.checkcache(code.co_filename)
    source = ast.parse("".join(linecache.getlines(code.co_filename)))
    found = [node for node in ast.walk(source) if isinstance(node, ast.Lambda) and node.lineno == code.co_firstlineno]
    for number, node in enumerate(found):  # compiled again, each with a line of its own to be told by
        node.lineno, node.end_lineno = FAR + number, 2 * FAR
    again = {
        inner.co_firstlineno: inner for inner in _codes(compile(source, code.co_filename, "exec", dont_inherit=True))
    }
    for node in found:
        other = again[node.lineno].replace(co_linetable=code.co_linetable, co_firstlineno=code.co_firstlineno)
        if other == code:
            return node
    raise LookupError


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _codes(inner)


class _Closed(ast.NodeTransformer):
    """Puts what free names, and what hangs on them, stand for in their places."""

    def __init__(self, own: set[str], free: dict[str, Any]) -> None:
        self.own, self.free = own, free

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return node if node.id in self.own else _expression(self.value(node))

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        return _expression(self.value(node))

    def value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Name) and node.id not in self.own:
            return self.free[node.id]
        whole = self.value(node.value) if isinstance(node, ast.Attribute) else None
        if not isinstance(whole, (ModuleType, type, DictConfig)):
            raise ConfigValueError("an attribute of what may change")
        return getattr(whole, node.attr)  # type: ignore[attr-defined]


def _expression(value: Any) -> ast.expr:
    """A constant, or the dotted name of an object, as an expression."""
    if (name := dotted_name(value)) is not None:
        return ast.Name(name, ast.Load())
    text = repr(value)
    is_plain = value is None or isinstance(value, (tuple, int, float, str, bytes))
    if is_plain and ast.literal_eval(text) == value:
        return ast.parse(text, mode="eval").body
    raise ConfigValueError("neither a constant nor an object that has a name")
