"""What a load can be told: the only list of it.

`load_checkpoint`'s keywords, the keys of `train.load_options`, the command line's options and the table in the docs are
made from it. It imports nothing of torch, so that overrides and `--help` know it, too.
"""

from __future__ import annotations

import functools
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol

from detrex_backbones.errors import ArgumentError, closest
from detrex_backbones.kinds import kinds_checked

if TYPE_CHECKING:
    from torch import nn

    from detrex_backbones.checkpoint.files import Given
    from detrex_backbones.checkpoint.names.conventions import Convention
    from detrex_backbones.checkpoint.report import LoadReport

__all__ = ["LoadOptions", "Rename", "option_names", "option_texts", "with_options"]

Rename = Mapping[str, str] | Iterable[Sequence[str]]
"""Names in a file, or regular expressions, and what becomes of them: a table, or pairs in their order."""

CHECKS = ("error", "warn", "off")
AS_KEYWORDS = "options: as keywords, each of `LoadOptions`."
OPTION = re.compile(r"^    (\w+): (.*(?:\n        .*)*)", re.MULTILINE)
OptionsP = ParamSpec("OptionsP")


@kinds_checked
@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """How a checkpoint is loaded.

    Args:
        source: the naming convention: its name, "as stored", or a `Convention` of your own; None to recognise it.
        prefix: prefix of the network's keys in the file: "teacher", "backbone"; None to find it.
        scope: path of the submodule of the model that is loaded; "" for the whole model, None to find it.
        container: the keys that lead to the weights in the file, joined by dots, with a list's items by their
            index: "ema.module", "models.0"; None to take the weights that fit the model, averaged ones before others.
        rename: keys of the file and their new names, applied in this order and before anything else; what is not a
            key of the file is a regular expression, as for `re.sub`.
        allow_missing: globs of the model's keys that may be missing from the file or have another shape, with or
            without the scope before them: "linear.*".
        allow_unused: globs of the file's keys that may have no place in the model, although they belong to the
            network: "roi_heads.mask_*".
        stem_adapt: how to adapt the first convolution if the model has another number of input channels: "error",
            "repeat" (as timm does), "mean" or "zero".
        swap_channels: whether to swap RGB and BGR in the first convolution.
        resize_positions: whether to interpolate position embeddings (`pos_embed`, `rel_pos_h`) to the model's size as
            the family's authors do, and report it; False refuses another size.
        check_preprocessing: what to do if the model's mean, standard deviation, channel order, position of the stride,
            kind of DC5 or eps differ from those of known weights: "error", "warn" or "off".

    Raises:
        ArgumentError: a value that is not allowed.
    """

    source: str | Convention | None = None
    prefix: str | None = None
    scope: str | None = None
    container: str | None = None
    rename: Rename = ()
    allow_missing: Iterable[str] = ()
    allow_unused: Iterable[str] = ()
    stem_adapt: str = "error"
    swap_channels: bool = False
    resize_positions: bool = True
    check_preprocessing: str = "error"

    def __post_init__(self) -> None:
        for name in ("allow_missing", "allow_unused"):
            given = getattr(self, name)
            # A string is refused by its name later; what can be read only once is kept.
            object.__setattr__(self, name, given if isinstance(given, str) else tuple(given))
        if self.check_preprocessing not in CHECKS:
            raise ArgumentError(
                f"check_preprocessing={self.check_preprocessing!r} is not known. Allowed: {', '.join(CHECKS)}."
                f"{closest(self.check_preprocessing, CHECKS)}"
            )
        object.__setattr__(self, "rename", _pairs(self.rename))

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> LoadOptions:
        """Options by their names; an unknown one is an error that names the closest."""
        allowed = option_names()
        for name in options:
            if name not in allowed:
                raise ArgumentError(
                    f"{name!r} is no option of a load. Allowed: {', '.join(allowed)}.{closest(name, allowed)}"
                )
        return cls(**options)

    @property
    def reading(self) -> dict[str, Any]:
        """Those that say how the file is read, as `plan_checkpoint` takes them."""
        names = ("source", "prefix", "scope", "rename", "stem_adapt", "swap_channels", "resize_positions")
        return {name: getattr(self, name) for name in names}


def option_names() -> list[str]:
    """The options by their names."""
    return [each.name for each in fields(LoadOptions)]


def option_texts() -> dict[str, str]:
    """Option -> what it is, out of the docstring of `LoadOptions`."""
    about = inspect.getdoc(LoadOptions) or ""  # nothing under python -OO
    texts = {match[1]: " ".join(match[2].split()) for match in OPTION.finditer(about)}
    return {name: texts.get(name, "") for name in option_names()}


def _pairs(rename: Any) -> tuple[tuple[str, str], ...]:
    try:
        pairs = tuple((old, new) for old, new in (rename.items() if isinstance(rename, Mapping) else rename))
    except (TypeError, ValueError):
        pairs = ((rename, None),)
    for old, new in pairs:
        if not isinstance(old, str) or not isinstance(new, str):
            raise ArgumentError(
                f"rename={rename!r} is no table of names. Allowed: a mapping of texts, or pairs of them: "
                "rename={'^encoder\\\\.': ''}."
            )
    return pairs


class Loads(Protocol[OptionsP]):
    """A function that takes the options of a load as keywords."""

    def __call__(
        self, model: nn.Module, path: Given, *args: OptionsP.args, **kwargs: OptionsP.kwargs
    ) -> LoadReport: ...


def _taking(
    make: Callable[OptionsP, LoadOptions],
) -> Callable[[Callable[[nn.Module, Given, LoadOptions], LoadReport]], Loads[OptionsP]]:
    """The decorator of a load whose keywords are those of `make`: for readers, type checkers and `help`."""

    def decorate(function: Callable[[nn.Module, Given, LoadOptions], LoadReport]) -> Loads[OptionsP]:
        @functools.wraps(function)
        def load(model: nn.Module, path: Given, **options: Any) -> LoadReport:
            return function(model, path, LoadOptions.of(options))

        *own, _ = inspect.signature(function).parameters.values()
        keywords = inspect.signature(make).parameters.values()
        load.__signature__ = inspect.signature(function).replace(parameters=[*own, *keywords])  # type: ignore[attr-defined]
        texts = (textwrap.wrap(f"{name}: {text}", 100) for name, text in option_texts().items())
        each = "\n        ".join("\n            ".join(lines) for lines in texts)
        load.__doc__ = (function.__doc__ or "").replace(AS_KEYWORDS, each)
        return load  # type: ignore[return-value]

    return decorate


with_options = _taking(LoadOptions)
