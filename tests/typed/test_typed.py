"""What an editor and a type checker know of `L(ResNet)(...)`."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from detrex_backbones import instantiate
from detrex_backbones.config import LazyConfig

CONFIG = Path(__file__).with_name("config.py")
ROOT = Path(__file__).parents[2]


def mypy(*files: Path) -> str:
    """What mypy, set up as in pyproject.toml, says of these files."""
    # The cache is the one that `mypy` itself uses, or the first run takes a minute over torch.
    options = [f"--config-file={ROOT / 'pyproject.toml'}", f"--cache-dir={ROOT / '.mypy_cache'}"]
    command = [sys.executable, "-m", "mypy", *options, *map(str, files)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    return ended.stdout + ended.stderr


@pytest.mark.slow
def test_mypy_finds_the_wrong_arguments_and_no_others(tmp_path):
    pytest.importorskip("mypy", reason="mypy is not installed")
    shown = tmp_path / "shown.py"
    shown.write_text(
        "from detrex_backbones import BasicStem\n"
        "from detrex_backbones.config import LazyCall as L\n"
        "reveal_type(L(BasicStem))\n"
    )
    said = mypy(CONFIG, shown)
    assert "Success: no issues found in 2 source files" in said, said
    assert re.search(r"def \(in_channels: int =, out_channels: int =, norm: .*\) -> Any", said), said


def test_the_config_can_be_built():
    cfg = LazyConfig.load(CONFIG)
    assert instantiate(cfg.backbone).output_shape()["res5"].stride == 32
    assert cfg.model.backbone.stages.depth == 101 and cfg.backbone.stages.depth == 50
    assert instantiate(cfg.pyramid).output_shape()["p4"].channels == 256
    cfg.classes = 7
    assert instantiate(cfg.classifier).num_classes == 7


def test_every_line_that_mypy_ignores_is_one_that_is_wrong():
    lines = CONFIG.read_text().splitlines()
    (wrong,) = [node for node in ast.parse("\n".join(lines)).body if isinstance(node, ast.FunctionDef)]
    ignored = [number for number, line in enumerate(lines, start=1) if "type: ignore[" in line]
    assert len(ignored) == 7 and all(wrong.lineno < number <= wrong.end_lineno for number in ignored)
