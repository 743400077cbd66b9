"""Every family of timm as a backbone: `python -m benchmarks.timm_sweep [--only MODULE ...] [--json F] [--markdown F]`.

Of each family the smallest model is made, its batch norms frozen, loaded from a checkpoint of the plain model with
random weights, and run at two odd sizes padded to its `size_divisibility`. The maps must have the shapes that
`output_shape()` promises and equal those of timm's own feature network, which timm has filled from the same file.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.timm_check import Row, row_of
from benchmarks.timm_families import Family, families, smallest
from benchmarks.timm_table import markdown, totals

# Models above this come one at a time, whatever the number of processes.
LARGE = 100_000_000
_one_large: Any = nullcontext()


def check_family(family: Family) -> tuple[Row, float]:
    """The row of one family, and how many seconds it took."""
    started = time.perf_counter()
    model, parameters = smallest(family)
    with _one_large if parameters > LARGE else nullcontext():
        row = row_of(*family, model, parameters)
    return row, time.perf_counter() - started


def sweep(chosen: Sequence[Family], processes: int) -> Iterator[tuple[Row, float]]:
    """The rows of some families, in their order."""
    if processes == 1:
        _quiet(nullcontext(), None)
        yield from map(check_family, chosen)
        return
    context = multiprocessing.get_context("spawn")
    threads = max(torch.get_num_threads() // processes, 1)
    with context.Pool(processes, _quiet, (context.Lock(), threads)) as pool:
        yield from pool.imap(check_family, chosen)


def _quiet(lock: Any, threads: int | None) -> None:
    global _one_large
    _one_large = lock
    if threads:
        torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", help="only the families of these modules")
    parser.add_argument("--processes", type=int, default=2, help="how many at a time (2)")
    parser.add_argument("--json", type=Path, help="write the rows there")
    parser.add_argument("--markdown", type=Path, help="write the table there")
    options = parser.parse_args()
    started = time.perf_counter()
    chosen = [family for family in families() if not options.only or family[0] in options.only]
    rows = []
    for row, seconds in sweep(chosen, options.processes):
        rows.append(row)
        print(
            f"{row.module:26} {row.model:34} {row.millions:6.1f}M {row.wrapper:22} {row.divisibility!s:4} "
            f"{' '.join(row.sizes):16} {seconds:5.1f} s  {row.reach:5} {row.timm:18} "
            f"{' '.join(row.result.split())[:120]}",
            flush=True,
        )
    print(f"{totals(rows)} It took {time.perf_counter() - started:.0f} s.")
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(markdown(rows))


if __name__ == "__main__":
    main()
