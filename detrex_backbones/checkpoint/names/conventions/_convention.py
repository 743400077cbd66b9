"""What a naming convention is: its marks, its names and ours for them, and what is no part of a network."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from detrex_backbones.checkpoint.names.conventions._names import Names, Pair, checked_pairs
from detrex_backbones.checkpoint.read import LazyTensor
from detrex_backbones.kinds import kinds_checked

__all__ = ["Adaptation", "Convention", "Pair"]

# From a network's tensors by their own names to those that the table of names knows, and what was done to which.
Adaptation = Callable[[Mapping[str, LazyTensor]], tuple[dict[str, LazyTensor], dict[str, str]]]


@kinds_checked
@dataclass(frozen=True)
class Convention:
    """How one source names its tensors. Names are relative to the prefix of the network in the file.

    Args:
        name: of the source, as `source=` and `--to` take it.
        anchors: sets of names; where all names of one set stand behind a prefix, a network of this source is there.
        without: names of which none stands there; else it is another source that shares the anchors.
        shapes: name -> its shape, None for any length: tells networks apart whose names are the same.
        others_same: whether names that the pairs don't have are ours as well.
        aliases: other sources with these names, as `source=` takes them; one alias may stand for several conventions.
        pairs: its names and this library's, in both directions. Empty: they are the same.
        left_out: pattern of names that are no part of the network -> what they are.
        elsewhere: beginnings of names that stand outside the prefix and belong to the network all the same -> what
            they begin with inside it.
        lookalikes: what else these very names can be, where it is another network: said in the report, never guessed.
        unlike: names behind the prefix that none of the lookalikes has: a file with one of them is of this source.
        adapt: changes values where names alone won't do (rows of a classifier, parts to be put together), or None.
        kept: pattern of this library's names that files of this source never hold -> what they are. A model that has
            them keeps its own values.
        computed: pattern of those of `kept` that a model computes, in a size of its own: another size is no error.
        suggests: traits (see `preprocessing.TRAITS`) that its files have as a rule: a warning where the model differs.
        proves: traits that these names prove: an error where the model differs, whose names are the same all the same.
        one_way: why nothing can be written in these names, where `adapt` loses what is needed for it; "" where it can.
        original: whether the pairs lead to the names of the network's authors: a model that has these takes them, and
            networks that read their authors' files take them as these, see `original_files`.
        others: conventions in whose names this library has the same network, too: torchvision's and timm's ResNets.
        renumber: from all names behind the prefix to those that the pairs know, for the names that it changes; or None.
            For blocks that one side counts within each stage, and the other through all of them.
    """

    name: str
    anchors: tuple[tuple[str, ...], ...] = ()
    pairs: tuple[Pair, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    elsewhere: dict[str, str] = field(default_factory=dict)
    lookalikes: str = ""
    unlike: tuple[str, ...] = ()
    adapt: Adaptation | None = None
    kept: dict[str, str] = field(default_factory=dict)
    computed: str | None = None
    suggests: dict[str, Any] = field(default_factory=dict)
    proves: dict[str, Any] = field(default_factory=dict)
    one_way: str = ""
    without: tuple[str, ...] = ()
    shapes: dict[str, tuple[int | None, ...]] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    others_same: bool = False
    original: bool = False
    others: tuple[str, ...] = ()
    renumber: Callable[[Iterable[str]], dict[str, str]] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "pairs", checked_pairs(self.pairs))

    @cached_property
    def names(self) -> Names:
        """The pairs, ready to translate."""
        return Names(self.pairs)

    def prefixes(self, keys: Iterable[str], marked: Iterable[str] | None = None) -> list[str]:
        """The prefixes ("" or ending with a dot) behind which a network of this source stands among `keys`.

        Args:
            keys: clean names.
            marked: those of them that end with the first name of any set of anchors; None to look at all.
        """
        keys = keys if isinstance(keys, set | Mapping) else set(keys)
        found = set()
        for first, *others in self.anchors:
            for key in keys if marked is None else marked:
                if key == first or key.endswith("." + first):
                    prefix = key[: len(key) - len(first)]
                    complete = all(prefix + other in keys for other in others)
                    if complete and not any(prefix + other in keys for other in self.without):
                        found.add(prefix)
        return sorted(found)

    def fits(self, prefix: str, tensors: Mapping[str, LazyTensor]) -> bool:
        """Whether the tensors behind `prefix` have the shapes that this source is told by."""
        return all(
            len(wanted) == tensors[prefix + name].dim()
            and all(length in (None, given) for length, given in zip(wanted, tensors[prefix + name].shape, strict=True))
            for name, wanted in self.shapes.items()
            if prefix + name in tensors and not tensors[prefix + name].shapeless
        )

    def undecided(self, prefix: str, names: Container[str]) -> str:
        """`lookalikes`, where these names don't tell this source from them."""
        return "" if any(prefix + name in names for name in self.unlike) else self.lookalikes

    def read(self, key: str, rank: int | None) -> str | None:
        """This library's name for `key`, a tensor of `rank` dimensions (None: of any); None where there is none."""
        return (self.names.read(key, rank) if self.pairs else key) or (key if self.others_same else None)

    def write(self, key: str, rank: int) -> str | None:
        """This source's name for our `key`, a tensor of `rank` dimensions; None where there is none."""
        return (self.names.write(key, rank) if self.pairs else key) or (key if self.others_same else None)

    def why_left_out(self, key: str) -> str:
        """What `key` is when it is no part of the network; "" when it is one."""
        return next((why for pattern, why in self.left_out.items() if re.search(pattern, key)), "")

    def why_kept(self, key: str) -> str:
        """What our `key` is when files of this source never hold it; "" when they do."""
        return next((why for pattern, why in self.kept.items() if re.search(pattern, key)), "")

    def is_computed(self, key: str) -> bool:
        """Whether the model computes what our `key` holds."""
        return self.computed is not None and re.search(self.computed, key) is not None
