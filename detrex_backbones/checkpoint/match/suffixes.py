"""From names and shapes to a plan: which tensor of a checkpoint goes where in a model. Nothing is changed here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from detrex_backbones.checkpoint.entry import BATCH_COUNTER, Shapes
from detrex_backbones.errors import ArgumentError, closest

__all__ = ["Plan", "find_scopes", "make_plan"]


@dataclass
class Plan:
    """Which checkpoint key fills which model key.

    Args:
        scope: prefix ("" or ending with a dot) of the submodule that the checkpoint is for.
        matched: model key -> checkpoint key, shapes equal.
        mismatched: model key -> checkpoint key, shapes different.
        missing: model keys of the scope that the checkpoint has nothing for.
        unused: checkpoint keys that nothing in the scope asked for.
        outside: model keys outside the scope; they keep their values.
        ambiguous: what could as well have been matched otherwise, and how to say which is meant; "" for nothing.
    """

    scope: str
    matched: dict[str, str] = field(default_factory=dict)
    mismatched: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    ambiguous: str = ""


def find_scopes(model: Shapes, checkpoint: Shapes) -> tuple[list[str], dict[str, str]]:
    """The submodules of the model into which the checkpoint fits best: one, or several that it fits equally well.

    Every model key is cut at each of its dots: where the tail is a checkpoint key, the head is a scope that it would
    fit into. The head with the most tails of the right shape wins; linear in the number of keys.

    Returns:
        Prefixes: "" for the whole model, otherwise ending with a dot. "" too where nothing fits. And model key -> the
        longest of its tails that is a checkpoint key.
    """
    fits: dict[str, int] = defaultdict(int)
    named: dict[str, int] = defaultdict(int)
    longest: dict[str, str] = {}
    for key, shape in model.items():
        tail, dot = key, "."
        while dot:
            if tail in checkpoint:
                longest.setdefault(key, tail)
                scope = key[: len(key) - len(tail)]
                named[scope] += 1
                fits[scope] += checkpoint[tail] == shape
            _, dot, tail = tail.partition(".")
    best = max(((fits[scope], named[scope]) for scope in named), default=None)
    return sorted(scope for scope in named if (fits[scope], named[scope]) == best) or [""], longest


def make_plan(model: Shapes, checkpoint: Shapes, scope: str | None = None) -> Plan:
    """Match the keys of a checkpoint with those of a model.

    A checkpoint key matches a model key that equals it or ends with "." + key; the longest wins. All matches lie inside
    one scope, and no checkpoint key fills two model keys. Whoever uses a plan must refuse an ambiguous one.

    Args:
        model: name -> shape.
        checkpoint: name -> shape, already in the model's naming.
        scope: path of the submodule, "" for the whole model; None to find it, see `find_scopes`.

    Raises:
        ArgumentError: a scope that the model doesn't have.
    """
    scopes, longest = find_scopes(model, checkpoint)
    if scope is not None:
        scopes = [_check_scope(model, scope)]
    plan = Plan(scopes[0])
    if len(scopes) > 1:
        plan.ambiguous = (
            f"it fits equally well into {len(scopes)} places of the model: "
            f"{_some(repr(place.rstrip('.')) for place in scopes)}. Say which: scope={scopes[0].rstrip('.')!r}."
        )
    claims: dict[str, list[str]] = defaultdict(list)
    for key in model:
        if not key.startswith(plan.scope):
            plan.outside.append(key)
            continue
        if key in longest:
            claims[longest[key]].append(key)
        else:
            plan.missing.append(key)
    by_scope = 2 * sum(plan.scope + stored in keys for stored, keys in claims.items()) > len(claims)
    for stored, keys in claims.items():
        if by_scope and len(keys) > 1 and plan.scope + stored not in keys:
            # The names are those of the scope, and this is none of them: EVA-02's own rope beside that of each block.
            plan.missing += keys
            plan.unused.append(stored)
            continue
        winner = keys[0] if len(keys) == 1 else _settle(plan, stored, keys)
        (plan.matched if checkpoint[stored] == model[winner] else plan.mismatched)[winner] = stored
    plan.missing = [key for key in plan.missing if not key.endswith(BATCH_COUNTER)]
    plan.unused += [key for key in checkpoint if key not in claims]
    return plan


def _settle(plan: Plan, stored: str, keys: list[str]) -> str:
    """The one of several model keys that a checkpoint key goes to, of those that it ends; the others are missing."""
    exact = [key for key in (stored, plan.scope + stored) if key in keys]
    winner = exact[0] if exact else keys[0]
    if not exact and not plan.ambiguous:
        plan.ambiguous = (
            f"its key {stored!r} ends the names of {len(keys)} model keys: {_some(keys)}. Say which submodule is "
            f"meant: scope={winner[: -len(stored)].rstrip('.')!r}."
        )
    plan.missing += [key for key in keys if key != winner]
    return winner


def _tails(key: str) -> Iterator[tuple[int, str]]:
    """Where each tail of a dotted name starts, and the tail: the longest first."""
    start = 0
    while True:
        yield start, key[start:]
        dot = key.find(".", start)
        if dot < 0:
            return
        start = dot + 1


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:6]) + (" and more" if len(names) > 6 else "")


def _check_scope(model: Shapes, scope: str) -> str:
    prefix = scope.rstrip(".") + "." if scope else ""
    if not any(key.startswith(prefix) for key in model):
        heads = {key[: cut - 1] for key in model for cut, _ in _tails(key) if cut}
        raise ArgumentError(
            f"scope={scope!r} is no submodule of the model that holds parameters.{closest(scope, heads)} "
            f"At the top are: {', '.join(sorted({head.partition('.')[0] for head in heads}))}."
        )
    return prefix
