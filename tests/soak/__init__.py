"""The long checks of docs/reliability.md, one module a subject, each with a `run` that returns its figures.

`python -m tests.soak` runs them; the ordinary tests run a small share of each.
"""
