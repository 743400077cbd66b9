"""Files from strangers: refused, or loaded without what is evil in them. Nothing is run, written or changed.

The whole corpus, with times, is `python -m tests.soak hostile`.
"""

import sys

import pytest

from tests.hostile.child import ATTEMPTS
from tests.hostile.corpus import CANARY, IGNORED, REFUSED
from tests.hostile.run import run_corpus

MEMORY = 300_000_000  # bytes


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_no_file_does_any_harm(tmp_path):
    """One test, since all of it is of one run."""
    run = run_corpus(tmp_path, whole=False)
    # The process outlives every file.
    assert run.told == ""
    assert len(run.fates) > 500
    assert set(run.results) == set(run.fates)
    # Each is refused by an error of ours that leaves the model as it was, or gives the good weights in it.
    allowed = {REFUSED: ("refused",), IGNORED: ("refused", "loaded")}
    outcomes = {name: result["outcome"] for name, result in run.results.items()}
    assert {name: found for name, found in outcomes.items() if found not in allowed[run.fates[name]]} == {}
    beside = [outcomes[name] for name, fate in run.fates.items() if fate == IGNORED]
    assert beside.count("loaded") > 0.85 * len(beside)
    # Nothing is run: what the child did itself was noticed, and what files did would have been.
    assert set(run.attempts) == set(ATTEMPTS)
    assert [name for name, caught in run.attempts.items() if not caught] == []
    assert {name: result["caught"] for name, result in run.results.items() if result["caught"]} == {}
    # Nothing is written.
    assert run.after == run.before
    assert not any(CANARY in name for name in run.after)
    # Nothing takes much more memory than weights would.
    assert {name: result["bytes"] for name, result in run.results.items() if result["bytes"] > MEMORY} == {}
