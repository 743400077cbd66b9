"""Tensors that are no plain views of a storage: their values where these are plainly in the file, else what they are.

Source: what `torch.save` writes for them (`_rebuild_*` in torch/_utils.py and torch/_tensor.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from detrex_backbones.checkpoint.read.dtypes import DIMENSIONS
from detrex_backbones.checkpoint.read.records import Call, Name, PickleError, calls, told
from detrex_backbones.checkpoint.read.stored import LazyTensor, OtherTensor, StoredTensor

if TYPE_CHECKING:
    from detrex_backbones.checkpoint.read.rebuild import _Rebuilder

__all__ = ["SPECIAL"]

PLAIN_TYPES = {("torch", "Tensor"), ("torch.nn.parameter", "Parameter"), ("torch.nn.parameter", "Buffer")}
ATTRIBUTES = 100  # of a tensor; trainers leave a handful
WHOLE = ("Shard", "Replicate", "_StridedShard")  # placements that leave values as they are; others are parts of sums

Constructor = Callable[["_Rebuilder", Call, int], Any]


def _parameter(run: _Rebuilder, call: Call, depth: int) -> Any:
    """A parameter, with its attributes where it has some: data, requires_grad, hooks and these."""
    data, *rest = run.arguments(call, depth)
    return _with_attributes(run.value(data, depth), rest[2] if len(rest) > 2 else None)


def _of_type(run: _Rebuilder, call: Call, depth: int) -> Any:
    """A tensor with attributes of Python's, or of a class of its own."""
    function, kind, arguments, state = run.arguments(call, depth)
    made = Call(function, arguments)
    if calls(made, "torch._utils", "_rebuild_wrapper_subclass"):
        return _of_others(run, kind, run.sizes(arguments[2]), _attributes(state), depth)
    if isinstance(function, Name) and function.name == "_rebuild_njt":
        return OtherTensor(NESTED)
    value = _with_attributes(run.value(made, depth), state)
    plain = isinstance(kind, Name) and (kind.module, kind.name) in PLAIN_TYPES
    if plain or (isinstance(value, StoredTensor) and _is_real(value) and not _records(state)):
        return value
    return OtherTensor(f"a tensor of the class {told(kind):.200}; {SAVE_PLAIN}", _shape_of(value))


def _with_attributes(value: Any, state: Any) -> Any:
    """A tensor, unless it is packed: whole numbers, and attributes that say of which values."""
    names = _records(state)
    if not isinstance(value, LazyTensor) or _is_real(value) or not names:
        return value
    kind = f"a quantised tensor, of {value.dtype} with the attributes {', '.join(names[:4])}; {SAVE_PLAIN}"
    return OtherTensor(kind, value.shape)


def _of_others(
    run: _Rebuilder, kind: Any, shape: tuple[int, ...], attributes: dict[Any, Any], depth: int
) -> LazyTensor:
    """A tensor that is made of others: a DTensor, a quantised one of torchao, a masked one."""
    if not (isinstance(kind, Name) and kind.name == "DTensor" and kind.module.startswith("torch.distributed.")):
        return OtherTensor(f"a tensor of the class {told(kind):.200}, made of other tensors; {SAVE_PLAIN}", shape)
    local, spec = run.value(attributes.get("_local_tensor"), depth), attributes.get("_spec")
    placements = _attributes(spec.state).get("placements") if isinstance(spec, Call) else None
    known = (
        isinstance(placements, tuple | list)
        and len(placements) <= DIMENSIONS
        and all(
            isinstance(part, Call) and isinstance(part.function, Name) and part.function.name in WHOLE
            for part in placements
        )
    )
    if known and isinstance(local, StoredTensor) and local.shape == shape:
        return local
    return OtherTensor(f"one process's part of a DTensor of shape {shape}; save tensor.full_tensor()", shape)


def _attributes(state: Any) -> dict[Any, Any]:
    """Of an object's state: a dict, or one and that of its slots. It is looked at anew in each tensor that has it."""
    parts = [part for part in (state[:2] if isinstance(state, tuple) else (state,)) if isinstance(part, dict)]
    if sum(map(len, parts)) > ATTRIBUTES:
        raise PickleError(f"a tensor has more than {ATTRIBUTES} attributes")
    return {name: value for part in parts for name, value in part.items()}


def _records(state: Any) -> list[str]:
    """The attributes that are tensors or objects."""
    return [f"{str(name)[:40]!r}" for name, value in _attributes(state).items() if isinstance(value, Call)]


def _is_real(value: LazyTensor) -> bool:
    return value.dtype.is_floating_point or value.dtype.is_complex


def _shape_of(value: Any) -> tuple[int, ...] | None:
    return value.shape if isinstance(value, LazyTensor) else None


def _other(kind: str, size: Callable[[tuple[Any, ...]], Any] | None = None) -> Constructor:
    """A kind of which the arguments have the shape somewhere, or nowhere."""
    return lambda run, call, depth: OtherTensor(
        kind, None if size is None else run.sizes(size(run.arguments(call, depth)))
    )


SAVE_PLAIN = "save a plain tensor of it, as tensor.dequantize() or tensor.to_dense() makes one"
NESTED = "a nested tensor; save its parts, tensor.unbind()"
SPARSE = _other(
    "a sparse tensor; save tensor.to_dense()",
    lambda given: next(part for part in given[1][:4] if isinstance(part, tuple) or calls(part, "torch", "Size")),
)
QUANTISED = _other("a quantised tensor; save tensor.dequantize()", lambda given: given[2])
SPECIAL: dict[tuple[str, str], Constructor] = {
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch._utils", "_rebuild_qtensor"): QUANTISED,
    ("torch._utils", "_rebuild_sparse_tensor"): SPARSE,
    ("torch._utils", "_rebuild_sparse_csr_tensor"): SPARSE,
    ("torch._utils", "_rebuild_nested_tensor"): _other(NESTED),
    ("torch._utils", "_rebuild_meta_tensor_no_storage"): _other(
        "a tensor of the meta device, which has no values; save one that has", lambda given: given[1]
    ),
    ("torch._tensor", "_rebuild_from_type"): _of_type,
    ("torch._tensor", "_rebuild_from_type_v2"): _of_type,
}
