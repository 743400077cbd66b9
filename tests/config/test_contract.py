"""The numbers in the names of these tests are those of the points in docs/reference/config.md."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
POINTS = re.findall(r"^([0-9]+)\. ", (HERE.parents[1] / "docs/reference/config.md").read_text(encoding="utf-8"), re.M)
NUMBERS = {
    int(number)
    for file in HERE.glob("test_*.py")
    for number in re.findall(r"^def test_([0-9]+)_", file.read_text(encoding="utf-8"), re.M)
}


def test_each_number_in_a_tests_name_is_a_point_of_the_contract() -> None:
    assert [str(number) for number in range(1, len(POINTS) + 1)] == POINTS
    assert set(map(int, POINTS)) >= NUMBERS


def test_each_point_has_a_test() -> None:
    assert set(map(int, POINTS)) <= NUMBERS
