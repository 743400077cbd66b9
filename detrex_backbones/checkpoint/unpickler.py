"""Reading a pickle without running anything that is in it.

A pickle is a program: it names functions and calls them. Here only the functions that rebuild tensors, arrays and plain
containers are known; every other name becomes an inert class whose instances swallow whatever they are given. So the
bookkeeping of a training run (its arguments, its log buffers) does not keep its weights from being read, and no call
that a stranger wrote into a file is ever made. A pickle also sets attributes of what it names, so what is known takes
none. There is no switch that turns this off.
"""

from __future__ import annotations

import io
import os
import pickle
import sys
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

__all__ = ["ALLOWED", "Call", "Inert", "Unpickler", "empty_array", "load", "loads"]


class Inert:
    """Stands for an object of a class that isn't on the list: keeps nothing and does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Inert:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Accept what the real class would have been given."""

    def __setstate__(self, state: Any) -> None:
        """Forget the state."""

    def __call__(self, *args: Any, **kwargs: Any) -> Inert:
        return self

    def __setitem__(self, key: Any, value: Any) -> None:
        """Swallow what a dict subclass would keep."""

    def __hash__(self) -> int:
        return id(self)

    def append(self, value: Any) -> None:
        """Swallow what a list subclass would keep."""

    extend = append
    add = append


class Call:
    """Calls a function, and takes no attributes: what a file sets on functions and classes stays for the process."""

    __slots__ = ("_function",)

    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        raise pickle.UnpicklingError(f"a checkpoint is not allowed to change {self._function.__name__!r}")


def _dtype(spec: Any, *args: Any) -> Any:
    dtype = np.dtype(spec, *args)
    if dtype.hasobject:
        raise pickle.UnpicklingError("an array of Python objects is not allowed in a checkpoint")
    return dtype


def _encode(text: str, encoding: str = "latin1", *args: Any) -> bytes:
    # How Python 2's protocol writes bytes. Other encodings would be a way to have code looked up by name.
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes in the encoding {encoding!r} are not allowed in a checkpoint")
    return text.encode("latin1")


def _bytes(*args: Any) -> Any:
    # How protocol 2 writes b"". With a number it would allocate that many.
    return Inert() if args else b""


def empty_array(*args: Any) -> Any:
    """An array to be filled by __setstate__, which checks the shape against the bytes that there are."""
    return np.ndarray.__new__(np.ndarray, (0,), np.dtype("b"))


def _scalar(dtype: Any, data: Any = None) -> Any:
    return np.frombuffer(data, dtype=dtype, count=1)[0] if isinstance(data, bytes) else None


def _from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any, *args: Any) -> Any:
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


def _rebuild_tensor(storage: Any, offset: int, size: Any, stride: Any, *args: Any) -> torch.Tensor:
    """A view of what is stored. One that reaches past the end is refused: torch would allocate what is missing."""
    size, stride = tuple(size), tuple(stride)
    if min((offset, *size, *stride), default=0) < 0 or len(size) != len(stride):
        raise pickle.UnpicklingError(f"a tensor of size {size} and stride {stride} at {offset} is not possible")
    end = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True)) + 1
    stored = storage._untyped_storage.nbytes() // storage.dtype.itemsize
    if 0 not in size and end > stored:
        raise pickle.UnpicklingError(f"a tensor of size {size} needs {end} numbers, but only {stored} are stored")
    return torch._utils._rebuild_tensor(storage, offset, size, stride)  # type: ignore[no-any-return, no-untyped-call]


def _rebuild_parameter(data: torch.Tensor, *args: Any) -> torch.Tensor:
    return data


def _storage_from_bytes(data: bytes) -> Any:
    # How a tensor's storage is written by plain pickle: a legacy torch file within the file.
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=False, pickle_module=sys.modules[__name__])


def _allowed() -> dict[tuple[str, str], Any]:
    functions: dict[tuple[str, str], Callable[..., Any]] = {
        ("collections", "Counter"): Counter,
        ("_codecs", "encode"): _encode,
        ("numpy", "dtype"): _dtype,
        ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
        ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
        ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
        ("torch.storage", "_load_from_bytes"): _storage_from_bytes,
    }
    for module in ("numpy.core", "numpy._core"):
        functions[f"{module}.multiarray", "_reconstruct"] = empty_array
        functions[f"{module}.multiarray", "scalar"] = _scalar
        functions[f"{module}.numeric", "_frombuffer"] = _from_buffer
    names: dict[tuple[str, str], Any] = {name: Call(function) for name, function in functions.items()}
    # Written in C, so nothing can be set on them.
    names["collections", "OrderedDict"] = OrderedDict
    names["collections", "defaultdict"] = defaultdict
    names["torch", "Size"] = torch.Size
    names["torch", "device"] = torch.device
    for module in ("builtins", "__builtin__"):
        names[module, "bytes"] = Call(_bytes)
        for builtin in (bool, int, float, complex, list, tuple, dict, set, frozenset):
            names[module, builtin.__name__] = builtin
    for name in dir(torch):
        value = getattr(torch, name)
        if isinstance(value, torch.dtype):
            names["torch", name] = value
    return names


ALLOWED = _allowed()


class Unpickler(pickle.Unpickler):
    """`pickle.Unpickler` that finds only what is on the list, and `Inert` for everything else."""

    def __init__(self, file: Any, *, encoding: str = "latin1", **kwargs: Any) -> None:
        # Python 2 wrote text as bytes; ASCII fails on its arrays, and "bytes" gives keys that nothing matches.
        super().__init__(file, encoding=encoding, **kwargs)
        self._file = file

    def __setattr__(self, name: str, value: Any) -> None:
        # torch sets what reads storages. In a legacy file they follow the pickle, and only the pickle says how large
        # they are: looked at before torch allocates that much. In a zip the archive bounds them.
        if name == "persistent_load" and not isinstance(self._file, io.BytesIO):
            super().__setattr__(name, lambda saved: value(_check_storage(saved, self._file)))
        else:
            super().__setattr__(name, value)

    def find_class(self, module: str, name: str) -> Any:
        found = ALLOWED.get((module, name))
        if found is None and module == "numpy.dtypes" and name.endswith("DType") and name != "ObjectDType":
            found = getattr(np.dtypes, name, None)
        return type(name.rpartition(".")[2] or "Inert", (Inert,), {}) if found is None else found


def _check_storage(saved: Any, file: Any) -> Any:
    """Refuse a storage that is larger than the file that is to fill it."""
    if isinstance(saved, tuple) and saved[:1] == ("storage",) and len(saved) >= 5:
        size = os.fstat(file.fileno()).st_size
        if not isinstance(saved[4], int) or not 0 <= saved[4] <= size:
            raise pickle.UnpicklingError(f"a storage of {saved[4]!r} numbers is declared in a file of {size} bytes")
    return saved


def load(file: Any, **kwargs: Any) -> Any:
    """Read one pickle from an open binary file. `torch.load(pickle_module=)` asks a module for this and `Unpickler`."""
    return Unpickler(file, **kwargs).load()


def loads(data: bytes) -> Any:
    """Read one pickle from bytes."""
    return Unpickler(io.BytesIO(data)).load()
