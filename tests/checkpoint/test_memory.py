"""What a load costs beyond the model, and what a file costs many processes: shares of `python -m tests.soak load`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from detrex_backbones.checkpoint.files import read_checkpoint
from tests.soak import load

MB = load.MB
# In a process of its own, since it forks.
SHARE = """
import json, pathlib, sys, torch
from tests.soak import load
torch.set_num_threads(1)
paths = [pathlib.Path(sys.argv[1], f"weights.{extension}") for extension in ("pth", "safetensors", "pkl")]
print(json.dumps([load.one_copy(path, 16 * load.MB, 3) for path in paths]))
"""

linux = pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the kernel doesn't tell")


@linux
@pytest.mark.parametrize(("extension", "keys"), [("pth", 2000), ("safetensors", 2000), ("pkl", 400)])
def test_a_load_takes_no_more_than_one_tensor_beyond_the_model(tmp_path, extension, keys):
    largest = 16 * MB
    beyond = load.beyond_the_model(tmp_path / f"weights.{extension}", keys, 64 * MB, largest)
    assert beyond <= largest


@linux
def test_processes_of_one_machine_share_one_copy_of_a_file(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SHARE, str(tmp_path)], capture_output=True, text=True, cwd=load.ROOT, timeout=300
    )
    assert done.returncode == 0, done.stderr
    for found in json.loads(done.stdout):
        assert found["copies"] < 1.1
        assert found["seen by each"] > 0.9
        assert found["changed"] == 0
        assert found["beside"] < 0.5


@linux
def test_the_measure_sees_a_copy_that_is_written_to(tmp_path):
    path = tmp_path / "weights.pth"
    load.write_dense(path, {"weight": load.torch.ones(MB)})
    tensor = read_checkpoint(path).tensors["weight"]
    assert float(tensor.sum()) == MB
    before = load.smaps(path)
    tensor.add_(1)
    assert before["Anonymous"] == 0
    assert load.smaps(path)["Anonymous"] >= 4 * MB
