"""What the fuzzing draws: names, shapes, tensors, state dicts, config trees, overrides, images."""

from __future__ import annotations

import string
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

WORDS = (
    "backbone",
    "bottom_up",
    "stem",
    "conv1",
    "bn1",
    "norm",
    "layer1",
    "res2",
    "0",
    "1",
    "module",
    "weight",
    "bias",
)
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool)

shapes = st.lists(st.integers(0, 3), max_size=4).map(tuple)
likely_names = st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(".".join)
odd_names = st.text(min_size=1, max_size=12) | st.text("._-0/ \n", min_size=1, max_size=6)
names = likely_names | odd_names
name_shapes = st.dictionaries(likely_names, shapes, max_size=12)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Of any dtype, shape and order in memory; NaN and infinity among them."""
    shape, dtype = draw(shapes), draw(st.sampled_from(DTYPES))
    size = int(np.prod(shape)) * torch.empty(0, dtype=dtype).element_size()
    data = draw(st.binary(min_size=size, max_size=size))
    if dtype == torch.bool:  # a byte that is neither 0 nor 1 is no bool
        data = bytes(byte & 1 for byte in data)
    tensor = torch.frombuffer(bytearray(data), dtype=dtype).reshape(shape) if size else torch.empty(shape, dtype=dtype)
    return tensor.transpose(0, 1) if len(shape) > 1 and draw(st.booleans()) else tensor


def state_dicts(keys: st.SearchStrategy[str] = names) -> st.SearchStrategy[dict[str, Tensor]]:
    """Name -> tensor."""
    return st.dictionaries(keys, tensors(), min_size=1, max_size=6)


# omegaconf reads "${" as an interpolation and "???" as missing, wherever they stand.
texts = st.text(max_size=12).filter(lambda text: "${" not in text and text != "???")
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
config_keys = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=6)
config_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(config_keys, inner, max_size=4),
    max_leaves=12,
)
config_trees = st.dictionaries(config_keys, config_values, max_size=4)

override_texts = st.text(max_size=30) | st.builds(
    "".join,
    st.lists(
        st.sampled_from(["model", "train", ".", "=", "[", "]", "{", "}", "+", "~", "0", "-1", ":", ",", "'", '"', "${"])
        | st.text(max_size=2),
        max_size=12,
    ),
)

SIZES = st.integers(0, 5)
images: st.SearchStrategy[Any] = st.one_of(
    st.builds(
        lambda shape, dtype, fill: np.full(shape, fill).astype(dtype),
        st.lists(SIZES, max_size=4).map(tuple),
        st.sampled_from(["u1", "u2", "i4", "f2", "f4", "f8", "?", ">f4", "c8", "S3", "O", "M8[s]"]),
        st.sampled_from([0, 1, 255]),
    ),
    st.builds(
        lambda shape, dtype, fill: torch.full(shape, fill, dtype=torch.float64).to(dtype),
        st.lists(SIZES, max_size=4).map(tuple),
        st.sampled_from([*DTYPES, torch.int8, torch.uint16, torch.complex64]),
        st.sampled_from([0.0, 1.0, 255.0, float("nan"), float("inf")]),
    ),
    st.none() | st.text(max_size=3) | st.lists(st.integers(), max_size=3),
)

CODES = b"().0121NqhXKJMat]}ldesuRobciBU\x80\x81\x85\x86\x87\x88\x89\x8c\x8f\x90\x91\x93\x94\x95"
OPCODES = [bytes([code]) for code in CODES]
FRAGMENTS = [
    *(b"ccollections\nOrderedDict\n", b"cnumpy\ndtype\n", b"cos\nsystem\n", b"cbuiltins\nset\n", b"K\x01", b"U\x01a"),
    *(b"ctorch._utils\n_rebuild_tensor_v2\n", b"cnumpy.core.multiarray\n_reconstruct\n", b"cbuiltins\ntuple\n"),
    *(b"q\x00", b"h\x00", b"X\x01\x00\x00\x00a", b"\x8c\x01b", b"G" + bytes(8), b"B\x01\x00\x00\x00x"),
]
programs = st.lists(st.sampled_from([*OPCODES, *FRAGMENTS, *FRAGMENTS]) | st.binary(max_size=3), max_size=40).map(
    lambda parts: b"\x80\x04" + b"".join(parts) + b"."
)
