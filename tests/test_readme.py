"""README's blocks and the examples run as they stand, in the order they stand."""

import re
import runpy
import shlex
from pathlib import Path

import pytest
from PIL import Image

from detrex_backbones.cli import main

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_readme_blocks_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (80, 64), "teal").save("photo.jpg")
    ran = []
    for language, block in BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8")):
        if language == "python" and block.startswith("# config.py"):
            Path("config.py").write_text(block)
        elif language == "python":
            exec(compile(block, "README.md", "exec"), {})
        elif language == "sh":
            for line in block.splitlines():
                # Installing and testing is what the gate does.
                command = line.removeprefix("pip install . && ")
                if command.startswith("detrex-backbones"):
                    assert main(shlex.split(command)[1:]) == 0, line
        ran.append(language)
    assert ran.count("python") == 3 and ran.count("sh") == 5


def test_readme_shows_what_the_demo_prints(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["demo"])
    printed = {" ".join(line.split()) for line in capsys.readouterr().out.splitlines()}
    (shown,) = [block for language, block in BLOCK.findall((ROOT / "README.md").read_text()) if language == "text"]
    missing = [line for line in shown.splitlines() if " ".join(line.split()) not in printed]
    # The difference is rounding, which is not the same on every machine.
    assert [line for line in missing if "largest relative difference" not in line] == []


# That one takes minutes: tests/training/ runs it with few steps.
EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.py") if path.name != "train_detector.py")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_run(path, capsys):
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out
