"""Our checkpointer in train_net scripts: our example's, detectron2's and detrex's, the last two by one import line."""

import os
import runpy
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import torchvision

from detrex_backbones import DetectionCheckpointer
from detrex_backbones.config import LazyCall as L
from detrex_backbones.errors import CheckpointMatchError, PreprocessingError
from tests.interop.theirs import EXAMPLES, link_configs, need_detectron2, need_detrex, with_our_imports, without_gpu

pytest.importorskip("detectron2.engine", reason="detectron2 is not importable", exc_type=ImportError)

from detectron2.checkpoint import DetectionCheckpointer as TheirCheckpointer
from detectron2.config import LazyConfig, instantiate

DETECTRON2 = need_detectron2()
SCRIPT = EXAMPLES / "detectron2" / "train_net.py"
CONFIG = EXAMPLES / "detectron2" / "generated.py"

# A config whose run dies with the fourth batch as it would for want of power: nothing is tidied up.
DYING = """
import os, signal
from pathlib import Path
import pytest, torch
from detectron2.config import LazyConfig
from tests.interop.theirs import link_configs

torch.set_num_threads(1)
link_configs(pytest.MonkeyPatch(), detectron2=Path({root!r}))
_cfg = LazyConfig.load({config!r})
dataloader, lr_multiplier, model, optimizer, train = (
    _cfg[_key] for _key in ("dataloader", "lr_multiplier", "model", "optimizer", "train")
)

class Dying(dataloader.train._target_):
    def __iter__(self):
        for index, batch in enumerate(super().__iter__()):
            if index == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch

dataloader.train._target_ = Dying
"""


@pytest.fixture(autouse=True)
def configs(monkeypatch):
    link_configs(monkeypatch, detectron2=DETECTRON2)


@pytest.fixture
def train():
    return runpy.run_path(str(SCRIPT))["train"]


def config(folder, **changes):
    cfg = LazyConfig.load(str(CONFIG))
    cfg.train.update(output_dir=str(folder), max_iter=4, checkpointer={"period": 2, "max_to_keep": 2}, **changes)
    return cfg


def curve(trainer):
    return {step: value for value, step in trainer.storage.history("total_loss").values()}


def seeded(train, cfg, resume=False):
    torch.manual_seed(0)
    return train(cfg, resume)


def test_a_run_that_is_killed_goes_on_as_if_it_had_not_been(tmp_path, train):
    whole = seeded(train, config(tmp_path / "whole"))
    assert sorted(curve(whole)) == [0, 1, 2, 3]
    folder = tmp_path / "killed"
    (tmp_path / "dying.py").write_text(DYING.format(root=str(DETECTRON2), config=str(CONFIG)))
    overrides = [f"train.output_dir={folder}", "train.max_iter=4", "train.checkpointer.period=2"]
    killed = subprocess.run(
        [sys.executable, "-W", "ignore", str(SCRIPT), "--config-file", str(tmp_path / "dying.py"), *overrides],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(EXAMPLES.parent), *sys.path])},
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
    )
    assert killed.returncode == -9, killed.stderr[-2000:]
    assert sorted(path.name for path in folder.glob("*.pth")) == ["model_0000001.pth"]
    resumed = seeded(train, config(folder), resume=True)
    assert sorted(curve(resumed)) == [2, 3]
    for step, loss in curve(resumed).items():
        assert loss == pytest.approx(curve(whole)[step], rel=1e-5)
    assert curve(whole)[3] != curve(whole)[2]
    last = [torch.load(path / "model_final.pth", weights_only=False) for path in (folder, tmp_path / "whole")]
    assert last[0]["trainer"]["iteration"] == last[1]["trainer"]["iteration"] == 3
    for name, value in last[1]["model"].items():
        torch.testing.assert_close(last[0]["model"][name], value, rtol=1e-4, atol=1e-6)


def test_weights_that_do_not_fit_are_an_error_before_the_first_step(tmp_path, train):
    path = tmp_path / "resnet34.pth"
    torch.save(torchvision.models.resnet34(weights=None).state_dict(), path)
    cfg = config(tmp_path / "run", init_checkpoint=str(path))
    with pytest.raises(CheckpointMatchError, match="of another architecture"):
        train(cfg, False)
    assert not list((tmp_path / "run").glob("*.pth"))
    model = instantiate(cfg.model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    TheirCheckpointer(model).load(str(path))  # theirs warns, and trains from random weights
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_known_weights_of_another_preprocessing_are_an_error_that_says_what_mends_it(tmp_path):
    path = tmp_path / "resnet50-0676ba61.pth"  # as torchvision calls it
    torch.save(torchvision.models.resnet50(weights=None).state_dict(), path)
    cfg = LazyConfig.load(str(EXAMPLES / "detectron2" / "retinanet.py"))
    with pytest.raises(PreprocessingError) as caught:
        DetectionCheckpointer(instantiate(cfg.model)).load(path)
    (mends,) = [line for line in str(caught.value).splitlines() if line.startswith("    model.")]
    LazyConfig.apply_overrides(cfg, mends.split())
    checkpointer = DetectionCheckpointer(instantiate(cfg.model))
    checkpointer.load(path)
    assert checkpointer.report.coverage == 1


def test_weights_that_fit_are_all_loaded(tmp_path, train):
    path = tmp_path / "resnet18.pth"
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), path)
    model = instantiate(config(tmp_path).model)
    checkpointer = DetectionCheckpointer(model)
    checkpointer.resume_or_load(str(path), resume=False)
    assert (checkpointer.report.scope, checkpointer.report.coverage) == ("backbone.bottom_up", 1)
    trainer = train(config(tmp_path / "run", init_checkpoint=str(path)), False)
    assert trainer.iter == 4


def test_detectron2s_own_script_with_our_checkpointer(tmp_path):
    script = tmp_path / "train_net.py"
    script.write_text(with_our_imports((DETECTRON2 / "tools" / "lazyconfig_train_net.py").read_text()))
    theirs = runpy.run_path(str(script))
    assert theirs["DetectionCheckpointer"] is DetectionCheckpointer
    cfg = config(tmp_path / "run")
    cfg.train.max_iter = 2
    theirs["do_train"](SimpleNamespace(resume=False), cfg)
    cfg = config(tmp_path / "run")
    cfg.train.max_iter = 3
    theirs["do_train"](SimpleNamespace(resume=True), cfg)
    steps = [torch.load(path, weights_only=False)["iteration"] for path in sorted((tmp_path / "run").glob("*.pth"))]
    assert steps == [1, 2]


def test_detrex_own_script_with_our_checkpointer_and_its_moving_average(tmp_path, monkeypatch):
    root = need_detrex()
    link_configs(monkeypatch, detectron2=DETECTRON2, detrex=root)
    without_gpu(monkeypatch)
    script = tmp_path / "train_net.py"
    text = with_our_imports((root / "tools" / "train_net.py").read_text())
    # Its trainer wants a GPU at every step, needed or not.
    script.write_text(text.replace("assert torch.cuda.is_available()", "assert True"))
    theirs = runpy.run_path(str(script))
    assert theirs["DetectionCheckpointer"] is DetectionCheckpointer

    def do_train(steps, resume):
        cfg = LazyConfig.load(str(EXAMPLES / "detrex" / "detr_dc5.py"))
        cfg.dataloader = {"train": L(LazyConfig.load(str(CONFIG)).dataloader.train._target_)(batch_size=1, size=64)}
        for part in (cfg.model.transformer.encoder, cfg.model.transformer.decoder):
            part.num_layers = 1
        cfg.model.device = cfg.train.device = "cpu"
        cfg.train.model_ema.enabled = True
        cfg.train.update(output_dir=str(tmp_path / "run"), max_iter=steps, init_checkpoint=weights, eval_period=0)
        theirs["do_train"](SimpleNamespace(resume=resume), cfg)
        return torch.load(tmp_path / "run" / "model_final.pth", weights_only=False)

    weights = str(tmp_path / "resnet50.pth")
    state = torchvision.models.resnet50(weights=None).state_dict()
    torch.save(state, weights)
    first = do_train(1, resume=False)
    # The stem is frozen, so that it still is what was loaded: detectron2's checkpointer finds no place for it.
    assert torch.equal(first["model"]["backbone.body.conv1.weight"], state["conv1.weight"])
    second = do_train(2, resume=True)
    assert (first["iteration"], second["iteration"]) == (0, 1)
    assert first["ema_state"].keys() == second["ema_state"].keys()
    moved = [name for name, value in second["ema_state"].items() if not torch.equal(value, first["ema_state"][name])]
    assert moved and set(moved) < set(first["ema_state"])
