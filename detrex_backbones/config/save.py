"""save: a config as YAML that loads again."""

from __future__ import annotations

import enum
import functools
import re
import warnings
from pathlib import Path, PurePath
from types import FunctionType
from typing import Any

import cloudpickle
import yaml
from omegaconf import Node
from omegaconf.basecontainer import BaseContainer

from detrex_backbones.atomic_write import write_whole
from detrex_backbones.config._notes import short_repr
from detrex_backbones.config.by_name import OBJECT_NAMED
from detrex_backbones.config.imports import DEFINED_IN_A_CONFIG, file_of
from detrex_backbones.config.lambda_text import lambda_text
from detrex_backbones.config.lambdas import LAMBDA_OF
from detrex_backbones.config.nodes import as_config, is_tuple, structured_type, to_plain
from detrex_backbones.config.read_yaml import TUPLE, parse_yaml
from detrex_backbones.config.targets import dotted_name
from detrex_backbones.errors import ConfigTypeError, ConfigValueError
from detrex_backbones.remote import AnyPath
from detrex_backbones.text import visible

__all__ = ["save", "to_yaml"]


def save(cfg: Any, path: AnyPath) -> None:
    """Write a config to a YAML file, which appears whole or not at all.

    Interpolations are written as they are, targets as the shortest dotted name that leads to the same object, nodes
    made from a dataclass as `_target_` and fields, tuples under PyYAML's tag for them. A class, a function, an enum's
    member or a dtype that is an argument is written as a call of `detrex_backbones.config.object_named`, which finds it
    again; so is a `functools.partial` of one, and what a config file defines, by the path of that file. A lambda that
    is a plain expression is written as a call of `detrex_backbones.config.lambda_of`, with its text. The config isn't
    changed.

    A config that holds what YAML can't, such as a tensor, is written all the same, for reading; the whole
    config goes to `<path>.pkl` beside it, by cloudpickle, and a warning says so. So it is with a class in a plain dict,
    in which `instantiate` makes nothing.

    Args:
        cfg: a DictConfig, ListConfig, dict or list.
        path: the file; its folder must exist.

    Raises:
        ConfigTypeError: `cfg` is none of these.
        ConfigValueError: the config uses a function or class that a function of a config file made, which nothing else
            can find; or the file can't be written.

    The behaviour is detectron2's `LazyConfig.save`.
    """
    if not isinstance(cfg, (BaseContainer, dict, list, tuple)):
        raise ConfigTypeError(f"save writes a DictConfig, ListConfig, dict or list, not a {type(cfg).__name__}.")
    problems: list[str] = []
    text = _dump(_tree(cfg, "", problems))
    if not problems and not _loads_again(text):
        problems.append("something in it reads back differently")
    _write(path, text.encode())
    if problems:
        _save_pickle(as_config(cfg), path, problems)


def to_yaml(cfg: Any) -> str:
    """The config as YAML to read, interpolations resolved.

    Args:
        cfg: a config or any part of one.
    """
    return _dump(_tree(to_plain(cfg), "", []))


def _dump(tree: Any) -> str:
    text = yaml.dump(tree, Dumper=_Dumper, default_flow_style=None, allow_unicode=True, width=9999, sort_keys=False)
    return str(text)


class _Unsaveable(str):
    """The repr of an object, which is written under a tag that nothing loads."""


class _Dumper(yaml.SafeDumper):
    """YAML as omegaconf's loader reads it, without references from one place to another."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Outside of double quotes the loader takes some characters, such as the line ends of Unicode, for others.
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(_Unsaveable, lambda dumper, text: dumper.represent_scalar("!unsaveable", str(text)))
_Dumper.add_representer(tuple, lambda dumper, items: dumper.represent_sequence(TUPLE, items))
_Dumper.add_multi_representer(
    PurePath,
    lambda dumper, path: dumper.represent_sequence("tag:yaml.org,2002:python/object/apply:pathlib.Path", [str(path)]),
)
# The loader takes 1e-4 for a number, so that the string "1e-4" needs quotes.
_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9._]+[eE][-+]?[0-9]+$"), list("-+.0123456789")
)


def _tree(value: Any, path: str, problems: list[str], is_made: bool = True) -> Any:
    """The value as plain dicts, lists, tuples and scalars; what can't be one is added to `problems`.

    `is_made` says whether `instantiate` makes a call that stands here: not in a dict without a target.
    """
    was_tuple = is_tuple(value)
    if isinstance(value, BaseContainer):
        content = vars(value)["_content"]
        kind = structured_type(value)
        if isinstance(content, dict) and kind is not None:
            content = {"_target_": kind, **content}
        value = content
    if isinstance(value, Node):
        value = value._value()
    if isinstance(value, dict):
        is_made = "_target_" in value
        place = f"{path}." if path else ""
        problems += [f"the key {place}{key} is of an enum" for key in value if isinstance(key, enum.Enum)]
        names = [key.name if isinstance(key, enum.Enum) else key for key in value]
        items = [_tree(inner, f"{place}{key}", problems, is_made) for key, inner in value.items()]
        return dict(zip(names, items, strict=True))
    if isinstance(value, (list, tuple)):
        items = [_tree(inner, f"{path}[{index}]", problems, is_made) for index, inner in enumerate(value)]
        return tuple(items) if was_tuple else items
    return _leaf(value, path, problems, is_made)


def _leaf(value: Any, path: str, problems: list[str], is_made: bool) -> Any:
    if value is None or type(value) in (bool, int, float, str, bytes) or isinstance(value, Path):
        return value
    held = value.func if type(value) is functools.partial else value
    file = file_of(held)
    is_ours = isinstance(held, (FunctionType, type)) and held.__module__ == DEFINED_IN_A_CONFIG
    if is_ours and file is None and "<" not in held.__name__:
        raise ConfigValueError(
            f"Can't save {visible(path)}: {held.__qualname__} is made while a config file runs, and nothing else can "
            "find it. Move it to a module and import it by an absolute import."
        )
    name, text = dotted_name(held) if file is None else held.__qualname__, lambda_text(value)
    is_target = path.rpartition(".")[2] == "_target_"
    if text is not None and is_made and not is_target:
        return {"_target_": LAMBDA_OF, "_text_": text}
    if name is None or (is_target and held is not value) or not (is_target or is_made):
        problems.append(f"{visible(path)} is {visible(short_repr(value))} of type {type(value).__name__}")
    if name is None:
        return _Unsaveable(visible(short_repr(value)))
    if is_target and held is value and file is None:
        return name
    node = {"_target_": OBJECT_NAMED, "_name_": name, **({"_file_": file} if file else {})}
    if held is not value:
        node |= {"_args_": _tree(list(value.args), f"{path}.args", problems)} if value.args else {}
        node |= {key: _tree(inner, f"{path}.{key}", problems) for key, inner in value.keywords.items()}
    return node


def _loads_again(text: str) -> bool:
    try:
        return _dump(_tree(parse_yaml(text), "", [])) == text
    except Exception:  # whatever the reason, it doesn't load
        return False


def _write(path: AnyPath, data: bytes) -> None:
    try:
        write_whole(path, lambda file: file.write(data))
    except OSError as error:
        raise ConfigValueError(f"The config can't be written to {path}: {error.strerror or error}") from error


def _save_pickle(cfg: Any, path: AnyPath, problems: list[str]) -> None:
    beside = path.with_name(path.name + ".pkl")
    try:
        _write(beside, cloudpickle.dumps(cfg))
        told = f"The whole config is in {beside}, by cloudpickle."
    except ConfigValueError:
        raise
    except Exception as error:  # generators, open files and the like, each with an error of its own
        told = f"Nor can cloudpickle write it to {beside}: {type(error).__name__}: {error}"
    warnings.warn(
        f"{path} was written, but can't be loaded again: {'; '.join(problems)}. {told}",
        UserWarning,
        stacklevel=4,
    )
