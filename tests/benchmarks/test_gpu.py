"""That the script for a GPU runs to its end without one, whatever fails on the way; no time is asserted."""

import json
import types

import pytest
import torch
from torch import nn

from benchmarks.__main__ import main as table
from benchmarks.gpu import __main__ as command
from benchmarks.gpu import memory, networks, speed, suite
from benchmarks.gpu.jobs import Budget, Job, Setting, left_out, rows_of
from benchmarks.measure import Row
from benchmarks.pairs import paired
from tests.reference import noise


def setting(seconds=1000.0, **kwargs):
    return Setting("cpu", True, Budget(seconds, lambda: 0.0), **kwargs)


def ok(what="fine"):
    return Row("part", what, "s", 1.0)


def broken():
    yield ok("before it breaks")
    raise RuntimeError("out of memory\nCUDA error")


def part(*jobs, end=None):
    def generator(setting):
        yield from jobs
        if end:
            raise end

    return types.SimpleNamespace(jobs=generator)


def test_one_that_raises_is_a_row_and_the_others_are_measured(capsys):
    jobs = part(Job("breaks", broken), Job("after", lambda: [ok()]), end=ImportError("no peer"))
    rows = list(rows_of("part", jobs, setting()))
    assert [(row.what, row.failed) for row in rows] == [
        ("before it breaks", False),
        ("breaks", True),
        ("fine", False),
        ("the rest of the group", True),
    ]
    assert rows[1].note == "RuntimeError: CUDA error"
    assert "out of memory" in capsys.readouterr().err


def test_a_peer_that_raises_is_left_out_and_we_are_not():
    calls = {"ours": lambda: 1, "timm": lambda: 1 / 0, "torchvision": lambda: 2}
    assert left_out(calls) == ["timm fails: ZeroDivisionError: division by zero"]
    assert list(calls) == ["ours", "torchvision"]
    with pytest.raises(ZeroDivisionError):
        left_out({"ours": lambda: 1 / 0})


def test_what_no_longer_fits_is_said():
    jobs = part(Job("long", lambda: [ok()], 60), Job("short", lambda: [ok()], 20))
    assert [row.result for row in rows_of("part", jobs, setting(100))] == ["-", "-"]
    (long, short) = rows_of("part", jobs, setting(100, keep=50))
    assert (long.what, long.result, long.note) == ("long", "skipped", "skipped: 50 seconds were left")
    assert short.result == "-"


@pytest.mark.parametrize(
    ("theirs", "bound", "result"),
    [
        ([2.0, 2.0, 2.0, 2.0], {"at_least": 1.9}, "met"),
        ([2.0, 1.0, 1.2, 2.0], {"at_least": 1.7}, "within noise"),
        ([1.2, 1.2, 1.2, 2.0], {"at_least": 1.7}, "missed"),
        ([1.2, 1.2, 1.2, 2.0], {"at_most": 1.0}, "met"),
        ([0.9, 1.1, 0.9, 1.1], {"at_most": 0.99}, "within noise"),
        ([0.9, 0.9, 0.9, 0.9], {"at_most": 0.99}, "missed"),
    ],
)
def test_a_miss_within_the_spread_of_the_rounds_is_noise(theirs, bound, result):
    times = {"ours": [1.0] * 4, "timm": theirs, "slow": [9.0] * 4, "detectron2": []}
    row = paired("g", "w", times, against=["timm", "slow", "detectron2"], **bound)
    assert (row.result, row.rounds, row.peers["detectron2"]) == (result, 4, None)
    assert row.spread[0] <= row.ratio <= row.spread[1]


@pytest.mark.few(1)
@pytest.mark.parametrize("network", networks.NETWORKS)
@pytest.mark.parametrize("training", [True, False])
def test_everybody_computes_the_same_maps(network, training):
    shapes, counts = {}, {}
    for name, make in networks.makers(network, training=training).items():
        net = make().train(training)
        with torch.no_grad():
            shapes[name] = [tuple(value.shape) for value in net(noise(1, 3, 64, 96)).values()]
        # Matrices and kernels: frozen norms are buffers here and no parameters there.
        counts[name] = sum(
            value.numel() for value in net.parameters() if value.requires_grad and value.numel() > max(value.shape)
        )
    assert set(shapes) >= {"ours", "torchvision", "timm"}
    assert len(shapes["ours"]) == 4
    assert all(value == shapes["ours"] for value in shapes.values())
    assert len({counts[name] for name in ("ours", "torchvision", "timm")}) == 1


@pytest.mark.slow
def test_tests_are_rows(tmp_path, monkeypatch, capsys):
    tests = tmp_path / "tests"
    tests.mkdir()
    head = "import pytest\n\n@pytest.mark.gpu\n@pytest.mark.parametrize('n', [1, 2, 3])\ndef test_it(n):\n"
    (tests / "test_one.py").write_text(
        f"{head}    n == 3 and pytest.skip('no GPU')\n    assert n == 1\n\ndef test_unmarked():\n    pass\n"
    )
    (tests / "test_other.py").write_text("raise RuntimeError('nothing of it is marked')\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu\n")
    monkeypatch.setattr(suite, "ROOT", tmp_path)
    rows = list(rows_of("tests", suite, setting()))
    assert [(row.what, row.result) for row in rows] == [
        ("tests/test_one.py::test_it[1]", "met"),
        ("tests/test_one.py::test_it[2]", "missed"),
        ("tests/test_one.py::test_it[3]", "needs a GPU"),
    ]
    assert rows[1].note == "assert 2 == 1"
    assert "assert n == 1" in capsys.readouterr().out
    (tests / "test_one.py").write_text("import nothing_of_that_name  # pytest.mark.gpu\n")
    (row,) = rows_of("tests", suite, setting())
    assert row.failed
    assert "pytest ended with 2, after 0 tests" in row.note


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2)

    def forward(self, x):
        return {"p0": self.conv(x)}


@pytest.mark.slow
def test_the_stand_in_runs_to_its_end(tmp_path, monkeypatch, capsys):
    def makers(network, *, training):
        made = dict.fromkeys(("ours", "torchvision", "timm", "no norms", "fused"), Tiny)
        return {**made, "detectron2": lambda: 1 / 0}  # a peer that fails takes nothing along

    monkeypatch.setattr(memory, "on_cpu", lambda name, network, work: 7.0)  # four processes, see test_measure
    monkeypatch.setattr(speed, "makers", makers)
    monkeypatch.setattr(speed, "NETWORKS", ("R-50",))
    path = tmp_path / "results.json"
    assert command.main(["--device", "cpu", "--small", "--json", str(path)]) == 0
    ((run),) = json.loads(path.read_text())
    rows = [Row(**row) for row in run["rows"]]
    assert list(dict.fromkeys(row.group for row in rows)) == ["tests", "loading", "speed", "memory", "epoch"]
    assert not [row for row in rows if row.failed or row.skipped]
    assert all(row.ours > 0 for row in rows if row.group != "tests")
    of_speed = [row for row in rows if row.group == "speed"]
    assert len(of_speed) == 4 * 3 + 4 * 3
    assert "detectron2 fails: ZeroDivisionError: division by zero" in {row.note for row in of_speed}
    assert len([row for row in of_speed if "launched in a step: ours" in row.note]) == 4
    shown = capsys.readouterr().out
    assert all(row.what in shown for row in rows)
    page = tmp_path / "page.md"
    assert table(["--read", str(path), "--markdown", str(page)]) == 0
    assert page.read_text().count("| speed |") == len(of_speed)


def test_a_gpu_that_is_not_there(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="2"):
        command.main([])
    assert "--device cpu --small tries the script without one" in capsys.readouterr().err
