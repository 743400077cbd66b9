"""Every command under Ctrl-C, on a full disk, with outputs that are closed or take ASCII alone, with odd paths."""

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

import detrex_backbones
from detrex_backbones import atomic_write
from detrex_backbones.backbones.images import image_file
from detrex_backbones.cli import COMMANDS, main
from detrex_backbones.cli import __name__ as CLI

ROOT = str(Path(detrex_backbones.__file__).parent.parent)  # of this package, whatever else is installed

RUNS = {
    "demo": ["demo"],
    "features": ["features", "resnet/resnet18", "--image", "a.png"],
    "show": ["show", "resnet/resnet18"],
    "list_configs": ["list"],
    "weights": ["weights"],
    "bench": ["bench", "resnet18", "--seconds", "0.01", "--size", "32x32"],
    "compare": ["compare", "resnet18", "resnet18", "--image", "a.png"],
    "match": ["match", "resnet/resnet18", "r18.pth"],
    "infer": ["infer", "r18.pth"],
    "convert": ["convert", "r18.pth", "out.pth", "--to", "detectron2"],
    "evaluate": ["evaluate", "resnet/resnet18", "--data", "data"],
    "export": ["export", "resnet/resnet18", "out.onnx"],
}

EVALUATE = [*RUNS["evaluate"], "train.init_checkpoint=r18.pth", "+model.backbone.num_classes=3", "--device", "cpu"]
# What writes files -> the first file that it writes.
WRITING = {
    "output/torchvision_resnet50_random.pth": RUNS["demo"],
    "output/a_features.safetensors": [*RUNS["features"], "train.device=cpu"],
    "out.pth": RUNS["convert"],
    "report.html": [*RUNS["match"], "--html", "report.html"],
    "config.py": [*RUNS["show"], "--save", "config.py"],
    "stages.png": [*RUNS["show"], "--graph", "stages.png"],
    "out.csv": [*EVALUATE, "--predictions", "out.csv"],
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("files")
    torch.save(torchvision.models.resnet18(weights=None, num_classes=3).state_dict(), root / "r18.pth")
    (root / "data" / "0").mkdir(parents=True)
    for path in ("a.png", "data/0/a.png"):
        Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(root / path)
    return root


@pytest.fixture
def folder(files, tmp_path, monkeypatch):
    """An empty folder to work in, with the files."""
    for name in ("r18.pth", "data", "a.png"):
        (tmp_path / name).symlink_to(files / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys, *argv):
    status = main([str(argument) for argument in argv])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_all_commands_are_here():
    assert {command.__name__ for command in COMMANDS} == {f"{CLI}.{name}" for name in RUNS}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_an_interrupt_is_one_line_and_status_130(command, monkeypatch, capsys):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "run", interrupted)
    assert run(capsys, *RUNS[command.__name__.rpartition(".")[2]]) == (130, "", "error: interrupted\n")


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("error", "status", "said"),
    [(KeyboardInterrupt(), 130, "interrupted"), (OSError(errno.ENOSPC, "No space left on device"), 1, "No space left")],
    ids=["interrupt", "full disk"],
)
@pytest.mark.parametrize("written", WRITING)
def test_what_was_there_before_is_still_there(folder, written, error, status, said, capsys, monkeypatch):
    """At the moment when a file is all but written."""

    def fail(descriptor):
        raise error

    old = folder / written
    old.parent.mkdir(exist_ok=True)
    old.write_bytes(b"from before")
    before = contents(folder)
    monkeypatch.setattr(atomic_write.os, "fsync", fail)
    found, out, err = run(capsys, *WRITING[written])
    monkeypatch.undo()
    assert (found, len(err.splitlines())) == (status, 1)
    assert said in err and (status == 130 or old.name in err)
    assert contents(folder) == before
    if "evaluate" in WRITING[written]:
        assert "top-1" in out  # what took long is told all the same


def test_predictions_stay_until_the_new_ones_are_whole(folder, capsys):
    (folder / "out.csv").write_text("of the run before")
    status, _, err = run(capsys, *EVALUATE, "--data", "no such folder", "--predictions", "out.csv")
    assert (status, (folder / "out.csv").read_text()) == (1, "of the run before"), err


MATCH = ["match", "resnet/resnet18", "r18.pth"]
# What does the work and is not reached -> the command, up to its file, and an extension of the file.
PLACES = {
    "detrex_backbones.evaluation.accuracy.build_classifier": ([*EVALUATE, "--predictions"], ".csv"),
    "detrex_backbones.cli.match.load_config": ([*MATCH, "--html"], ".html"),
    "detrex_backbones.cli.show.load_config": (["show", "resnet/resnet18", "--graph"], ".png"),
    "detrex_backbones.config.LazyConfig.load": (["show", "./own.py", "--save"], ".py"),
    "detrex_backbones.evaluation.compare_models": (["compare", "resnet18", "resnet18", "--picture"], ".png"),
    "detrex_backbones.evaluation.speed.measure_speed": (["bench", "resnet18", "--picture"], ".png"),
    "detrex_backbones.checkpoint.convert.open_checkpoint": (["convert", "--to", "detectron2", "r18.pth"], ".pkl"),
    "detrex_backbones.cli.export.load_config": (["export", "resnet/resnet18"], ".onnx"),
}


@pytest.mark.parametrize("output", ["folder", "no/such/out", "x" * 5000, "r18.pth/out"])
@pytest.mark.parametrize("work", PLACES)
def test_files_that_have_no_place_are_refused_before_the_work(folder, output, work, capsys, monkeypatch):
    argv, extension = PLACES[work]
    (folder / f"folder{extension}").mkdir()
    monkeypatch.setattr(work, None)
    status, _, err = run(capsys, *argv, output + extension)
    assert (status, len(err.splitlines())) == (1, 1)
    assert "can't be written" in err and (not argv[-1].startswith("--") or argv[-1] in err)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["bench", "resnet18", "detectors/retinanet_resnet50_fpn", "--images", "data"], "through a FeatureExtractor"),
        (["bench", "resnet18", "--sort", "medain"], "Did you mean 'median'"),
        (["compare", "resnet18", "resnet34", "--image", "a.png", "--draw", "similarity=99999,1"], "lies outside"),
        (["compare", "resnet18", "resnet34", "--draw", "nrom"], "Did you mean 'norm'"),
        (["list", "resnet18", "--sort", "top6"], "Did you mean 'top5'"),
        ([*EVALUATE, "--workers", "-1"], "workers=-1"),
    ],
)
def test_options_are_refused_before_the_work(folder, argv, said, capsys, monkeypatch):
    for work in (
        "detrex_backbones.evaluation.accuracy.build_classifier",
        "detrex_backbones.evaluation.compare_models",
        "detrex_backbones.evaluation.speed.measure_speed",
        "detrex_backbones.cli.list_configs._figures",
    ):
        monkeypatch.setattr(work, None)
    status, _, err = run(capsys, *argv)
    assert status in (1, 2) and said in err


LONG = "x" * 5000


@pytest.mark.few(3)
@pytest.mark.parametrize(
    "argv",
    [
        ["features", "resnet/resnet18", "--image", LONG],
        ["features", "resnet/resnet18", "--image", "a.png", "--output", LONG, "train.device=cpu"],
        ["features", LONG],
        ["infer", LONG],
        ["match", "resnet/resnet18", LONG],
        ["convert", LONG, "out.pth", "--to", "detectron2"],
        ["convert", "r18.pth", LONG, "--to", "detectron2"],
        ["convert", "r18.pth", f"{LONG}.pth", "--to", "detectron2"],
        ["evaluate", "resnet/resnet18", "--data", LONG],
        ["evaluate", "resnet/resnet18", "--data", "data", "--classes", LONG],
        ["export", "resnet/resnet18", f"{LONG}.onnx"],
        ["demo", "--output", LONG],
    ],
    ids=lambda argv: " ".join(argv).replace(LONG, "LONG"),
)
def test_a_path_of_5000_characters_is_one_error(folder, argv, capsys):
    status, out, err = run(capsys, *argv)
    assert (status, out) == (1, "")
    assert err.startswith("error: ") and len(err.splitlines()) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
@pytest.mark.parametrize(
    "argv",
    [
        ["features", "resnet/resnet18", "--image", "{odd}"],
        ["evaluate", "resnet/resnet18", "--data", "data", "--classes", "{odd}"],
        ["show", "{odd}"],
    ],
    ids=lambda argv: argv[0],
)
@pytest.mark.parametrize("odd", ["pipe", "/dev/zero"])
def test_what_never_ends_is_not_read(folder, argv, odd, capsys):
    os.mkfifo(folder / "pipe")
    status, out, err = run(capsys, *(argument.replace("{odd}", odd) for argument in argv))
    assert (status, out, len(err.splitlines())) == (1, "", 1)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_a_pipe_among_the_images_is_named(folder, tmp_path, capsys):
    (tmp_path / "odd" / "0").mkdir(parents=True)
    os.mkfifo(tmp_path / "odd" / "0" / "a.png")
    status, _, err = run(capsys, *EVALUATE, "--data", "odd")
    assert status == 1 and "odd/0/a.png' is no ordinary file" in err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_a_device_is_not_replaced_by_a_file(folder, capsys):
    os.mkfifo(folder / "pipe")
    status, _, err = run(capsys, *EVALUATE, "--predictions", "pipe")
    assert status == 1 and "it is no ordinary file" in err
    assert stat.S_ISFIFO((folder / "pipe").stat().st_mode)


def png(path, width, height):
    """A sound PNG of one colour, a thousand times smaller than its pixels."""
    import struct
    import zlib

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(width + 1)) for _ in range(height)) + packer.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


@pytest.mark.parametrize("size", [(8193, 8192), (13_300, 13_300), (30_000, 30_000)])
def test_a_bomb_is_refused_before_it_is_decoded(folder, size, capsys, monkeypatch):
    (folder / "bombs" / "0").mkdir(parents=True)
    path = folder / "bombs" / "0" / "bomb.png"
    png(path, size[0], 1)
    content = bytearray(path.read_bytes())
    content[20:24] = size[1].to_bytes(4, "big")  # nobody looks at the rows that are not there
    import zlib

    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)
    monkeypatch.setattr(Image.Image, "load", None)
    for argv in (["features", "resnet/resnet18", "--image", path], [*EVALUATE, "--data", "bombs"]):
        status, out, err = run(capsys, *argv)
        assert (status, len(err.splitlines())) == (1, 1), err
        assert "67,108,864" in err and "Scale it down" in err and "bomb.png" in err and not out


def test_the_limit_is_of_pixels_and_not_of_sides(tmp_path, monkeypatch):
    from detrex_backbones.backbones.images import read_image

    png(tmp_path / "a.png", 60, 50)
    monkeypatch.setattr(image_file, "MOST_PIXELS", 3000)
    assert read_image(tmp_path / "a.png").shape == (50, 60)
    monkeypatch.setattr(image_file, "MOST_PIXELS", 2999)
    with pytest.raises(ValueError, match="has 50 x 60 pixels"):
        read_image(tmp_path / "a.png")


def shell(folder, command, **env):
    """A real process, its output closed, full, or of another encoding."""
    program = f"{sys.executable} -m detrex_backbones"
    done = subprocess.run(
        ["bash", "-c", command.replace("PROGRAM", program)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": ROOT, **env},
        capture_output=True,
        timeout=240,
    )
    return done.returncode, done.stdout, done.stderr.decode()


@pytest.mark.few(1)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /dev/full and bash")
@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("PROGRAM list > /dev/full", 1, "error: No space left on device.\n"),
        ("PROGRAM list >&-", 0, ""),
        ("PROGRAM list | true; exit ${PIPESTATUS[0]}", 0, ""),
        ("PROGRAM list > out.txt", 0, ""),
    ],
)
def test_an_output_that_takes_nothing(tmp_path, command, status, said):
    found, out, err = shell(tmp_path, command, PYTHONIOENCODING="ascii")
    assert (found, out, err) == (status, b"", said)
    if "out.txt" in command:
        assert b"resnet/resnet50.py" in (tmp_path / "out.txt").read_bytes()


def test_what_ascii_lacks_is_escaped(tmp_path):
    """A file's name in a message, where the terminal has no letters for it."""
    found, _, err = shell(tmp_path, "PROGRAM infer 'n\u00e9t \u2028.pth'", PYTHONIOENCODING="ascii", PYTHONUTF8="1")
    assert found == 1 and "n\\xe9t \\u2028.pth" in err and len(err.splitlines()) == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs the signals of POSIX")
def test_a_real_interrupt(folder):
    """Ctrl-C while images are read by other processes."""
    program = (
        "import sys\n"
        "from detrex_backbones.cli import main\n"
        "from detrex_backbones.evaluation import accuracy\n"
        "def slow(*args):\n"
        "    print('ready', flush=True)\n"
        "    import threading\n"
        "    threading.Event().wait()\n"
        "accuracy.build_classifier = slow\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, *EVALUATE, "--predictions", "out.csv"],
        env={**os.environ, "PYTHONPATH": ROOT},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "error: interrupted\n")
    assert not (folder / "out.csv").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs the users of POSIX")
@pytest.mark.parametrize("home", [None, "/proc"])
def test_a_home_that_is_missing_or_read_only(folder, home):
    env = {"HOME": home} if home else {}
    unset = "" if home else "unset HOME; "
    unset += "unset DETREX_BACKBONES_CACHE XDG_CACHE_HOME XDG_CONFIG_HOME MPLCONFIGDIR; "
    found, _, err = shell(folder, unset + "PROGRAM features resnet/resnet18 --image a.png train.device=cpu", **env)
    assert found == 0 and "Traceback" not in err
    assert (folder / "output" / "a_features.png").is_file()
