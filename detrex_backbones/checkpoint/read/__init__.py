"""From a file to what is stored in it: plain data, and tensors whose bytes are still in the file. Calls nothing."""

from detrex_backbones.checkpoint.read.content import Content, open_content, piece_names
from detrex_backbones.checkpoint.read.formats import HEAD, format_of, is_cut
from detrex_backbones.checkpoint.read.records import Call, Name
from detrex_backbones.checkpoint.read.several_files import WEIGHT_FILES
from detrex_backbones.checkpoint.read.stored import (
    DerivedTensor,
    GivenTensor,
    LazyTensor,
    OtherTensor,
    StoredTensor,
    as_lazy,
    joined,
    load_tensors,
)
from detrex_backbones.checkpoint.read.weights import find_weights, is_tensor

__all__ = [
    "HEAD",
    "WEIGHT_FILES",
    "Call",
    "Content",
    "DerivedTensor",
    "GivenTensor",
    "LazyTensor",
    "Name",
    "OtherTensor",
    "StoredTensor",
    "as_lazy",
    "find_weights",
    "format_of",
    "is_cut",
    "is_tensor",
    "joined",
    "load_tensors",
    "open_content",
    "piece_names",
]
