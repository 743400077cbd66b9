"""A load report as one web page that needs nothing beside it."""

from __future__ import annotations

import html
import re
from collections import Counter
from importlib.resources import files
from typing import Any

from detrex_backbones.checkpoint.report import LoadReport
from detrex_backbones.text import visible_json

__all__ = ["coverage_tree", "report_page", "tensor_rows"]

TEMPLATE = "report.html"


def report_page(report: LoadReport, refusal: str = "") -> str:
    """A page with a search over all tensors, and the coverage of each module.

    Names come from a stranger's file: none of them is ever read as HTML.

    Args:
        report: of a load, or of a dry run.
        refusal: why the load is refused, "" where it isn't.

    Returns:
        HTML that needs nothing beside it.
    """
    content = {
        "report": {key: value for key, value in report.to_dict().items() if isinstance(value, str | float)},
        "expected": report.expected,
        "refusal": refusal,
        "rows": tensor_rows(report),
        "tree": coverage_tree(report),
    }
    parts = {"SUMMARY": html.escape(str(report)), "DATA": visible_json(content)}
    template = files("detrex_backbones.view").joinpath(TEMPLATE).read_text(encoding="utf-8")
    # One pass, so that a name that looks like a placeholder stays a name.
    return re.sub("@@(SUMMARY|DATA)@@", lambda found: parts[found[1]], template)


def tensor_rows(report: LoadReport) -> list[dict[str, Any]]:
    """Every tensor of model and file, those that didn't fit first.

    Returns:
        Dicts of `state` ("mismatched", "missing", "left over", "loaded", "kept" or "outside"), `model` and `file` (its
        names there, "" where it isn't), `shape`, `how` (rule, cast, adaptation) and `why` (what is wrong with it).
    """
    rows = [
        _row(
            *("mismatched", item.model_key, item.checkpoint_key, item.model_shape),
            why=f"{_shape(item.model_shape)} in the model, {_shape(item.shape)} in the file",
        )
        for item in report.mismatched
    ]
    rows += [_row("missing", key, why="the file has nothing for it") for key in report.missing]
    unplaced = set(report.unplaced)
    for key, why in report.left_over.items():
        rows.append(_row("left over", file=key, why=f"{why}; of another architecture" if key in unplaced else why))
    for item in report.loaded:
        bad = report.not_finite.get(item.model_key)
        how = [part for part in (item.rule, item.cast and f"cast {item.cast}", item.adapted) if part]
        why = f"{bad} of its numbers are NaN or infinite" if bad else ""
        rows.append(_row("loaded", item.model_key, item.checkpoint_key, item.shape, how, why))
    rows += [_row("kept", key, why=what) for key, what in report.kept.items()]
    rows += [_row("outside", key, why="outside the scope: it kept its value") for key in report.outside]
    return rows


def coverage_tree(report: LoadReport) -> dict[str, Any]:
    """The model's modules as a tree.

    Returns:
        Nodes of `name` (its path in the model, "" at the root), `counts` (state -> tensors in it and below) and
        `children`.
    """
    root = _node("")
    # What was loaded stands in the model's order, from its beginning.
    rows = sorted(tensor_rows(report), key=lambda row: row["state"] != "loaded")
    for row in (row for row in rows if row["model"]):
        node = root
        node["counts"][row["state"]] += 1
        for part in row["model"].split(".")[:-1]:
            path = f"{node['name']}.{part}" if node["name"] else part
            node = node["children"].setdefault(part, _node(path))
            node["counts"][row["state"]] += 1
    return _as_lists(root)


def _row(
    state: str,
    model: str = "",
    file: str = "",
    shape: tuple[int, ...] | None = None,
    how: list[str] | None = None,
    why: str = "",
) -> dict[str, Any]:
    size = "" if shape is None else _shape(shape)
    return {"state": state, "model": model, "file": file, "shape": size, "how": "; ".join(how or []), "why": why}


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one number"


def _node(name: str) -> dict[str, Any]:
    return {"name": name, "counts": Counter(), "children": {}}


def _as_lists(node: dict[str, Any]) -> dict[str, Any]:
    return {**node, "counts": dict(node["counts"]), "children": [*map(_as_lists, node["children"].values())]}
