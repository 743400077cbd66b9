"""A run that is killed loses nothing that it wrote; ranks share the images; a dead rank takes nothing with it."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

import detrex_backbones
from detrex_backbones.config import LazyConfig
from detrex_backbones.features import extract_features, open_features, shards
from detrex_backbones.features.runner import MapRunner
from detrex_backbones.features.shards import list_shards

OPTIONS = {"pool": True, "maps": ["res3", "res5"], "batch_size": 2, "workers": 0, "shard_images": 2}


def killed_at(step, config, photos, folder):
    """Run in a process that is killed at its n-th step: a batch, a shard's rename or a line of the index, and in it."""
    process = os.fork()
    if process:
        _, status = os.waitpid(process, 0)
        return os.WIFSIGNALED(status)
    steps = iter(range(1000))

    def maybe_die():
        if next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(function, before_only=False):
        def called(*args, **kwargs):
            maybe_die()
            result = function(*args, **kwargs)
            if not before_only:
                maybe_die()
            return result

        return called

    def half_a_line(file, line):
        with file.open("ab") as opened:
            opened.write(line[: len(line) // 2].encode())
        maybe_die()
        append(file, line)

    append = shards._append
    try:
        MapRunner.run = around(MapRunner.run, before_only=True)
        Path.replace = around(Path.replace)
        shards._append = half_a_line
        extract_features(config, [photos], folder, **OPTIONS)
        os._exit(0)
    finally:
        os._exit(1)


def check(folder, reference):
    counts = Counter(entry[0] for entries in list_shards(folder).values() for entry in entries)
    assert counts == dict.fromkeys(reference, 1)  # each image once
    features = open_features(folder)
    for name, maps in reference.items():
        for key in OPTIONS["maps"]:
            assert torch.allclose(features[name][key], maps[key].mean(dim=(1, 2)), rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
@pytest.mark.parametrize(
    "steps",
    [pytest.param([3, 4, 5], id="few"), pytest.param([*range(14), *range(2, 8)], id="20", marks=pytest.mark.slow)],
)
def test_kills_lose_nothing(config, photos, reference, tmp_path, steps):
    died, progress = 0, 0
    for step in steps:
        died += killed_at(step, config, photos, tmp_path)
        written = sum(map(len, list_shards(tmp_path).values()))
        assert written >= progress
        progress = written
    assert died >= 3  # later ones may have nothing left to do
    result = extract_features(config, [photos], tmp_path, **OPTIONS)
    assert result.before == progress and result.before + result.written == 10
    check(tmp_path, reference)
    assert not list(tmp_path.glob(".part-*"))


def test_a_shard_that_the_index_lacks_is_found(config, photos, reference, tmp_path):
    extract_features(config, [photos], tmp_path, **OPTIONS)
    (index,) = tmp_path.glob("index-*.jsonl")
    index.write_text(index.read_text()[:50])
    assert extract_features(config, [photos], tmp_path, **OPTIONS).written == 0
    index.unlink()
    check(tmp_path, reference)


def test_a_damaged_shard_is_named(config, photos, tmp_path):
    extract_features(config, [photos], tmp_path, **OPTIONS)
    (tmp_path / "part-00000-000099.safetensors").write_bytes(b"nonsense")
    with pytest.raises(detrex_backbones.errors.InputError, match=r"part-00000-000099\.safetensors' can't be read"):
        open_features(tmp_path)


def test_ranks_share_the_images_and_one_may_die(config, photos, reference, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert extract_features(config, [photos], tmp_path, **OPTIONS).images == 5
    assert len(open_features(tmp_path)) == 5  # rank 0 has died before it wrote anything
    monkeypatch.setenv("RANK", "0")
    result = extract_features(config, [photos], tmp_path, **OPTIONS)
    assert (result.images, result.before, result.written) == (5, 0, 5)
    check(tmp_path, reference)
    monkeypatch.delenv("WORLD_SIZE")  # another number of ranks goes on, too
    assert extract_features(config, [photos], tmp_path, **OPTIONS).before == 10


@pytest.mark.slow
def test_torchrun(config, photos, reference, tmp_path):
    LazyConfig.save(config, tmp_path / "config.yaml")
    root = str(Path(detrex_backbones.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "detrex_backbones", "features", str(tmp_path / "config.yaml"), str(photos)]
    command += ["--output", str(tmp_path / "out"), "--pool", "--maps", "res3,res5", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    check(tmp_path / "out", reference)
    assert len(list((tmp_path / "out").glob("part-0000[01]-000000.safetensors"))) == 2
    assert json.loads((tmp_path / "out" / "features.json").read_text())["pool"] is True
