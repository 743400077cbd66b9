"""The rows as text: a line each while measuring, one table at the end, and the page of results."""

from __future__ import annotations

import itertools
import os
import platform
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.measure import Options, Row
from benchmarks.peers import versions

HEAD = """# Results

Written by `python -m benchmarks`, and for a GPU by `python -m benchmarks.gpu`, which measure this library and its peers
in turn and print medians. A number says what it says for the machine above its table and no other. Behind a ratio stand
its quartiles over the rounds; a target that is missed but lies within them is "within noise". "not installed" is a peer
that was not there or doesn't have such a network, "needs a GPU" a row that this machine can't measure.
"""


def number(value: float | None, unit: str) -> str:
    """Three digits and a unit that reads well: 0.0412 s is 41.2 ms."""
    if value is None:
        return "-"
    if unit == "s":
        for factor, name in ((1, "s"), (1e3, "ms"), (1e6, "us")):
            if abs(value) * factor >= 1 or name == "us":
                return f"{_digits(value * factor)} {name}"
    return _digits(value) if unit == "1" else f"{_digits(value)} {unit}"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def line(row: Row) -> str:
    """The row in one line, for while the others are still measured."""
    peers = ", ".join(f"{name} {_peer(value, row.unit)}" for name, value in row.peers.items())
    ratio = f", ratio {_ratio(row)}" if row.ratio is not None else ""
    note = f" ({row.note})" if row.failed or row.skipped else ""
    return (
        f"{row.group}: {row.what}: ours {number(row.ours, row.unit)}; {peers or 'no peer'}{ratio}; {row.result}{note}"
    )


def text(rows: Sequence[Row], width: int = 80) -> str:
    """The whole table, with what the notes say below it."""
    table = Table(width=width, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for title in ("row", "ours", "peers", "ratio", "target", "result"):
        table.add_column(title, no_wrap=title == "ours")
    for group, members in itertools.groupby(rows, key=lambda row: row.group):
        table.add_section()
        table.add_row(Text(group))
        for row in members:
            table.add_row(*map(Text, _cells(row, "\n")))
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(table)
    notes = [textwrap.fill(f"{row.group}: {row.what}: {row.note}", width) for row in rows if row.note]
    return "\n".join([captured.get().rstrip(), *notes, summary(rows)])


def summary(rows: Iterable[Row]) -> str:
    """How many rows came to which result: "12 met, 1 missed"."""
    results = [row.result for row in rows]
    kinds = [kind for kind in dict.fromkeys(results) if kind != "-"]
    return ", ".join(f"{results.count(kind)} {kind}" for kind in kinds) or "no row has a target"


def markdown(runs: Iterable[tuple[Mapping[str, Any], Sequence[Row]]]) -> str:
    """The page of results: of each run its machine and its table."""
    page = HEAD
    for machine, rows in runs:
        page += f"\n## {machine['device_name']}\n\n"
        page += ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in machine.items()) + ".\n\n"
        page += (
            f"**{summary(rows)}.**\n\n| group | row | ours | peers | ratio | target | result | rounds |\n"
            + "|---" * 8
            + "|\n"
        )
        for row in rows:
            cells = [row.group, *_cells(row, ", "), str(row.rounds or "")]
            page += "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
        notes = [f"- {row.group}: {row.what}: {row.note}\n" for row in rows if row.note]
        page += "\n" + "".join(notes) if notes else ""
    return page


def machine(options: Options) -> dict[str, Any]:
    """What the numbers were measured on, with which versions."""
    cuda = options.device == "cuda"
    return {
        "device": options.device,
        "device_name": torch.cuda.get_device_name() if cuda else _processor(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_before": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else "unknown",
        "python": platform.python_version(),
        **versions(),
        "rounds": options.rounds or "as each row says",
        "date": date.today().isoformat(),
    }


def _cells(row: Row, between: str) -> list[str]:
    peers = between.join(f"{name} {_peer(value, row.unit)}" for name, value in row.peers.items())
    return [row.what, number(row.ours, row.unit), peers, _ratio(row), row.target, row.result]


def _ratio(row: Row) -> str:
    """With its quartiles, where there are some: "1.31 (1.29 to 1.32)"."""
    if row.ratio is None:
        return ""
    return f"{row.ratio:.3g}" + (f" ({row.spread[0]:.3g} to {row.spread[1]:.3g})" if row.spread else "")


def _peer(value: float | None, unit: str) -> str:
    return "not installed" if value is None else number(value, unit)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
