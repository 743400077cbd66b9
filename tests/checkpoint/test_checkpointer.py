"""DetectionCheckpointer: fvcore's interface, and a run that goes on as if it had never stopped."""

import gc
import logging
import pickle
import sys
from pathlib import Path

import pytest
import torch
from fvcore.common.checkpoint import Checkpointer
from torch import nn

from detrex_backbones import DetectionCheckpointer
from detrex_backbones.errors import ArgumentError, CheckpointFileError, CheckpointMatchError
from tests.checkpoint.nets import assert_same_features, converted, empty, snapshot, weights
from tests.checkpoint.training import Run


def test_it_is_fvcores_checkpointer(tmp_path):
    run = Run(tmp_path)
    assert isinstance(run.checkpointer, Checkpointer)
    assert run.checkpointer.report is None
    assert set(run.checkpointer.checkpointables) == {"optimizer", "scheduler"}


@pytest.mark.parametrize("scheduler", ["steps", "cosine"])
def test_a_resumed_run_goes_on_identically(tmp_path, scheduler):
    whole = Run(tmp_path, scheduler).train(0, 3)
    whole.checkpointer.save("model_0000002", iteration=2)
    whole.train(3, 9)

    resumed = Run(tmp_path, scheduler, seed=1)
    rest = resumed.checkpointer.resume_or_load("", resume=True)
    assert rest == {"iteration": 2}
    resumed.train(rest["iteration"] + 1, 9)
    assert resumed.state() == whole.state()
    report = resumed.checkpointer.report
    assert (report.container, report.coverage, report.left_over) == ("model", 1, {})


@pytest.mark.skipif(sys.platform != "linux", reason="what is mapped is read from /proc")
def test_a_file_is_let_go_of_after_a_load(tmp_path):
    """At once, not when Python next collects what refers to itself: a disk with such a file can't be unmounted."""
    Run(tmp_path).train(0, 2).checkpointer.save("model", iteration=1)
    run = Run(tmp_path)
    gc.collect()
    gc.disable()
    try:
        run.checkpointer.resume_or_load("")
        assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    finally:
        gc.enable()


def test_the_last_checkpoint_is_marked(tmp_path):
    run = Run(tmp_path / "new" / "folder")
    checkpointer = run.checkpointer
    assert not checkpointer.has_checkpoint()
    checkpointer.save("first")
    run.train(0, 1)
    checkpointer.save("second", iteration=1)
    folder = tmp_path / "new" / "folder"
    assert (folder / "last_checkpoint").read_text() == "second.pth"
    assert checkpointer.has_checkpoint()
    assert checkpointer.get_checkpoint_file() == str(folder / "second.pth")
    assert sorted(checkpointer.get_all_checkpoint_files()) == [str(folder / "first.pth"), str(folder / "second.pth")]
    assert {file.name for file in folder.iterdir()} == {"first.pth", "second.pth", "last_checkpoint"}


def test_fvcores_own_checkpointer_reads_ours_and_ours_reads_fvcores(tmp_path):
    run = Run(tmp_path).train(0, 3)
    run.checkpointer.save("ours", iteration=2)
    other = Run(seed=1)
    theirs = Checkpointer(other.model, str(tmp_path), optimizer=other.optimizer, scheduler=other.scheduler)
    assert theirs.resume_or_load("") == {"iteration": 2}
    assert other.train(3, 5).state() == run.train(3, 5).state()

    theirs.save("theirs", iteration=4)
    again = Run(tmp_path, seed=2)
    assert again.checkpointer.resume_or_load("") == {"iteration": 4}
    assert again.train(5, 7).state() == run.train(5, 7).state()


def test_without_a_checkpoint_to_resume_the_weights_are_loaded_alone(tmp_path):
    start = Run(tmp_path / "start").train(0, 3)
    start.checkpointer.save("model", iteration=2)
    path = tmp_path / "start" / "model.pth"
    run = Run(tmp_path / "run", seed=1)
    rest = run.checkpointer.resume_or_load(path, resume=True)
    assert snapshot(run.model) == snapshot(start.model)
    assert (rest["iteration"], set(rest)) == (2, {"iteration", "optimizer", "scheduler"})
    assert not run.optimizer.state
    assert run.scheduler.last_epoch == 0


def test_resume_false_starts_from_the_weights_although_there_is_a_checkpoint(tmp_path):
    run = Run(tmp_path).train(0, 3)
    run.checkpointer.save("model", iteration=2)
    before = snapshot(run.model)
    other = Run(tmp_path, seed=1)
    assert other.checkpointer.resume_or_load("", resume=False) == {}
    assert snapshot(other.model) != before
    other.checkpointer.resume_or_load(tmp_path / "model.pth", resume=False)
    assert snapshot(other.model) == before
    assert not other.optimizer.state


def test_only_some_of_the_objects(tmp_path):
    run = Run(tmp_path).train(0, 3)
    run.checkpointer.save("model")
    other = Run(seed=1)
    rest = other.checkpointer.load(tmp_path / "model.pth", checkpointables=["scheduler"])
    assert other.scheduler.last_epoch == 3
    assert not other.optimizer.state
    assert set(rest) == {"optimizer"}


def test_an_object_that_is_not_there(tmp_path):
    run = Run(tmp_path)
    run.checkpointer.save("model")
    before = snapshot(Run(seed=1).model)
    other = Run(seed=1)
    with pytest.raises(ArgumentError, match=r"there is no 'optimiser'\. Allowed: optimizer, scheduler\. Did you mean"):
        other.checkpointer.load(tmp_path / "model.pth", checkpointables=["optimiser"])
    assert snapshot(other.model) == before


def test_an_object_that_does_not_fit_leaves_the_model_as_it_was(tmp_path):
    Run(tmp_path).train(0, 3).checkpointer.save("model")
    other = Run(seed=1)
    other.optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    before = snapshot(other.model)
    with pytest.raises(CheckpointMatchError, match="its 'optimizer' doesn't fit the one of this run: loaded state"):
        other.checkpointer.load(tmp_path / "model.pth")
    assert snapshot(other.model) == before
    assert other.checkpointer.report is None


def test_no_path_leaves_the_model(caplog):
    run = Run()
    before = snapshot(run.model)
    with caplog.at_level(logging.INFO, "detrex_backbones.checkpoint.checkpointer"):
        assert run.checkpointer.load("") == {}
    assert snapshot(run.model) == before
    assert "the model keeps its weights" in caplog.text


@pytest.mark.parametrize("kwargs", [{"save_to_disk": False}, {"folder": ""}])
def test_what_is_not_to_be_saved_is_not(tmp_path, monkeypatch, kwargs):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "folder"
    run = Run(**{"folder": folder, **kwargs})
    run.checkpointer.save("model")
    assert list(tmp_path.iterdir()) == []
    assert not run.checkpointer.has_checkpoint()


def test_only_the_first_process_of_a_distributed_run_saves(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    for rank in (1, 0):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        Run(tmp_path / "saved").checkpointer.save("model")
        assert (tmp_path / "saved").exists() == (rank == 0)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    Run(tmp_path / "asked for", save_to_disk=True).checkpointer.save("model")
    assert (tmp_path / "asked for" / "model.pth").is_file()


def test_wrapped_models_are_saved_and_loaded_as_what_they_wrap(tmp_path):
    run = Run()
    wrapped = nn.DataParallel(run.model)
    DetectionCheckpointer(wrapped, tmp_path).save("model")
    assert set(torch.load(tmp_path / "model.pth")["model"]) == set(run.model.state_dict())
    other = Run(seed=1)
    checkpointer = DetectionCheckpointer(nn.DataParallel(other.model), tmp_path)
    checkpointer.resume_or_load("")
    assert snapshot(other.model) == snapshot(run.model)


def test_checkpoints_of_detectron2s_training(tmp_path):
    """`{"model", "optimizer", "scheduler", "iteration"}`, with the trainer's own things beside them."""
    run = Run().train(0, 3)
    content = {
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "scheduler": run.scheduler.state_dict(),
        "trainer": {"iteration": 2, "hooks": {}, "_trainer": {}},
        "iteration": 2,
    }
    torch.save(content, tmp_path / "model_0000002.pth")
    (tmp_path / "last_checkpoint").write_text("model_0000002.pth")
    other = Run(tmp_path, seed=1)
    rest = other.checkpointer.resume_or_load("")
    assert rest == {"iteration": 2, "trainer": content["trainer"]}
    assert other.train(3, 6).state() == run.train(3, 6).state()


def test_weights_of_other_sources(tmp_path):
    path = tmp_path / "r18.pkl"
    path.write_bytes(pickle.dumps(converted(weights())))
    net = empty()
    rest = DetectionCheckpointer(net).load(path)
    assert rest == {"__author__": "torchvision", "matching_heuristics": True}
    assert_same_features(net)


def test_arguments_of_load_checkpoint(tmp_path):
    state = weights()
    del state["bn1.bias"]
    torch.save(state, tmp_path / "weights.pth")
    model = nn.ModuleDict({"student": empty(), "teacher": empty()})
    checkpointer = DetectionCheckpointer(model)
    before = snapshot(model)
    with pytest.raises(CheckpointMatchError, match="ambiguous"):
        checkpointer.load(tmp_path / "weights.pth")
    with pytest.raises(CheckpointMatchError, match=r"stem\.conv1\.norm\.bias"):
        checkpointer.load(tmp_path / "weights.pth", scope="teacher")
    assert snapshot(model) == before
    checkpointer.load(
        tmp_path / "weights.pth", scope="teacher", source="torchvision", allow_missing=["stem.conv1.norm.*"]
    )
    assert checkpointer.report.scope == "teacher"
    assert checkpointer.report.missing == ["teacher.stem.conv1.norm.bias"]


def test_a_missing_checkpoint(tmp_path):
    (tmp_path / "last_checkpoint").write_text("gone.pth")
    with pytest.raises(CheckpointFileError, match=r"gone\.pth' does not exist"):
        Run(tmp_path).checkpointer.resume_or_load("")
