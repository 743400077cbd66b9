"""Names as the network itself would give them: what wrappers put in is taken out, what is no weight is set aside."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable
from typing import NamedTuple

__all__ = ["clean_names"]

# What is put around a module in a path: `module` (DistributedDataParallel, DataParallel, DeepSpeed, AveragedModel), and
# an attribute that begins with "_" and ends with "mod" or "module", as torch (`_orig_mod`, `_fsdp_wrapped_module`,
# `_checkpoint_wrapped_module`) and Lightning (`_forward_module`) name it. peft keeps the layer that it adapts as
# `base_layer`, and one that is trained as a whole as `modules_to_save`, with the adapter's name behind.
WRAPPERS = re.compile(
    r"(?:(?<=\.)|^)(?:module|_\w*mod(?:ule)?|base_layer(?=(?:\.base_layer){0,3}\.[^.]+$)|modules_to_save\.[^.]+)\."
)
MOST = 16  # wrappers in one name; of more nobody is asked

# torch's parametrizations keep a parameter as `parametrizations.weight.original`, and weight_norm two of them.
PARAMETRISED = re.compile(r"(?:(?<=\.)|^)parametrizations\.([^.]+)\.original([01]?)$")
NORMED = re.compile(r"(?:(?<=\.)|^)([^.]+)_([gv])$")
NORM_NAMES = {"": "", "0": "_g", "1": "_v"}  # of weight_norm before torch 2.0

# DINOv2's trainer keeps a ViT's blocks in chunks for FSDP, numbered through: block 7 is `blocks.1.7` of the second.
CHUNKED = re.compile(r"(?:(?<=\.)|^)blocks\.\d+\.(?=\d+\.)")


class _Aside(NamedTuple):
    """Names of what is no weight of the network that is wanted, unless the model has the name itself.

    Args:
        words: of which one is in all such names.
        pattern: what these names are exactly.
        why: they are set aside, for people.
        needed: what else a file has, if they are to be set aside.
    """

    words: tuple[str, ...]
    pattern: re.Pattern[str]
    why: str
    needed: re.Pattern[str] | None = None


# A momentum encoder's names end like those of the encoder itself. OpenMMLab 2.x keeps averaged weights as buffers of
# the model, dots written as underscores, beside the plain ones.
SET_ASIDE = (
    _Aside(
        ("encoder_k", "momentum_encoder", "key_encoder", "backbone_k", "teacher_ema"),
        re.compile(r"(^|\.)(encoder_k|momentum_encoder|key_encoder|backbone_k|teacher_ema)\."),
        "momentum encoder",
    ),
    _Aside(
        ("student.",),
        re.compile(r"(^|\.)student\."),
        "student of a teacher",
        re.compile(r"(^|\.)teacher\.", re.MULTILINE),
    ),
    _Aside(
        ("original_module.",),
        re.compile(r"(^|\.)original_module\."),
        "what a module of peft's modules_to_save was trained from",
        re.compile(r"(^|\.)modules_to_save\.", re.MULTILINE),
    ),
    _Aside(("queue",), re.compile(r"(^|\.)queue\w*$"), "queue of negatives"),
    _Aside(("_momentum",), re.compile(r"_momentum$"), "optimiser momentum"),
    _Aside(
        ("n_averaged", "steps", "total_ops", "total_params"),
        re.compile(r"(^|\.)(n_averaged|steps|total_ops|total_params)$"),
        "bookkeeping",
    ),
    _Aside(("ema_",), re.compile(r"^ema_[a-z]\w*$"), "averaged weights, swapped into the plain names already"),
)


def clean_names(
    keys: Iterable[str], own: Container[str] = (), whole: Container[str] = ()
) -> tuple[dict[str, str], dict[str, str]]:
    """Take wrappers out of names, and set aside what is no weight.

    Args:
        keys: the names in a file.
        own: names of the model in hand and their tails. What it has is never set aside: a queue, the counter of an
            AveragedModel, a student of its own. A few networks call a part of theirs `module`: there it is no wrapper.
        whole: names of the model in hand. A wrapper that the model has as well stays: an AveragedModel's `module`.

    Returns:
        Clean name -> name in the file; and name in the file -> why it was set aside.
    """
    keys = list(keys)
    # Most files have none of these words: they are looked for in all names at once.
    text = "\n".join([*keys, ""])
    asides = [each for each in SET_ASIDE if any(word in text for word in each.words)]
    asides = [each for each in asides if each.needed is None or each.needed.search(text)]
    changes = [change for words, change in CHANGES if any(word in text for word in words)]
    chunked = "blocks." in text and any(map(CHUNKED.search, keys))
    if not asides and not changes and not chunked:
        return dict(zip(keys, keys, strict=True)), {}
    cleaned: dict[str, str] = {}
    aside: dict[str, str] = {}
    for key in keys:
        name = key
        for change in changes if key not in whole else ():
            name = change(name, own, whole)
        name = _joined(name, own) if chunked else name
        why = _why_aside(name, asides, own)
        if not why and name in cleaned:
            why = f"second copy of {cleaned[name]}"
        if why:
            aside[key] = why
        else:
            cleaned[name] = key
    return cleaned, aside


def _why_aside(name: str, asides: Iterable[_Aside], own: Container[str]) -> str:
    """Why a name is set aside; "" where it isn't, or where the model has it, behind whatever prefix."""
    for each in asides:
        found = each.pattern.search(name)
        if found:
            start = name.rfind(".", 0, found.start() + 1) + 1  # of the component where the pattern begins
            return "" if name in own or name[start:] in own else each.why
    return ""


def _joined(name: str, own: Container[str]) -> str:
    """A block's name without its chunk, where that is what the model calls it."""
    found = CHUNKED.search(name)
    if not found or name[found.start() :] in own:
        return name
    joined = f"blocks.{name[found.end() :]}"
    return name[: found.start()] + joined if joined in own else name


def _unwrap(name: str, own: Container[str], whole: Container[str]) -> str:
    """A name without its wrappers, but for those that the model has in this place as well."""
    found = list(WRAPPERS.finditer(name))
    if len(found) > MOST:
        return WRAPPERS.sub("", name)
    rows: list[int] = []  # where the first of those begins that stand before each without a module between them
    for at, wrapper in enumerate(found):
        rows.append(rows[-1] if at and found[at - 1].end() == wrapper.start() else wrapper.start())
    for wrapper, row in zip(reversed(found), reversed(rows), strict=True):  # what is behind it is clean by then
        kept, behind = name[wrapper.start() :], name[wrapper.end() :]
        module = _last(name[:row])
        if module:
            stays = module + kept in own or name[row - len(module) :] in own
            stays = stays or (kept in own and module + behind not in own)
        else:  # whatever a file's names begin with is the file's, unless it is of the whole model
            stays = kept in whole or name in whole
        if not stays:
            name = name[: wrapper.start()] + behind
    return name


def _plain(name: str, own: Container[str], whole: Container[str]) -> str:
    """A parametrised parameter by its own name, unless the model has it parametrised, too."""
    found = PARAMETRISED.search(name)
    if not found:
        return name
    head, plain = name[: found.start()], found[1] + NORM_NAMES[found[2]]
    module = _last(head)
    if module + found[0] in own or (found[2] and module + plain not in own):
        return name
    return head + plain


def _parametrised(name: str, own: Container[str], whole: Container[str]) -> str:
    """A parameter of weight_norm as torch 2.0 has it, where the model has it so."""
    found = NORMED.search(name)
    if not found:
        return name
    head, ours = name[: found.start()], f"parametrizations.{found[1]}.original{'gv'.index(found[2])}"
    module = _last(head)
    return head + ours if module + ours in own and module + found[0] not in own else name


def _last(head: str) -> str:
    """The last module of a path, with the dot behind it."""
    return head[head.rfind(".", 0, -1) + 1 :]


CHANGES: tuple[tuple[tuple[str, ...], Callable[[str, Container[str], Container[str]], str]], ...] = (
    (("module.", "_mod.", "base_layer.", "modules_to_save."), _unwrap),
    (("parametrizations.",), _plain),
    (("_g\n", "_v\n"), _parametrised),
)
