"""The processes of one collective step: what one learns all learn, and where one fails nobody waits for it."""

from __future__ import annotations

import hashlib
import pickle
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed
from torch.nn import functional

from detrex_backbones.errors import ArgumentError, DetrexBackbonesError, RankError

__all__ = ["Ranks", "several"]

T = TypeVar("T")

CONNECTING = timedelta(seconds=30)
KEPT = 64  # tensors


def several(group: distributed.ProcessGroup | None = None) -> bool:
    """Whether there is anybody to talk to."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size(group) > 1


class Ranks:
    """The processes of a group, for one step that all of them take. Used in a `with` statement.

    They talk over connections of their own (gloo, over the network's CPU side), which are closed as soon as one of them
    fails or dies: the others get an error at once, or after 30 s where it dies while connections are made. One that
    stands still without dying ends them after the timeout.

    Args:
        group: of this process, of gloo; None for all processes. The connections of a group that is given are used as
            they are and stay open, and its own timeout holds.
        timeout: in seconds, of every single wait.

    Attributes:
        group: the connections, within the `with` statement.

    Raises:
        ArgumentError: this process is not in the group, the group is not gloo's, or the timeout is no positive number.
        RankError: the others didn't come, disagree, or were lost on the way.
    """

    def __init__(self, group: distributed.ProcessGroup | None, timeout: float) -> None:
        if not timeout > 0:
            raise ArgumentError(f"timeout={timeout!r} is no time to wait. Give a positive number of seconds.")
        if distributed.get_rank(group) < 0:
            raise ArgumentError(f"group={group!r}: rank {distributed.get_rank()} is not in it, so it can't take part.")
        if group is not None and distributed.get_backend(group) != "gloo":
            raise ArgumentError(
                f"group={group!r} talks by {distributed.get_backend(group)}. Give one for the CPU, which all processes "
                f"make together: torch.distributed.new_group(ranks, backend='gloo')."
            )
        self._asked = group
        self.members = distributed.get_process_group_ranks(group or distributed.group.WORLD)
        self.rank = distributed.get_rank()
        self.timeout = timeout
        self.group: Any = None
        # A thread of gloo's that is the last to hold a tensor asks for Python's lock to let it go, and closing waits
        # for the thread with that lock taken (torch 2.6): what was sent lately stays until the connections are closed.
        self._in_use: deque[Tensor] = deque(maxlen=KEPT)

    @property
    def first(self) -> bool:
        """Whether this is the process that reads."""
        return self.rank == self.members[0]

    def __enter__(self) -> Ranks:
        try:
            self.group = self._connect()
        except RuntimeError as error:
            raise self._lost(error) from error
        return self

    def _connect(self) -> Any:
        wait = timedelta(seconds=self.timeout)
        all_came = distributed.get_backend(self._asked) == "gloo"
        if all_came:  # shows at once who has died before
            distributed.monitored_barrier(self._asked, wait)
        if self._asked is not None:
            # Some processes alone can't make a group: torch numbers groups, and the others' count would differ.
            return self._asked
        if not all_came or not hasattr(distributed, "set_timeout"):
            return distributed.new_group(timeout=wait, backend="gloo")
        # Only a timeout shows that one dies while connections are made, which takes no time where all have come.
        group: Any = distributed.new_group(timeout=min(wait, CONNECTING), backend="gloo")
        distributed.set_timeout(wait, group)
        return group

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Closed whatever happened: whoever waits for this process is told so by its connection.
        group, self.group = self.group, None
        if group is not None and group is not self._asked:
            distributed.destroy_process_group(group)
        del group
        self._in_use.clear()

    def gather(self, value: T) -> list[T]:
        """What every process gives, in the order of the ranks."""
        own = _packed(value)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in self.members]
        self._all_gather(sizes, torch.tensor([own.numel()]))
        found = [torch.zeros(int(max(sizes)), dtype=torch.uint8) for _ in self.members]
        self._all_gather(found, functional.pad(own, (0, len(found[0]) - own.numel())))
        return [_unpacked(each[: int(size)]) for each, size in zip(found, sizes, strict=True)]

    def send(self, value: Any) -> Any:
        """What the first process gives; what the others give is not looked at."""
        packed = _packed(value if self.first else None)
        size = torch.tensor([packed.numel()])
        self._broadcast(size)
        packed = packed if self.first else torch.zeros(int(size), dtype=torch.uint8)
        self._broadcast(packed)
        return _unpacked(packed)

    def send_tensor(self, tensor: Tensor) -> Tensor:
        """The first process's tensor, written into that of the others: contiguous, of the same shape and dtype."""
        if tensor.numel():  # as bytes: gloo doesn't know every dtype
            self._broadcast(tensor.reshape(-1).view(torch.uint8))
        return tensor

    def _broadcast(self, tensor: Tensor) -> None:
        self._in_use.append(tensor)
        self.talk(lambda: distributed.broadcast(tensor, src=self.members[0], group=self.group))

    def _all_gather(self, found: list[Tensor], own: Tensor) -> None:
        self._in_use += [*found, own]
        self.talk(lambda: distributed.all_gather(found, own, group=self.group))

    def together(self, do: Callable[[], T]) -> T:
        """Do something that may fail and talks to nobody. Where it fails on one, all raise what that one raised."""
        result, failure = None, None
        try:
            result = do()
        except Exception as error:  # whatever it is, the others must hear of it
            failure = error
        for rank, found in zip(self.members, self.gather(_portable(failure)), strict=True):
            if found is not None:
                raise failure if failure is not None and rank == self.rank else _elsewhere(rank, found)
        return result  # type: ignore[return-value]

    def agree(self, what: str, value: dict[str, str], mend: str) -> None:
        """Refuse a step that the processes take with different values.

        Args:
            what: they are called.
            value: name -> value as text. Only a digest is exchanged as long as all is well.
            mend: what to do.
        """
        digest = hashlib.sha256(repr(sorted(value.items())).encode()).hexdigest()
        if len(set(self.gather(digest))) == 1:
            return
        values = self.gather(value)
        for name in sorted({name for one in values for name in one}):
            have: dict[str, list[str]] = {}
            for rank, one in zip(self.members, values, strict=True):
                have.setdefault(one.get(name, "nothing"), []).append(str(rank))
            if len(have) > 1:
                told = "; ".join(f"{text} on rank {', '.join(ranks)}" for text, ranks in have.items())
                raise RankError(f"the processes disagree about {what}: {name!r} is {told}. {mend}")

    def talk(self, say: Callable[[], Any]) -> None:
        """Do something that all processes do and that talks over `group`; whoever is lost ends it.

        Raises:
            RankError: somebody was lost.
        """
        try:
            say()
        except RuntimeError as error:
            raise self._lost(error) from error

    def _lost(self, error: RuntimeError) -> RankError:
        reason = " ".join(str(error).split())[:200]
        return RankError(
            f"rank {self.rank} lost another of the {len(self.members)} processes: it died, failed, or didn't come "
            f"within {self.timeout:g} seconds ({reason}). Look for the first error among the ranks' outputs. "
            f"Every process of the group must make the same call."
        )


def _packed(value: Any) -> Tensor:
    return torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)


def _unpacked(stored: Tensor) -> Any:
    return pickle.loads(stored.numpy().tobytes())


def _portable(error: Exception | None) -> Exception | None:
    """An error that can be sent: one of ours, or a description."""
    if error is None or isinstance(error, DetrexBackbonesError):
        return error
    return RankError(f"{type(error).__name__}: {error}")


def _elsewhere(rank: int, error: Exception) -> Exception:
    error.args = (f"on rank {rank}: {error}", *error.args[1:])
    return error
