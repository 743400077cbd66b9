"""Everything that only a GPU can show, in one run of at most eight minutes: `python -m benchmarks.gpu`."""
