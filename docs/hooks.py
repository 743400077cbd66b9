"""What MkDocs adds to the pages of this folder: pages that stand elsewhere, and tables that the library itself makes.

They are made anew with every build, so that none of them can be out of date.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
ELSEWHERE = ("SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/RESULTS.md")

CONFIGS_ABOUT = """\
`get_config(name)` loads a config; commands take the same name. The figures are those of `detrex-backbones list
--figures`: GFLOPs count multiply-adds for 224 x 224 pixels, top-1 is that of the best weights known by name, and top-5
that of the same weights.
"""

WEIGHTS_ABOUT = """\
The weights that `train.init_checkpoint` takes by name, with the config and overrides that load them. timm's {timm} are
not listed: see `detrex-backbones weights 'timm://*'`. Paths, URLs and `hf-hub:org/name` are also accepted. Top-1 and
top-5 are the published ImageNet accuracies; `evaluate` checks them.
"""

PREPROCESSING_ABOUT = """\
## Preprocessing

Channel order and its name in the tables; mean and standard deviation per channel in that order, for pixels of 0 to 255,
as `pixel_mean` and `pixel_std` take them; and the pixel scale of the source's own code. A source has several rows if
its weights differ.
"""

LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages."""
    for name in ELSEWHERE:
        files.append(File.generated(config, name, content=(ROOT / name).read_text(encoding="utf-8")))
    pages = {
        "tables/configs.md": configs_page,
        "tables/weights.md": weights_page,
        "reference/command-line.md": command_line_page,
    }
    for name, make in pages.items():
        files.append(File.generated(config, name, content=make()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links are right where a page stands in the repository: make them right in the site.

    What is in the repository but not in the site, such as code, stays as text.
    """
    name = page.file.src_uri
    here = (ROOT if name in ELSEWHERE else DOCS).joinpath(name).parent

    def relink(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(here / match[2]))
        if target.is_relative_to(DOCS):
            there = target.relative_to(DOCS)
        elif target.is_relative_to(ROOT) and target.relative_to(ROOT).as_posix() in ELSEWHERE:
            there = target.relative_to(ROOT)
        else:
            return match[1] if target.exists() else match[0]
        return f"[{match[1]}]({os.path.relpath(there, Path(name).parent)}{match[3] or ''})"

    return LINK.sub(relink, markdown)


def configs_page() -> str:
    """The ready configs with what they give, as `detrex-backbones list --figures` has them."""
    lines = ["# Ready configs\n", CONFIGS_ABOUT]
    figures = {row["name"]: row for row in json.loads(_printed("list", "--figures", "--json"))}
    folders: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in json.loads(_printed("list", "--json")):  # detectors are configs, but no backbones with figures
        folders[row["name"].partition("/")[0]].append(figures.get(row["name"], row))
    for folder, rows in folders.items():
        lines += [
            f"## {folder}\n",
            "| config | what it is | strides | channels | parameters | GFLOPs | top-1, % | top-5, % |",
        ]
        lines += ["|---|---|---|---|--:|--:|--:|--:|", *map(_config_row, rows), ""]
    return "\n".join(lines)


def _config_row(row: dict[str, Any]) -> str:
    strides, channels = ("/".join(map(str, row.get(key, []))) for key in ("strides", "channels"))
    cells = [
        row["name"].removesuffix(".py"),
        row["description"],
        *(strides, channels),
        f"{row['parameters'] / 1e6:.1f} M" if "parameters" in row else "",
        f"{row['gflops']:.2f}" if row.get("gflops") else "",
        *(f"{row[key]:.2f}" if row.get(key) else "" for key in ("top1", "top5")),
    ]
    return f"| {' | '.join(cells)} |"


def weights_page() -> str:
    """The known weights but timm's, as `detrex-backbones weights` has them."""
    from detrex_backbones.checkpoint.fetch import SOURCES, list_weights
    from detrex_backbones.cli.weights import overrides_of, preprocessing_rows

    timm = "timm://"
    lines = [
        "# Known weights\n",
        WEIGHTS_ABOUT.format(timm=len(SOURCES[timm].names())),
        PREPROCESSING_ABOUT,
        "| images | mean | standard deviation | scale | source |",
        "|---|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in preprocessing_rows(list_weights())),
        "",
    ]
    for scheme in SOURCES:
        if scheme == timm:
            continue
        lines += [
            f"## {scheme}\n",
            "| name | top-1, % | top-5, % | parameters | pixels | config | overrides |",
            "|---|--:|--:|--:|---|---|---|",
        ]
        for weight in list_weights("", (scheme,)):
            pixels = weight.preprocessing
            cells = [
                weight.name.removeprefix(scheme),
                *(f"{top:.2f}" if top is not None else "" for top in (weight.top1, weight.top5)),
                f"{weight.parameters / 1e6:.1f} M" if weight.parameters else "",
                f"{pixels.input_format} {pixels.name}" if pixels else "",
                weight.config.removesuffix(".py") if weight.config else "",
                " ".join(f"`{text}`" for text in overrides_of(weight)),
            ]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def command_line_page() -> str:
    """The help of the program and of each of its commands."""
    from detrex_backbones.cli import COMMANDS

    names = [command.__name__.rpartition(".")[2] for command in COMMANDS]
    names = ["list" if name == "list_configs" else name for name in names]
    return "# Command line\n\n" + "\n".join(_helps(["", *names]))


def _helps(names: list[str]) -> Iterator[str]:
    for name in names:
        command = f"detrex-backbones {name}".strip()
        yield f"## {command}\n\n```text\n{_printed(*name.split(), '--help').rstrip()}\n```\n"


def _printed(*words: str) -> str:
    """What the program prints, in 80 columns."""
    environment = {**os.environ, "COLUMNS": "80", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "detrex_backbones", *words]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout
