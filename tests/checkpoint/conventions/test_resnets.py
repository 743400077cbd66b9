"""ResNets of Gluon, timm, OpenMMLab, pycls and torchvision: their files into ours, and equal feature maps."""

import pytest
import torch
import torchvision
from torch import nn

from detrex_backbones import load_checkpoint
from detrex_backbones.errors import CheckpointMatchError, PreprocessingError
from tests.checkpoint.conventions.files import (
    assert_same,
    load,
    prefixed,
    without_counters,
    write_mmengine,
    write_torch,
)
from tests.checkpoint.conventions.nets import (
    MMDET_STEM,
    MMPRETRAIN_SE,
    MMPRETRAIN_STEM,
    NO_FIRST_POOL,
    PYCLS_RESNET,
    maps_of,
    our_resnet,
    rename,
    shift,
    timm_bottleneck,
    timm_resnet,
    timm_se_resnext,
)
from tests.reference import torchvision_net

DEEP = {"stem_type": "deep", "stem_width": 32}


@pytest.mark.parametrize(
    ("source", "theirs", "stem", "ours"),
    [
        ("gluon", {**DEEP, "avg_down": True}, 64, {"shortcut": "avg_pool"}),
        ("gluon-v1c", DEEP, 64, {}),
        ("gluon-v1c", {"stem_type": "deep", "stem_width": 64}, 128, {}),
    ],
    ids=["v1d", "v1c", "v1s"],
)
def test_gluon(source, theirs, stem, ours, tmp_path):
    net = timm_resnet(**theirs)
    model = our_resnet(deep=stem, classes=10, **ours)
    report = load(model, write_torch(tmp_path / "file.pth", net.state_dict()))
    assert report.source == source
    assert_same(maps_of(model), maps_of(net))


def test_gluon_bottleneck(tmp_path):
    net = timm_bottleneck(**DEEP, avg_down=True)
    model = our_resnet(26, deep=64, shortcut="avg_pool")
    report = load(model, write_torch(tmp_path / "file.pth", net.state_dict()), source="gluon")
    assert set(report.left_over.values()) == {"head", "batch counter"}
    assert_same(maps_of(model), maps_of(net))


@pytest.mark.parametrize(("rules", "source"), [([], "gluon-se"), (MMPRETRAIN_SE, "mmpretrain-se")])
def test_squeeze_and_excitation_behind_a_plain_stem(rules, source, tmp_path):
    net = timm_se_resnext()
    model = our_resnet(26, num_groups=32, width_per_group=4, se_reduction=16)
    report = load(model, write_torch(tmp_path / "file.pth", rename(net.state_dict(), rules)))
    assert report.source == source
    assert_same(maps_of(model), maps_of(net))


def test_squeeze_and_excitation_behind_a_deep_stem(tmp_path):
    net = timm_se_resnext(**DEEP)
    model = our_resnet(26, deep=64, num_groups=32, width_per_group=4, se_reduction=16)
    assert load(model, write_torch(tmp_path / "file.pth", net.state_dict())).source == "gluon-v1c"
    assert_same(maps_of(model), maps_of(net))


@pytest.mark.parametrize(
    ("source", "rules", "pool"),
    [
        ("mmdet", MMDET_STEM, True),
        ("mmdet-v1c", MMDET_STEM, False),
        ("mmpretrain", [*MMPRETRAIN_STEM, *NO_FIRST_POOL], True),
        ("mmpretrain-v1c", MMPRETRAIN_STEM, False),
    ],
)
def test_deep_stems_of_openmmlab(source, rules, pool, tmp_path):
    """Bottleneck blocks: only they have a shortcut in the first stage, where mmpretrain counts differently."""
    net = timm_bottleneck(**DEEP, avg_down=pool)
    state = rename(net.state_dict(), rules)
    head = {"fc.weight": "head.fc.weight", "fc.bias": "head.fc.bias"}
    state = {head.get(key, f"backbone.{key}"): value for key, value in state.items()}
    model = our_resnet(26, deep=64, shortcut="avg_pool" if pool else "conv1x1")
    report = load(model, write_mmengine(tmp_path / "file.pth", state))
    assert (report.source, report.prefix, report.container) == (source, "backbone.", "state_dict")
    assert report.left_over["head.fc.weight"] == "outside 'backbone'"
    assert_same(maps_of(model), maps_of(net))


def test_group_norm_of_openmmlab(tmp_path):
    torch.manual_seed(0)
    net = torchvision.models.resnet18(norm_layer=lambda channels: nn.GroupNorm(32, channels)).eval()
    for name, value in net.named_parameters():
        if "bn" in name or "downsample.1" in name:
            nn.init.uniform_(value, 0.5, 1.5)
    state = rename(net.state_dict(), [(r"(^|\.)bn(\d)\.", r"\1gn\2.")])
    model = our_resnet(norm="GN")
    report = load(model, write_torch(tmp_path / "file.pth", {"state_dict": state, "meta": {}}, legacy=True))
    assert report.source == "mmdet-gn"
    assert "weight standardisation" in report.lookalikes
    assert_same(maps_of(model), maps_of(net))


@pytest.mark.parametrize("name", ["net.pth", "resnet18-f37072fd.pth"])
@pytest.mark.parametrize("make", [our_resnet, lambda: torchvision_net("resnet18")])
def test_a_classifier_and_a_known_file_are_nothing_else(name, make, tmp_path):
    state = torchvision_net("resnet18").state_dict()
    if name != "net.pth":  # torchvision's own by its name, whatever it lacks
        del state["fc.weight"], state["fc.bias"]
    path = write_torch(tmp_path / name, state)
    report = load_checkpoint(make(), path, allow_missing=["fc.*"], check_preprocessing="off")
    assert report.lookalikes == "" and "note" not in str(report)


@pytest.mark.parametrize("prefix", ["", "backbone.", "module.backbone.", "teacher.backbone."])
def test_plain_resnet_of_openmmlab_may_be_of_either_style(prefix, tmp_path):
    net = torchvision_net("resnet18")
    state = {key: value for key, value in net.state_dict().items() if not key.startswith("fc.")}
    file = {**prefixed(state, prefix), "neck.lateral_convs.0.conv.weight": torch.ones(1)} if prefix else state
    file |= prefixed(state, "student.backbone.") if prefix.startswith("teacher") else {}
    model = our_resnet()
    report = load(model, write_mmengine(tmp_path / "file.pth", file))
    assert "caffe-style" in report.lookalikes and "stride_in_1x1=True" in report.lookalikes
    assert_same(maps_of(model), maps_of(net))


def test_averaged_weights_of_mmdetection_2_are_set_aside(tmp_path):
    """Its averages are buffers of the model, swapped with the plain names at the end."""
    state = prefixed(torchvision_net("resnet18").state_dict(), "backbone.")
    averages = {f"ema_{key.replace('.', '_')}": value + 1 for key, value in state.items()}
    report = load(our_resnet(), write_torch(tmp_path / "file.pth", {"state_dict": {**state, **averages}, "meta": {}}))
    assert report.left_over["ema_backbone_conv1_weight"] == "averaged weights, swapped into the plain names already"


def test_pycls_resnet(tmp_path):
    net = torchvision_net("resnet50")
    state = shift(net.state_dict(), r"^(layer\d)\.(\d+)\.", "{}.b{}.", by=1)
    model = our_resnet(50)
    file = {"epoch": 1, "model_state": rename(state, PYCLS_RESNET), "optimizer_state": {}, "cfg": "MODEL: {}"}
    report = load(model, write_torch(tmp_path / "file.pyth", file))
    assert (report.source, report.container) == ("pycls-resnet", "model_state")
    assert_same(maps_of(model), maps_of(net))


@pytest.mark.parametrize(("errors", "averaged_is_taken"), [((30.0, 28.0), True), ((28.0, 30.0), False)])
def test_pycls_takes_the_weights_with_fewer_errors(errors, averaged_is_taken, tmp_path):
    nets = [torchvision_net("resnet18"), torchvision_net("resnet18")]
    nets[1].conv1.weight.data += 1
    states = [rename(shift(n.state_dict(), r"^(layer\d)\.(\d+)\.", "{}.b{}.", by=1), PYCLS_RESNET) for n in nets]
    file = {"model_state": states[0], "ema_state": states[1], "test_err": errors[0], "ema_err": errors[1]}
    model = our_resnet()
    load(model, write_torch(tmp_path / "file.pyth", file), source="pycls")
    assert torch.equal(model.stem.conv1.weight, nets[averaged_is_taken].conv1.weight)


@pytest.mark.parametrize("counters", [True, False])
def test_torchvision(counters, tmp_path):
    net = torchvision_net("resnet34")
    state = net.state_dict() if counters else without_counters(net.state_dict())
    model = our_resnet(34, classes=1000)
    report = load(model, write_torch(tmp_path / "file.pth", state))
    assert report.source == "torchvision" and report.coverage == 1
    assert_same(maps_of(model), maps_of(net))


def test_torchvision_in_half_precision(tmp_path):
    """As the first wide ResNets are stored."""
    net = torchvision_net("resnet18").half().float()
    state = {key: value.half() if value.is_floating_point() else value for key, value in net.state_dict().items()}
    model = our_resnet()
    report = load(model, write_torch(tmp_path / "file.pth", state))
    assert {item.cast for item in report.loaded} == {"float16 -> float32"}
    assert_same(maps_of(model), maps_of(net))


def test_torchvision_detector(tmp_path):
    torch.manual_seed(0)
    net = torchvision.models.detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3).eval()
    model = our_resnet(50)
    report = load(model, write_torch(tmp_path / "file.pth", net.state_dict()))
    assert (report.source, report.prefix) == ("torchvision", "backbone.body.")
    assert report.left_over["backbone.fpn.inner_blocks.0.0.weight"] == "outside 'backbone.body'"
    with torch.no_grad():
        theirs = list(net.backbone.body(torch.ones(1, 3, 65, 97)).values())
    assert_same(list(maps_of(model, torch.ones(1, 3, 65, 97)).values())[-len(theirs) :], theirs)


def test_deep_stem_is_refused_by_a_plain_one(tmp_path):
    net = timm_resnet(**DEEP, avg_down=True)
    with pytest.raises(CheckpointMatchError, match=r"stem\.conv1\.weight"):
        load(our_resnet(), write_torch(tmp_path / "file.pth", net.state_dict()))


def test_resnet_d_is_not_loaded_as_resnet_c(tmp_path):
    """Their shortcuts have the same names here, so only the source says which is which."""
    path = write_torch(tmp_path / "f.pth", timm_resnet(**DEEP, avg_down=True).state_dict())
    with pytest.raises(PreprocessingError, match=r"expects? shortcut=avg_pool"):
        load(our_resnet(deep=64), path)
