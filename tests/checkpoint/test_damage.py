"""Cut files and flipped bytes: an error of ours, or what was written; never another error, nor the end of the process.

More seeds are tried by `python -m tests.soak damage`.
"""

import pytest
import torch

from detrex_backbones.checkpoint.read import source
from tests.damage import CUTS, EQUAL, FLIPS, OTHER, REFUSED, WRITERS, outcome, outcomes, read


@pytest.mark.few(1)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", WRITERS)
def test_damaged_files(tmp_path, kind):
    found = outcomes(kind, tmp_path, seed=0)
    cut, flipped = found["cut"], found["flipped"]
    assert (cut.total(), flipped.total()) == (CUTS, FLIPS)
    if not kind.startswith("config"):  # a config's text may end at any line
        assert cut == {REFUSED: CUTS}
    if kind in ("torch", "dcp pieces"):  # the only ones with checksums
        assert flipped[OTHER] == 0
        assert flipped[REFUSED] > 0.6 * FLIPS  # the others fall between the entries
    assert set(flipped) <= {EQUAL, OTHER, REFUSED}


@pytest.mark.parametrize("library", ["zlib", "isal.isal_zlib"])
def test_whoever_computes_the_checksums_finds_a_changed_byte(library, tmp_path, monkeypatch):
    monkeypatch.setattr(source, "crc32", pytest.importorskip(library, reason="isal is not installed").crc32)
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.arange(5000.0)}, path)
    data, whole = path.read_bytes(), read(path)
    inside = data.index(torch.tensor(4321.0).numpy().tobytes())
    assert outcome(path, data, whole) == EQUAL
    assert outcome(path, data[:inside] + b"\1" + data[inside + 1 :], whole) == REFUSED


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_byte_of_a_torch_file(tmp_path):
    """Each is covered by a checksum, by the directory, or says nothing about the weights."""
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.arange(4.0)}, path)
    data, whole = path.read_bytes(), read(path)
    found = [outcome(path, data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :], whole) for at in range(len(data))]
    assert OTHER not in found
    assert found.count(REFUSED) > 0.4 * len(found)
