"""The oldest versions that setup.py allows, as requirements: `pip install -r <(python .ci/lower_bounds.py)`.

With a name of an extra, those of the extra too. `--oldest-python` prints the oldest Python that setup.py allows.
"""

import re
import sys
from pathlib import Path
from typing import Any

import setuptools

ROOT = Path(__file__).parents[1]
BOUND = re.compile(r"^([\w-]+)>=([\w.]+)")


def read_setup() -> dict[str, Any]:
    """What setup.py gives to setuptools, which isn't run."""
    given: dict[str, Any] = {}
    setuptools.setup = lambda **arguments: given.update(arguments)
    file = ROOT / "setup.py"
    exec(compile(file.read_text(encoding="utf-8"), str(file), "exec"), {"__file__": str(file)})
    return given


def lower_bounds(requirements: list[str]) -> list[str]:
    """ "torch>=2.4" -> "torch==2.4"."""
    return [f"{match[1]}=={match[2]}" for text in requirements if (match := BOUND.match(text))]


if __name__ == "__main__":
    setup = read_setup()
    if sys.argv[1:] == ["--oldest-python"]:
        sys.stdout.write(setup["python_requires"].removeprefix(">=") + "\n")
    else:
        extras = [text for name in sys.argv[1:] for text in setup["extras_require"][name]]
        sys.stdout.write("\n".join(lower_bounds([*setup["install_requires"], *extras])) + "\n")
