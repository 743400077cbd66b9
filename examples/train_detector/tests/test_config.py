"""What a run's config is made of, and what the package takes from the library."""

import ast
import importlib
from pathlib import Path

import pytest

from detrex_backbones.errors import ConfigImportError
from train_detector.config import load_config

EXAMPLE = Path(__file__).parents[1]
# Where the library's public names are: each package's __init__ says them in __all__.
DOORS = {"detrex_backbones", *(f"detrex_backbones.{name}" for name in ("backbones", "config", "errors", "zoo"))}

OWN = """
from torch.optim import SGD
from detrex_backbones import get_config
from detrex_backbones.config import LazyCall as L
model = get_config("detectors/retinanet_resnet18_fpn").model
optimizer = L(SGD)(params=[], lr=0.5)
train = dict(steps=7)
"""


def imports(path):
    """(module, name) of everything that a file takes from the library."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("detrex_backbones"):
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            assert not any(alias.name.startswith("detrex_backbones") for alias in node.names), path


def test_public_names_of_the_library_are_enough():
    taken = [pair for path in EXAMPLE.rglob("*.py") if path.parent.name != "tests" for pair in imports(path)]
    assert len(taken) > 10
    for module, name in taken:
        assert module in DOORS and name in importlib.import_module(module).__all__, (module, name)


def test_what_a_config_says_itself_stays(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    cfg = load_config(str(tmp_path / "own.py"), ["train.clip=1"])
    assert cfg.optimizer._target_.__name__ == "SGD" and cfg.optimizer.lr == 0.5
    assert (cfg.train.steps, cfg.train.clip, cfg.train.log_every) == (7, 1, 10)
    assert cfg.schedule.steps == 7  # by interpolation
    assert "prepare" in cfg.data


def test_the_backbone_is_swapped_before_all_other_overrides(capsys):
    cfg = load_config(
        "detectors/retinanet_resnet18_fpn",
        ["model.backbone.bottom_up.freeze_at=2", "backbone=resnet18", "backbone=resnet50", "train.init_checkpoint="],
    )
    assert cfg.model.backbone.bottom_up.stages.depth == 50 and cfg.model.backbone.bottom_up.freeze_at == 2
    assert cfg.train.init_checkpoint == ""
    assert "model.backbone.bottom_up" in capsys.readouterr().err


def test_no_such_config():
    with pytest.raises(ConfigImportError, match=r"no ready config.*Nor is there a file 'mine\.py'"):
        load_config("mine.py")
