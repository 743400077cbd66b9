"""What a pickle may ask for: much more than weights do, and no more than a process can bear."""

import pickle

import numpy as np
import pytest
import torch

from detrex_backbones.checkpoint import program
from detrex_backbones.checkpoint.files import read_checkpoint
from detrex_backbones.checkpoint.program import FRAME, check_program


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_program_is_followed_to_its_end(protocol):
    thing = {"a": [1, 2.5, None, True, ("x", "y", "z", 4)], "b": {1, 2}, "c": np.arange(3), "d": b"bytes", "e": 10**30}
    thing["again"] = thing["a"]
    data = pickle.dumps(thing, protocol)
    assert check_program(memoryview(data + b"more"))[-1].end == len(data)


def test_long_arguments_are_found():
    data = pickle.dumps({"a": b"x" * 1000, "b": "y" * 2000}, protocol=4)
    *found, stop = check_program(memoryview(data), long=500)
    assert [data[start:end] for code, _, start, end in found if code != FRAME] == [b"x" * 1000, b"y" * 2000]
    assert stop.end == len(data)


@pytest.mark.parametrize("end", [0, 1, 2, 10, -1])
def test_a_cut_program(end):
    data = pickle.dumps({"a": [1, 2]}, protocol=2)
    with pytest.raises(pickle.UnpicklingError, match="cut"):
        check_program(memoryview(data[:end]))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"K\x01r\xff\xff\xff\x7f.", "places in its memo"),
        (b"K\x01p" + b"0" * 50 + b"2147483647\n.", "places in its memo"),
        (b")" + b"\x85" * 501 + b".", "500 containers in one another"),
        (b")q\x00" + b"0h\x00h\x00\x86q\x00" * 30 + b".", "values, most of them copies"),
        (b"]q\x00(" + b"N" * 2000 + b"e" + b"h\x000" * 2000 + b".", "values, most of them copies"),
        (b"(" + b"\x8f" * 200_001 + b"l.", "lists, dicts and sets"),
        (b"(" + b"ca\nb\n)R" * 300_001 + b"l.", "calls"),
        (b"N0" * 1_500_001 + b"N.", "instructions"),
    ],
    ids=["memo", "memo in text", "nested", "doubled", "copied", "sets", "calls", "instructions"],
)
def test_what_no_weights_need(text, what):
    with pytest.raises(pickle.UnpicklingError, match=f"asks for more than weights need: over .*{what}"):
        check_program(memoryview(text))


def test_a_large_training_checkpoint_takes_a_tenth_of_what_is_allowed(tmp_path, monkeypatch):
    """With the two moments and the step that Adam keeps for each weight. DETR's largest have a thousand weights."""
    for limit in ("INSTRUCTIONS", "CALLS", "CONTAINERS", "REUSED"):
        monkeypatch.setattr(program, limit, getattr(program, limit) // 10)
    count, one = 1900, torch.zeros(1)
    model = {f"backbone.stages.{index}.blocks.{index}.conv.weight": one.clone() for index in range(count)}
    state = {index: {name: one.clone() for name in ("step", "exp_avg", "exp_avg_sq")} for index in range(count)}
    groups = [{"params": [index], "betas": (0.9, 0.999)} for index in range(count)]
    path = tmp_path / "training.pth"
    torch.save({"model": model, "optimizer": {"state": state, "param_groups": groups}}, path)
    assert len(read_checkpoint(path).tensors) == count
