"""`detrex_backbones.training`, where the trainer was: scripts and saved configs that name it."""

import importlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import detrex_backbones
import train_detector.coco
import train_detector.optim
from detrex_backbones.config import LazyConfig, instantiate

PACKAGE = Path(detrex_backbones.__file__).parent
NODE = "detrex_backbones.training.optim.WarmupCosine"


@pytest.fixture
def fresh():
    """As before anything was imported by the old name."""

    def forget():
        for name in [name for name in sys.modules if name.startswith("detrex_backbones.training")]:
            del sys.modules[name]
        vars(detrex_backbones).pop("training", None)

    forget()
    yield
    forget()


def run(folder, packages, code):
    """A Python with these folders of packages, started elsewhere."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, packages))}
    command = [sys.executable, "-W", "always::DeprecationWarning:__main__", "-c", textwrap.dedent(code)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_the_old_name_is_the_same_modules_and_says_the_new_one(fresh):
    with pytest.warns(DeprecationWarning, match=r"detrex_backbones\.training is now train_detector, in examples/"):
        old = importlib.import_module("detrex_backbones.training.coco")
    assert old is train_detector.coco and old.__name__ == "train_detector.coco"
    assert importlib.import_module("detrex_backbones.training.evaluate") is sys.modules["train_detector.evaluate"]
    assert detrex_backbones.training is train_detector


@pytest.mark.parametrize("allow", [None, ("detrex_backbones.", "train_detector."), (NODE,)])
def test_a_config_that_was_saved_with_the_old_name_builds(fresh, tmp_path, allow):
    (tmp_path / "old.yaml").write_text(f"schedule:\n  _target_: {NODE}\n  steps: 5\n  warmup: 2\n")
    with pytest.warns(DeprecationWarning, match="train_detector"):
        built = instantiate(LazyConfig.load(tmp_path / "old.yaml").schedule, allow=allow)
    assert type(built) is train_detector.optim.WarmupCosine


@pytest.mark.slow
def test_beside_an_editable_install_nothing_else_is_needed(tmp_path):
    done = run(tmp_path, [PACKAGE.parent], "from detrex_backbones.training import coco; print(coco.CocoDetection)")
    assert done.stdout == "<class 'train_detector.coco.CocoDetection'>\n"
    assert "DeprecationWarning: detrex_backbones.training is now train_detector" in done.stderr


def test_elsewhere_the_error_says_where_it_is(tmp_path):
    (tmp_path / "detrex_backbones").mkdir()
    for path in PACKAGE.iterdir():
        if path.name != "training":
            (tmp_path / "detrex_backbones" / path.name).symlink_to(path)
    (tmp_path / "detrex_backbones" / "training").mkdir()
    (tmp_path / "detrex_backbones" / "training" / "__init__.py").write_text(
        (PACKAGE / "training" / "__init__.py").read_text()
    )
    code = """
    from detrex_backbones.errors import DetrexBackbonesError
    from detrex_backbones.config import instantiate
    try:
        import detrex_backbones.training.coco
    except DetrexBackbonesError as error:
        print(type(error).__name__, error)
    try:
        instantiate({"_target_": "detrex_backbones.training.coco.CocoDetection"})
    except DetrexBackbonesError as error:
        print(error)
    """
    done = run(tmp_path, [tmp_path], code)
    assert done.stdout.startswith("ConfigImportError detrex_backbones.training is no longer a part of the library")
    assert done.stdout.count("examples/train_detector of the source code") == 2, done.stdout + done.stderr
