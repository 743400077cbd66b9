"""What is known of one tensor of a file, from the bytes that it has to the place that it finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from detrex_backbones.checkpoint.read import LazyTensor

__all__ = ["BATCH_COUNTER", "Entry", "Shapes", "Status"]

Shapes = Mapping[str, tuple[int, ...]]
"""Name -> shape."""

BATCH_COUNTER = "num_batches_tracked"


class Status(Enum):
    """What became of a tensor of the file."""

    LOADED = "loaded"
    OTHER_SHAPE = "the model has another shape"
    NOT_OF_NETWORK = "no part of the network"  # a classifier, a counter, a momentum: known by its name
    OUTSIDE = "outside the network that was read"
    PART_OF_ANOTHER = "used in another tensor"
    NO_NAME = "no name in the convention"
    NO_PLACE = "no place in the model"
    OTHER_ARCHITECTURE = "no place in a stage that the model has otherwise"
    UNREAD = "its values are not plainly in the file"


@dataclass(slots=True)
class Entry:
    """One tensor of a checkpoint. Each stage of a load fills in what it finds out.

    Args:
        checkpoint_key: its name in the file.
        tensor: where its values are, as long as the file is open; None in a report.
        shape: in the file.
        clean: the name without what wrappers put in.
        theirs: the name in its source's vocabulary, behind the prefix; the whole clean name where it's used as stored.
        ours: this library's name; "" where there is none.
        model_key: the model's name for what it fills, or would fill if the shape were right; "" for nothing.
        model_shape: the model's shape where it's another.
        status: what became of it.
        why: that in words for people.
        rule: what led from the file's name to the model's.
        adapted: what was done to the values on the way, otherwise "".
        cast: "float16 -> float32" where the dtype changed on the way, otherwise "".
    """

    checkpoint_key: str
    tensor: LazyTensor | None = None
    shape: tuple[int, ...] = ()
    clean: str = ""
    theirs: str = ""
    ours: str = ""
    model_key: str = ""
    model_shape: tuple[int, ...] = ()
    status: Status = Status.NO_PLACE
    why: str = Status.NO_PLACE.value
    rule: str = ""
    adapted: str = ""
    cast: str = ""

    def set(self, status: Status, why: str = "") -> None:
        """Say what became of it: the status for programs, which no sentence steers, and why for people."""
        self.status, self.why = status, why or status.value

    @property
    def values(self) -> LazyTensor:
        """Where its values are."""
        if self.tensor is None:
            raise ValueError(f"{self.checkpoint_key!r} has no values here")
        return self.tensor
