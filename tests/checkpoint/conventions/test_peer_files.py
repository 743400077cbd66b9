"""Files of other libraries' backbones into the same networks here: whole from both sides, with the same maps.

The networks are those of `python -m benchmarks.peer_files`, which writes docs/detector-backbones.md. Both compute in
float64: what is apart then is computed otherwise.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from functools import cache

import pytest
import timm
import torch

from benchmarks.peer_files.__main__ import row_of
from benchmarks.peer_files.case import Case, differences, file_of, loaded
from benchmarks.peer_files.table import Row, markdown
from detrex_backbones import load_checkpoint
from detrex_backbones.config import LazyConfig, instantiate
from detrex_backbones.errors import CheckpointMatchError, PreprocessingError
from detrex_backbones.zoo import infer_config

pytest.importorskip("transformers")

from benchmarks.peer_files import authors_cases, detectron2_cases, detrex_cases, mmdet_cases, transformers_cases

TRANSFORMERS = [*transformers_cases.CASES, *authors_cases.CASES]
WITHOUT_MMDET = pytest.mark.skipif(importlib.util.find_spec("mmdet") is None, reason="mmdet is not installed")
LARGEST = 1e-5
# Networks of the size that is published: timm makes them no smaller.
LARGE = {"FocalNetBackbone", "BitBackbone"}
# Of which the whole file is the network, as a hub publishes it.
ALONE = {
    "RfDetrDinov2Backbone",
    "LwDetrViTBackbone",
    "ConvNextBackbone",
    "SwinBackbone",
    "MaskFormerSwinBackbone",
    "HieraModel",
    "Dinov2Backbone",
    "DINOv3 ViT",
}
CUT = {
    "RfDetrDinov2Backbone",
    "LwDetrViTBackbone",
    "ConvNextV2Backbone",
    "SwinBackbone",
    "PvtV2Backbone",
    "HieraModel",
    "DINOv3ViTBackbone",
    "DINOv2",
    "Hiera",
}


def parameters(cases: list[Case], *marks: pytest.MarkDecorator) -> list:
    return [pytest.param(case, id=f"{case.id}-{number}", marks=marks) for number, case in enumerate(cases)]


def has_network(case: Case) -> bool:
    name = case.called.partition("TimmBackbone('")[2].partition("'")[0]
    return not name or timm.is_model(name)


def check(case: Case, folder, prefix: str) -> None:
    if case.refused:
        assert row_of(case).told
        return
    if not has_network(case):
        pytest.skip(f"timm {timm.__version__} has no such network")
    peer, model, report = loaded(case, folder, prefix)
    assert (report.coverage, report.file_coverage) == (1, 1)
    assert not report.missing and not report.mismatched and not report.unplaced
    unexplained = [key for key, why in report.left_over.items() if why.startswith(("no place", "no name", "left out"))]
    assert [key for key in unexplained if key.startswith(prefix)] == []
    apart = differences(case, peer, model)
    assert max(apart.values()) <= LARGEST, apart


@pytest.mark.few(1)
@pytest.mark.parametrize("case", parameters([case for case in TRANSFORMERS if case.name not in LARGE]))
def test_transformers(case, tmp_path):
    # A convolutional network of a published width takes its time; an odd size shows what an even one does.
    wide = any(part in case.name for part in ("ResNet", "PPLCNet", "EfficientNet", "MobileNet"))
    check(replace(case, sizes=case.sizes[1:2] or case.sizes) if wide else case, tmp_path, "model.backbone.")


@pytest.mark.few(2)
@pytest.mark.parametrize("case", parameters([case for case in TRANSFORMERS if case.name in ALONE]))
def test_a_file_of_the_backbone_alone(case, tmp_path):
    check(replace(case, sizes=case.sizes[:1]), tmp_path, "")


@pytest.mark.slow
@pytest.mark.parametrize("case", parameters([case for case in TRANSFORMERS if case.name in LARGE]))
def test_large_of_transformers(case, tmp_path):
    check(case, tmp_path, "model.backbone.")


@pytest.mark.parametrize("case", parameters(mmdet_cases.CASES, WITHOUT_MMDET))
def test_mmdet(case, tmp_path):
    check(case, tmp_path, "backbone.")


@pytest.mark.parametrize("case", parameters([*detectron2_cases.CASES, *detrex_cases.CASES]))
def test_detectron2_and_detrex(case, tmp_path):
    pytest.importorskip(case.peer, reason=f"{case.peer} is not importable", exc_type=ImportError)
    check(replace(case, sizes=case.sizes[:2]), tmp_path, case.prefix)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenetv2_100"])
def test_what_is_padded_as_tensorflow_is_refused_elsewhere(name, tmp_path):
    case = next(case for case in TRANSFORMERS if name in case.called)
    network, called = transformers_cases.timm_network(name)
    with pytest.raises(PreprocessingError, match=r"norm_eps=0.001 .*padding=same .*pad_type='same'"):
        loaded(replace(case, ours=network, called=called), tmp_path, "backbone.")
    network, called = transformers_cases.torchvision_network(name.removesuffix("_100").replace("tv2", "t_v2"))
    with pytest.raises(PreprocessingError, match=r"padding=same"):
        loaded(replace(case, ours=network, called=called), tmp_path, "backbone.")


@WITHOUT_MMDET
def test_efficientnet_of_mmdet_pads_as_tensorflow(tmp_path):
    case = next(case for case in mmdet_cases.CASES if case.name == "EfficientNet")
    network, called = transformers_cases.timm_network("efficientnet_b0")
    with pytest.raises(PreprocessingError, match=r"norm_eps=0.001 .*padding=same "):
        loaded(replace(case, ours=network, called=called), tmp_path, "backbone.")


@cache
def small_state(index: int) -> tuple[Case, dict[str, torch.Tensor]]:
    """A case, and the state of its peer."""
    case = TRANSFORMERS[index]
    torch.manual_seed(0)
    return case, dict(case.state(case.build()))


SMALL = [index for index, case in enumerate(TRANSFORMERS) if case.name in CUT]


@pytest.mark.few(1)
@pytest.mark.parametrize("index", SMALL, ids=lambda index: f"{TRANSFORMERS[index].id}-{index}")
def test_a_cut_or_renamed_file_is_refused_and_changes_nothing(index, tmp_path):
    case, state = small_state(index)
    if not has_network(case):
        pytest.skip(f"timm {timm.__version__} has no such network")
    model = case.ours()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    blocks = [key for key in state if key.endswith(".weight") and (".1." in key or ".0." in key)]
    lost = blocks[len(blocks) // 4]
    for wrong in (
        {key: value for key, value in state.items() if key != lost},
        {key.replace(lost, f"{lost}_of_another"): value for key, value in state.items()},
    ):
        with pytest.raises(CheckpointMatchError):
            load_checkpoint(model, file_of(wrong, tmp_path, "backbone."))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_infer_knows_rtdetrs_resnet_18(tmp_path):
    case = next(case for case in TRANSFORMERS if case.called.startswith("ResNet with project_res2"))
    path = file_of(case.state(case.build()), tmp_path, "backbone.")
    config = tmp_path / "config.py"
    config.write_text(infer_config(path).to_py(str(path)))
    stages = LazyConfig.load(config).model.backbone.stages
    assert (stages.depth, stages.shortcut, stages.project_res2) == (18, "avg_pool", True)
    assert load_checkpoint(instantiate(LazyConfig.load(config).model), path).coverage == 1


def test_maps_norms_of_a_file_need_a_place(tmp_path):
    case, state = small_state(0)
    assert case.name == "ConvNextBackbone"
    network, called = transformers_cases.timm_network("convnext_atto", **transformers_cases.DIMS)
    with pytest.raises(CheckpointMatchError, match=r"hidden_states_norms.*output_norms=True"):
        load_checkpoint(replace(case, ours=network, called=called).ours(), file_of(state, tmp_path, "backbone."))


def test_the_table_says_what_was_measured():
    case = TRANSFORMERS[0]
    rows = [
        Row(case, "huggingface-convnext", 1.0, {(224, 224): 3e-7, (161, 227): 2e-16}),
        Row(case, "huggingface-convnext", 1.0, {(224, 224): 3e-4}),
        Row(case, "huggingface-convnext", 0.9, {(224, 224): 0.0}),
        Row(case, failed="CheckpointMatchError: not for this model"),
    ]
    other = replace(case, name="TridentResNet", refused="three branches")
    rows += [
        Row(other, failed="CheckpointMatchError: no", refused=True),
        Row(other, named="a TridentNet has these names"),
        Row(other, "torchvision", 1.0, {(224, 224): 0.5}, named="something else"),
    ]
    text = markdown(rows, {"mmdet": None, "timm": "1.0"})
    assert "**1 of 4 rows load whole" in text and "left out: mmdet" in text and "Measured with timm 1.0." in text
    assert "; 2 of other networks are refused" in text.replace("\n", " ")
    assert text.count("| LOADS IN SILENCE | three branches |") == 1
    assert "| 3e-07 |" in text and "not for this model" in text
