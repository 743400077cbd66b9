"""What IPython and Jupyter show: configs as Python text, shapes as a table, and the arguments of a lazy call."""

from __future__ import annotations

import html
import inspect
import io
import re
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, ListConfig

from detrex_backbones.config import LazyCall, LazyConfig
from detrex_backbones.config.layout import lay_out
from detrex_backbones.layers import ShapeSpec

__all__ = ["complete_lazy_call", "config_text", "load_extension", "shapes_html", "shapes_text"]

COLUMNS = ("channels", "height", "width", "stride")
CALLED = re.compile(r"([A-Za-z_]\w*)\(\s*([A-Za-z_][\w.]*)\s*\)$")


def load_extension(shell: Any) -> None:
    """`%load_ext detrex_backbones`: let IPython show configs, shapes and figures, and complete `L(ResNet)(`."""
    text, page = (shell.display_formatter.formatters[kind] for kind in ("text/plain", "text/html"))
    for kind in (DictConfig, ListConfig):
        text.for_type(kind, lambda config, printer, _: printer.text(config_text(config)))
        page.for_type(kind, lambda config: f"<pre>{html.escape(config_text(config))}</pre>")
    plain = text.lookup_by_type(dict)
    text.for_type(
        dict, lambda given, *rest: rest[0].text(shapes_text(given)) if _are_shapes(given) else plain(given, *rest)
    )
    page.for_type(dict, lambda given: shapes_html(given) if _are_shapes(given) else None)
    images = shell.display_formatter.formatters["image/png"]
    images.for_type_by_name("matplotlib.figure", "Figure", _png)
    shell.Completer.custom_matchers.append(_matcher(shell))


def config_text(config: DictConfig | ListConfig) -> str:
    """A config or a part of one as Python text of 80 columns."""
    whole = isinstance(config, DictConfig) and "_target_" not in config
    return lay_out(LazyConfig.to_py(config, prefix="cfg." if whole else "").strip())


def shapes_text(shapes: dict[str, ShapeSpec]) -> str:
    """What `output_shape()` gives, a line for each map."""
    rows = [("name", *COLUMNS), *((str(name), *_cells(shape)) for name, shape in shapes.items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.rjust, row, widths)) for row in rows)


def shapes_html(shapes: dict[str, ShapeSpec]) -> str:
    """What `output_shape()` gives, as a table."""
    head = "".join(f"<th>{column}</th>" for column in ("", *COLUMNS))
    rows = (
        f"<tr><th>{html.escape(str(name))}</th>{''.join(f'<td>{cell}</td>' for cell in _cells(shape))}</tr>"
        for name, shape in shapes.items()
    )
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def complete_lazy_call(line: str, names: dict[str, Any]) -> list[str]:
    """The arguments, each with its "=", that may follow where a lazy call is open at the end of the line.

    Args:
        line: what is written in front of the cursor: `L(ResNet)(freeze_at=1, out`.
        names: what is known in the session. Nothing but names and attributes of it is looked up.
    """
    opening = _open_parenthesis(line)
    called = CALLED.search(line[:opening]) if opening >= 0 else None
    if called is None or names.get(called[1]) is not LazyCall:
        return []
    first, *path = called[2].split(".")
    target = names.get(first)
    for name in path:
        target = getattr(target, name, None)
    try:
        parameters = inspect.signature(target).parameters.values()  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return []
    begun = re.search(r"\w*$", line)[0]  # type: ignore[index]
    given = set(re.findall(r"(\w+)\s*=", line[opening:]))
    wild = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    named = [each.name for each in parameters if each.kind not in wild and each.name not in given]
    return [f"{name}=" for name in named if name.startswith(begun)]


def _png(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", bbox_inches="tight", dpi=72)
    return file.getvalue()


def _matcher(shell: Any) -> Callable[[str], list[str]]:
    def arguments_of_lazy_call(text: str) -> list[str]:
        return complete_lazy_call(shell.Completer.text_until_cursor, shell.user_ns)

    return arguments_of_lazy_call


def _open_parenthesis(line: str) -> int:
    """Where the innermost parenthesis stands that is open at the end; -1 for none."""
    closed = 0
    for at in range(len(line) - 1, -1, -1):
        closed += (line[at] in ")]}") - (line[at] in "([{")
        if closed < 0:
            return at if line[at] == "(" else -1
    return -1


def _are_shapes(given: dict[Any, Any]) -> bool:
    return bool(given) and all(isinstance(value, ShapeSpec) for value in given.values())


def _cells(shape: ShapeSpec) -> list[str]:
    return ["" if (value := getattr(shape, column)) is None else str(value) for column in COLUMNS]
