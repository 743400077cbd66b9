"""The properties, on a few examples that are the same each time; on many by `python -m tests.soak fuzz`."""

import sys

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz.properties import PROPERTIES
from tests.fuzz.run import check

FEW = {"conversions": 6, "files": 25, "loads": 25}
USUAL = 60


@pytest.mark.few(1)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PROPERTIES)
def test_property(name):
    function, strategies = PROPERTIES[name]
    few = settings(
        max_examples=FEW.get(name, USUAL),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    few(given(**strategies)(function))()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_files_that_are_right_or_nearly_so():
    """Nothing is called, calls and memory are in proportion to the file, and tensors are those that torch reads."""
    figures = check(300, again=True)
    assert figures["files drawn"] == 300
    for what in ("of them right, and read", "changed, and refused", "read by torch and ours, alike"):
        assert int(figures[what]) > 30, what
