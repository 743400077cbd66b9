"""Detectors of detectron2 and detrex over our backbones, after a change of import lines alone, against their own."""

import pickle

import pytest
import torch
import torchvision

from detrex_backbones import DetectionCheckpointer, load_checkpoint
from detrex_backbones.checkpoint.convert import convert_checkpoint
from tests.interop.detectors import backbone_of, build, detect, losses, make_pair
from tests.interop.theirs import fill_norms, largest_difference, need_detectron2, need_detrex, without_gpu

TOLERANCE = 1e-5


def faster_rcnn(model):
    """The config has masks, too."""
    for key in ("mask_in_features", "mask_pooler", "mask_head"):
        del model.roi_heads[key]
    model.roi_heads.box_predictor.test_score_thresh = 0.0  # untrained, nothing is sure of anything
    model.backbone.bottom_up.freeze_at = 2


def retinanet(model):
    model.test_score_thresh = 0.0
    model.backbone.bottom_up.freeze_at = 2


def nothing(model):
    pass


DETECTRON2 = {"faster_rcnn": ("mask_rcnn_fpn", faster_rcnn), "retinanet": ("retinanet", retinanet)}
DETREX = {
    "dino": ("dino/configs/models/dino_r50", nothing),
    "detr_dc5": ("detr/configs/models/detr_r50_dc5", nothing),
    "deformable_detr": ("deformable_detr/configs/models/deformable_detr_r50", nothing),
}


def find(name):
    """The config of a detector, and what of it is changed on both sides; skips where it isn't installed."""
    if name in DETECTRON2:
        config, change = DETECTRON2[name]
        return need_detectron2() / "configs" / "common" / "models" / f"{config}.py", change
    config, change = DETREX[name]
    return need_detrex() / "projects" / f"{config}.py", change


@pytest.fixture(scope="module", params=[*DETECTRON2, *DETREX])
def detector(request, tmp_path_factory):
    config, change = find(request.param)
    return make_pair(config, tmp_path_factory.mktemp(request.param), change)


def differ(ours, theirs, what, record_property):
    """The largest relative difference, which the report of a test run keeps."""
    difference = largest_difference(ours, theirs)
    record_property(what, difference)
    return difference


class TestWithTheirWeights:
    def test_all_of_their_file_is_loaded(self, detector):
        report = detector.report
        assert (report.coverage, report.missing, report.left_over, report.outside) == (1, [], {}, [])
        assert list(detector.ours.state_dict()) == list(detector.theirs.state_dict())

    def test_finds_the_same(self, detector, record_property):
        found = detect(detector.theirs)
        assert len(found["scores"]) > 5
        assert differ(detect(detector.ours), found, "detections", record_property) <= TOLERANCE

    def test_has_the_same_losses_and_gradients(self, detector, record_property, monkeypatch):
        without_gpu(monkeypatch)  # DINO's denoising queries
        (values, gradients), (their_values, their_gradients) = losses(detector.ours), losses(detector.theirs)
        assert differ(values, their_values, "losses", record_property) <= TOLERANCE
        assert differ(gradients, their_gradients, "gradients", record_property) <= TOLERANCE

    def test_freezes_the_same(self, detector):
        frozen = [
            [name for name, value in model.named_parameters() if not value.requires_grad]
            for model in (detector.ours, detector.theirs)
        ]
        assert frozen[0] == frozen[1] and frozen[0]


@pytest.fixture(scope="module")
def torchvision_file(tmp_path_factory):
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "resnet50.pth"
    torch.save(fill_norms(torchvision.models.resnet50(weights=None), seed=1).state_dict(), path)
    return path


def test_the_converted_backbone_goes_into_both_alike(detector, torchvision_file, tmp_path, record_property):
    """A file in torchvision's names into ours; `convert` makes the file that their checkpointer takes."""
    from detectron2.checkpoint import DetectionCheckpointer as TheirCheckpointer

    before = detect(detector.theirs)
    into_body = hasattr(backbone_of(detector.theirs), "body")
    if into_body:  # torchvision's names are its own: nothing to convert, but for the prefix that theirs doesn't find
        state = torch.load(torchvision_file)
        file = tmp_path / "body.pth"
        torch.save({f"backbone.body.{name}": value for name, value in state.items()}, file)
    else:
        file = tmp_path / "r50.pkl"
        assert convert_checkpoint(torchvision_file, file, to="detectron2").source == "torchvision"
        content = pickle.loads(file.read_bytes())
        assert content["matching_heuristics"]
    TheirCheckpointer(detector.theirs).load(str(file))
    found = detect(detector.theirs)
    assert len(found["scores"]) != len(before["scores"]) or largest_difference(found, before) > 100 * TOLERANCE
    for source in (torchvision_file, *([] if into_body else [file])):
        checkpointer = DetectionCheckpointer(detector.ours)
        checkpointer.resume_or_load(source, resume=False)
        assert checkpointer.report.coverage == 1
        assert differ(detect(detector.ours), found, source.suffix, record_property) <= TOLERANCE


class TestDc5:
    """DETR-R50-DC5 over `ResNet`, whose DC5 has two kinds, instead of `TorchvisionResNet`."""

    def build(self, style):
        from detrex_backbones import BasicStem, ResNet, make_stage
        from detrex_backbones.config import LazyCall as L

        def change(model):
            model.backbone = L(ResNet)(
                stem=L(BasicStem)(norm="FrozenBN"),
                stages=L(make_stage)(depth=50, norm="FrozenBN", res5_dilation=2, dilation_style=style),
                out_features=["res5"],
                freeze_at=2,
            )

        return build(find("detr_dc5")[0], change)

    def test_torchvisions_kind_is_theirs_and_detectron2s_is_not(self, tmp_path, record_property):
        config, change = find("detr_dc5")
        theirs = make_pair(config, tmp_path, change).theirs
        found = detect(theirs)
        for style, same in (("torchvision", True), ("detectron2", False)):
            ours = self.build(style)
            report = load_checkpoint(ours, tmp_path / "theirs.pth")
            assert (report.source, report.coverage, report.outside) == ("detrex-torchvision", 1, [])
            difference = differ(detect(ours), found, style, record_property)
            assert (difference <= TOLERANCE) is same
