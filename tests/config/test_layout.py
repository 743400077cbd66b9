"""Laying out long Python lines: the same program, in 80 columns."""

import ast

import pytest

from detrex_backbones.config.layout import lay_out

LONG = (
    'cfg.model = a.b.Net(stem=a.Stem(channels=3, norm="FrozenBN"), stages=[a.Stage(depth=50, norm="FrozenBN"), '
    '{"key": [1, 2, 3], "other": {"x": "a long string, with (brackets) and commas"}}], names=("res2", "res3"), '
    '**{"a b": 1})'
)


@pytest.mark.parametrize("line", [LONG, "cfg.short = 1", "cfg.long = [" + ", ".join(map(str, range(60))) + "]"])
def test_the_same_program_in_80_columns(line):
    laid_out = lay_out(line)
    assert ast.dump(ast.parse(laid_out)) == ast.dump(ast.parse(line))
    assert max(map(len, laid_out.splitlines())) <= 80


def test_one_part_a_line():
    assert lay_out(LONG).splitlines()[:3] == [
        "cfg.model = a.b.Net(",
        '    stem=a.Stem(channels=3, norm="FrozenBN"),',
        "    stages=[",
    ]


def test_what_is_no_python_and_what_has_no_parts_stays():
    for line in ["cfg.x = <generator object at 0x7f>", "cfg.text = " + repr("x" * 100)]:
        assert lay_out(line) == line
