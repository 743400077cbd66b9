"""Eight threads that load configs and checkpoints at once get what each would get alone."""

import builtins
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from types import SimpleNamespace

import pytest

from detrex_backbones import list_configs
from detrex_backbones.config import LazyConfig
from tests.soak import load

CONFIGS = [name for name in list_configs() if "resnet50" in name or "swin" in name][:6]


@pytest.mark.slow
def test_configs_and_checkpoints(tmp_path):
    assert load.in_threads(tmp_path, CONFIGS, rounds=1) == len(CONFIGS) + 10


def test_loading_a_config_patches_nothing_that_other_threads_see(tmp_path, monkeypatch):
    """All are in the middle of a config file at the same time, and each finds the file beside its own."""
    barrier = Barrier(8, timeout=60)
    monkeypatch.setitem(sys.modules, "meeting", SimpleNamespace(wait=barrier.wait))
    usual, modules = builtins.__import__, set(sys.modules)
    for index in range(8):
        folder = tmp_path / str(index)
        folder.mkdir()
        (folder / "beside.py").write_text(f"value = {index}\n")
        (folder / "config.py").write_text(
            "from meeting import wait\n"
            "wait()\n"
            "import builtins\n"
            "seen = builtins.__import__\n"
            "wait()\n"
            "from .beside import value\n"
            "wait()\n"
        )
    with ThreadPoolExecutor(8) as pool:
        paths = [tmp_path / str(index) / "config.py" for index in range(8)]
        found = list(pool.map(lambda path: LazyConfig.load(path, ("value", "seen")), paths))
    assert [value for value, _ in found] == list(range(8))
    assert all(seen is usual for _, seen in found) and builtins.__import__ is usual
    assert set(sys.modules) == modules
