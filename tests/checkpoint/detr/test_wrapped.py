"""Detectors within other files: panoptic ones, detectron2's wrapper, and files that detrex itself wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from detrex_backbones.checkpoint.convert import convert_checkpoint
from detrex_backbones.checkpoint.load import load_checkpoint
from detrex_backbones.errors import CheckpointError
from tests.checkpoint.detr.detectors import Entry, Size, detr, dn_deformable
from tests.checkpoint.detr.files import load_and_compare, model_of, random_tensors, rename, save, tree, wanted

FEW = Size(layers=2, stem=1)

LOSS = "class weights of the loss, which the config sets"


def panoptic_head() -> dict[str, Tensor]:
    """The names beside the detector in a panoptic file; shapes are free."""
    names = [f"bbox_attention.{part}_linear" for part in "qk"]
    names += [f"mask_head.{kind}{index}" for kind in ("lay", "gn") for index in range(1, 6)]
    names += ["mask_head.out_lay", *(f"mask_head.adapter{index}" for index in range(1, 4))]
    return {f"{name}.{leaf}": torch.randn(2) for name in names for leaf in ("weight", "bias")}


@pytest.mark.parametrize("depth", [50, 101])
def test_panoptic(depth: int, tmp_path: Path) -> None:
    entries = detr(Size(depth=depth), classes=251)
    tensors = random_tensors(entries)
    head = panoptic_head()
    stored = rename(tensors, ("", "detr.")) | head
    assert len(stored) == 490 + (depth == 101) * 17 * 15
    model = model_of(entries, criterion__empty_weight=(251,))
    report = load_and_compare(model, save(tmp_path / "file.pth", stored), wanted(entries, tensors), stored)
    assert (report.source, report.prefix) == ("detr", "detr.")
    assert report.left_over == dict.fromkeys(head, "panoptic head")


def test_panoptic_classes_of_coco_alone(tmp_path: Path) -> None:
    entries = detr(FEW)
    tensors = random_tensors(entries)
    stored = rename(tensors, ("", "detr.")) | panoptic_head()
    report = load_and_compare(model_of(entries), save(tmp_path / "f.pth", stored), wanted(entries, tensors), stored)
    assert [item.checkpoint_key for item in report.loaded if item.adapted] == [
        "detr.class_embed.weight",
        "detr.class_embed.bias",
    ]


@pytest.mark.parametrize("classes", [81, 92])
def test_detectron2_wrapper(classes: int, tmp_path: Path) -> None:
    """Its backbone has detectron2's names already; its classes may be detrex's."""
    entries = detr(FEW, classes=classes)
    tensors = random_tensors(entries)
    names = {entry.theirs: entry.ours for entry in entries}
    stored = {
        "detr." + (f"backbone.0.{names[name]}" if name.startswith("backbone.") else name): tensor
        for name, tensor in tensors.items()
    }
    stored["criterion.empty_weight"] = torch.rand(classes)
    kept = [row for entry in entries if entry.theirs == "class_embed.bias" for row in entry.rows or range(81)]
    expected = wanted(entries, tensors) | {"criterion.empty_weight": stored["criterion.empty_weight"][kept]}
    model = model_of(entries, criterion__empty_weight=(81,))
    report = load_and_compare(model, save(tmp_path / "file.pth", stored), expected, stored)
    assert (report.source, report.prefix, report.kept) == ("detr", "detr.", {})


def test_detrex_conversion_of_detr(tmp_path: Path) -> None:
    """detrex's published conversions lack the constants of the loss, as the originals do."""
    entries = detr(FEW)
    tensors = wanted(entries, random_tensors(entries))
    model = model_of(entries, criterion__empty_weight=(81,))
    report = load_and_compare(model, save(tmp_path / "file.pth", tensors), tensors, tensors)
    assert (report.source, report.kept) == ("as stored", {"criterion.empty_weight": LOSS})
    assert load_checkpoint(model, tmp_path / "file.pth", source="detrex").kept == report.kept


def test_detrex_conversion_of_dn_deformable(tmp_path: Path) -> None:
    """detrex's script leaves out a part of one name."""
    entries = dn_deformable(FEW)
    expected = wanted(entries, random_tensors(entries))
    stored = rename(expected, ("denoising_generator.", ""))
    assert "label_encoder.weight" in stored
    load_and_compare(model_of(entries), save(tmp_path / "file.pth", stored), expected, stored)


def test_detrex_training_file(tmp_path: Path) -> None:
    entries = detr(FEW)
    tensors = wanted(entries, random_tensors(entries)) | {"criterion.empty_weight": torch.rand(81)}
    model = model_of(entries, criterion__empty_weight=(81,))
    path = save(tmp_path / "model_final.pth", tensors, iteration=3, trainer={}, optimizer={"state": {}})
    assert not load_and_compare(model, path, tensors, tensors).kept


def test_written_in_detrex_names_and_never_back(tmp_path: Path) -> None:
    entries = detr(FEW)
    tensors = random_tensors(entries)
    path = save(tmp_path / "detr.pth", tensors)
    conversion = convert_checkpoint(path, tmp_path / "detrex.safetensors", to="detrex")
    assert (conversion.source, conversion.target, conversion.left_out) == ("detr", "detrex", {})
    expected = wanted(entries, tensors)
    load_and_compare(model_of(entries), tmp_path / "detrex.safetensors", expected, expected)
    with pytest.raises(CheckpointError, match="rows of COCO's unused category numbers"):
        convert_checkpoint(tmp_path / "detrex.safetensors", tmp_path / "back.pth", to="detr")
    assert not (tmp_path / "back.pth").exists()


BODY = ("backbone.0.body.", "backbone.body.")


def in_detrex_dc5_names(entries: list[Entry], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """As detrex's DC5 models are trained: torchvision's ResNet, and detrex's names for all else."""
    ours = wanted(entries, tensors)
    stored = {name: tensor for name, tensor in ours.items() if not name.startswith("backbone.")}
    return stored | rename({key: tensors[key] for key in tensors if key.startswith("backbone.")}, BODY)


def test_detrex_dc5_into_our_resnet_and_into_torchvisions(tmp_path: Path) -> None:
    entries = detr(FEW)
    tensors = random_tensors(entries)
    expected = wanted(entries, tensors)
    stored = in_detrex_dc5_names(entries, tensors)
    path = save(tmp_path / "file.pth", stored)
    report = load_and_compare(model_of(entries), path, expected, stored)
    assert (report.source, report.scope, report.outside) == ("detrex-torchvision", "", [])
    assert report.lookalikes
    own = tree({name: tuple(tensor.shape) for name, tensor in stored.items()})
    assert load_and_compare(own, path, stored, stored).source == "as stored"


def test_detrex_dc5_converts_both_ways(tmp_path: Path) -> None:
    entries = detr(FEW)
    stored = in_detrex_dc5_names(entries, random_tensors(entries))
    path = save(tmp_path / "file.pth", stored)
    conversion = convert_checkpoint(path, tmp_path / "ours.safetensors", to="detrex")
    assert (conversion.source, conversion.left_out) == ("detrex-torchvision", {})
    assert set(conversion.names.values()) == set(wanted(entries, random_tensors(entries)))
    convert_checkpoint(tmp_path / "ours.safetensors", tmp_path / "back.pth", to="detrex-torchvision")
    own = tree({name: tuple(tensor.shape) for name, tensor in stored.items()})
    load_and_compare(own, tmp_path / "back.pth", stored, stored)


def test_the_original_dc5_into_detrex_dc5(tmp_path: Path) -> None:
    entries = detr(FEW)
    tensors = random_tensors(entries)
    wanted_there = in_detrex_dc5_names(entries, tensors)
    path = save(tmp_path / "detr.pth", tensors)
    conversion = convert_checkpoint(path, tmp_path / "detrex.pth", to="detrex-torchvision")
    assert (conversion.source, conversion.target, conversion.left_out) == ("detr", "detrex-torchvision", {})
    own = tree({name: tuple(tensor.shape) for name, tensor in wanted_there.items()})
    load_and_compare(own, tmp_path / "detrex.pth", wanted_there, wanted_there)
