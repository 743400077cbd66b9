"""How rows read, and that they come back from JSON as they went."""

import json
import types

import pytest

from benchmarks import __main__ as command
from benchmarks.measure import Row, compared, needs_gpu
from benchmarks.table import line, markdown, number, summary, text

ROWS = [
    compared("loading", "R-101 .pth", {"ours": 0.041, "floor": 0.035}, at_most=1.3, rounds=5),
    compared("loading", "R-101 .pkl", {"ours": 0.2, "detectron2": None}, at_most=1.3, rounds=5),
    compared("training", "R-50 | DC5", {"ours": 2.0, "timm": 1.5}, at_least=1.15, note="no fold here", rounds=3),
    needs_gpu("loading", "to the GPU", "at most 1.2 of a pinned copy"),
]
MACHINE = {"device": "cpu", "device_name": "some processor", "cores": 2, "torch": "2.9", "date": "2025-01-01"}


@pytest.fixture
def group(monkeypatch):
    """A group that measures nothing, of which the second row is the last before it breaks."""

    def rows(options):
        yield from ROWS
        if options.rounds == 13:
            raise ImportError("no module named peer")
        if options.rounds == 17:
            raise KeyboardInterrupt

    monkeypatch.setattr(command, "GROUPS", ("quiet",))
    monkeypatch.setattr(command, "machine", lambda options: {**MACHINE, "rounds": options.rounds})
    monkeypatch.setitem(command.sys.modules, "benchmarks.quiet", types.SimpleNamespace(rows=rows))


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (1.5, "s", "1.5 s"),
        (0.0412, "s", "41.2 ms"),
        (0.0000031, "s", "3.1 us"),
        (0.0, "s", "0 us"),
        (1234.5, "MiB", "1,234 MiB"),
        (2.04, "1", "2.04"),
        (None, "s", "-"),
    ],
)
def test_numbers_have_three_digits_and_a_unit(value, unit, shown):
    assert number(value, unit) == shown


def test_a_line_for_while_it_runs():
    assert line(ROWS[0]) == "loading: R-101 .pth: ours 41 ms; floor 35 ms, ratio 1.17; met"
    assert line(ROWS[1]) == "loading: R-101 .pkl: ours 200 ms; detectron2 not installed; not installed"


def test_the_table_fits_a_terminal_and_has_it_all():
    shown = text(ROWS)
    assert max(map(len, shown.splitlines())) <= 80
    for part in ("loading", "R-101 .pth", "41 ms", "met", "missed", "not installed", "needs a GPU", "no fold here"):
        assert part in " ".join(shown.split())
    assert shown.splitlines()[-1] == "1 met, 1 not installed, 1 missed, 1 needs a GPU"


def test_summary_of_nothing_judged():
    assert summary([Row("g", "w", "s", 1.0)]) == "no row has a target"


def test_the_page_has_a_table_a_machine():
    page = markdown([(MACHINE, ROWS), ({**MACHINE, "device_name": "another"}, ROWS[:1])])
    assert [part for part in page.splitlines() if part.startswith("## ")] == ["## some processor", "## another"]
    cells = "| loading | R-101 .pth | 41 ms | floor 35 ms | 1.17 | at most 1.3 of floor | met | 5 |"
    assert page.splitlines().count(cells) == 2
    assert "R-50 \\| DC5" in page
    assert "- training: R-50 | DC5: no fold here" in page


def test_written_rows_come_back_the_same(group, tmp_path, capsys):
    first, page, again = tmp_path / "cpu.json", tmp_path / "page.md", tmp_path / "again.json"
    assert command.main(["--rounds", "2", "--device", "cpu", "--json", str(first)]) == 0
    shown = capsys.readouterr().out
    assert line(ROWS[0]) in shown
    written = json.loads(first.read_text())
    assert written[0]["machine"] == {**MACHINE, "rounds": 2}
    assert [Row(**row) for row in written[0]["rows"]] == ROWS
    assert command.main(["--read", str(first), str(first), "--markdown", str(page), "--json", str(again)]) == 0
    assert json.loads(again.read_text()) == written * 2
    assert page.read_text().count("## some processor") == 2


def test_a_run_that_is_stopped_has_written_what_it_measured(group, tmp_path):
    path = tmp_path / "cpu.json"
    with pytest.raises(KeyboardInterrupt):
        command.main(["--rounds", "17", "--device", "cpu", "--json", str(path)])
    assert [Row(**row) for row in json.loads(path.read_text())[0]["rows"]] == ROWS


def test_a_group_that_breaks_keeps_its_rows_and_is_said(group, capsys):
    assert command.main(["--rounds", "13", "--device", "cpu"]) == 1
    shown = capsys.readouterr().out
    assert line(ROWS[0]) in shown
    assert "ImportError: no module named peer" in shown
    assert shown.rstrip().endswith("1 failed")


@pytest.mark.parametrize("argv", [["--only", "nothing"], ["--rounds", "0"], ["--device", "tpu"]])
def test_what_is_not_offered_is_refused(argv, capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main(argv)
    assert argv[0] in capsys.readouterr().err
