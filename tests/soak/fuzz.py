"""Every property of `tests/fuzz` on many examples, which are new ones each time."""

from __future__ import annotations

import logging
import warnings

from hypothesis import HealthCheck, given, settings

from tests.fuzz.properties import PROPERTIES

EXAMPLES = 5000
SLOW = {"conversions": 300, "loads": 1000, "names": 2000, "configs": 2000}


def run() -> dict[str, int | float | str]:
    """Look for a counterexample of each property; fails with the smallest one found."""
    figures: dict[str, int | float | str] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        for name, (function, strategies) in PROPERTIES.items():
            count = SLOW.get(name, EXAMPLES)
            many = settings(max_examples=count, database=None, deadline=None, suppress_health_check=list(HealthCheck))
            many(given(**strategies)(function))()
            figures[name] = count
    return figures
