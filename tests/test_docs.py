"""The documentation: its blocks run, its tables are of today, and every public name is in it."""

import importlib
import re
from pathlib import Path

import pytest

from tests.code_blocks import blocks_of, missing_lines, run_page

DOCS = Path(__file__).parent.parent / "docs"
PAGES = {path.relative_to(DOCS).as_posix(): path for path in sorted(DOCS.rglob("*.md"))}
BLOCKS = [(name, block) for name, path in PAGES.items() for block in blocks_of(path) if block.kind in ("python", "sh")]
RUNNABLE = sorted({name for name, _ in BLOCKS})
LEFT_OUT = [(name, block) for name, block in BLOCKS if block.why]

# Each is public as far as its __all__ goes.
PACKAGES = (
    *("detrex_backbones", "detrex_backbones.evaluation", "detrex_backbones.view", "detrex_backbones.features"),
    *("detrex_backbones.config", "detrex_backbones.layers", "detrex_backbones.errors"),
    *("detrex_backbones.backbones", "detrex_backbones.zoo", "detrex_backbones.checkpoint"),
    "detrex_backbones.checkpoint.fetch",
)


@pytest.mark.few(1)
@pytest.mark.parametrize("name", RUNNABLE)
def test_the_blocks_of_a_page_run_and_print_what_it_shows(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    printed = run_page(PAGES[name])
    assert missing_lines([block for block in blocks_of(PAGES[name]) if block.output], printed) == []


@pytest.mark.parametrize(("name", "block"), LEFT_OUT, ids=[f"{name}:{block.line}" for name, block in LEFT_OUT])
def test_a_block_that_is_left_out_says_why(name, block):
    assert len(block.why) > 10
    pytest.skip(f"docs/{name}:{block.line} is not run: {block.why}")


def test_few_blocks_are_left_out():
    assert len(LEFT_OUT) <= len(BLOCKS) / 4


def resolve(path: str) -> object:
    """What a dotted name names."""
    module, _, name = path.rpartition(".")
    try:
        return importlib.import_module(path)
    except ImportError:
        return getattr(resolve(module), name)


def on_the_reference_pages() -> list[object]:
    pages = [path.read_text(encoding="utf-8") for name, path in PAGES.items() if name.startswith("reference/")]
    return [resolve(path) for page in pages for path in re.findall(r"^::: ([\w.]+)$", page, re.MULTILINE)]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_on_a_reference_page(package):
    module = importlib.import_module(package)
    documented = on_the_reference_pages()
    whole = {id(found) for found in documented}
    if id(module) not in whole:
        assert [name for name in module.__all__ if id(getattr(module, name)) not in whole] == []


def test_every_page_has_its_place_in_the_navigation():
    yaml = pytest.importorskip("yaml")
    text = re.sub(r"!ENV|!!python/name:\S+", "", (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8"))
    nav = re.findall(r"[\w/.-]+\.md", str(yaml.safe_load(text)["nav"]))
    assert len(nav) == len(set(nav))
    assert set(PAGES) <= set(nav)


def test_pictures_are_used_and_small():
    text = "".join(path.read_text(encoding="utf-8") for path in PAGES.values())
    pictures = list((DOCS / "images").iterdir())
    assert pictures and all(f"images/{path.name})" in text for path in pictures)
    assert max(path.stat().st_size for path in pictures) < 150_000
