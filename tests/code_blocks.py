"""Runs the blocks of a Markdown page as they stand, in the order they stand, as a reader would who tries them all."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from detrex_backbones.cli import main

BLOCK = re.compile(r"^(?:<!-- not run: (?P<why>.+?) -->\n+)?```(?P<kind>\w+).*\n(?P<text>(?:.*\n)*?)```$", re.MULTILINE)
FILE = re.compile(r"# (\w+\.py)\n")
GATE = ("pip", "pytest")  # installing and testing is what the gate does


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Args:
        kind: the word behind the fence: "python", "sh", "text".
        text: between the fences.
        line: number of the first of these lines.
        why: the reason in the comment `<!-- not run: reason -->` before it; "" where it is run.
        output: whether it is text directly below a block that is run: what that prints.
    """

    kind: str
    text: str
    line: int
    why: str = ""
    output: bool = False

    @property
    def runs(self) -> bool:
        """Whether it is code to be run."""
        return self.kind in ("python", "sh") and not self.why


def blocks_of(page: Path) -> list[Block]:
    """All the fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    found: list[Block] = []
    end = 0
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("text")) + 1
        below = bool(found) and found[-1].runs and not text[end : match.start()].strip()
        found.append(Block(match["kind"], match["text"], line, match["why"] or "", below and match["kind"] == "text"))
        end = match.end()
    return found


def run_page(page: Path) -> str:
    """Run the blocks of a page in the current folder, which has a photo.jpg then, and return what they print.

    The Python blocks share one namespace; one that begins with the name of a file, `# config.py`, is written there
    instead. In sh blocks each command of ours must give 0, or 1 where `|| ...` follows it.
    """
    Image.new("RGB", (80, 64), "teal").save("photo.jpg")
    names: dict[str, Any] = {"__name__": "__page__"}
    printed = io.StringIO()
    path, modules = list(sys.path), set(sys.modules)
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            for block in blocks_of(page):
                if block.runs:
                    _run(block, page, names)
    finally:
        sys.stdout.write(printed.getvalue())  # pytest shows it where the test fails
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            if Path(f"{name}.py").is_file():  # of this page's folder
                del sys.modules[name]
    return printed.getvalue()


def _run(block: Block, page: Path, names: dict[str, Any]) -> None:
    if block.kind == "sh":
        _run_sh(block, page)
    elif file := FILE.match(block.text):
        Path(file[1]).write_text(block.text, encoding="utf-8")
    else:  # its lines are those of the page in a traceback
        exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), names)


def _run_sh(block: Block, page: Path) -> None:
    for line in block.text.replace("\\\n", " ").splitlines():
        for command in line.split(" && "):
            command, fails, _ = command.partition(" || ")
            words = shlex.split(command, comments=True)
            place = f"{page.name}:{block.line}: {line}"
            if words[:1] == ["detrex-backbones"]:
                assert main(words[1:]) == (1 if fails else 0), place
            else:
                assert not words or words[0] in GATE, f"{place}: mark the block with <!-- not run: reason -->"


def missing_lines(shown: list[Block], printed: str, but_for: str = "\0") -> list[str]:
    """The lines of these blocks that are not among those printed, but for lines that have this in them.

    Blanks may differ, and "..." stands for anything.
    """
    there = [" ".join(line.split()) for line in printed.splitlines()]
    lines = [" ".join(line.split()) for block in shown for line in block.text.splitlines()]
    patterns = [(line, re.compile(".*".join(map(re.escape, line.split("..."))))) for line in lines]
    return [line for line, pattern in patterns if but_for not in line and not any(map(pattern.fullmatch, there))]
