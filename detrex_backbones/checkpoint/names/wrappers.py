"""Names as the network itself would give them: what wrappers put in is taken out, what is no weight is set aside."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable

__all__ = ["clean_names"]

# Components that DistributedDataParallel, DataParallel, AveragedModel and torch.compile put anywhere into a path.
WRAPPERS = re.compile(r"(?:(?<=\.)|^)(?:(?:module|_orig_mod)\.)+")
LEADING = re.compile(r"^(?:(?:module|_orig_mod)\.)+")

WRAPPING = ("module.", "_orig_mod.")

STUDENT = "student of a teacher"

# Never a weight of the network that is wanted: words of which one is in all such names, what these names are exactly,
# and why. A momentum encoder's names end like those of the encoder itself. OpenMMLab 2.x keeps averaged weights as
# buffers of the model, dots written as underscores, beside the plain ones.
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


def clean_names(keys: Iterable[str], own: Container[str] = ()) -> tuple[dict[str, str], dict[str, str]]:
    """Take wrappers out of names, and set aside what is no weight.

    Args:
        keys: the names in a file.
        own: names of the model in hand. A few networks call a part of theirs `module`: there it is no wrapper.

    Returns:
        Clean name -> name in the file; and name in the file -> why it was set aside.
    """
    keys = list(keys)
    # Most files have none of these words: they are looked for in all names at once.
    text = "\n".join(keys)
    patterns = [(pattern, why) for words, pattern, why in SET_ASIDE if any(word in text for word in words)]
    wrapped = any(word in text for word in WRAPPING)
    if not patterns and not wrapped:
        return dict(zip(keys, keys, strict=True)), {}
    cleaned: dict[str, str] = {}
    aside: dict[str, str] = {}
    has_teacher = "teacher." in text and any(re.search(r"(^|\.)teacher\.", key) for key in keys)
    for key in keys:
        why = next((why for pattern, why in patterns if pattern.search(key)), "")
        if why == STUDENT and not has_teacher:
            why = ""
        name = _unwrap(key, own) if wrapped else key
        if not why and name in cleaned:
            why = f"second copy of {cleaned[name]}"
        if why:
            aside[key] = why
        else:
            cleaned[name] = key
    return cleaned, aside


def _unwrap(key: str, own: Container[str]) -> str:
    name = WRAPPERS.sub("", key)
    if name == key:
        return key
    return next((given for given in (key, LEADING.sub("", key)) if given in own and name not in own), name)
