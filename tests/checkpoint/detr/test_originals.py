"""Files of the original DETR, Deformable, Conditional and DN Deformable DETR into models with detrex's names."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from detrex_backbones.checkpoint.load import load_checkpoint
from detrex_backbones.checkpoint.names.conventions import conventions
from detrex_backbones.errors import CheckpointMatchError
from tests.checkpoint.detr.detectors import COCO, Entry, Size, conditional, deformable, detr, dn_deformable, prelu
from tests.checkpoint.detr.files import (
    load_and_compare,
    model_of,
    random_tensors,
    rename,
    save,
    share_heads,
    snapshot,
    wanted,
)

R101 = Size(depth=101)
FEW = Size(layers=2, stem=1)

# Variant -> source, its tensors, how many the published R-50 model has (R-101: 17 blocks of 15 tensors more).
VARIANTS: dict[str, tuple[str, Callable[[], list[Entry]], int]] = {
    "detr": ("detr", detr, 458),
    "detr-r101": ("detr", lambda: detr(R101), 458 + 17 * 15),
    "deformable": ("deformable-detr", deformable, 561),
    "deformable-r101": ("deformable-detr", lambda: deformable(R101), 561 + 17 * 15),
    "refine": ("deformable-detr", lambda: deformable(refine=True), 597),
    "two-stage": ("deformable-detr", lambda: deformable(two_stage=True), 630),
    "single-scale": ("deformable-detr", lambda: deformable(levels=1), 549),
    "conditional": ("conditional-detr", conditional, 564),
    "conditional-r101": ("conditional-detr", lambda: conditional(R101), 564 + 17 * 15),
    "conditional-prelu": ("conditional-detr", lambda: prelu(conditional()), 564 + 12),
    "dn": ("dn-deformable-detr", dn_deformable, 605),
}
FAMILY = ("detr", "conditional-detr", "deformable-detr", "dn-deformable-detr", "detrex", "huggingface-detr")


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_tensor_has_its_place_and_the_right_rows(variant: str, tmp_path: Path) -> None:
    source, build, count = VARIANTS[variant]
    entries = build()
    tensors = random_tensors(entries)
    assert len(tensors) == count
    report = load_and_compare(
        model_of(entries), save(tmp_path / "file.pth", tensors), wanted(entries, tensors), tensors
    )
    assert (report.source, report.prefix, report.scope, report.coverage) == (source, "", "", 1.0)
    assert not report.left_over
    changed = {entry.theirs for entry in entries if entry.rows is not None}
    assert {item.checkpoint_key for item in report.loaded if item.adapted} == changed


@pytest.mark.parametrize("variant", VARIANTS)
def test_recognised_as_one_of_the_family_and_no_other(variant: str) -> None:
    source, build, _ = VARIANTS[variant]
    names = {entry.theirs for entry in build()}
    assert [name for name in FAMILY if conventions()[name].prefixes(names)] == [source]
    ours = {entry.ours for entry in build()}
    assert [name for name in FAMILY if conventions()[name].prefixes(ours)] == ["detrex"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_names_are_the_same_there_and_back(variant: str) -> None:
    source, build, _ = VARIANTS[variant]
    convention = conventions()[source]
    for entry in build():
        assert convention.read(entry.theirs, len(entry.shape)) == entry.ours
        assert convention.write(entry.ours, len(entry.shape)) == entry.theirs
    assert convention.one_way


def test_coco_has_eighty_categories() -> None:
    assert len(set(COCO)) == 80
    assert {*range(1, 91)} - {*COCO} == {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}


def test_no_object_is_the_last_class(tmp_path: Path) -> None:
    tensors = random_tensors(detr(FEW))
    tensors["class_embed.bias"] = torch.arange(92.0)
    model = model_of(detr(FEW))
    load_checkpoint(model, save(tmp_path / "file.pth", tensors))
    assert model.class_embed.bias.tolist() == [*map(float, COCO), 91.0]


def test_proposals_keep_row_zero(tmp_path: Path) -> None:
    entries = deformable(two_stage=True)
    tensors = random_tensors(entries)
    for place in ("", "transformer.decoder."):
        for head in range(7):
            tensors[f"{place}class_embed.{head}.bias"] = torch.arange(91.0)
    model = model_of(entries)
    load_checkpoint(model, save(tmp_path / "file.pth", tensors))
    for module in (model, model.transformer.decoder):
        rows = [head.bias.tolist() for head in module.class_embed.children()]
        assert rows == [[*map(float, COCO)]] * 6 + [[*map(float, range(80))]]


def test_a_seventh_head_is_for_proposals_only_with_two_stages(tmp_path: Path) -> None:
    # Seven decoder layers, one stage: the head with number 6 is as the others are.
    seven = Size(stem=1, layers=7)
    entries = deformable(seven)
    entries += [
        entry._replace(theirs=name, ours=name)
        for entry in entries
        if entry.theirs.startswith(("class_embed.5.", "bbox_embed.5."))
        for name in [entry.theirs.replace("5", "6", 1)]
    ]
    tensors = random_tensors(entries)
    path = save(tmp_path / "file.pth", tensors)
    load_and_compare(model_of(entries), path, wanted(entries, tensors), tensors)


CUSTOM = {
    "detr": lambda: detr(FEW, classes=21),
    "panoptic classes": lambda: detr(FEW, classes=251),
    "detr, as many as others": lambda: detr(FEW, classes=91),
    "deformable": lambda: deformable(FEW, classes=20),
    "deformable, one more": lambda: deformable(FEW, classes=92),
    "two-stage": lambda: deformable(FEW, two_stage=True, classes=20),
    "conditional": lambda: conditional(FEW, classes=20),
    "dn": lambda: dn_deformable(FEW, classes=20),
}


@pytest.mark.parametrize("variant", CUSTOM)
def test_another_number_of_classes_stays(variant: str, tmp_path: Path) -> None:
    entries = CUSTOM[variant]()
    assert not any(entry.rows for entry in entries)
    tensors = random_tensors(entries)
    path = save(tmp_path / "file.pth", tensors)
    report = load_and_compare(model_of(entries), path, wanted(entries, tensors), tensors)
    assert not any(item.adapted for item in report.loaded)


def test_a_model_with_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    tensors = random_tensors(detr(FEW))
    model = model_of(detr(FEW, classes=21))
    before = snapshot(model)
    with pytest.raises(
        CheckpointMatchError, match=r"class_embed\.weight \(21, 8\) in the model, \(81, 8\) in the file"
    ):
        load_checkpoint(model, save(tmp_path / "file.pth", tensors))
    assert snapshot(model) == before


def test_the_weights_of_the_loss_stay(tmp_path: Path) -> None:
    """detrex's DETR has one tensor more than the original's file: a constant of its loss."""
    entries = detr(FEW)
    tensors = random_tensors(entries)
    model = model_of(entries, criterion__empty_weight=(81,))
    model.criterion.empty_weight.fill_(0.5)
    path = save(tmp_path / "file.pth", tensors)
    report = load_and_compare(model, path, wanted(entries, tensors), tensors)
    assert model.criterion.empty_weight.unique().item() == 0.5
    assert report.kept == {"criterion.empty_weight": "class weights of the loss, which the config sets"}
    assert report.to_dict()["kept"] == report.kept
    assert "criterion.empty_weight" in str(report)


def test_an_activation_under_two_names(tmp_path: Path) -> None:
    entries = prelu(conditional(FEW))
    tensors = random_tensors(entries)
    model = model_of(entries)
    ffn = model.transformer.decoder.layers.get_submodule("0.ffns.0")
    ffn.activation = ffn.layers.get_submodule("0.1")
    path = save(tmp_path / "file.pth", tensors)
    report = load_and_compare(model, path, wanted(entries, tensors), tensors)
    assert list(report.kept) == ["transformer.decoder.layers.0.ffns.0.activation.weight"]
    assert torch.equal(ffn.activation.weight, tensors["transformer.decoder.layers.0.activation.weight"])


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.module."])
def test_a_training_file(prefix: str, tmp_path: Path) -> None:
    entries = deformable(FEW)
    tensors = share_heads(random_tensors(entries))
    stored = rename(tensors, ("", prefix))
    counts = ["total_ops", "total_params", "transformer.total_ops", "backbone.0.body.layer1.0.conv1.total_params"]
    stored |= {prefix + name: torch.zeros(1, dtype=torch.float64) for name in counts}
    others = {"optimizer": {"state": {0: {"step": 3}}}, "lr_scheduler": {"last_epoch": 1}, "epoch": 49}
    path = save(tmp_path / "checkpoint0049.pth", stored, args=argparse.Namespace(lr=1e-4), **others)
    report = load_and_compare(model_of(entries), path, wanted(entries, tensors), stored)
    assert report.left_over == {prefix + name: "bookkeeping" for name in counts}


WRONG = {
    "detr -> deformable": (detr(FEW), deformable(FEW)),
    "detr -> conditional": (detr(FEW), conditional(FEW)),
    "deformable -> detr": (deformable(FEW), detr(FEW)),
    "deformable -> refine": (deformable(FEW), deformable(FEW, refine=True)),
    "deformable -> dn": (deformable(FEW), dn_deformable(FEW)),
    "single-scale -> deformable": (deformable(FEW, levels=1), deformable(FEW)),
    "two-stage -> refine": (deformable(FEW, two_stage=True), deformable(FEW, refine=True)),
    "R-50 -> R-101": (detr(FEW), detr(FEW._replace(depth=101))),
}


@pytest.mark.parametrize("case", WRONG)
def test_another_detector_is_refused_and_stays_untouched(case: str, tmp_path: Path) -> None:
    given, model = WRONG[case][0], model_of(WRONG[case][1])
    before = snapshot(model)
    with pytest.raises(CheckpointMatchError) as raised:
        load_checkpoint(model, save(tmp_path / "file.pth", random_tensors(given)))
    assert raised.value.report.missing or raised.value.report.mismatched
    assert snapshot(model) == before


def _share_modules(model: torch.nn.Module) -> torch.nn.Module:
    for heads in (model.class_embed, model.bbox_embed):
        for index in list(heads._modules):
            heads._modules[index] = heads._modules["0"]
    return model


def test_heads_that_the_layers_share(tmp_path: Path) -> None:
    entries = deformable(Size(stem=1))
    distinct = random_tensors(entries)
    tensors = share_heads(distinct)
    model = _share_modules(model_of(entries))
    load_and_compare(model, save(tmp_path / "file.pth", tensors), wanted(entries, tensors), tensors)

    # With refinement each layer has its own; the names of a plain model are among that file's.
    before = snapshot(model)
    with pytest.raises(CheckpointMatchError, match="one tensor in the model"):
        load_checkpoint(model, save(tmp_path / "refined.pth", distinct))
    assert snapshot(model) == before


def test_source_can_be_named(tmp_path: Path) -> None:
    path = save(tmp_path / "file.pth", random_tensors(detr(FEW)))
    assert load_checkpoint(model_of(detr(FEW)), path, source="detr").source == "detr"
    with pytest.raises(CheckpointMatchError, match="deformable-detr"):
        load_checkpoint(model_of(detr(FEW)), path, source="deformable-detr")
