"""`python -m tests.soak [NAME ...] [--markdown FILE]`: the long checks, and a table of their figures."""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
Figures = dict[str, "int | float | str"]


def names() -> list[str]:
    """The subjects: the modules beside this one."""
    found = (module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
    return sorted(name for name in found if not name.startswith("_"))


def run_alone(name: str, output: Path) -> None:
    """Run one subject in this process, and write its figures to a file."""
    figures = importlib.import_module(f"tests.soak.{name}").run()
    output.write_text(json.dumps(figures))


def run(name: str, output: Path) -> Figures | None:
    """Run one subject in a process of its own; None where it fails."""
    output.unlink(missing_ok=True)
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "tests.soak", name, "--figures", str(output)], cwd=ROOT)
    if done.returncode or not output.exists():
        return None
    return {**json.loads(output.read_text()), "seconds": round(time.monotonic() - begun)}


def as_markdown(results: dict[str, Figures]) -> str:
    """A table for docs/reliability.md."""
    lines = ["| subject | what | figure |", "| --- | --- | --- |"]
    for name, figures in results.items():
        for what, value in figures.items():
            lines.append(f"| {name} | {what} | {value if isinstance(value, str) else format(value, ',')} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Returns how many subjects failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names())}; all without one")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too")
    parser.add_argument("--figures", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    unknown = set(args.names) - set(names())
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}. Allowed: {', '.join(names())}.")
    if args.figures:
        run_alone(args.names[0], args.figures)
        return 0
    results: dict[str, Figures] = {}
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        for name in args.names or names():
            print(f"{name} ...", flush=True)
            figures = run(name, Path(folder) / "figures.json")
            if figures is None:
                failed.append(name)
                continue
            results[name] = figures
            for what, value in figures.items():
                print(f"  {what}: {value}", flush=True)
    if args.markdown:
        args.markdown.write_text(as_markdown(results))
    for name in failed:
        print(f"FAILED: {name}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
