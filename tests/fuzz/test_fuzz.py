"""The properties, on a few examples that are the same each time; on many by `python -m tests.soak fuzz`."""

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz.properties import PROPERTIES

FEW = {"conversions": 6, "files": 25, "loads": 25}
USUAL = 60


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
