"""`python -m tests.soak`: which subjects there are, and what it prints of them. What they check is tested elsewhere."""

import importlib
import sys

import pytest

from tests.soak import __main__ as soak


def test_every_subject_has_a_run_and_says_what_it_is():
    assert {"crash", "downloads", "load"} <= set(soak.names())
    for name in soak.names():
        module = importlib.import_module(f"tests.soak.{name}")
        assert callable(module.run) and module.__doc__


def test_the_figures_of_each_subject_are_printed_and_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(soak, "run", lambda name, output: {"files tried": 12345, "said": "not tried", "share": 0.5})
    monkeypatch.setattr(sys, "argv", ["soak", "crash", "load", "--markdown", str(tmp_path / "table.md")])
    assert soak.main() == 0
    assert "crash ...\n  files tried: 12345\n" in capsys.readouterr().out
    table = (tmp_path / "table.md").read_text()
    assert table.splitlines()[:3] == [
        "| subject | what | figure |",
        "| --- | --- | --- |",
        "| crash | files tried | 12,345 |",
    ]
    assert "| load | said | not tried |\n| load | share | 0.5 |\n" in table


def test_a_subject_that_fails_fails_the_run_and_the_others_run_all_the_same(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(soak, "run", lambda name, output: None if name == "crash" else {"fine": 1})
    monkeypatch.setattr(sys, "argv", ["soak", "crash", "load"])
    assert soak.main() == 1
    assert capsys.readouterr().out == "crash ...\nload ...\n  fine: 1\nFAILED: crash\n"


def test_a_subject_that_is_not_there(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["soak", "crashes"])
    with pytest.raises(SystemExit):
        soak.main()
    assert f"there is no crashes. Allowed: {', '.join(soak.names())}" in capsys.readouterr().err


def test_an_error_in_a_process_of_its_own_is_a_failure(tmp_path):
    assert soak.run("nothing", tmp_path / "figures.json") is None
