"""What a person sees in a terminal: width, colours, hints, completion; and no traceback where a message explains."""

import os
import re
import subprocess
import sys

import pytest

from detrex_backbones.cli import main, terminal
from detrex_backbones.config import LazyCall as L
from detrex_backbones.config import LazyConfig
from detrex_backbones.zoo import build_model
from detrex_backbones.zoo.listing import short_names
from detrex_backbones.zoo.whole_config import find_config, with_model

IMPORTS = """\
from torch import nn
from detrex_backbones import Backbone, BasicStem, FeatureExtractor, ResNet, make_stage
from detrex_backbones.config import LazyCall as L
"""
RESNET = """L(ResNet)(
    stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
    stages=L(make_stage)(depth={depth}, norm="FrozenBN"),
    {out}=["res4"],
)"""
MINE = """
class Mine(Backbone):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        {maps}
    def forward(self, x):
        return {result}
model = L(FeatureExtractor)(backbone=L(Mine)(), pixel_mean=[1, 2, 3], pixel_std=[1, 1, 1])
"""
MAPS = "self._set_maps({'a': (8, 4)})"


def run(capsys, *argv):
    status = main([str(argument) for argument in argv])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def config(tmp_path):
    def write(text):
        path = tmp_path / "config.py"
        path.write_text(IMPORTS + text)
        return path

    return write


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model = " + RESNET.format(depth=18, out="out_feature"), "Did you mean 'out_features'?"),
        (
            "model = " + RESNET.format(depth="'${model.depth}'", out="out_features"),
            "at model.stages.depth in the config written at {config}:6",
        ),
        ("train = dict(out='a${train.b}')\nmodel = " + RESNET.format(depth="18", out="out_features"), "{config}:4"),
        (MINE.format(maps=MAPS, result="{'a': self.conv(x, 5)}"), "in forward: return {'a': self.conv(x, 5)}"),
        (MINE.format(maps="", result="{'a': self.conv(x)}"), "Write self._set_maps({'res4': (channels, stride)})"),
        (MINE.format(maps=MAPS, result="{'b': self.conv(x)}"), "declares the maps a, but gives b"),
        (MINE.format(maps=MAPS, result="self.conv(x)"), "Mine.forward() returns a Tensor"),
    ],
)
def test_a_mistake_in_a_config_or_a_backbone_is_explained_without_a_traceback(config, capsys, text, said):
    path = config(text)
    status, _, err = run(capsys, "show", path)
    assert status == 1
    assert (said.format(config=path) if "{config}" in said else said) in err and "Traceback" not in err
    assert len(err.splitlines()) <= 5
    assert err.count("Did you mean") <= 1


def test_a_missing_interpolation_key_has_its_line_in_every_command(config, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = config("model = " + RESNET.format(depth="'${model.depth}'", out="out_features"))
    status, _, err = run(capsys, "features", path)
    assert status == 1 and f"at model.stages.depth in the config written at {path}:6" in err
    path = tmp_path / "config.yaml"
    path.write_text("train: {}\nmodel:\n  a: 1\n  b: ${model.c}\n")
    status, _, err = run(capsys, "show", path)
    assert status == 1 and f"at model.b in the config written at {path}:4" in err
    status, _, err = run(capsys, "show", "resnet/resnet18", "model.backbone.stages.depth='${model.deep}'")
    assert status == 1 and "at model.backbone.stages.depth in the config\n" in err


def test_a_bug_of_ours_keeps_its_traceback(monkeypatch):
    from detrex_backbones.config import LazyConfig as Config

    monkeypatch.setattr(Config, "to_py", lambda _: sys.intern(3))
    monkeypatch.setattr("detrex_backbones.cli.user_errors._is_users", lambda file: False)  # else this test is the user
    with pytest.raises(TypeError):
        main(["show", "resnet/resnet18"])


@pytest.mark.parametrize(
    ("line", "written"),
    [
        (
            "from detrex.modeling.backbone import ResNet, make_stage as stage",
            "Write 'from detrex_backbones import ResNet, make_stage as stage' instead.",
        ),
        (
            "from detectron2.config import (\n    LazyCall as L,\n)",
            "Write 'from detrex_backbones.config import LazyCall as L' instead.",
        ),
        (
            "from detectron2.layers import ShapeSpec, nonzero_tuple",
            "import ShapeSpec' instead. There is no nonzero_tuple",
        ),
    ],
)
def test_an_import_of_what_is_not_installed_is_told_what_to_write(tmp_path, capsys, monkeypatch, line, written):
    for name in ("detrex", "detectron2"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "theirs.py").write_text(line)
    status, _, err = run(capsys, "show", tmp_path / "theirs.py")
    assert status == 1 and written in err


def test_a_lone_backbone_is_a_config(config, capsys, tmp_path):
    path = config("backbone = " + RESNET.format(depth=18, out="out_features"))
    status, out, err = run(capsys, "show", path, "backbone.stages.depth=34")
    assert status == 0 and "res4" in out
    assert "mean and standard deviation of ImageNet (assumed), RGB" in " ".join(err.split())
    assert "8,170,304" in out  # parameters of ResNet-34 up to res4
    model = build_model(LazyConfig.load(path)).eval()
    assert model.pixel_mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    status, out, err = run(capsys, "show", path, "backbone=resnet50")
    assert status == 0 and " 1024 " in out


def test_preprocessing_of_a_lone_backbone_is_its_weights(config):
    cfg = LazyConfig.load(config("backbone = " + RESNET.format(depth=50, out="out_features")))
    cfg.train = {"init_checkpoint": "detectron2://ImageNetPretrained/MSRA/R-50.pkl"}
    assert "detectron2://ImageNetPretrained/MSRA/R-50.pkl, BGR" in with_model(cfg)
    assert cfg.model.pixel_std == [1, 1, 1]
    assert with_model(cfg) == ""  # it has a model now
    assert with_model({"backbone": L(dict)()}) == ""  # no config


@pytest.mark.slow
def test_every_name_that_is_listed_is_a_config(capsys):
    for name, ready in short_names().items():
        assert LazyConfig.to_py(find_config(name)) == LazyConfig.to_py(find_config(ready)), name
    status, out, _ = run(capsys, "show", "timm/resnet18", "--json")
    assert status == 0
    assert "timm://resnet18.a1_in1k" in out
    status, out, _ = run(capsys, "show", "resnet101-dc5", "--size", "64x64")
    assert status == 0 and "res5_dilation" in out
    status, _, err = run(capsys, "show", "timm/convnext_tiney")
    assert status == 1 and "'convnext_tiny'" in err


@pytest.mark.parametrize("columns", [60, 100])
def test_messages_are_as_wide_as_the_terminal(columns, capsys, monkeypatch):
    monkeypatch.setattr(terminal, "_is_terminal", lambda stream: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    for argv in (["show", "resnet/resnet51.py"], ["show", "--help"], ["list", "--help"], ["show", "resnet/resnet18"]):
        _, out, err = run(capsys, *argv)
        lines = [re.sub("\x1b\\[[0-9;]*m", "", line) for line in (out + err).splitlines()]
        examples = [line for line in lines if line.startswith(("  detrex-backbones", "      "))]
        assert max(len(line) for line in lines if line not in examples) <= columns
        assert any(len(line) > columns - 20 for line in lines)


def test_in_a_pipe_a_message_is_one_line_without_colour(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    _, _, err = run(capsys, "show", "resnet/resnet51.py")
    assert err.count("\n") == 1 and len(err) > 100 and "\x1b" not in err
    _, out, err = run(capsys, "show", "resnet/resnet18", "backbone=timm/vit_tiny_patch16_224")
    assert max(map(len, err.splitlines())) > 80 >= max(map(len, out.splitlines()))  # notes; and what is asked for
    monkeypatch.setenv("COLUMNS", "70")
    _, _, wrapped = run(capsys, "show", "resnet/resnet18", "backbone=timm/vit_tiny_patch16_224")
    assert wrapped.count("\n") > err.count("\n")
    _, _, err = run(capsys, "show", "resnet/resnet51.py")
    assert 50 < max(map(len, err.splitlines())) <= 70


def test_colours_are_for_terminals(capsys, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(terminal, "_is_terminal", lambda stream: True)
    _, _, err = run(capsys, "list", "nothing")
    assert err.startswith("\x1b[1;31merror:\x1b[0m no ready config")
    monkeypatch.setenv("NO_COLOR", "1")
    _, _, err = run(capsys, "list", "nothing")
    assert err.startswith("error: no ready config")


@pytest.mark.parametrize(
    ("argv", "hint"),
    [
        (["list", "--figure-s"], "Did you mean '--figures'?"),
        (["show", "resnet/resnet18", "--sise", "3x3"], "Did you mean '--size'?"),
        (["shwo"], "Did you mean 'show'?"),
        (["evaluate", "a", "--data", "b", "--interpolation", "bicubik"], "Did you mean 'bicubic'?"),
    ],
)
def test_a_mistyped_option_or_command_is_told_the_closest(argv, hint, capsys):
    status, _, err = run(capsys, *argv)
    assert status == 2 and hint in err


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("detrex-backbones sh", {"show"}),
        ("detrex-backbones show resnet/resnet1", {"resnet/resnet101.py", "resnet/resnet152.py", "resnet/resnet18.py"}),
        ("detrex-backbones show a.py backbone=timm/convnext_tin", {"backbone=timm/convnext_tiny"}),
        ("detrex-backbones list --fig", {"--figures"}),
    ],
)
def test_the_shell_completes(line, offered, tmp_path):
    pytest.importorskip("argcomplete", reason="argcomplete is not installed")
    answer = tmp_path / "answer"
    environment = {
        **os.environ,
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "_ARGCOMPLETE_COMP_WORDBREAKS": " ",
    }
    subprocess.run([sys.executable, "-m", "detrex_backbones"], env=environment, check=True, timeout=120)
    assert offered <= {word.strip() for word in answer.read_text().split("\n")}


LONG = "a_name_that_is_copied_to_the_next_command_line_and_has_82_letters_and_is_not_broken"


@pytest.mark.parametrize("columns", [60, 80, 200])
@pytest.mark.parametrize("dense", [False, True])
def test_names_in_tables_are_never_broken(columns, dense, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    words = "what it is, in more words than have a place beside a long name"
    names = [LONG[:length] for length in range(1, len(LONG), 3)]
    for figures in ([], [1.25, 7], [1.25, 7, 123456.5, 99]):
        rows = [(name, *figures, words, name[::-1]) for name in names]
        titles = ("name", *map(str, range(len(figures))), "text", "backbone=")
        terminal.print_table(titles, rows, dense=dense, last_whole=True)
        lines = capsys.readouterr().out.splitlines()
        for name in names:
            assert any(line.split()[:1] == [name] for line in lines), name
            assert any(line.split()[-1:] in ([name[::-1]], [f"backbone={name[::-1]}"]) for line in lines), name
        assert all(len(line) <= max(columns, len(f"  backbone={LONG}")) for line in lines)
        terminal.print_table(titles[:-1], [row[:-1] for row in rows], dense=dense)
        lines = capsys.readouterr().out.splitlines()
        assert all(any(line.split()[:1] == [name] for line in lines) for name in names)
        assert not any(line.endswith(" ") for line in lines)
        if columns == 80:
            assert sum(len(line) > columns for line in lines) == (len(names[-1]) > columns)


def test_a_change_that_is_a_warning_is_said_once(config, capsys):
    path = config("model = " + RESNET.format(depth=18, out="out_features").replace("FrozenBN", "GN"))
    status, _, err = run(capsys, "show", path, "backbone=timm/convnext_atto")
    assert status == 0 and err.count("LayerNorm") == err.count("convnext_atto has") == 1
