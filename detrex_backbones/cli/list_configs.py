"""`detrex-backbones list`: the ready configs."""

from __future__ import annotations

import argparse
import ast
import fnmatch
from typing import Any

from detrex_backbones.cli.common import add_command, add_json_argument, print_json, print_table
from detrex_backbones.errors import ArgumentError, closest

EXAMPLES = """\
examples:
  detrex-backbones list
  detrex-backbones list '*dc5*'
  detrex-backbones list resnext --json
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = add_command(
        subparsers,
        "list",
        run,
        summary="list the ready configs",
        about="The ready configs, with what each is.",
        examples=EXAMPLES,
    )
    parser.add_argument("pattern", metavar="PATTERN", nargs="?", default="", help="a part of a name, or a glob")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Print the names that match, and the first line of each config's docstring."""
    from detrex_backbones.zoo import config_file, list_configs

    names = list_configs()
    glob = args.pattern if any(character in args.pattern for character in "*?[") else f"*{args.pattern}*"
    found = [name for name in names if fnmatch.fnmatchcase(name, glob) or fnmatch.fnmatchcase(name, f"{glob}.py")]
    if not found:
        stems = [name.rpartition("/")[2].removesuffix(".py") for name in names]
        raise ArgumentError(f"no ready config matches {args.pattern!r}.{closest(args.pattern, stems)}")
    rows = []
    for name in found:
        docstring = ast.get_docstring(ast.parse(config_file(name).read_text(encoding="utf-8"))) or ""
        rows.append((name, docstring.partition("\n")[0]))
    if args.json:
        print_json([{"name": name, "description": description} for name, description in rows])
    else:
        print_table(("config", "what it is"), rows)
