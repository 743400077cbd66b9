"""Containers that hold one another in more ways than there are bytes: what a file says twice is one thing."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from detrex_backbones import DetectionCheckpointer, convert_checkpoint, load_checkpoint, read_checkpoint
from detrex_backbones.checkpoint.read.nested import put_in, take_out
from detrex_backbones.errors import CheckpointError
from tests.checkpoint.test_reading import write_legacy, write_pickle, write_zip

DEPTH = 30  # 2 ** 30 ways to the innermost


def _nest(make: Callable[[Any], Any]) -> Any:
    value: Any = [torch.ones(1)]
    for _ in range(DEPTH):
        value = make(value)
    return value


def _itself() -> Any:
    value: dict[str, Any] = {"a": 1}
    value["list"] = [value, (value, [value])]
    return value


def _list_in_itself() -> Any:
    value: list[Any] = [1]
    value.append(value)
    return value


NESTS: dict[str, Callable[[], Any]] = {
    "lists": lambda: _nest(lambda value: [value, value]),
    "tuples": lambda: _nest(lambda value: (value, value)),
    "dicts": lambda: _nest(lambda value: {"a": value, "b": value}),
    "all three": lambda: _nest(lambda value: [{"a": (value, value)}, value] if isinstance(value, list) else [value]),
    "a dict in itself": _itself,
    "a list in itself": _list_in_itself,
}
WRITERS = {"zip": write_zip, "legacy": write_legacy, "pickle": write_pickle}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("nest", NESTS)
def test_a_file_with_them_is_read_in_the_memory_of_its_bytes(tmp_path: Path, nest: str, writer: str) -> None:
    model = nn.Linear(2, 2)
    path, wanted = tmp_path / "file.pth", nn.Linear(2, 2).state_dict()
    WRITERS[writer]({"model": dict(wanted), "more": NESTS[nest]()}, path)
    tracemalloc.start()
    found = read_checkpoint(path)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()
    assert found.tensors.keys() == wanted.keys() and "more" in found.extra
    assert load_checkpoint(model, path).coverage == 1.0
    with pytest.raises(CheckpointError):  # no network of any source
        convert_checkpoint(path, tmp_path / "out.safetensors", to="timm")


@pytest.mark.parametrize("nest", NESTS)
def test_a_run_goes_on_from_them(tmp_path: Path, nest: str) -> None:
    model = nn.Linear(2, 2)
    torch.save({"model": model.state_dict(), "more": NESTS[nest]()}, tmp_path / "run.pth")
    rest = DetectionCheckpointer(model, str(tmp_path)).load(str(tmp_path / "run.pth"))
    assert "more" in rest


def test_what_is_one_container_stays_one() -> None:
    inner = [torch.ones(2), (torch.zeros(1),)]
    given = {"a": inner, "b": {"c": inner}, "size": torch.Size([1, 2]), "steps": Counter([3, 3])}
    structure, tensors = take_out(given)
    assert set(tensors) == {"a.0", "a.1.0"}
    again = put_in(structure, tensors)
    assert again["a"] is again["b"]["c"] and again["a"] is not inner
    assert torch.equal(again["a"][0], inner[0]) and torch.equal(again["a"][1][0], inner[1][0])
    assert type(again["size"]) is torch.Size and again["steps"] == Counter([3, 3])


def test_a_container_that_holds_itself_still_does() -> None:
    again = put_in(*take_out(_itself()))
    assert again["list"][0] is again and again["list"][1][1][0] is again
