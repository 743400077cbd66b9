"""README's blocks and the examples run as they stand, in the order they stand."""

import runpy
from pathlib import Path

import pytest

from detrex_backbones.cli import main
from tests.code_blocks import blocks_of, missing_lines, run_page

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BUT_FOR = "largest relative difference"  # rounding, which is not the same on every machine


def test_readme_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    printed = run_page(README)
    blocks = blocks_of(README)
    kinds = [block.kind for block in blocks if block.runs]
    assert kinds.count("python") == 3 and kinds.count("sh") == 7
    shown = [block for block in blocks if block.output]
    assert any("of the model keep" in block.text for block in shown)
    assert missing_lines(shown, printed, BUT_FOR) == []


def test_readme_shows_what_the_demo_prints(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["demo"])
    (shown,) = [block for block in blocks_of(README) if block.kind == "text"][:1]
    printed = capsys.readouterr().out
    assert missing_lines([shown], printed, BUT_FOR) == []
    # And nothing between its lines is left out.
    begin, end = printed.index("checkpoint  "), printed.index("\nwrote ")
    lines = [[line for line in text.splitlines() if line.strip()] for text in (shown.text, printed[begin:end])]
    assert len(lines[0]) == len(lines[1])


CONFIG = "timm_example.py"  # a config, with a test of its own
EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.py") if path.name != CONFIG)


@pytest.mark.few(1)
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_run(path, capsys):
    if path.name == "features_on_ray.py":
        pytest.importorskip("ray")
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out
