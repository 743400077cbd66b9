"""The table of exports as it stands in the documentation, between two marks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from benchmarks.export_check import COLUMNS
from benchmarks.export_kinds import KINDS

__all__ = ["insert", "table"]

PATH = re.compile(r"(?<![\w.])/\S*/")
BEGIN, END = "<!-- table: python -m benchmarks.export -->", "<!-- end of table -->"


def insert(page: str, results: Mapping[str, Mapping[str, Any]], backend: str, version: str) -> str:
    """The page with the table of these results in the place of the one that it has."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table(results, backend, version)}\n{END}{after}"


def table(results: Mapping[str, Mapping[str, Any]], backend: str, version: str) -> str:
    """A row for every kind, a cell for every column, and why, where there is a reason to tell."""
    notes: list[str] = []
    cells = [cell for row in results.values() for cell in row.values()]
    works = sum(cell.works for cell in cells)
    lines = [
        f"torch {version}, `torch.compile` with the backend `{backend}`: {works} of {len(cells)} work.\n",
        f"| backbone | sides | {' | '.join(COLUMNS)} |",
        "|---" * (len(COLUMNS) + 2) + "|",
    ]
    for kind in KINDS:
        row = results.get(kind.name, {})
        shown = [_shown(row.get(column), notes) for column in COLUMNS]
        sides = f"fixed{_note(kind.fixed, notes)}" if kind.fixed else "any" if kind.step == 1 else f"n * {kind.step}"
        lines.append(f"| {kind.name} | {sides} | {' | '.join(shown)} |")
    lines.append("")
    lines += [f"{number}. {note}" for number, note in enumerate(notes, 1)]
    return "\n".join(lines) + "\n"


def _shown(cell: Any, notes: list[str]) -> str:
    if cell is None:
        return "not tried"
    return cell.text if cell.works else f"**no**{_note(cell.reason, notes)}"


def _note(reason: str, notes: list[str]) -> str:
    # Where torch says on which lines it happened, it names paths of this machine.
    reason = reason.partition(" User stack:")[0]
    reason = PATH.sub("", reason).replace("|", "\\|").replace("<", "&lt;")
    reason = reason if len(reason) <= 400 else reason[:400] + " ..."
    if reason not in notes:
        notes.append(reason)
    return f" ({notes.index(reason) + 1})"
