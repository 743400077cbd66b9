"""Checkpoints beside the real detectron2, where there is one: each reads what the other writes."""

import pickle

import pytest
import torch

from detrex_backbones import DetectionCheckpointer, load_checkpoint
from tests.checkpoint.nets import RES, assert_same_features, assert_same_tensors, converted, empty, weights
from tests.checkpoint.training import Run

pytest.importorskip("detectron2.checkpoint", reason="detectron2 is not importable", exc_type=ImportError)

from detectron2.checkpoint import DetectionCheckpointer as TheirCheckpointer
from detectron2.modeling.backbone import resnet


def their_net():
    """detectron2's ResNet-18."""
    stages = resnet.ResNet.make_default_stages(18, resnet.BasicBlock, norm="FrozenBN")
    return resnet.ResNet(resnet.BasicStem(norm="FrozenBN"), stages, out_features=list(RES)).eval()


def test_detectron2_reads_what_we_save(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(weights(), path)
    ours = empty()
    load_checkpoint(ours, path)
    DetectionCheckpointer(ours, tmp_path).save("model", iteration=7)
    theirs = their_net()
    assert TheirCheckpointer(theirs).load(str(tmp_path / "model.pth")) == {"iteration": 7}
    assert_same_tensors(theirs.state_dict(), ours.state_dict())
    assert_same_features(theirs)


def test_we_read_what_detectron2_saves(tmp_path):
    theirs = their_net()
    TheirCheckpointer(theirs, str(tmp_path)).save("model", iteration=7)
    ours = empty()
    checkpointer = DetectionCheckpointer(ours)
    assert checkpointer.load(tmp_path / "model.pth") == {"iteration": 7}
    assert checkpointer.report.coverage == 1
    assert_same_tensors(ours.state_dict(), theirs.state_dict())


def test_a_run_goes_on_in_detectron2_and_back(tmp_path):
    run = Run(tmp_path).train(0, 3)
    run.checkpointer.save("ours", iteration=2)
    other = Run(seed=1)
    theirs = TheirCheckpointer(other.model, str(tmp_path), optimizer=other.optimizer, scheduler=other.scheduler)
    assert theirs.resume_or_load("", resume=True)["iteration"] == 2
    assert other.train(3, 5).state() == run.train(3, 5).state()
    theirs.save("theirs", iteration=4)
    again = Run(tmp_path, seed=2)
    assert again.checkpointer.resume_or_load("")["iteration"] == 4
    assert again.train(5, 7).state() == run.train(5, 7).state()


def test_the_converters_pickle_loads_into_both_alike(tmp_path):
    path = tmp_path / "r18.pkl"
    path.write_bytes(pickle.dumps(converted(weights())))
    theirs, ours = their_net(), empty()
    TheirCheckpointer(theirs).load(str(path))
    load_checkpoint(ours, path)
    assert_same_tensors(ours.state_dict(), theirs.state_dict())


def test_our_loader_fills_detectron2s_network(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(weights(), path)
    theirs = their_net()
    report = load_checkpoint(theirs, path)
    assert (report.source, report.coverage) == ("torchvision", 1)
    assert_same_features(theirs)
