"""`detrex-backbones list`: the ready configs."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Callable, Iterator
from typing import Any

from detrex_backbones.cli.common import add_command, add_json_argument
from detrex_backbones.cli.figures import known_weights, print_figures, sort_figures
from detrex_backbones.cli.terminal import print_json, print_note, print_table
from detrex_backbones.errors import ArgumentError, DetrexBackbonesError, InputError, closest
from detrex_backbones.glob_match import matcher

EXAMPLES = """\
examples:
  detrex-backbones list
  detrex-backbones list '*dc5*' --figures
  detrex-backbones list --stride 32 --max-params 30 --min-top1 79
  detrex-backbones list 'timm/convnext*' --max-gflops 5
  detrex-backbones list resnext --json
"""

SIZE = (224, 224)  # of the image that GFLOPs are given for

SORTS = ("top1", "top5", "parameters", "gflops", "name")


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = add_command(
        subparsers,
        "list",
        run,
        summary="list the ready configs",
        about="List the ready configs, or timm's models if PATTERN begins with timm/. With\n"
        "--figures or a filter, also print strides, channels, parameters, GFLOPs, and the\n"
        "weights known by name with their ImageNet top-1 and top-5 in per cent, which\n"
        "takes some tenths of a second for each config.",
        examples=EXAMPLES,
    )
    parser.add_argument("pattern", metavar="PATTERN", nargs="?", default="", help="part of a name, or a glob")
    parser.add_argument("--figures", action="store_true", help="show strides, parameters, GFLOPs, weights ...")
    parser.add_argument("--stride", metavar="N", type=int, help="only configs whose last map has this stride")
    parser.add_argument("--max-params", metavar="M", type=float, help="only up to this many million parameters")
    parser.add_argument("--max-gflops", metavar="G", type=float, help="only up to this many GFLOPs at 224 x 224")
    parser.add_argument(
        "--min-top1", metavar="P", type=float, help="only with known weights of at least this top-1 in per cent"
    )
    parser.add_argument(
        "--sort",
        metavar="COLUMN",
        choices=SORTS,
        help="sort by top1, top5, parameters, gflops or name; implies --figures",
    )
    add_json_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Print the names that match, and the first line of each config's docstring; then the figures."""
    rows = [{"name": name, "description": _describe(name)} for name in _find(args.pattern)]
    filters = _filters(args)
    if args.figures or filters or args.sort:
        rows = _with_figures(rows, filters)
        rows = sort_figures(rows, args.sort)
    if args.json:
        print_json(rows)
    elif not (args.figures or filters or args.sort):
        print_table(("config", "what it is"), [(row["name"], row["description"]) for row in rows])
    else:
        print_figures(rows)


def _find(pattern: str) -> list[str]:
    from detrex_backbones.zoo import list_backbones, list_configs

    names = list_configs()
    matches = matcher(pattern)
    found = [name for name in names if matches(name) or matches(name.removesuffix(".py"))]
    if pattern.startswith("timm/"):
        found += [name for name in list_backbones(pattern) if f"{name}.py" not in names]
    if not found:
        stems = [name.rpartition("/")[2].removesuffix(".py") for name in names]
        raise ArgumentError(f"no ready config matches {pattern!r}.{closest(pattern, stems)}")
    return found


def _describe(name: str) -> str:
    from detrex_backbones.zoo import config_file

    if not name.endswith(".py"):
        return "timm's model of this name"
    docstring = ast.get_docstring(ast.parse(config_file(name).read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def _filters(args: argparse.Namespace) -> dict[str, Callable[[Any], bool]]:
    """Figure -> what it must be."""
    tests: dict[str, tuple[Any, Callable[[Any], bool]]] = {
        "top1": (args.min_top1, lambda value: value is not None and value >= args.min_top1),
        "strides": (args.stride, lambda value: value[-1:] == [args.stride]),
        "parameters": (args.max_params, lambda value: value <= args.max_params * 1e6),
        "gflops": (args.max_gflops, lambda value: value is not None and value <= args.max_gflops),
    }
    return {name: test for name, (given, test) in tests.items() if given is not None}


def _with_figures(rows: list[dict[str, Any]], filters: dict[str, Callable[[Any], bool]]) -> list[dict[str, Any]]:
    """The rows that pass, with their figures; what is costly is left for those that have passed the rest."""
    from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore]

    from detrex_backbones.text import shorten

    kept, without_top1, broken = [], [], []
    for row in tqdm(rows, delay=2, leave=False, unit="model", disable=None):
        try:
            passes = _passes(row, filters)
        except DetrexBackbonesError:
            broken.append(row["name"])
            continue
        if passes:
            kept.append(row)
        elif "top1" in filters and row["top1"] is None:
            without_top1.append(row["name"])
    reasons = {"no known top-1": without_top1, "can't be built as a backbone": broken}
    notes = [f"left out, {why}: {shorten(names)}" for why, names in reasons.items() if names]
    if not kept:
        passed = f"none of the {len(rows)} that match the name passes the filters ({', '.join(filters)})."
        raise ArgumentError("\n".join([passed, *notes]))
    for note in notes:
        print_note(note)
    return kept


def _passes(row: dict[str, Any], filters: dict[str, Callable[[Any], bool]]) -> bool:
    """Fill in the figures as far as the filters let it pass."""
    for figures in _figures(row["name"]):
        row |= figures
        if not all(test(row[name]) for name, test in filters.items() if name in figures):
            return False
    return True


def _figures(name: str) -> Iterator[dict[str, Any]]:
    """The figures of one backbone, the cheap ones first."""
    from detrex_backbones.backbones.cost import measure
    from detrex_backbones.zoo import build_on_meta
    from detrex_backbones.zoo.backbone_names import find_backbone

    found = find_backbone(name)
    yield known_weights(name)
    if not name.endswith(".py"):
        found.node["out_indices"] = None  # the whole network, not four maps of it
    backbone = build_on_meta(found.node)
    shapes = backbone.output_shape().values()
    # Norms that are frozen have buffers for parameters.
    frozen = [value for key, value in backbone.named_buffers() if key.rpartition(".")[2] in ("weight", "bias")]
    yield {
        "strides": [shape.stride for shape in shapes],
        "channels": [shape.channels for shape in shapes],
        "parameters": sum(value.numel() for value in [*backbone.parameters(), *frozen]),
    }
    try:
        yield {"gflops": round(measure(backbone, SIZE).gflops, 3)}
    except InputError:  # one that can't run this size
        yield {"gflops": None}
