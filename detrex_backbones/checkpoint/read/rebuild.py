"""From the records of a pickle to tensors that are still in their file, and to plain containers.

The table of constructors at the end says all that is understood. What isn't in it stays the record that it is: it can
be looked at (the optimiser's classes, an `argparse.Namespace`), and does nothing.
Source: what `torch.save` and `pickle` write for these types (torch/_utils.py).
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import torch

from detrex_backbones.checkpoint.read.arrays import ARRAYS
from detrex_backbones.checkpoint.read.dtypes import (
    DIMENSIONS,
    DTYPES,
    SIGNED,
    Storage,
    check_inside,
    numpy_dtype,
    storage_type,
    whole_number,
)
from detrex_backbones.checkpoint.read.records import (
    KEYS,
    Call,
    Data,
    Name,
    PersistentId,
    PickleError,
    calls,
    is_safe_key,
)
from detrex_backbones.checkpoint.read.source import Source
from detrex_backbones.checkpoint.read.special_tensors import SPECIAL
from detrex_backbones.checkpoint.read.stored import StoredTensor

__all__ = ["Storage", "rebuild", "storage_type", "whole_number"]

PLAIN = (str, int, float, bytes)  # no union: Python makes that anew at every look, twice for each tensor
DEPTH = 100  # nested containers; a training run's state has about ten
ODD_KEYS = 1000  # keys of a dict that are tuples or long integers


def rebuild(value: Any, storage: Callable[[Any], Storage]) -> Any:
    """Make values of records.

    Args:
        value: of `parse_pickle`.
        storage: from the value of a persistent id, or the bytes of a file within the file, to a storage.

    Raises:
        PickleError: a tensor or an array that contradicts itself or the bytes that are stored, or deep nesting.
    """
    return _Rebuilder(storage).value(value, 0)


class _Rebuilder:
    def __init__(self, storage: Callable[[Any], Storage]) -> None:
        self.storage = storage
        # What a file uses twice is one thing. The record is kept too, so that its id stays its own.
        self.made: dict[int, tuple[Any, Any]] = {}
        self.within: dict[int, Storage] = {}
        self.encoded: dict[int, bytes] = {}
        self.sources: dict[int, Source] = {}
        self.unfolded: set[int] = set()
        self.dtypes: dict[int, tuple[str, bool]] = {}

    def value(self, item: Any, depth: int) -> Any:
        """What a record stands for."""
        if item is None or isinstance(item, PLAIN):
            return item
        if id(item) in self.made:
            return self.made[id(item)][1]
        if depth > DEPTH:
            raise PickleError(f"it has more than {DEPTH} nested containers")
        return self._container(item, depth + 1)

    def _container(self, item: Any, depth: int) -> Any:
        made: Any
        if isinstance(item, list):
            made = self.keep(item, [])
            made.extend(self.value(inner, depth) for inner in item)
        elif isinstance(item, Data):
            made = self.keep(item, {})
            self.fill(made, [*item.items(), *item.others], depth)
        elif isinstance(item, Call):
            made = self.call(self.keep(item, item), depth)  # kept, in case that it stands in itself
        elif isinstance(item, tuple):
            self.keep(item, None)
            made = tuple(self.value(inner, depth) for inner in item)
        elif isinstance(item, PersistentId):
            made = self.whole_storage(item)
        elif isinstance(item, memoryview):
            made = bytes(item)
        else:
            made = DTYPES.get((item.module, item.name), item) if isinstance(item, Name) else item
        return self.keep(item, made)

    def keep(self, item: Any, made: Any) -> Any:
        """Remember what was made of a record."""
        self.made[id(item)] = item, made
        return made

    def fill(self, made: dict[Any, Any], pairs: Iterable[tuple[Any, Any]], depth: int) -> None:
        """Put pairs into a dict. Nothing is hashed but numbers, text and short tuples of these."""
        odd = 0
        for key, item in pairs:
            key = self.value(key, depth)
            if not is_safe_key(key):
                odd += 1
                parts = key if isinstance(key, tuple) else (key,)
                known = len(parts) <= 8 and all(isinstance(part, KEYS) for part in parts)
                key = key if known and odd <= ODD_KEYS else f"<key {odd}: {type(key).__name__}>"
            made[key] = self.value(item, depth)

    def call(self, call: Call, depth: int) -> Any:
        """What a call would give, if it is one of the table; the record itself otherwise."""
        function = call.function
        known = TABLE.get((function.module, function.name)) if isinstance(function, Name) else None
        if known is not None:
            try:
                return known(self, call, depth)
            except (TypeError, ValueError, IndexError, AttributeError, KeyError, OverflowError, RuntimeError) as error:
                if isinstance(error, PickleError):
                    raise
                raise PickleError(f"it has wrong arguments for {function!r}") from error
        call.arguments = self.value(call.arguments, depth)
        call.state = self.value(call.state, depth)
        call.items = [self.value(item, depth) for item in call.items]
        call.pairs = [(self.value(key, depth), self.value(item, depth)) for key, item in call.pairs]
        return call

    def arguments(self, call: Call, depth: int) -> tuple[Any, ...]:
        """The arguments of a call that is given nothing else: no state, nothing appended."""
        if call.state is not None or call.items or call.pairs:
            raise PickleError(f"it changes what {call.function!r} gives")
        if not isinstance(call.arguments, tuple):
            raise PickleError(f"it has no arguments for {call.function!r}")
        return call.arguments

    def unfold(self, record: Any) -> list[Any]:
        """The items of a container that a call takes. No other call may: copies of copies would fill the memory."""
        if not isinstance(record, list | tuple | Data) or id(record) in self.unfolded:
            raise PickleError("a call copies what isn't its own")
        if record:  # an empty tuple is one and the same everywhere
            self.unfolded.add(id(record))
        return [*record.items(), *record.others] if isinstance(record, Data) else [*record]

    def storage_of(self, record: Any) -> Storage:
        """The storage that a record names."""
        if isinstance(record, PersistentId):
            return self.storage(record.value)
        if calls(record, "torch.storage", "_load_from_bytes"):
            (data,) = self.arguments(record, 0)
            if id(data) not in self.within:
                self.within[id(data)] = self.storage(self.bytes_of(data))
            return self.within[id(data)]
        raise PickleError("a tensor has no storage")

    def bytes_of(self, record: Any) -> memoryview:
        """Bytes, however the pickle's protocol writes them; what is used twice is made once."""
        if isinstance(record, memoryview):
            return record
        if calls(record, "_codecs", "encode"):
            record, encoding = record.arguments
            if encoding not in ("latin1", "latin-1"):
                raise PickleError("it has bytes in an encoding that Python's pickles don't use")
        elif calls(record, "builtins", "bytes") or calls(record, "__builtin__", "bytes"):
            record = b"" if record.arguments == () else None
        if isinstance(record, str):
            if id(record) not in self.encoded:
                self.encoded[id(record)] = record.encode("latin1")
            return memoryview(self.encoded[id(record)])
        if not isinstance(record, (bytes, memoryview)):
            raise PickleError(f"bytes were expected where a {type(record).__name__} stands")
        return memoryview(record)

    def source_of(self, record: Any) -> Source:
        """The same as a source that tensors can be read from."""
        if id(record) not in self.sources:
            self.keep(record, record)
            self.sources[id(record)] = Source.of_memory(self.bytes_of(record))
        return self.sources[id(record)]

    def numpy_dtype(self, record: Any) -> tuple[str, bool]:
        """See `dtypes.numpy_dtype`. The arrays of a file share a few records."""
        if id(record) not in self.dtypes:
            self.keep(record, record)
            self.dtypes[id(record)] = numpy_dtype(record)
        return self.dtypes[id(record)]

    def whole_storage(self, record: Any) -> StoredTensor:
        """A storage that stands alone, as the tensor of all its numbers."""
        piece, dtype, swapped = self.storage_of(record)
        return StoredTensor(piece, dtype, (piece.size // dtype.itemsize,), swapped=swapped)

    def sizes(self, record: Any) -> tuple[int, ...]:
        """A shape or strides."""
        if isinstance(record, Call) and calls(record, "torch", "Size"):
            (record,) = self.arguments(record, 0)
        if not isinstance(record, (tuple, list)) or len(record) > DIMENSIONS:
            raise PickleError(f"a tensor has no shape, or more than {DIMENSIONS} dimensions")
        return tuple(map(whole_number, record))


# What the table's functions are given: the rebuilder, the call, and how deep it stands.
Constructor = Callable[[_Rebuilder, Call, int], Any]


def _tensor(with_dtype: bool = False) -> Constructor:
    def make(run: _Rebuilder, call: Call, depth: int) -> StoredTensor:
        stored, offset, size, stride, *rest = run.arguments(call, depth)
        (piece, dtype, swapped), offset = run.storage_of(stored), whole_number(offset)
        shape, steps = run.sizes(size), run.sizes(stride)
        if with_dtype:
            dtype = DTYPES[rest[2].module, rest[2].name]
        check_inside(piece.size // dtype.itemsize, offset, shape, steps)
        bits = next((given for given in rest[2:] if isinstance(given, dict)), {})
        negative, conjugate = bits.get("neg") is True, bits.get("conj") is True
        if (negative and dtype not in SIGNED) or (conjugate and not dtype.is_complex):
            raise PickleError(f"a tensor of {dtype} is marked as negated or conjugated")
        return StoredTensor(piece, dtype, shape, steps, offset, swapped=swapped, negative=negative, conjugate=conjugate)

    return make


def _first_argument(run: _Rebuilder, call: Call, depth: int) -> Any:
    return run.value(run.arguments(call, depth)[0], depth)


def _mapping(run: _Rebuilder, call: Call, depth: int) -> Any:
    """A dict, an OrderedDict or a Counter; what a defaultdict makes of missing keys is left out."""
    name = call.function.name
    made: Any = run.keep(call, {"OrderedDict": OrderedDict, "Counter": Counter}.get(name, dict)())
    given = call.arguments[1:] if name == "defaultdict" else call.arguments
    for pairs in given:
        run.fill(made, [(key, item) for key, item in run.unfold(pairs)], depth)
    run.fill(made, call.pairs, depth)
    state = run.value(call.state, depth)
    metadata = state.get("_metadata") if isinstance(state, dict) else None
    if name == "OrderedDict" and isinstance(metadata, dict):
        made._metadata = metadata  # the versions of modules, which torch's state dicts carry
    return made


def _collection(kind: Callable[[Iterable[Any]], Any]) -> Constructor:
    """A list, a tuple or a set. A set of what can't be hashed safely stays a list."""

    def make(run: _Rebuilder, call: Call, depth: int) -> Any:
        given = [item for part in call.arguments for item in run.unfold(part)]
        items = [run.value(item, depth) for item in (*given, *call.items)]
        return kind(items) if kind in (list, tuple) or all(map(is_safe_key, items)) else items

    return make


def _number_of(kind: Callable[..., Any]) -> Constructor:
    def make(run: _Rebuilder, call: Call, depth: int) -> Any:
        given = run.arguments(call, depth)
        if not all(type(part) in (int, float, bool) for part in given):
            return call
        return kind(*given)

    return make


def _bytes(run: _Rebuilder, call: Call, depth: int) -> Any:
    view = run.bytes_of(call)
    return view.obj if isinstance(view.obj, bytes) and len(view.obj) == len(view) else bytes(view)


def _device(run: _Rebuilder, call: Call, depth: int) -> Any:
    kind, *index = run.arguments(call, depth)
    if not isinstance(kind, str):  # a number is a device of this machine's
        raise PickleError("it has a device without a name")
    return torch.device(kind, *(whole_number(number) for number in index))


TABLE: dict[tuple[str, str], Constructor] = {
    ("collections", "OrderedDict"): _mapping,
    ("collections", "Counter"): _mapping,
    ("collections", "defaultdict"): _mapping,
    ("_codecs", "encode"): _bytes,
    ("torch", "Size"): lambda run, call, depth: torch.Size(run.sizes(call)),
    ("torch", "device"): _device,
    ("torch._utils", "_rebuild_tensor"): _tensor(),
    ("torch._utils", "_rebuild_tensor_v2"): _tensor(),
    ("torch._utils", "_rebuild_tensor_v3"): _tensor(with_dtype=True),
    ("torch._utils", "_rebuild_device_tensor_from_numpy"): _first_argument,
    ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): _first_argument,
    ("torch._utils", "_rebuild_xla_tensor"): _first_argument,
    **ARRAYS,
    **SPECIAL,
}
for _module in ("builtins", "__builtin__"):
    TABLE |= {(_module, name): _number_of(kind) for name, kind in (("complex", complex), ("bool", bool))}
    TABLE |= {(_module, kind.__name__): _collection(kind) for kind in (list, tuple, set, frozenset)}
    TABLE |= {(_module, "dict"): _mapping, (_module, "bytes"): _bytes}
