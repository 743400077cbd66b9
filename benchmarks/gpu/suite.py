"""The tests that are marked `gpu`, in a process of their own."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator

from benchmarks.gpu.jobs import Job, Setting
from benchmarks.measure import NEEDS_GPU, ROOT, Row, environment

GROUP = "tests"
AT_MOST = 120  # seconds
# addopts of its own: no workers, which would share the card.
PYTEST = ("-m", "pytest", "-o", "addopts=", "-p", "no:cacheprovider", "-m", "gpu", "-v", "--tb=short", "-rfE")
OUTCOME = re.compile(r"^(tests/\S+::.+?) (PASSED|FAILED|ERROR|SKIPPED)\b")
REASON = re.compile(r"^(?:FAILED|ERROR) (tests/\S+::.+?) - (.+)")


def jobs(setting: Setting) -> Iterator[Job]:
    """All of them."""
    yield Job("the tests marked gpu", lambda: _run(setting), 20)


def _run(setting: Setting) -> Iterator[Row]:
    command = [sys.executable, *PYTEST, *_files()]
    settings = {**environment(), "COLUMNS": "160", "PYTHONUNBUFFERED": "1"}
    rows: dict[str, Row] = {}
    with subprocess.Popen(
        command, cwd=ROOT, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        limit = threading.Timer(min(AT_MOST, setting.left), process.kill)
        limit.start()
        try:
            assert process.stdout
            for line in process.stdout:
                if found := OUTCOME.match(line):
                    name, outcome = found.groups()
                    if name not in rows:
                        rows[name] = _row(name, outcome)
                        yield rows[name]
                    continue
                print(line, end="", flush=True)
                if (found := REASON.match(line)) and found[1] in rows:
                    rows[found[1]].note = found[2].strip()
        finally:
            limit.cancel()
            process.kill()
    if process.returncode not in (0, 1):  # 1: tests have failed, each of which is a row
        raise RuntimeError(f"pytest ended with {process.returncode}, after {len(rows)} tests")


def _files() -> list[str]:
    """Only those that have such a test, so that nothing else is imported."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(path.relative_to(ROOT)) for path in files if "pytest.mark.gpu" in path.read_text(encoding="utf-8")]


def _row(name: str, outcome: str) -> Row:
    if outcome == "SKIPPED":
        return Row(GROUP, name, "1", None, target="passes", note=NEEDS_GPU)
    return Row(GROUP, name, "1", None, target="passes", met=outcome == "PASSED")
