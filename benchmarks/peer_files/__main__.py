"""The matrix of detectors' backbones: `python -m benchmarks.peer_files --markdown docs/detector-backbones.md`.

Libraries that can't be imported are left out, and named. detectron2 and detrex may be checkouts on the path.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peer_files.case import Case, measure
from benchmarks.peer_files.stand_ins import for_detrex, without_compiled_mmcv
from benchmarks.peer_files.table import Row, markdown
from detrex_backbones.errors import CheckpointMatchError, PreprocessingError

# Module of cases -> what it imports.
GROUPS = {
    "detectron2_cases": "detectron2",
    "detrex_cases": "detrex",
    "mmdet_cases": "mmdet",
    "torchvision_cases": "torchvision",
    "transformers_cases": "transformers",
    "smp_cases": "segmentation_models_pytorch",
    "authors_cases": "transformers",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every case, and print the table or write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--markdown", type=Path, help="file to write; otherwise the table is printed")
    parser.add_argument("--only", nargs="*", default=[], help="parts of the names of classes")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    rows: list[Row] = []
    measured = [name for name in dict.fromkeys(GROUPS.values()) if importlib.util.find_spec(name) is not None]
    for group, library in GROUPS.items():
        if library in measured:
            cases: list[Case] = importlib.import_module(f"benchmarks.peer_files.{group}").CASES
            chosen = [case for case in cases if not options.only or any(map(case.name.__contains__, options.only))]
            rows += map(row_of, chosen)
    text = markdown(rows, {name: version_of(name) if name in measured else None for name in GROUPS.values()})
    if options.markdown:
        options.markdown.write_text(text, encoding="utf-8")
    else:
        print(text)


def row_of(case: Case) -> Row:
    """A case as it is measured now; what went wrong stands in its row."""
    try:
        report, apart = measure(case)
    except (CheckpointMatchError, PreprocessingError) as error:
        return Row(case, failed=f"{type(error).__name__}: {error}", refused=True)
    except Exception as error:
        return Row(case, failed=f"{type(error).__name__}: {error}")
    return Row(case, report.source, min(report.coverage, report.file_coverage), apart, named=report.lookalikes)


def version_of(name: str) -> str:
    """Of a library; "" where it doesn't say."""
    with without_compiled_mmcv():
        for_detrex()
        return str(getattr(importlib.import_module(name), "__version__", ""))


if __name__ == "__main__":
    main()
