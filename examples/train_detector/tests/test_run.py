"""Whole runs of a few steps: what they leave, going on after a kill, many processes, and what is refused."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import EPSILON, overrides, tiny
from torchvision.models.detection import RetinaNet

from detrex_backbones import build_model, instantiate, load_checkpoint
from detrex_backbones.config import LazyCall as L
from detrex_backbones.errors import ArgumentError, CheckpointFileError, ConfigKeyError, InputError, OverrideError
from train_detector import TrainingError, train
from train_detector.config import load_config
from train_detector.log import read_metrics
from train_detector.optim import param_groups
from train_detector.parallel import Processes
from train_detector.settings import Settings
from train_detector.train import _frozen_at_random, _load_weights

EXAMPLE = Path(__file__).parents[1]
PATHS = os.pathsep.join((str(EXAMPLE.parents[1]), str(EXAMPLE)))
ROUNDING = torch.finfo(torch.float32).eps
LONGEST_SUM = 3 * 3 * 512  # of one pixel that a convolution of ResNet-18's last stage gives
RETINANET = ["--config", "detectors/retinanet_resnet18_fpn.py"]


def losses(folder):
    return [(entry["step"], entry["loss"]) for entry in read_metrics(folder)]


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": PATHS}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of four steps that nothing interrupts, and what it returned."""
    folder = tmp_path_factory.mktemp("run")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the processes that it is compared with
    figures = train(tiny(folder, "whole", "train.ema=0.9"))
    torch.set_num_threads(threads)
    return folder, figures


def cut(folder, name):
    """A copy of the run as a kill after step 2 would leave it."""
    shutil.copytree(folder / "whole", folder / name)
    (folder / name / "checkpoints" / "step_0000004.pth").unlink()
    (folder / name / "model.pth").unlink()


@pytest.mark.slow
def test_what_a_run_leaves(run):
    folder, figures = run
    names = {path.name for path in (folder / "whole").iterdir()}
    written = ["model.pth", "results.json", "table.txt", "curve.png", "predictions.png", "metrics.jsonl", "config.yaml"]
    assert {*written, "checkpoints", "tensorboard"} == names
    assert json.loads((folder / "whole" / "results.json").read_text()) == {"steps": 4, **figures}
    assert [step for step, _ in losses(folder / "whole")] == [0, 1, 2, 3]
    assert losses(folder / "whole")[-1][1] < losses(folder / "whole")[0][1]
    entries = read_metrics(folder / "whole")
    assert [entry["lr"] for entry in entries[:2]] == pytest.approx([1.5e-4, 3e-4])
    parts = [entry["classification"] + entry["bbox_regression"] for entry in entries]
    assert parts == pytest.approx([entry["loss"] for entry in entries])


def test_the_weights_are_the_averaged_ones_and_load(run):
    folder, _ = run
    state = torch.load(folder / "whole" / "checkpoints" / "step_0000004.pth", weights_only=True)
    cfg = tiny(folder, "whole", f"train.init_checkpoint={folder / 'whole' / 'model.pth'}")
    model = build_model(cfg)
    name = "head.classification_head.cls_logits.weight"
    assert torch.equal(model.get_parameter(name), state["averages"][name])
    assert not torch.equal(state["averages"][name], state["model"][name])


@pytest.mark.slow
def test_going_on_after_a_kill_gives_the_same_losses(run):
    folder, _ = run
    command = [sys.executable, str(EXAMPLE), *RETINANET, *overrides(folder, "killed", "train.ema=0.9")]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True, cwd=folder) as process:
        for line in process.stderr:
            if line.startswith("step 3/4"):
                process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert [path.name for path in (folder / "killed" / "checkpoints").glob("*.pth")] == ["step_0000002.pth"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.rand(7)  # whatever was drawn before
    train(tiny(folder, "killed", "train.ema=0.9"), resume=True)
    torch.set_num_threads(threads)
    assert losses(folder / "killed") == losses(folder / "whole")
    ours, theirs = (
        torch.load(folder / name / "checkpoints" / "step_0000004.pth", weights_only=True)
        for name in ("killed", "whole")
    )
    for part in ("model", "averages"):
        assert all(torch.equal(value, theirs[part][name]) for name, value in ours[part].items())
    for name, value in ours["optimizer"]["state"].items():
        assert all(torch.equal(value[key], theirs["optimizer"]["state"][name][key]) for key in value)


def what_rounding_may_move(folder):
    """How far two runs that differ in the order of their sums alone can come apart in a weight.

    A gradient is a sum of up to n products, each rounded, none larger than the largest gradient g of the network: in
    another order it differs by some sqrt(n) * 2**-23 * g. A step of Adam is rate * m / (sqrt(v) + epsilon). A
    difference d in the gradients changes m and sqrt(v) by at most d each, and so the step by at most
    2 * rate * d / epsilon. Steps add up.
    """
    state = torch.load(folder / "checkpoints" / "step_0000004.pth", weights_only=True)["optimizer"]["state"]
    largest = max(float((value["exp_avg_sq"].max() / (1 - 0.999**4)).sqrt()) for value in state.values())
    rates = sum(entry["lr"] for entry in read_metrics(folder))
    return 2 * rates * LONGEST_SUM**0.5 * ROUNDING * largest / EPSILON


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_batch(run):
    """DDP and FSDP2, from the beginning and from the checkpoint of a single process.

    Exactly comparable are a RetinaNet, which samples no boxes, frozen norms, which have no statistics of a batch, and
    images of one size, which get the same padding in any company.
    """
    folder, figures = run
    for kind in ("ddp", "fsdp2"):
        cut(folder, f"{kind}_resumed")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(EXAMPLE / "tests" / "worker.py"), str(folder)],
        env=environment(),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    wanted = losses(folder / "whole")
    atol = what_rounding_may_move(folder / "whole")
    for name in ("ddp", "ddp_resumed", "fsdp2", "fsdp2_resumed"):
        got = losses(folder / name)
        assert [step for step, _ in got] == [0, 1, 2, 3]
        assert [loss for _, loss in got] == pytest.approx([loss for _, loss in wanted], rel=1e-5), name
        results = json.loads((folder / name / "results.json").read_text())
        assert results["AP50"] == pytest.approx(figures["AP50"], abs=1e-3)
        weights, others = (torch.load(folder / one / "model.pth")["model"] for one in (name, "whole"))
        assert weights.keys() == others.keys()
        for key, value in weights.items():
            torch.testing.assert_close(value, others[key], rtol=8 * ROUNDING, atol=atol)  # 4 steps, 4 averages


@pytest.mark.slow
def test_a_runs_own_config_can_be_run(run, tmp_path):
    folder, _ = run
    others = [f"train.output={tmp_path / 'again'}", "train.steps=2", "train.device=cpu"]
    train(load_config(str(folder / "whole" / "config.yaml"), others))
    assert losses(tmp_path / "again") == losses(folder / "whole")[:2]  # while the rate goes up


@pytest.mark.parametrize("clip", [0.01, 0.0])
def test_gradients_are_clipped(tmp_path, clip):
    """Plain gradient descent at a rate of 1 moves all weights together by the norm of the gradient."""
    cfg = tiny(tmp_path, "run", "train.steps=1", "schedule.warmup=0", f"train.clip={clip}")
    cfg.optimizer = L(torch.optim.SGD)(params=L(param_groups)(backbone_factor=1.0, weight_decay=0.0), lr=1.0)
    torch.manual_seed(cfg.train.seed)
    before = instantiate(cfg.model).state_dict()
    train(cfg)
    after = torch.load(tmp_path / "run" / "model.pth", weights_only=True)["model"]
    moved = torch.stack([(after[key] - value).double().norm() for key, value in before.items()]).norm().item()
    assert moved == pytest.approx(0.01, rel=1e-2) if clip else moved > 0.1


@pytest.mark.slow
def test_each_step_draws_other_numbers_and_the_same_ones_when_it_is_repeated(tmp_path, monkeypatch):
    seeds, forward = [], RetinaNet.forward

    def record(self, images, targets=None):
        if self.training:
            seeds.append(torch.initial_seed())
        return forward(self, images, targets)

    monkeypatch.setattr(RetinaNet, "forward", record)
    cfg = tiny(tmp_path, "run", "train.steps=2", "train.checkpoint_every=1")
    train(cfg)
    (tmp_path / "run" / "checkpoints" / "step_0000002.pth").unlink()
    train(cfg, resume=True)
    first, second, again = seeds
    assert first != second == again
    train(tiny(tmp_path, "other", "train.steps=2", "train.seed=1"))
    assert len({*seeds}) == 4


def test_what_stays_frozen_at_random_values_is_said(run, tmp_path, caplog):
    folder, _ = run
    weights = torch.load(folder / "whole" / "model.pth", weights_only=True)["model"]
    cfg = tiny(folder, "partly", "model.backbone.bottom_up.freeze_at=1", "train.steps=0")
    model = instantiate(cfg.model)
    assert _frozen_at_random(model, None)[:2] == ["backbone.bottom_up.stem.conv1", "backbone.bottom_up.stem.conv1.norm"]
    torch.save({key: value for key, value in weights.items() if "stem.conv1.weight" not in key}, tmp_path / "part.pth")
    report = load_checkpoint(model, tmp_path / "part.pth", allow_missing=["*stem.conv1.weight"])
    assert _frozen_at_random(model, report) == ["backbone.bottom_up.stem.conv1"]
    _load_weights(model, Settings("x", 1), Processes(0, 1, torch.device("cpu")))
    assert "frozen, but not loaded from a checkpoint: backbone.bottom_up.stem.conv1, " in caplog.text


def test_a_second_run_does_not_overwrite_the_first(run):
    folder, _ = run
    with pytest.raises(ArgumentError, match="--resume"):
        train(tiny(folder, "whole", "train.ema=0.9"))


def test_a_run_goes_on_with_its_own_config_alone(run):
    folder, _ = run
    with pytest.raises(ArgumentError, match=r"another config.*lr: 0\.5"):
        train(tiny(folder, "whole", "train.ema=0.9", "optimizer.lr=0.5"), resume=True)
    with pytest.raises(ArgumentError, match="another config"):
        train(tiny(folder, "whole"), resume=True)


def test_a_broken_checkpoint(run, tmp_path):
    folder, _ = run
    target = tmp_path / "broken" / "checkpoints" / "step_0000002.pth"
    target.parent.mkdir(parents=True)
    whole = (folder / "whole" / "checkpoints" / "step_0000002.pth").read_bytes()
    cfg = tiny(folder, "broken", f"train.output={tmp_path / 'broken'}", "train.ema=0.9")
    for content in (whole[: len(whole) // 2], b"", b"no checkpoint"):
        target.write_bytes(content)
        with pytest.raises(CheckpointFileError, match="step_0000002"):
            train(cfg, resume=True)
    torch.save({"model": {}}, target)
    with pytest.raises(CheckpointFileError, match="something else"):
        train(cfg, resume=True)


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("train.steps=0", ArgumentError, r"train\.steps=0"),
        ("train.steps=many", ArgumentError, "not int"),
        ("train.amp=fp8", ArgumentError, "'bf16'"),
        ("train.paralel=ddp", OverrideError, "parallel"),
        ("trian.steps=3", OverrideError, "train"),
        ("data.worker=2", OverrideError, "workers"),
        ("model.num_clases=5", OverrideError, "num_classes"),
        # What is added on purpose is looked at, too.
        ("+train.paralel=ddp", ConfigKeyError, "Did you mean 'parallel'"),
        ("+trian.steps=3", ConfigKeyError, "trian is nothing that training reads. Did you mean 'train'"),
        ("+data.worker=2", ConfigKeyError, r"data\.worker is .* Did you mean 'workers'"),
        ("train.parallel=fsdp", ArgumentError, "Did you mean 'fsdp2'"),
        ("train.ema=1.5", ArgumentError, r"train\.ema"),
        ("train.output=", ArgumentError, r"train\.output"),
        ("train.clip=-1", ArgumentError, r"train\.clip"),
        ("+model.num_clases=5", ConfigKeyError, "Did you mean 'num_classes'"),
        ("~schedule", ConfigKeyError, "no schedule"),
        ("~train.output", ConfigKeyError, r"train\.output"),
        ("schedule.warmup=9", ArgumentError, r"schedule\.warmup=9"),
        ("model.num_classes=81", ArgumentError, r"set model\.num_classes=5"),
        ("data.total_batch_size=0", ArgumentError, "total_batch_size=0"),
        ("data.train.images=nowhere", InputError, "nowhere"),
        ("data.prepare.size=1", ArgumentError, "size=1"),
        ("optimizer.params.backbone_factor=-1", ArgumentError, "backbone_factor"),
    ],
)
def test_mistakes_are_said_before_the_first_step(run, override, error, message):
    folder, _ = run
    with pytest.raises(error, match=message):
        train(tiny(folder, "never", override))
    assert not (folder / "never").exists()


def test_the_classes_of_a_faster_rcnn_are_counted_too(run):
    folder, _ = run
    others = [text for text in overrides(folder, "never") if not text.startswith("optimizer")]
    with pytest.raises(ArgumentError, match=r"model\.num_classes=81.*set model\.num_classes=5"):
        train(load_config("detectors/faster_rcnn_resnet18_fpn", [*others, "model.num_classes=81"]))


def test_a_loss_that_is_no_number(run):
    folder, _ = run
    with pytest.raises(TrainingError, match=r"isn't finite: classification=.*Lower optimizer\.lr"):
        train(tiny(folder, "wild", "optimizer.lr=1e30", "train.clip=0", "schedule.warmup=0"))


def test_the_example_says_our_errors_in_a_line(tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("example", EXAMPLE / "__main__.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    monkeypatch.chdir(tmp_path)
    for mistake in ("model.num_clases=5", "train.steps=-1", "model.backbone.colour=1", "backbone=resnet17"):
        monkeypatch.setattr(sys, "argv", ["train_detector.py", mistake])
        assert example.main() == 1
        assert capsys.readouterr().err.startswith("train_detector: ")
    assert not any(tmp_path.iterdir())
