"""Every command on files whose every name is hostile: nothing that comes out is obeyed, and no line is forged."""

import csv
import io
import json
import logging
import sys
import warnings

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from detrex_backbones.checkpoint.fetch import http_file
from detrex_backbones.cli import main, terminal
from detrex_backbones.errors import InputError

FORGED = "loaded 999 of 999 tensors (100.0%)"
# ANSI, a link of the terminal's, rich's markup, line ends of three kinds, a mark that turns the text round.
HOSTILE = f"x\x1b[2J\x1b]8;;evil\x07[link=evil][bold]\n{FORGED}\r{FORGED}\u2028{FORGED}\u202e\x9b31m"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Hostile names of a checkpoint, its keys, an image, a class, a config and its values."""
    root = tmp_path_factory.mktemp("hostile")
    state = torchvision.models.resnet18(weights=None, num_classes=3).state_dict()
    shown = {key: torch.zeros(()).expand(value.shape).clone() for key, value in state.items()}
    with (root / f"{HOSTILE}.pth").open("wb") as file:  # by a path, its name would stand inside
        torch.save({f"{HOSTILE}.{key}": value for key, value in shown.items()}, file)
    torch.save({HOSTILE: {HOSTILE: torch.ones(2)}, f"{HOSTILE}2": {HOSTILE: torch.ones(2)}}, root / "other.pth")
    torch.save({**shown, HOSTILE: torch.ones(2)}, root / "one_more.pth")
    torch.save(shown, root / "plain.pth")
    (root / f"{HOSTILE}.pkl").write_bytes(b"\x80\x04nonsense")
    (root / "data" / HOSTILE).mkdir(parents=True)
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(root / "data" / HOSTILE / f"{HOSTILE}.png")
    (root / "broken" / HOSTILE).mkdir(parents=True)
    (root / "broken" / HOSTILE / f"{HOSTILE}.png").write_bytes(b"no image")
    (root / "names.txt").write_text("something else\n")
    target = "model:\n  _target_: {target}\n  {key}: 1\n"
    (root / f"{HOSTILE}.yaml").write_text(target.format(target=json.dumps(HOSTILE), key=json.dumps(HOSTILE)))
    (root / "values.yaml").write_text(f"model: {{_target_: torch.nn.ReLU, {json.dumps(HOSTILE)}: 1}}\n")
    (root / f"{HOSTILE}.py").write_text(f"raise ValueError({HOSTILE!r})\n")
    return root


EVALUATE = ("evaluate", "resnet/resnet18", "train.init_checkpoint=plain.pth", "+model.backbone.num_classes=3")
COMMANDS = [
    ("infer", "{H}.pth"),
    ("infer", "{H}.pth", "--json"),
    ("infer", "other.pth"),
    ("infer", "{H}.pkl"),
    ("infer", "{H} that is not there"),
    ("infer", "one_more.pth", "{H}"),
    ("infer", "hf-hub:{H}"),
    ("infer", "https://{H}"),
    ("infer", "{H}://x"),
    ("match", "resnet/resnet18", "{H}.pth"),
    ("match", "resnet/resnet18", "{H}.pth", "--all"),
    ("match", "resnet/resnet18", "{H}.pth", "--json"),
    ("match", "resnet/resnet18", "one_more.pth", "--all"),
    ("match", "resnet/resnet18", "other.pth"),
    ("match", "resnet/resnet18", "{H}.pth", "--prefix", "{H}2"),
    ("match", "resnet/resnet18", "{H}.pth", "--source", "{H}"),
    ("match", "resnet/resnet18", "{H}.pth", "--scope", "{H}"),
    ("match", "{H}", "one_more.pth"),
    ("match", "{H}.yaml", "one_more.pth"),
    ("match", "{H}.py", "one_more.pth"),
    ("convert", "one_more.pth", "{H}.out.pth", "--to", "detectron2"),
    ("convert", "{H}.pth", "{H}.out.pth", "--to", "detectron2"),
    ("convert", "other.pth", "{H}.out.pth", "--to", "detectron2"),
    ("convert", "one_more.pth", "{H}", "--to", "detectron2"),
    ("convert", "one_more.pth", "a.pth", "--to", "{H}"),
    ("features", "resnet/resnet18", "train.init_checkpoint={H}.pth", "--image", "data/{H}/{H}.png", "--output", "{H}"),
    ("features", "resnet/resnet18", "--image", "broken/{H}/{H}.png"),
    ("features", "resnet/resnet18", "--image", "data/{H}"),
    ("features", "resnet/resnet18", "{H}=1"),
    ("features", "resnet/resnet18", "model.backbone.{H}=1"),
    ("features", "resnet/resnet18", "backbone={H}"),
    (*EVALUATE, "--data", "data", "--predictions", "{H}.csv"),
    (*EVALUATE, "--data", "broken"),
    ("evaluate", "resnet/resnet18", "--data", "data", "--classes", "names.txt"),
    ("evaluate", "resnet/resnet18", "--data", "data", "--classes", "{H}"),
    ("evaluate", "resnet/resnet18", "--data", "{H}"),
    ("show", "{H}.yaml"),
    ("show", "values.yaml"),
    ("show", "{H}.py"),
    ("show", "resnet/resnet18", "+train.note={H}"),
    ("show", "resnet/resnet18", "+train.note={H}", "--yaml"),
    ("list", "{H}"),
    ("weights", "{H}"),
    ("export", "resnet/resnet18", "{H}"),
]


def harmless(text: str) -> bool:
    return all(letter.isprintable() or letter == "\n" for letter in text) and not any(
        line.startswith("loaded 999") for line in text.splitlines()
    )


@pytest.mark.few(6)
@pytest.mark.parametrize("argv", COMMANDS, ids=" ".join)
def test_what_comes_out_is_harmless(folder, argv, capfd, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(http_file, "_attempt", lambda *args: (_ for _ in ()).throw(http_file._FailedError(HOSTILE)))
    status = main([argument.replace("{H}", HOSTILE) for argument in argv])
    out, err = capfd.readouterr()
    assert status in (0, 1, 2)
    assert out or err
    assert harmless(out) and harmless(err), (out, err)
    assert "Traceback" not in err
    assert (status == 0) == (not err.startswith(("error", "usage")))
    if "--json" in argv and status == 0:
        assert out.isascii()
    if "--predictions" in argv:
        rows = list(csv.reader(io.StringIO((folder / f"{HOSTILE}.csv").read_text())))
        assert len(rows) == 2 and harmless(rows[1][0])


def test_paths_that_begin_as_formulas_are_text(tmp_path, monkeypatch):
    """A spreadsheet runs what begins with "=": a folder may be called so."""
    (tmp_path / "=cmd()" / "0").mkdir(parents=True)
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "=cmd()" / "0" / "a.png")
    monkeypatch.chdir(tmp_path)
    torch.save(torchvision.models.resnet18(weights=None, num_classes=6).state_dict(), "r18.pth")
    arguments = ["evaluate", "resnet/resnet18", "train.init_checkpoint=r18.pth", "+model.backbone.num_classes=6"]
    assert main([*arguments, "--data", "=cmd()", "--predictions", "out.csv", "--device", "cpu"]) == 0
    assert (tmp_path / "out.csv").read_text().splitlines()[1].startswith("'=cmd()/0/a.png,0,")


def test_cells_of_a_table_are_no_markup(capsys):
    terminal.print_table([HOSTILE, "n"], [[HOSTILE, 1], ["[red]a[/red]", 20]])
    out, _ = capsys.readouterr()
    assert harmless(out) and "[red]a[/red]" in out and "[link=evil]" in out.replace("\n", "").replace(" ", "")


def test_errors_are_harmless_without_the_command_line_too():
    assert all(line.isprintable() for line in str(InputError(HOSTILE)).splitlines())
    assert str(InputError("two\nlines")) == "two\nlines"


def test_logs_and_warnings_are_harmless_and_one_entry_each(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    usual = warnings.formatwarning
    with terminal.escaped_logs():
        logging.getLogger("detrex_backbones").warning("%s", HOSTILE)
        (handler,) = root.handlers
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            stream.write(warnings.formatwarning(HOSTILE, UserWarning, "a.py", 1))
    assert warnings.formatwarning is usual
    assert harmless(stream.getvalue()) and stream.getvalue().count("WARNING: x") == 2
    assert handler.stream is stream


def test_only_the_door_prints():
    """ruff's T20 holds for the command line as for the rest."""
    import ast
    from pathlib import Path

    for path in Path(terminal.__file__).parent.glob("*.py"):
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        attributes = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert "print" not in names, path
        assert path.name == "terminal.py" or not attributes & {"stdout", "stderr"}, path
