"""The text of a lambda as a function: how a YAML file holds one. No part of the text is ever run as Python."""

from __future__ import annotations

import ast
import inspect
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from detrex_backbones.config.allow import check_names
from detrex_backbones.config.lambda_tree import checked, refusal
from detrex_backbones.config.targets import locate
from detrex_backbones.errors import ConfigValueError

__all__ = ["LAMBDA_OF", "Lambda", "lambda_of"]

LAMBDA_OF = "detrex_backbones.config.lambda_of"
"""The `_target_` under which `LazyConfig.save` writes them."""

MOST_BITS = 10_000  # of a power


def _of_numbers(operate: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """`*` and `%` without what they do to text and lists, which can take any amount of memory."""

    def operate_(left: Any, right: Any) -> Any:
        if isinstance(left, (str, bytes, list, tuple)) or isinstance(right, (str, bytes, list, tuple)):
            raise ConfigValueError(
                "A lambda of a config repeats and formats no text and no list: '*' and '%' take numbers."
            )
        return operate(left, right)

    return operate_


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * exponent > MOST_BITS:
        raise ConfigValueError(f"A lambda of a config takes a power of at most {MOST_BITS:,} bits; this one has more.")
    return base**exponent


OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: _of_numbers(operator.mul),
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: _of_numbers(operator.mod),
    ast.Pow: _power,
    ast.Not: operator.not_,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}
DISPLAYS: dict[type[ast.AST], Callable[..., Any]] = {ast.Tuple: tuple, ast.List: list, ast.Set: set}


def lambda_of(_text_: str) -> Callable[..., Any]:
    """The function that a lambda's text describes.

        factor: {_target_: detrex_backbones.config.lambda_of, _text_: "lambda name: 0.1 if 'bias' in name else 1"}

    This is how `LazyConfig.save` writes a lambda that is an argument. The text is parsed and never run: it may hold
    constants, the lambda's arguments, operators, if-else, subscripts and calls of names that can be imported, and
    nothing else. The names are looked up here; powers and repeated values are bounded when the function is called.

    Args:
        _text_: such as "lambda c: torch.nn.BatchNorm2d(c, eps=0.001)"; its names are whole dotted names.

    Raises:
        ConfigValueError: the text is no such lambda.
        ConfigImportError: a name in it leads nowhere.
        InstantiateError: `instantiate` was given `allow`, which doesn't allow a name in it.
    """
    return Lambda(_text_)


class Lambda:
    """A function that was text. Copies and pickles are made of the text."""

    def __init__(self, text: str) -> None:
        tree, names = checked(text)
        check_names(names)
        self.text, self.body = text, tree.body
        self.known = {name: locate(name) for name in names}
        self.__signature__ = _signature(tree.args, self.known)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        given = self.__signature__.bind(*args, **kwargs)
        given.apply_defaults()
        return _value(self.body, {**self.known, **given.arguments})

    def __reduce__(self) -> Any:
        return lambda_of, (self.text,)

    def __repr__(self) -> str:
        return f"lambda_of({self.text!r})"


def _signature(given: ast.arguments, known: Mapping[str, Any]) -> inspect.Signature:
    """The arguments as Python takes them, with the values of their defaults."""
    kinds = [
        *(inspect.Parameter.POSITIONAL_OR_KEYWORD for _ in given.args),
        *(inspect.Parameter.KEYWORD_ONLY for _ in given.kwonlyargs),
    ]
    lacking = [None] * (len(given.args) - len(given.defaults))
    values = [
        inspect.Parameter.empty if default is None else _value(default, known)
        for default in (*lacking, *given.defaults, *given.kw_defaults)
    ]
    arguments = zip([*given.args, *given.kwonlyargs], kinds, values, strict=True)
    return inspect.Signature([inspect.Parameter(one.arg, kind, default=value) for one, kind, value in arguments])


def _value(node: ast.AST | None, names: Mapping[str, Any]) -> Any:
    """What an expression that was checked gives."""

    def all_of(parts: list[Any]) -> list[Any]:
        return [_value(part, names) for part in parts]

    match node:
        case None:  # no start of a slice
            return None
        case ast.Constant(value):
            return value
        case ast.Name(name):
            return names[name]
        case ast.IfExp(test, body, otherwise):
            return _value(body if _value(test, names) else otherwise, names)
        case ast.BoolOp(kind, operands):
            return _first(isinstance(kind, ast.Or), (_value(operand, names) for operand in operands))
        case ast.Compare(left, kinds, others):
            return _first(False, _comparisons(_value(left, names), kinds, (_value(other, names) for other in others)))
        case ast.UnaryOp(kind, operand):
            return OPERATORS[type(kind)](_value(operand, names))
        case ast.BinOp(left, kind, right):
            return OPERATORS[type(kind)](*all_of([left, right]))
        case ast.Subscript(whole, index):
            return operator.getitem(*all_of([whole, index]))
        case ast.Slice(start, stop, step):
            return slice(*all_of([start, stop, step]))
        case ast.Call(function, arguments, keywords):
            return _value(function, names)(
                *all_of(arguments), **{str(one.arg): _value(one.value, names) for one in keywords}
            )
        case ast.Tuple(parts) | ast.List(parts) | ast.Set(parts):
            return DISPLAYS[type(node)](all_of(parts))
        case _:  # `checked` lets nothing else through
            raise refusal(ast.unparse(node), f"it has a {type(node).__name__}")


def _first(wanted: bool, values: Iterator[Any]) -> Any:
    """The first value that counts as what is wanted, else the last: `or` and `and`, which look no further."""
    for value in values:
        if bool(value) is wanted:
            break
    return value


def _comparisons(left: Any, kinds: list[ast.cmpop], others: Iterator[Any]) -> Iterator[Any]:
    for kind, right in zip(kinds, others, strict=True):
        yield OPERATORS[type(kind)](left, right)
        left = right
