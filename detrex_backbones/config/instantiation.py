"""instantiate: make the calls that a config describes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.basecontainer import BaseContainer

from detrex_backbones.config._notes import add_note, short_repr
from detrex_backbones.config.allow import ACTIVE, Allowlist
from detrex_backbones.config.by_name import OBJECT_NAMED
from detrex_backbones.config.lambda_tree import checked
from detrex_backbones.config.lambdas import LAMBDA_OF
from detrex_backbones.config.nodes import (
    SEQUENCES,
    is_call,
    is_tuple,
    list_config,
    made_at,
    nodes_below,
    path_text,
    peek,
    structured_type,
    to_plain,
)
from detrex_backbones.config.signatures import unknown_argument
from detrex_backbones.config.targets import describe, locate
from detrex_backbones.errors import ConfigImportError, ConfigValueError, InstantiateError
from detrex_backbones.kinds import kinds_checked
from detrex_backbones.text import visible

__all__ = ["instantiate", "target_of"]

LONGEST_NOTE = 10_000  # characters of a line
MOST_CALLS = 10_000  # of one `instantiate` with `allow`: interpolations can ask for a node again and again
PLAIN = (str, int, float, type(None))  # most arguments, and quicker told apart than containers are


@kinds_checked
def instantiate(cfg: Any, *, allow: Iterable[str] | None = None, plain: bool = False, share: bool = False) -> Any:
    """Call every target in the config, the innermost first, and return what the outermost makes.

    A mapping with `_target_` is called with its other keys as keyword arguments; lists and tuples are searched; a
    node made from a dataclass becomes an instance of it; a mapping without `_target_` and any other value come back
    as the very same object. Nothing is copied. Interpolations resolve against the whole config that `cfg` is part
    of, and one that points at a node with `_target_` calls it again.

    Args:
        cfg: a node, list or tuple of a config, or any value.
        allow: for configs from strangers, what may be called; None for everything. A full dotted name allows that
            function or class; a prefix that ends with "." allows the public classes of the modules below it, and no
            function. A target that another node makes is never allowed. Every target is checked before the first is
            called, and by its name before a module is imported for it. The list also holds in the `instantiate` calls
            that a target itself makes, beside their own.
        plain: give targets `list` and `dict` arguments instead of ListConfig and DictConfig. (Nodes with
            `_target_` in a mapping without one stay nodes.)
        share: make one object of a node, however many interpolations point at it.

    Raises:
        InstantiateError: a target isn't callable or not allowed, or a node contains itself.
        ConfigImportError: a target's dotted name leads nowhere.
        omegaconf.MissingMandatoryValue: an argument is still `???`.
        Exception: whatever a target raises, the same object, with a note: path, target, arguments, file and line.

    A tuple that the config holds reaches its target as a tuple. The behaviour is that of detectron2's `instantiate`.
    """
    lists = ACTIVE.get() if allow is None else (*ACTIVE.get(), Allowlist(allow))
    root = cfg._get_full_key(None) if isinstance(cfg, BaseContainer) else ""
    path = (None, root) if root else None
    if not lists:
        return _Builder(lists, plain, share).build(cfg, path)
    _Builder(lists, plain, share=True, dry=True).check(cfg, path)
    token = ACTIVE.set(lists)
    try:
        return _Builder(lists, plain, share).build(cfg, path)
    finally:
        ACTIVE.reset(token)


def target_of(node: Mapping[Any, Any]) -> Callable[..., Any]:
    """The callable that a node's `_target_` names or is; a target that is itself a node is made first.

    Args:
        node: a mapping with `_target_`.

    Raises:
        InstantiateError: there is no `_target_`, or it isn't callable, or not allowed where `instantiate` was given
            `allow` and a target asks.
        ConfigImportError: its dotted name leads nowhere.
    """
    if not is_call(node):
        raise InstantiateError(f"There is no _target_ in this node; its keys are: {', '.join(map(visible, node))}.")
    target = instantiate(node["_target_"])
    _Builder(ACTIVE.get(), plain=False, share=False).permit(target, node, None)
    found = locate(target) if isinstance(target, str) else target
    if not callable(found):
        raise InstantiateError(f"The _target_ {target!r:.200} is not callable but of type {type(found).__name__}.")
    return found  # type: ignore[no-any-return]


class _Builder:
    """One run of `instantiate`: its options, and what it has made so far.

    A dry run makes nothing and only collects which targets would be called.
    """

    def __init__(self, lists: tuple[Allowlist, ...], plain: bool, share: bool, dry: bool = False) -> None:
        self.lists, self.plain, self.share, self.dry = lists, plain, share, dry
        self.active: set[int] = set()
        self.made: dict[int, tuple[Any, Any]] = {}  # node and object, which keeps the node and so its id alive
        self.targets: list[tuple[Any, Any, Any]] = []  # of a dry run: each with its node and path
        self.calls = 0
        self.explained: BaseException | None = None

    def check(self, cfg: Any, path: Any) -> None:
        """Refuse the config if one of its targets is not allowed: all names first, before a module is imported."""
        self.build(cfg, path)
        for target, node, place in self.targets:
            if isinstance(target, str):
                self.permit_name(target, node, place)
        for target, node, place in self.targets:
            self.permit(target, node, place)

    def build(self, value: Any, path: Any) -> Any:
        """What the value becomes; `path` is where it stands, as nested pairs (rendered only in messages)."""
        if isinstance(value, PLAIN):
            return value
        if isinstance(value, SEQUENCES):
            if value._is_none() or value._is_missing():
                return value
            return self.sequence(value, path)
        if type(value) in (list, tuple):
            items = [self.build(item, (path, index)) for index, item in enumerate(value)]
            if type(value) is tuple:
                return value if all(a is b for a, b in zip(items, value, strict=True)) else tuple(items)
            return items
        if structured_type(value) is not None:
            return self.structured(value, path)
        if is_call(value):
            return self.once(value, path)
        return to_plain(value, keep_calls=True) if self.plain else value

    def sequence(self, value: Any, path: Any) -> Any:
        items = [self.build(self.read(value, i, path), (path, i)) for i in range(len(value))]
        if is_tuple(value):
            return tuple(items)
        return items if self.plain else list_config(items)

    def structured(self, value: DictConfig, path: Any) -> Any:
        if self.lists:
            for node in (value, *nodes_below(value)):
                kind = structured_type(node)
                if kind is not None:
                    self.note_target(kind, node, path)
        if self.dry:
            return None
        try:
            return OmegaConf.to_object(value)
        except Exception as error:
            self.explain(error, value, path, f"{describe(structured_type(value))}({short_repr(value)})")
            raise

    def once(self, node: Any, path: Any) -> Any:
        """The call of a node, unless it is being made already or shared and made before."""
        if id(node) in self.active:
            raise self.refuse("This node contains itself through an interpolation", node, path)
        if self.share and id(node) in self.made:
            return self.made[id(node)][1]
        self.active.add(id(node))
        try:
            made = self.call(node, path)
        finally:
            self.active.discard(id(node))
        if self.share:
            self.made[id(node)] = (node, made)
        return made

    def call(self, node: Any, path: Any) -> Any:
        arguments = {}
        for key in node:  # no comprehension: before Python 3.12 each takes a frame of the recursion limit
            value = self.read(node, key, path)
            if self.lists and key == "_target_" and isinstance(value, (Mapping, *SEQUENCES, list, tuple)):
                raise self.refuse(f"A target that a node makes is not allowed; allowed: {self.allowed()}", node, path)
            arguments[key] = self.build(value, (path, key))
        target = arguments.pop("_target_")
        for called in self.called(target, arguments, node, path) if self.lists else ():
            self.note_target(called, node, path)
        if self.dry:
            return None
        self.calls += 1
        if self.lists and self.calls > MOST_CALLS:
            raise self.refuse(f"This config makes more than {MOST_CALLS:,} calls, by interpolations", node, path)
        found = self.resolve(target, node, path)
        try:
            return found(**arguments)
        except Exception as error:
            shown = ", ".join(f"{key}={short_repr(value)}" for key, value in arguments.items())
            hints = [unknown_argument(found, key) for key in arguments] if isinstance(error, TypeError) else []
            self.explain(error, node, path, f"{describe(found)}({shown})", *filter(None, hints))
            raise

    def called(self, target: Any, arguments: Mapping[str, Any], node: Any, path: Any) -> list[Any]:
        """What has to be allowed: of a saved function, class or lambda what it names, as if that were called here."""
        if not isinstance(target, str) or target not in (OBJECT_NAMED, LAMBDA_OF):
            return [target]
        if target == OBJECT_NAMED:
            file = arguments.get("_file_")
            return [f"{arguments.get('_name_')} of the file {file}" if file else arguments.get("_name_")]
        try:
            return [*checked(arguments.get("_text_"))[1]]
        except ConfigValueError as error:
            self.explain(error, node, path, target)
            raise

    def resolve(self, target: Any, node: Any, path: Any) -> Callable[..., Any]:
        """The callable, looked up by name if need be."""
        found = target
        if isinstance(target, str):
            try:
                found = locate(target)
            except Exception as error:
                self.explain(error, node, path, target)
                raise
        if not callable(found):
            kind = type(found).__name__
            raise self.refuse(
                f"The _target_ must be callable or name a callable; {target!r} is of type {kind}", node, path
            )
        return found  # type: ignore[no-any-return]

    def note_target(self, target: Any, node: Any, path: Any) -> None:
        """Remember the target for `check`; at the call itself, ask again, as an interpolation can change its mind."""
        if self.dry:
            self.targets.append((target, node, path))
        else:
            self.permit(target, node, path)

    def permit_name(self, name: str, node: Any, path: Any) -> None:
        for one in self.lists:
            self.object_to(one.objection_to_name(name), name, node, path)

    def permit(self, target: Any, node: Any, path: Any) -> None:
        if self.lists and not (isinstance(target, str) or callable(target)):
            self.resolve(target, node, path)  # whose error says that it can't be called
        if isinstance(target, str):
            self.permit_name(target, node, path)
        try:
            for one in self.lists:
                self.object_to(one.objection_to(target), describe(target), node, path)
        except ConfigImportError as error:
            self.explain(error, node, path, str(target))
            raise

    def object_to(self, reason: str | None, shown: str, node: Any, path: Any) -> None:
        if reason is not None:
            problem = f"The target {visible(shown)} is not allowed{visible(reason and f': {reason}')}"
            raise self.refuse(f"{problem}; allowed: {self.allowed()}", node, path)

    def allowed(self) -> str:
        return " and, inside it, ".join(map(str, self.lists))

    def read(self, container: Any, key: Any, path: Any) -> Any:
        try:
            return peek(container, key)
        except Exception as error:
            self.explain(error, container, (path, key), "its value can't be read")
            raise

    def refuse(self, problem: str, node: Any, path: Any) -> InstantiateError:
        self.explained = InstantiateError(f"{problem} ({_where(node, path)}).")
        return self.explained

    def explain(self, error: BaseException, node: Any, path: Any, what: str, *hints: str | None) -> None:
        """Say on the error, once, which node it came from."""
        if error is not self.explained:
            self.explained = error
            parts = ["instantiate: " + _where(node, path) + ": " + what, *filter(None, hints)]
            add_note(error, "\n  ".join(visible(part, LONGEST_NOTE) for part in parts))


def _where(node: Any, path: Any) -> str:
    place = made_at(node)
    return f"at {visible(path_text(path)) or 'the top of the config'}" + (f", written at {place}" if place else "")
