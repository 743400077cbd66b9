"""Files that are right, and files that are nearly so: pickles changed by the instruction, archives by the field."""

from __future__ import annotations

import io
import pickle
import pickletools
import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from safetensors.torch import save

from tests.fuzz.strategies import FRAGMENTS, OPCODES, tensors
from tests.hostile.assembler import named

NUMBERS = [0, 1, 3, 4, 255, 256, 2**31 - 1, 2**32 - 1, 2**63 - 1]
MORE = [
    *FRAGMENTS,
    *(
        b"\x8a\x09" + b"\xff" * 8 + b"\x00",
        b"(",
        b"t",
        b"l",
        b"d",
        b"2",
        b"0",
        b"1",
        b"Q",
        b"b",
        b"R",
        b"o",
        b"a",
        b"s",
    ),
    *(named("torch", name) for name in ("FloatStorage", "Size", "float32", "device", "ByteStorage", "load")),
    *(named("builtins", name) for name in ("list", "dict", "bytes", "eval", "getattr", "frozenset")),
    *(named("collections", "Counter"), named("collections", "defaultdict"), named("torch.storage", "_load_from_bytes")),
    *(named("torch._utils", "_rebuild_parameter"), named("torch._utils", "_rebuild_tensor_v3"), b"V\\ud800\n"),
    *(named("torch._tensor", "_rebuild_from_type_v2"), named("_codecs", "encode"), b"\x8f", b"\x91", b"\x90"),
]

leaves = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=6)
plain = st.recursive(
    leaves | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=4) | st.integers(0, 9), inner, max_size=3)
        | st.tuples(inner, inner)
    ),
    max_leaves=6,
)


@st.composite
def contents(draw: st.DrawFn) -> dict[str, Any]:
    """Weights, with whatever a training run keeps beside them; some of them views of one storage."""
    state = draw(st.dictionaries(st.text("abc.", min_size=1, max_size=4), tensors(), min_size=1, max_size=4))
    first = next(iter(state.values()))
    if draw(st.booleans()):
        state["a.view"] = first.reshape(-1)[draw(st.integers(0, 2)) :]
    content = {
        "model": state,
        **draw(st.dictionaries(st.sampled_from(["optimizer", "epoch", "args"]), plain, max_size=2)),
    }
    if draw(st.booleans()):
        content["shared"] = _shared(draw(plain), draw(st.integers(1, 40)))
    return content if draw(st.booleans()) else state


def _shared(value: Any, depth: int) -> Any:
    """Containers that hold the next one twice: as many ways to the innermost as 2 ** depth."""
    for level in range(depth):
        value = [[value, value], (value, value), {"a": value, "b": value}][level % 3]
    return value


def _flat(content: dict[str, Any]) -> dict[str, Any]:
    return content.get("model", content)


def _torch(zipped: bool) -> Callable[[dict[str, Any], int], bytes]:
    def write(content: dict[str, Any], protocol: int) -> bytes:
        out = io.BytesIO()
        torch.save(content, out, pickle_protocol=max(protocol, 2), _use_new_zipfile_serialization=zipped)
        return out.getvalue()

    return write


def _npz(content: dict[str, Any], protocol: int) -> bytes:
    out = io.BytesIO()
    np.savez(out, **{f"a{index}": _array(value) for index, value in enumerate(_flat(content).values())})
    return out.getvalue()


def _array(value: torch.Tensor) -> Any:
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()


def _arrays(content: dict[str, Any], protocol: int) -> bytes:
    return pickle.dumps({name: _array(value) for name, value in _flat(content).items()}, protocol)


WRITERS: dict[str, Callable[[dict[str, Any], int], bytes]] = {
    "torch": _torch(True),
    "torch-legacy": _torch(False),
    "tensors": lambda content, protocol: pickle.dumps(content, protocol),
    "arrays": _arrays,
    "npz": _npz,
    "safetensors": lambda content, protocol: save({k: v.contiguous().clone() for k, v in _flat(content).items()}),
}


@st.composite
def files(draw: st.DrawFn) -> tuple[str, bytes]:
    """How it was made ("right torch", "nearly npz"), and the bytes."""
    kind = draw(st.sampled_from(["torch", "torch", *WRITERS]))
    data = WRITERS[kind](draw(contents()), draw(st.integers(0, 5)))
    changes = draw(st.sampled_from([0, 1, 1, 1, 2, 3, 6]))
    chance = random.Random(draw(st.integers(0, 2**32)))
    for _ in range(changes):
        data = _changed(data, kind, chance)
    return f"{'nearly' if changes else 'right'} {kind}", data


def _changed(data: bytes, kind: str, chance: random.Random) -> bytes:
    if kind == "torch" and chance.random() < 0.7:
        return _with_program(data, chance)
    if kind in ("torch", "npz") and chance.random() < 0.7:
        return _with_field(data, chance)
    if kind == "torch-legacy":
        parts, at = [], 0
        try:
            for _ in range(5):
                end = list(pickletools.genops(data[at:]))[-1][2] + 1
                parts.append(data[at : at + end])
                at += end
        except (ValueError, IndexError):
            return _with_byte(data, chance)
        which = chance.choice([2, 3, 3, 3, 4])
        parts[which] = _with_instruction(parts[which], chance)
        return b"".join([*parts, data[at:]])
    return _with_byte(data, chance) if kind in ("npz", "safetensors") else _with_instruction(data, chance)


def _with_byte(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.choice([b"", bytes([chance.randrange(256)])]) + data[at + chance.choice([0, 1, 1]) :]


def _with_instruction(program: bytes, chance: random.Random) -> bytes:
    """One instruction left out, twice, moved, in the place of another, or with another number."""
    try:
        places = [place for _, _, place in pickletools.genops(program)]
    except (ValueError, IndexError):
        return _with_byte(program, chance)
    parts = [program[start:end] for start, end in zip(places, [*places[1:], len(program)], strict=True)]
    if len(parts) < 4:
        return _with_byte(program, chance)
    at = chance.randrange(1, len(parts) - 1)
    how = chance.randrange(6)
    if how == 0:
        del parts[at]
    elif how == 1:
        parts.insert(at, parts[chance.randrange(1, len(parts) - 1)])
    elif how == 2:
        other = chance.randrange(1, len(parts) - 1)
        parts[at], parts[other] = parts[other], parts[at]
    elif how == 3:
        parts[at] = chance.choice([*MORE, *OPCODES])
    elif how == 4:
        parts.insert(at, chance.choice(MORE))
    else:
        numbers = [index for index, part in enumerate(parts) if part[:1] in b"KMJ"]
        if numbers:
            value = chance.choice(NUMBERS).to_bytes(9, "little", signed=True)
            parts[chance.choice(numbers)] = b"\x8a\x09" + value
    return b"".join(parts)


def _with_program(data: bytes, chance: random.Random) -> bytes:
    """Another program in the archive; all else, checksums included, is right."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            records = [(name, archive.read(name)) for name in archive.namelist()]
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, OSError, EOFError):
        return _with_byte(data, chance)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, record in records:
            archive.writestr(name, _with_instruction(record, chance) if name.endswith("data.pkl") else record)
    return out.getvalue()


def _with_field(data: bytes, chance: random.Random) -> bytes:
    """Another number in one of the records that an archive consists of."""
    if len(data) < 64:
        return _with_byte(data, chance)
    magic, size = chance.choice([(b"PK\x01\x02", 46), (b"PK\x03\x04", 30), (b"PK\x05\x06", 22), (b"PK\x06\x06", 56)])
    places = [at for at in range(len(data) - size) if data[at : at + 4] == magic] or [max(0, len(data) - size)]
    at = chance.choice(places) + chance.randrange(4, size - 3)
    changed = bytearray(data)
    if chance.random() < 0.5:
        changed[at] ^= 1 << chance.randrange(8)
    else:
        struct.pack_into("<I", changed, at, chance.choice([*NUMBERS[:8], len(data), chance.randrange(len(data))]))
    return bytes(changed)
