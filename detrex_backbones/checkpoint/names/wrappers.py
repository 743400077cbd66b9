"""Names as the network itself would give them: what wrappers put in is taken out, what is no weight is set aside."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable

__all__ = ["clean_names"]

# Components that DistributedDataParallel, DataParallel, AveragedModel and torch.compile put anywhere into a path.
WRAPPERS = re.compile(r"(?:(?<=\.)|^)(?:(?:module|_orig_mod)\.)+")
LEADING = re.compile(r"^(?:(?:module|_orig_mod)\.)+")

WRAPPING = ("module.", "_orig_mod.")

# DINOv2's trainer keeps a ViT's blocks in chunks for FSDP, numbered through: block 7 is `blocks.1.7` of the second.
CHUNKED = re.compile(r"(?:(?<=\.)|^)blocks\.\d+\.(?=\d+\.)")

STUDENT = "student of a teacher"

# No weight of the network that is wanted, unless the model has the name itself: words of which one is in all such
# names, what these names are exactly, and why. A momentum encoder's names end like those of the encoder itself.
# OpenMMLab 2.x keeps averaged weights as buffers of the model, dots written as underscores, beside the plain ones.
SET_ASIDE = (
    (
        ("encoder_k", "momentum_encoder", "key_encoder", "backbone_k", "teacher_ema"),
        re.compile(r"(^|\.)(encoder_k|momentum_encoder|key_encoder|backbone_k|teacher_ema)\."),
        "momentum encoder",
    ),
    (("student.",), re.compile(r"(^|\.)student\."), STUDENT),
    (("queue",), re.compile(r"(^|\.)queue\w*$"), "queue of negatives"),
    (("_momentum",), re.compile(r"_momentum$"), "optimiser momentum"),
    (
        ("n_averaged", "steps", "total_ops", "total_params"),
        re.compile(r"(^|\.)(n_averaged|steps|total_ops|total_params)$"),
        "bookkeeping",
    ),
    (("ema_",), re.compile(r"^ema_[a-z]\w*$"), "averaged weights, swapped into the plain names already"),
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
    text = "\n".join(keys)
    patterns = [(pattern, why) for words, pattern, why in SET_ASIDE if any(word in text for word in words)]
    wrapped = any(word in text for word in WRAPPING)
    chunked = "blocks." in text and any(map(CHUNKED.search, keys))
    if not patterns and not wrapped and not chunked:
        return dict(zip(keys, keys, strict=True)), {}
    cleaned: dict[str, str] = {}
    aside: dict[str, str] = {}
    has_teacher = "teacher." in text and any(re.search(r"(^|\.)teacher\.", key) for key in keys)
    for key in keys:
        name = _unwrap(key, own) if wrapped and key not in whole else key
        name = _joined(name, own) if chunked else name
        why = _why_aside(name, patterns, own)
        if why == STUDENT and not has_teacher:
            why = ""
        if not why and name in cleaned:
            why = f"second copy of {cleaned[name]}"
        if why:
            aside[key] = why
        else:
            cleaned[name] = key
    return cleaned, aside


def _why_aside(name: str, patterns: Iterable[tuple[re.Pattern[str], str]], own: Container[str]) -> str:
    """Why a name is set aside; "" where it isn't, or where the model has it, behind whatever prefix."""
    for pattern, why in patterns:
        found = pattern.search(name)
        if found:
            start = name.rfind(".", 0, found.start() + 1) + 1  # of the component where the pattern begins
            return "" if name in own or name[start:] in own else why
    return ""


def _joined(name: str, own: Container[str]) -> str:
    """A block's name without its chunk, where that is what the model calls it."""
    found = CHUNKED.search(name)
    if not found or name[found.start() :] in own:
        return name
    joined = f"blocks.{name[found.end() :]}"
    return name[: found.start()] + joined if joined in own else name


def _unwrap(key: str, own: Container[str]) -> str:
    name = WRAPPERS.sub("", key)
    if name == key:
        return key
    return next((given for given in (key, LEADING.sub("", key)) if given in own and name not in own), name)
