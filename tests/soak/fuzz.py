"""Every property of `tests/fuzz` on many examples, and 100,000 drawn files: new ones each time."""

from __future__ import annotations

import logging
import warnings

from hypothesis import HealthCheck, given, settings

from tests.fuzz.properties import PROPERTIES
from tests.fuzz.run import check

EXAMPLES = 5000
FILES, BATCH = 100_000, 2000
SLOW = {"conversions": 300, "loads": 1000, "names": 2000, "configs": 2000}


def run() -> dict[str, int | float | str]:
    """Look for a counterexample of each property; fails with the smallest one found."""
    figures: dict[str, int | float | str] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        for _ in range(FILES // BATCH):
            for what, value in check(BATCH, again=False).items():
                before = figures.get(what, 0)
                if isinstance(value, str) or isinstance(before, str):
                    continue
                figures[what] = max(before, value) if what.startswith("most") else before + value
        for name, (function, strategies) in PROPERTIES.items():
            count = SLOW.get(name, EXAMPLES)
            many = settings(max_examples=count, database=None, deadline=None, suppress_health_check=list(HealthCheck))
            many(given(**strategies)(function))()
            figures[name] = count
    return figures
