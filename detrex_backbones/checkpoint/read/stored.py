"""Tensors that are still in their file: shape, dtype and where their bytes are. `load_tensors` reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from detrex_backbones.checkpoint.read.source import DamagedError, Piece, read_pieces

__all__ = [
    "DerivedTensor",
    "GivenTensor",
    "LazyTensor",
    "OtherTensor",
    "StoredTensor",
    "Views",
    "as_lazy",
    "joined",
    "load_tensors",
    "strides_of",
]

LARGEST = 1 << 58  # numbers: their bytes can be counted in 63 bits


class Views:
    """The bytes of pieces, as numbers. However many tensors are views of a storage, each change of it is made once.

    Args:
        found: piece -> its bytes.
        owned: whether the numbers have to begin where the processor wants them.
    """

    def __init__(self, found: Mapping[Piece, memoryview], owned: bool) -> None:
        self._found, self._owned = found, owned
        self._made: dict[tuple[Any, ...], Tensor] = {}

    def numbers(self, piece: Piece, dtype: torch.dtype, swapped: bool, negative: bool, conjugate: bool) -> Tensor:
        """All numbers of a storage, in one dimension.

        Args:
            piece: the storage.
            dtype: of the numbers.
            swapped: whether their highest bytes come first.
            negative: whether they are to be negated.
            conjugate: whether they are to be conjugated.
        """
        key = (piece, dtype, swapped, negative, conjugate)
        if key not in self._made:
            flat = self._bytes(piece, dtype.itemsize)
            if swapped:
                flat = flat.view(-1, dtype.itemsize // (2 if dtype.is_complex else 1)).flip(1).reshape(-1)
            values = flat.view(dtype)
            if negative or conjugate:
                parts = (torch.view_as_real(values) if dtype.is_complex else values).clone()
                if negative:
                    parts.neg_()
                if conjugate:
                    parts[..., 1].neg_()
                values = torch.view_as_complex(parts) if dtype.is_complex else parts
            self._made[key] = values
        return self._made[key]

    def once(self, piece: Piece, dtype: torch.dtype) -> Tensor:
        """All numbers of a storage that needs no change, for whoever only copies them."""
        return torch.frombuffer(self._found[piece], dtype=dtype)

    @property
    def borrowed(self) -> bool:
        """Whether the numbers are only copied while the file is open."""
        return not self._owned

    def _bytes(self, piece: Piece, width: int) -> Tensor:
        size = piece.size // width * width  # a storage of bytes can have some left over
        flat = torch.frombuffer(self._found[piece], dtype=torch.uint8)[:size]
        if self._owned and flat.data_ptr() % width:
            flat = flat.clone()
        return flat


class LazyTensor:
    """A tensor of which shape and dtype are known, and whose values come when they are asked for.

    Args:
        shape: sizes.
        dtype: of the values.
    """

    unread = ""  # what it is, for people, where its values are not plainly in the file
    shapeless = False  # whether not even its shape is

    def __init__(self, shape: Iterable[int], dtype: torch.dtype) -> None:
        self.shape, self.dtype = tuple(shape), dtype

    def __len__(self) -> int:
        return self.shape[0]

    def dim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def pieces(self) -> Iterator[Piece]:
        """The bytes of the file that it is made of."""
        return iter(())

    def build(self, views: Views) -> Tensor:
        """The tensor, from the bytes of its pieces; in memory that no file shares."""
        raise NotImplementedError

    def load(self) -> Tensor:
        """The tensor, read now."""
        return load_tensors([self])[0]

    def __getitem__(self, rows: slice | list[int]) -> DerivedTensor:
        """Some of its rows."""
        count = len(range(len(self))[rows]) if isinstance(rows, slice) else len(rows)
        return self.then(lambda tensor: tensor[rows], (count, *self.shape[1:]))

    def then(self, change: Callable[[Tensor], Tensor], shape: Iterable[int] | None = None) -> DerivedTensor:
        """What a function makes of it, once it's read.

        Args:
            change: keeps the dtype.
            shape: of its result; None where it is the same.
        """
        return DerivedTensor((self,), change, self.shape if shape is None else shape)


class StoredTensor(LazyTensor):
    """A tensor of a storage: some numbers of a piece of a file.

    Args:
        piece: the storage.
        dtype: of its numbers.
        shape: sizes.
        stride: in numbers; None for a contiguous tensor.
        offset: of the first number in the storage.
        swapped: whether its numbers have their highest byte first.
        negative: whether the values are those of the storage negated.
        conjugate: whether they are those of the storage conjugated.
    """

    def __init__(
        self,
        piece: Piece,
        dtype: torch.dtype,
        shape: Iterable[int],
        stride: Iterable[int] | None = None,
        offset: int = 0,
        *,
        swapped: bool = False,
        negative: bool = False,
        conjugate: bool = False,
    ) -> None:
        super().__init__(shape, dtype)
        self.count = prod(self.shape)
        if (self.count or prod(max(size, 1) for size in self.shape)) >= LARGEST or max(stride or (0,)) >= LARGEST:
            raise DamagedError(f"a tensor has the impossible shape {self.shape}")
        self.piece, self.offset = piece, offset
        self._stride = None if stride is None else tuple(stride)
        self.whole = not offset and (self._stride is None or self._stride == strides_of(self.shape))
        self.swapped, self.negative, self.conjugate = swapped, negative, conjugate

    @property
    def stride(self) -> tuple[int, ...]:
        """In numbers, one for each dimension."""
        return strides_of(self.shape) if self._stride is None else self._stride

    def pieces(self) -> Iterator[Piece]:
        yield self.piece

    def build(self, views: Views) -> Tensor:
        if not self.count:
            return torch.empty(self.shape, dtype=self.dtype)
        changed = self.swapped or self.negative or self.conjugate
        whole = self.whole and self.piece.size == self.count * self.dtype.itemsize
        if views.borrowed and whole and not changed:
            return views.once(self.piece, self.dtype).view(self.shape)
        values = views.numbers(self.piece, self.dtype, self.swapped, self.negative, self.conjugate)
        if self.whole and len(values) == self.count:
            return values.view(self.shape)
        return values.as_strided(self.shape, self.stride, self.offset)


class OtherTensor(LazyTensor):
    """A tensor whose values are not plainly in the file. It has a name and mostly a shape, and can't be loaded.

    Args:
        kind: what it is, and what to save in its place: "a sparse tensor; save tensor.to_dense()".
        shape: None where the file doesn't tell it.
    """

    def __init__(self, kind: str, shape: Iterable[int] | None = None) -> None:
        super().__init__(shape or (), torch.float32)
        self.unread, self.shapeless = kind, shape is None

    def __repr__(self) -> str:
        return f"<{self.unread}>"

    def build(self, views: Views) -> Tensor:
        raise DamagedError(f"it has {self.unread}")


class DerivedTensor(LazyTensor):
    """What a function makes of other tensors.

    Args:
        parents: the others.
        change: from them to the result.
        shape: of the result.
    """

    def __init__(self, parents: tuple[LazyTensor, ...], change: Callable[..., Tensor], shape: Iterable[int]) -> None:
        super().__init__(shape, parents[0].dtype)
        self._parents, self._change = parents, change
        self.unread = next(filter(None, (parent.unread for parent in parents)), "")

    def pieces(self) -> Iterator[Piece]:
        for parent in self._parents:
            yield from parent.pieces()

    def build(self, views: Views) -> Tensor:
        made = self._change(*(parent.build(views) for parent in self._parents))
        if tuple(made.shape) != self.shape:
            raise ValueError(f"a tensor of shape {tuple(made.shape)} was made where {self.shape} was announced")
        return made


class GivenTensor(LazyTensor):
    """A tensor that is in memory already.

    Args:
        tensor: handed out as it is.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.shape, self.dtype, self._tensor = tuple(tensor.shape), tensor.dtype, tensor  # one of many: no call more

    def build(self, views: Views) -> Tensor:
        return self._tensor.detach()


def as_lazy(tensor: Tensor | LazyTensor) -> LazyTensor:
    """A tensor, wherever it is."""
    return tensor if isinstance(tensor, LazyTensor) else GivenTensor(tensor)


def joined(parts: Sequence[LazyTensor]) -> LazyTensor:
    """Tensors one behind the other, along their first dimension."""
    rows = sum(len(part) for part in parts)
    return DerivedTensor(tuple(parts), lambda *tensors: torch.cat(tensors), (rows, *parts[0].shape[1:]))


def load_tensors(wanted: Iterable[LazyTensor], *, owned: bool = True) -> list[Tensor]:
    """Read tensors, each storage once. Those of one storage share it, as they did when they were written.

    Args:
        wanted: of files that are open.
        owned: whether they have to outlive the open files, and may be written to; otherwise they can be views of a
            mapped file, and begin anywhere in it.

    Raises:
        DamagedError: a checksum is wrong, or the file became shorter.
    """
    wanted = list(wanted)
    found = read_pieces((piece for tensor in wanted for piece in tensor.pieces()), owned=owned)
    views = Views(found, owned)
    return [tensor.build(views) for tensor in wanted]


def strides_of(shape: Iterable[int], *, first_fastest: bool = False) -> tuple[int, ...]:
    """The strides of a contiguous tensor, in numbers; with `first_fastest` in the order of Fortran."""
    strides: list[int] = []
    step = 1
    for length in shape if first_fastest else reversed(tuple(shape)):
        strides.append(step)
        step *= max(length, 1)
    return tuple(strides if first_fastest else strides[::-1])
