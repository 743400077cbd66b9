"""What a load costs beyond the model, and what a file costs many processes: shares of `python -m tests.soak load`."""

from pathlib import Path

import pytest
import torch

from detrex_backbones.checkpoint.files import read_checkpoint
from tests.checkpoint.nets import small_state
from tests.checkpoint.test_reading import WRITERS, assert_same_tensors
from tests.soak import load

MB = load.MB
linux = pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the kernel doesn't tell")


@pytest.mark.few(1)
@linux
@pytest.mark.parametrize(("extension", "keys"), [("pth", 2000), ("safetensors", 2000), ("pkl", 400)])
def test_a_load_takes_no_more_than_one_tensor_beyond_the_model(tmp_path, extension, keys):
    largest = 16 * MB
    beyond = load.beyond_the_model(tmp_path / f"weights.{extension}", keys, 64 * MB, largest)
    assert beyond <= largest


@pytest.mark.parametrize("kind", WRITERS)
def test_what_was_read_outlives_its_file(tmp_path, kind):
    path = tmp_path / "weights.pth"
    WRITERS[kind](small_state(), path)
    tensors = read_checkpoint(path).tensors
    with path.open("r+b") as file:
        file.truncate(1)
    assert_same_tensors({name: tensors[name] for name in small_state()}, small_state())
    next(iter(tensors.values())).add_(1)
    assert path.stat().st_size == 1


@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_may_be_written_again_from_what_was_read_of_it(tmp_path, kind):
    path = tmp_path / "weights.pth"
    WRITERS[kind](small_state(), path)
    torch.save(read_checkpoint(path).tensors, path)
    tensors = read_checkpoint(path).tensors
    assert_same_tensors({name: tensors[name] for name in small_state()}, small_state())
