"""Caffe2's blobs in their dialects, as Python 2 pickled them, into ours; Detectron's heads into detectron2's names."""

import re

import pytest
import torch
from torch import nn

from detrex_backbones.checkpoint.load import load_checkpoint
from detrex_backbones.checkpoint.names.conventions import conventions
from tests.checkpoint.conventions.files import assert_same, load, write_python2_pickle
from tests.checkpoint.conventions.nets import maps_of, our_resnet
from tests.reference import noise, strides_into_1x1, torchvision_net

# torchvision's leaf -> how a dialect ends a norm's name.
DIALECTS = {
    "msra": {
        "weight": "bn_gamma",
        "bias": "bn_beta",
        "running_mean": "bn_running_mean",
        "running_var": "bn_running_var",
    },
    "caffe2": {"weight": "bn_s", "bias": "bn_b", "running_mean": "bn_rm", "running_var": "bn_riv"},
    "detectron": {"weight": "bn_s", "bias": "bn_b"},
    "detectron-gn": {"weight": "gn_s", "bias": "gn_b"},
}


def to_blobs(state, dialect):
    """torchvision's names -> Caffe2's, written down apart from the table."""
    endings = DIALECTS[dialect]
    blobs = {}
    for name, value in state.items():
        if name.endswith("num_batches_tracked") or name.startswith("fc."):
            continue
        *path, leaf = name.split(".")
        if path in (["conv1"], ["bn1"]):
            blob = "conv1" if path == ["conv1"] or "gn" in endings["weight"] else "res_conv1"
            conv = path == ["conv1"]
        else:
            layer, block, part, *index = path
            conv = part.startswith("conv") or index == ["0"]
            branch = "branch1" if part == "downsample" else f"branch2{'abc'[int(part[-1]) - 1]}"
            blob = f"res{int(layer[-1]) + 1}_{block}_{branch}"
        if conv:
            blobs[f"{blob}_w"] = value
        elif leaf in endings:
            blobs[f"{blob}_{endings[leaf]}"] = value
    return blobs


def fuse(net):
    """Put the statistics of every norm into its scale and bias, as Detectron did."""
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            scale = norm.weight.data / (norm.running_var + norm.eps).sqrt()
            norm.bias.data -= norm.running_mean * scale
            norm.weight.data = scale
            norm.running_mean.zero_()
            norm.running_var.fill_(1 - norm.eps)
    return net


def classifier(net, name):
    return {f"{name}_w": net.fc.weight.data, f"{name}_b": net.fc.bias.data}


def biases(blobs, value=0.0):
    return {f"{key[:-2]}_b": torch.full((len(blobs[key]),), value) for key in blobs if key.endswith("_w")}


def test_msra(tmp_path):
    net = strides_into_1x1(torchvision_net("resnet50"))
    blobs = {**to_blobs(net.state_dict(), "msra"), **classifier(net, "fc1000"), "conv1_b": torch.zeros(64)}
    blobs |= {f"{key}_momentum": torch.zeros_like(value) for key, value in list(blobs.items())[:3]}
    model = our_resnet(50, stride_in_1x1=True)
    report = load(model, write_python2_pickle(tmp_path / "R-50.pkl", blobs))
    assert (report.source, report.format, report.container) == ("msra", "pickle", "")
    assert len(report.loaded) == 265
    assert set(report.left_over) == {"conv1_b", "fc1000_w", "fc1000_b", *(f"{key}_momentum" for key in list(blobs)[:3])}
    assert_same(maps_of(model), maps_of(net))


def test_caffe2(tmp_path):
    """The classifier of Facebook's networks is called pred."""
    net = torchvision_net("resnet18")
    blobs = {**to_blobs(net.state_dict(), "caffe2"), **classifier(net, "pred")}
    model = our_resnet(classes=1000)
    report = load(model, write_python2_pickle(tmp_path / "X.pkl", blobs))
    assert (report.source, report.left_over) == ("caffe2", {})
    assert_same(maps_of(model), maps_of(net))


def test_detectron(tmp_path):
    net = fuse(torchvision_net("resnet18"))
    blobs = to_blobs(net.state_dict(), "detectron")
    blobs |= {key: value for key, value in biases(blobs).items() if "_bn_" not in key}
    model = our_resnet()
    report = load(model, write_python2_pickle(tmp_path / "R.pkl", {"blobs": blobs, "cfg": "MODEL: {}"}))
    assert (report.source, report.container) == ("detectron", "blobs")
    assert report.left_over["res2_0_branch2a_b"] == "bias of a convolution in front of a norm: all zeros"
    added = [item for item in report.loaded if item.adapted]
    assert len(added) == 40 and all(item.model_key.split(".")[-1].startswith("running_") for item in added)
    assert_same(maps_of(model), maps_of(net))
    # The statistics change nothing at all.
    assert torch.equal(model.stem.conv1.norm.running_var + 1e-5, torch.ones(64))


def test_bias_that_is_not_zero_is_said(tmp_path):
    blobs = to_blobs(fuse(torchvision_net("resnet18")).state_dict(), "detectron")
    blobs["res2_0_branch2a_b"] = torch.full((64,), 0.25)
    report = load(our_resnet(), write_python2_pickle(tmp_path / "R.pkl", blobs))
    assert "NOT ZERO, up to 0.25" in report.left_over["res2_0_branch2a_b"]


def test_detectron_with_group_norm(tmp_path):
    net = torchvision_net("resnet18", norm_layer=lambda channels: nn.GroupNorm(32, channels))
    blobs = to_blobs(net.state_dict(), "detectron-gn")
    model = our_resnet(norm="GN")
    report = load(model, write_python2_pickle(tmp_path / "R-GN.pkl", blobs))
    assert (report.source, report.left_over) == ("detectron-gn", {})
    assert_same(maps_of(model), maps_of(net))


# Detectron's name of a layer, detectron2's, its shape there and the rows of it in Detectron's order; None for all.
HEADS = [
    ("conv_rpn_fpn2", "proposal_generator.rpn_head.conv", (8, 8, 3, 3), None),
    ("rpn_bbox_pred_fpn2", "proposal_generator.rpn_head.anchor_deltas", (12, 8, 1, 1), None),
    ("rpn_cls_logits_fpn2", "proposal_generator.rpn_head.objectness_logits", (3, 8, 1, 1), None),
    ("fc6", "roi_heads.box_head.fc1", (16, 8), None),
    ("fc7", "roi_heads.box_head.fc2", (16, 16), None),
    ("cls_score", "roi_heads.box_predictor.cls_score", (81, 16), [*range(1, 81), 0]),
    ("bbox_pred", "roi_heads.box_predictor.bbox_pred", (324, 16), list(range(4, 324))),
    ("_[mask]_fcn1", "roi_heads.mask_head.mask_fcn1", (8, 8, 3, 3), None),
    ("conv5_mask", "roi_heads.mask_head.deconv", (8, 8, 2, 2), None),
    ("mask_fcn_logits", "roi_heads.mask_head.predictor", (81, 8, 1, 1), list(range(1, 81))),
    ("conv_fcn1", "roi_heads.keypoint_head.conv_fcn1", (8, 8, 3, 3), None),
    ("kps_score_lowres", "roi_heads.keypoint_head.score_lowres", (8, 17, 4, 4), None),
    ("fpn_inner_res2_1_sum_lateral", "backbone.fpn_lateral2", (8, 64, 1, 1), None),
    ("fpn_inner_res5_1_sum", "backbone.fpn_lateral5", (8, 512, 1, 1), None),
    ("fpn_res4_1_sum", "backbone.fpn_output4", (8, 8, 3, 3), None),
]


def detector(backbone):
    """Parameters where detectron2's FPN detectors have them."""
    root = nn.Module()
    root.backbone = nn.Module()
    root.backbone.bottom_up = backbone
    for _, path, shape, rows in HEADS:
        parent = root
        for part in path.split("."):
            if not hasattr(parent, part):
                parent.add_module(part, nn.Module())
            parent = getattr(parent, part)
        length = shape[0] if rows is None else len(rows)
        parent.weight = nn.Parameter(torch.full((length, *shape[1:]), torch.nan))
        parent.bias = nn.Parameter(torch.full((length,), torch.nan))
    return root


@pytest.fixture
def detectron_file(tmp_path):
    blobs = to_blobs(fuse(torchvision_net("resnet18")).state_dict(), "detectron")
    for index, (name, _, shape, _) in enumerate(HEADS):
        blobs[f"{name}_w"], blobs[f"{name}_b"] = noise(*shape, seed=index), noise(shape[0], seed=index)
    blobs |= {"lr": torch.tensor(0.1), "conv1_w_momentum": torch.zeros(64, 3, 7, 7)}
    return blobs, write_python2_pickle(tmp_path / "model_final.pkl", {"blobs": blobs, "cfg": "MODEL: {}"})


def test_whole_detector_of_detectron(detectron_file):
    """The background's rows are moved as detectron2 moves them."""
    blobs, path = detectron_file
    model = detector(our_resnet())
    report = load_checkpoint(model, path, scope="")
    assert report.coverage == 1 and set(report.left_over) == {"lr", "conv1_w_momentum"}
    state = model.state_dict()
    for name, ours, _, rows in HEADS:
        for ending, leaf in (("w", "weight"), ("b", "bias")):
            expected = blobs[f"{name}_{ending}"]
            assert torch.equal(state[f"{ours}.{leaf}"], expected if rows is None else expected[rows])
    adapted = {item.checkpoint_key: item.adapted for item in report.loaded if item.adapted}
    assert adapted["cls_score_w"] == "background row moved to the end"
    assert adapted["bbox_pred_b"] == "background rows dropped"


def test_backbone_alone_out_of_a_detector_of_detectron(detectron_file):
    report = load_checkpoint(our_resnet(), detectron_file[1])
    assert report.coverage == 1
    heads = {key: why for key, why in report.left_over.items() if key.startswith(("fpn", "fc6", "cls", "_[mask]"))}
    assert len(heads) == 12 and set(heads.values()) == {"part of a detector"}


def test_what_is_moved_is_never_written_back():
    for name in ("caffe2", "detectron"):
        for key in ("cls_score.weight", "bbox_pred.bias", "mask_head.predictor.weight"):
            assert conventions()[name].write(key, 2) is None
    assert conventions()["detectron"].write("stem.conv1.norm.running_var", 1) is None
    assert re.fullmatch("res_conv1_bn_riv", conventions()["caffe2"].write("stem.conv1.norm.running_var", 1) or "")
