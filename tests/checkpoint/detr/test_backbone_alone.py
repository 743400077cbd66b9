"""The backbone of a detector's file into a bare ResNet, and the features that it gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from detrex_backbones import BasicStem, ResNet, make_stage
from detrex_backbones.checkpoint.load import load_checkpoint
from tests.checkpoint.detr.detectors import conditional, deformable, detr
from tests.checkpoint.detr.files import assert_accounted, random_tensors, rename, save, tree
from tests.reference import assert_same_maps, noise, torchvision_maps, torchvision_net

MAPS = ["stem", "res2", "res3", "res4", "res5"]

# Family -> what its file holds, and what stands before the backbone's names.
FILES = {
    "detr": (detr, "backbone.0.body."),
    "conditional-detr": (conditional, "backbone.0.body."),
    "deformable-detr": (deformable, "backbone.0.body."),
    "panoptic": (detr, "detr.backbone.0.body."),
    "huggingface-detr": (detr, "model.backbone.conv_encoder.model."),
}


@pytest.mark.parametrize("family", FILES)
def test_every_tensor_of_the_backbone(family: str, tmp_path: Path) -> None:
    build, prefix = FILES[family]
    tensors = random_tensors(build())
    stored = rename(tensors, ("backbone.0.body.", prefix), ("", "detr." if family == "panoptic" else ""))
    backbone = [entry for entry in build() if entry.theirs.startswith("backbone.")]
    model = tree({entry.ours.removeprefix("backbone."): entry.shape for entry in backbone})
    report = load_checkpoint(model, save(tmp_path / "file.pth", stored))
    assert (report.source, report.prefix, report.coverage, len(report.loaded)) == ("torchvision", prefix, 1.0, 265)
    assert_accounted(report, stored)
    for entry in backbone:
        assert torch.equal(model.state_dict()[entry.ours.removeprefix("backbone.")], tensors[entry.theirs])


def test_features(tmp_path: Path) -> None:
    net = torchvision_net("resnet50")
    # As the original holds it: no counters, as its norms are frozen, and no classifier.
    body = {
        name: tensor for name, tensor in net.state_dict().items() if "num_batches" not in name and "fc." not in name
    }
    others = {name: t for name, t in random_tensors(detr()).items() if not name.startswith("backbone.")}
    stored = rename(body, ("", "backbone.0.body.")) | others
    with torch.device("meta"):  # without weights of its own
        ours = ResNet(BasicStem(norm="FrozenBN"), make_stage(depth=50, norm="FrozenBN"), out_features=MAPS)
    ours = ours.to_empty(device="cpu").eval()
    report = load_checkpoint(ours, save(tmp_path / "file.pth", stored))
    assert report.coverage == 1.0
    assert_accounted(report, stored)
    images = noise(1, 3, 65, 97)
    with torch.no_grad():
        theirs = torchvision_maps(net, images)
        del theirs["linear"]
        assert_same_maps(ours(images), theirs)
