"""torchvision's and detectron2's names: recognised, renamed, every key accounted for, proved by the features."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision

import detrex_backbones.checkpoint.names.conventions as package
from detrex_backbones import TimmBackbone, load_checkpoint
from detrex_backbones.checkpoint.names.conventions import Convention, Pair, conventions, sources
from detrex_backbones.errors import ArgumentError, CheckpointMatchError
from tests.checkpoint.nets import (
    FAMILY,
    IMAGES,
    RES,
    assert_same_features,
    assert_same_tensors,
    converted,
    empty,
    their_maps,
    theirs,
    weights,
)
from tests.reference import assert_close


def take_out(report, key):
    """Why a tensor was left over; the report no longer has it."""
    (entry,) = [entry for entry in report.entries if entry.checkpoint_key == key]
    report.entries.remove(entry)
    return report.left_over.get(key, entry.why)


def assert_accounted_for(report, stored):
    """Loaded and left over are the whole file; nothing is missing."""
    assert (report.missing, report.mismatched, report.ambiguous, report.unplaced) == ([], [], "", [])
    assert report.coverage == 1
    loaded = [item.checkpoint_key for item in report.loaded]
    assert sorted([*loaded, *report.left_over]) == sorted(stored)
    for key, reason in report.left_over.items():
        assert reason == ("batch counter" if key.endswith("num_batches_tracked") else "head"), key


def under(prefix, state):
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.few(1)
@pytest.mark.parametrize("name", FAMILY)
def test_torchvisions_files(tmp_path, name):
    path = tmp_path / "weights.pth"
    torch.save(weights(name), path)
    net = empty(**FAMILY[name])
    report = load_checkpoint(net, path)
    assert (report.source, report.prefix, report.scope) == ("torchvision", "", "")
    assert_accounted_for(report, weights(name))
    counters = {key for key in weights(name) if key.endswith("num_batches_tracked")}
    assert set(report.left_over) == {"fc.weight", "fc.bias"} | counters
    assert_same_features(net, name)


@pytest.mark.parametrize("counters", [True, False])
@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
def test_batch_counters_have_their_place_in_trainable_norms_and_none_in_frozen_ones(tmp_path, norm, counters):
    path = tmp_path / "weights.pth"
    state = {key: value.clone() for key, value in weights(counters=counters).items()}
    if counters:
        state["bn1.num_batches_tracked"].fill_(12)
    torch.save(state, path)
    net = empty(norm=norm)
    report = load_checkpoint(net, path)
    assert_accounted_for(report, state)
    counted = [key for key in state if key.endswith("num_batches_tracked")]
    assert len(counted) == (20 if counters else 0)
    left = {key for key, reason in report.left_over.items() if reason == "batch counter"}
    assert left == (set(counted) if norm == "FrozenBN" else set())
    assert_same_features(net)
    if norm == "BN":
        assert net.state_dict()["stem.conv1.norm.num_batches_tracked"] == (12 if counters else 7)


def test_the_classifier_goes_to_linear(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(weights(counters=False), path)
    maps = [*RES, "linear"]
    net = empty(num_classes=1000, out_features=maps)
    report = load_checkpoint(net, path)
    assert report.left_over == {}
    assert len(report.loaded) == len(weights(counters=False))
    assert_same_features(net, maps=maps)


def test_a_classifier_of_another_size_is_refused_unless_it_is_allowed(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(weights(), path)
    net = empty(num_classes=10, out_features=["res5", "linear"])
    with pytest.raises(CheckpointMatchError, match=r"linear\.weight \(10, 512\) in the model, \(1000, 512\) in"):
        load_checkpoint(net, path)
    report = load_checkpoint(net, path, allow_missing=["linear.*"])
    assert [item.model_key for item in report.mismatched] == ["linear.weight", "linear.bias"]
    assert (net.linear.weight == 0.25).all()


@pytest.mark.parametrize("prefix", ["module.", "backbone.body.", "backbone.0.body.", "module.model.encoder."])
@pytest.mark.parametrize("container", ["", "model"])
def test_prefixes_before_torchvisions_names(tmp_path, prefix, container):
    path = tmp_path / "weights.pth"
    state = under(prefix, weights())
    state["head.weight"] = torch.ones(3)
    state["backbone.fpn.layer1.weight"] = torch.ones(3)
    torch.save({container: state} if container else state, path)
    net = empty()
    report = load_checkpoint(net, path)
    clean = prefix.removeprefix("module.")
    assert (report.source, report.prefix, report.container) == ("torchvision", clean, container)
    left = {take_out(report, key) for key in ("head.weight", "backbone.fpn.layer1.weight")}
    assert left == (
        {f"outside {clean.rstrip('.')!r}"} if clean else {"no name of torchvision", "head of self-supervised training"}
    )
    assert_accounted_for(report, under(prefix, weights()))
    assert_same_features(net)


@pytest.mark.parametrize("prefix", ["module.", "backbone.bottom_up.", "module.detector.backbone."])
def test_prefixes_before_detectron2s_names(tmp_path, prefix):
    path = tmp_path / "weights.pkl"
    content = converted(weights())
    content["model"] = under(prefix, content["model"]) | {"proposal_generator.head.weight": np.ones(3)}
    path.write_bytes(pickle.dumps(content))
    net = empty()
    report = load_checkpoint(net, path)
    clean = prefix.removeprefix("module.")
    assert (report.source, report.prefix) == ("as stored", clean)
    why = f"outside {clean.rstrip('.')!r}" if clean else "no place in the model"
    assert take_out(report, "proposal_generator.head.weight") == why
    assert_accounted_for(report, under(prefix, converted(weights())["model"]))
    assert_same_features(net)


def test_two_networks_in_a_file_that_fit_equally_well_are_not_chosen_between(tmp_path):
    path = tmp_path / "weights.pth"
    others = {key: value + 1 for key, value in weights().items()}
    torch.save(under("left.", weights()) | under("right.", others), path)
    with pytest.raises(CheckpointMatchError, match=r"2 networks that fit: 'left', 'right'\. Say which: prefix="):
        load_checkpoint(empty(), path)
    net = empty()
    assert load_checkpoint(net, path, prefix="left").coverage == 1
    assert_same_features(net)


def test_a_teacher_is_taken_and_its_student_is_not(tmp_path):
    path = tmp_path / "weights.pth"
    others = {key: value + 1 for key, value in weights().items()}
    torch.save(under("student.", others) | under("teacher.", weights()), path)
    net = empty()
    report = load_checkpoint(net, path)
    assert report.left_over["student.conv1.weight"] == "student of a teacher"
    assert_same_features(net)


@pytest.mark.parametrize("name", ["resnet50", "resnet101"])
def test_what_detectron2s_converter_writes(tmp_path, name):
    """`{"model": arrays, "__author__": "torchvision", "matching_heuristics": True}`, `stem.fc.*` and counters kept."""
    path = tmp_path / "r_v1.pkl"
    reference = theirs(name)
    content = converted(reference.state_dict())
    path.write_bytes(pickle.dumps(content))
    assert {"stem.fc.weight", "stem.fc.bias", "stem.conv1.norm.num_batches_tracked"} < set(content["model"])
    net = empty(depth=int(name.removeprefix("resnet")))
    report = load_checkpoint(net, path)
    assert (report.format, report.container, report.source) == ("pickle", "model", "as stored")
    assert_accounted_for(report, content["model"])
    assert report.left_over["stem.fc.weight"] == "head"
    assert len(report.left_over) == 2 + sum(key.endswith("tracked") for key in content["model"])
    assert_same_features(net, name)


def test_a_classifier_under_detectron2s_name(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(empty(num_classes=5, out_features=["linear"]).state_dict(), path)
    report = load_checkpoint(empty(), path)
    assert report.left_over == {"linear.weight": "head", "linear.bias": "head"}


def test_a_detector_of_detectron2_keeps_its_preprocessing_to_itself(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({**empty().state_dict(), "pixel_mean": torch.zeros(3, 1, 1), "pixel_std": torch.ones(3, 1, 1)}, path)
    report = load_checkpoint(empty(), path)
    assert set(report.left_over.values()) == {"preprocessing, which the config holds"}


def test_torchvisions_own_resnet_is_loaded_as_stored(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(weights(), path)
    net = torchvision.models.resnet18().eval()
    report = load_checkpoint(net, path)
    assert (report.source, report.left_over) == ("as stored", {})
    assert_same_tensors(net.state_dict(), weights())


def test_torchvisions_resnet_without_its_classifier_as_part_of_a_detector(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(weights(), path)
    body = torchvision.models.resnet18()
    del body.fc
    detector = torch.nn.ModuleDict({"backbone": torch.nn.ModuleDict({"body": body}), "head": torch.nn.Linear(2, 2)})
    report = load_checkpoint(detector, path)
    assert (report.source, report.scope) == ("as stored", "backbone.body")
    assert report.left_over == {"fc.weight": "head", "fc.bias": "head"}
    assert report.outside == ["head.weight", "head.bias"]


def test_timms_resnet_is_loaded_as_stored(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(weights(), path)
    net = TimmBackbone("resnet18", out_indices=(1, 2, 3, 4), norm_layer="FrozenBN").eval()
    report = load_checkpoint(net, path)
    assert (report.source, report.scope) == ("as stored", "timm_model")
    assert_accounted_for(report, weights())
    with torch.no_grad():
        found = net(IMAGES)
    for ours, name in zip(("p1", "p2", "p3", "p4"), RES, strict=True):
        assert_close(found[ours], their_maps()[name])


def test_timms_names_are_torchvisions(tmp_path):
    path = tmp_path / "weights.pth"
    reference = timm.create_model("resnet18", num_classes=7)
    torch.save(reference.state_dict(), path)
    report = load_checkpoint(empty(), path)
    assert report.source == "torchvision"
    assert_accounted_for(report, reference.state_dict())


@pytest.mark.parametrize("source", ["torchvision", None])
def test_a_source_that_is_given(tmp_path, source):
    path = tmp_path / "weights.pth"
    torch.save(weights(), path)
    assert load_checkpoint(empty(), path, source=source).source == "torchvision"


def test_our_own_names_are_detectron2s(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(empty().state_dict(), path)
    assert load_checkpoint(empty(), path).source == "as stored"
    assert load_checkpoint(empty(), path, source="detectron2").source == "detectron2"
    assert load_checkpoint(empty(), path, source="as stored").source == "as stored"


def test_a_wrong_source(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(weights(), path)
    with pytest.raises(CheckpointMatchError, match=r"none of the names that source='detectron2' is known by") as caught:
        load_checkpoint(empty(), path, source="detectron2")
    assert "res2.0.conv1.weight, stem.conv1.weight" in str(caught.value)
    with pytest.raises(CheckpointMatchError, match=r"is not for this model: \d of its 122 tensors fit") as caught:
        load_checkpoint(empty(), path, source="as stored")
    assert len(caught.value.report.loaded) <= 5


def test_an_unknown_source(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(weights(), path)
    with pytest.raises(ArgumentError, match=r"source='torchvison' is not known\. Allowed: as stored,") as caught:
        load_checkpoint(empty(), path, source="torchvison")
    assert "Did you mean 'torchvision'" in str(caught.value)
    assert "detectron2" in str(caught.value)


def test_every_file_of_the_folder_is_a_convention():
    files = {file.stem for folder in package.__path__ for file in Path(folder).glob("[!_]*.py")}
    assert set(conventions()) >= {"torchvision", "detectron2"}
    found = [vars(sys.modules[f"{package.__name__}.{name}"]) for name in files]
    tables = [table for content in found for table in content.get("CONVENTIONS", ()) or [content["CONVENTION"]]]
    assert {table.name for table in tables} == set(conventions())


UPSIDE = """
from detrex_backbones.checkpoint.names.conventions import Convention, Pair

CONVENTION = Convention(
    name="upside_down",
    anchors=(("first.conv.weight", "blocks.a.0.conv1.weight"),),
    pairs=(
        Pair("first.conv.{leaf}", "stem.conv1.{leaf}"),
        Pair("first.conv.norm.{leaf}", "stem.conv1.norm.{leaf}"),
        *(
            Pair(f"blocks.{letter}.{theirs}.{{leaf}}", f"res{stage}.{theirs}.{{leaf}}")
            for stage, letter in enumerate("abcd", start=2)
            for theirs in ("{i}.conv{k}", "{i}.conv{k}.norm", "{i}.shortcut", "{i}.shortcut.norm")
        ),
    ),
    left_out={r"^classes\\.": "head"},
)
""".replace("\\\\", "\\")


@pytest.fixture
def another_convention(tmp_path, monkeypatch):
    """A folder with one more convention, which the package finds."""
    folder = tmp_path / "conventions"
    folder.mkdir()
    (folder / "upside_down.py").write_text(UPSIDE)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    conventions.cache_clear()
    sources.cache_clear()
    yield
    sys.modules.pop(f"{package.__name__}.upside_down", None)
    conventions.cache_clear()
    sources.cache_clear()


def test_a_convention_is_one_file(tmp_path, another_convention):
    letters = {"stem.conv1.": "first.conv.", **{f"res{2 + i}.": f"blocks.{letter}." for i, letter in enumerate("abcd")}}
    reference = empty()
    with torch.no_grad():
        for index, value in enumerate(reference.state_dict().values()):
            value.fill_(index)
    state = {"classes.weight": torch.ones(3)}
    for key, value in reference.state_dict().items():
        ours = next(start for start in letters if key.startswith(start))
        state[letters[ours] + key.removeprefix(ours)] = value
    path = tmp_path / "weights.pth"
    torch.save(under("module.", state), path)
    net = empty()
    report = load_checkpoint(net, path)
    assert (report.source, report.prefix) == ("upside_down", "")
    assert report.left_over == {"module.classes.weight": "head"}
    assert_same_tensors(net.state_dict(), reference.state_dict())
    assert load_checkpoint(empty(), path, source="upside_down").source == "upside_down"


def test_a_convention_as_a_table():
    table = Convention(
        name="x",
        anchors=(("a.w", "b.w"), ("c.w",)),
        pairs=(Pair("a.w", "A.matrix", rank=2), Pair("a.w", "A.w"), Pair("s{i}.{k}.{leaf}", "t{i+1}.{k}.{leaf}")),
        left_out={r"^head\.": "head"},
    )
    assert table.prefixes(["p.a.w", "p.b.w", "q.a.w", "xa.w", "a.w", "b.w", "r.c.w"]) == ["", "p.", "r."]
    assert table.prefixes(key for key in ("a.w", "b.w")) == [""]
    assert (table.read("a.w", 2), table.read("a.w", 1), table.read("ba.w", 2)) == ("A.matrix", "A.w", None)
    assert (table.read("s1.0.bias", 1), table.write("t2.0.bias", 1), table.read("s1.0.w", 1)) == (
        "t2.0.bias",
        "s1.0.bias",
        None,
    )
    assert (table.why_left_out("head.w"), table.why_left_out("a.head.w")) == ("head", "")
