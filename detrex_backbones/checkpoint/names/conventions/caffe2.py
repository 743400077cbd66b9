"""Caffe2's blobs: MSRA's and Facebook's ImageNet networks, and Detectron, the predecessor of detectron2.

Read off `detectron2.checkpoint.c2_model_loading`. Norms come in three dialects: with statistics (`_bn_gamma` at MSRA,
`_bn_s` and `_bn_rm` at Facebook), fused into a scale and a bias without any (Detectron), and group norm. The background
is the first class there and the last one in detectron2, whose boxes and masks have none at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from detrex_backbones.checkpoint.names.conventions._convention import Convention, Pair
from detrex_backbones.checkpoint.read import GivenTensor, LazyTensor, joined

# Norm of the frozen kind divides by sqrt(variance + eps): with this variance, by 1.
EPS = 1e-5

UNUSED_BIAS = re.compile(r"^(conv1|res\d+_\d+_branch(1|2[abc]))_b$")
FUSED = re.compile(r"^(?P<norm>(res\d+_\d+_branch\w+|res_conv1)_bn)_s$")
DETECTOR = (
    r"^(fpn_|conv_rpn|rpn_|retnet_|fc6_|fc7_|head_conv|cls_score|bbox_pred|_\[mask\]|mask_|conv5_mask|conv_fcn|kps_)"
)

STATISTICS = ("running_mean", "running_var")
CONVS = {
    "conv1": "stem.conv1",
    "res{s}_{i}_branch1": "res{s}.{i}.shortcut",
    **{f"res{{s}}_{{i}}_branch2{letter}": f"res{{s}}.{{i}}.conv{k}" for k, letter in enumerate("abc", 1)},
}

# Layers of a detector with weight and bias. A pyramid's layers are called after the last block of their stage.
LAYERS = {
    "conv_rpn": "proposal_generator.rpn_head.conv",
    "rpn_bbox_pred": "proposal_generator.rpn_head.anchor_deltas",
    "rpn_cls_logits": "proposal_generator.rpn_head.objectness_logits",
    "conv_rpn_fpn2": "proposal_generator.rpn_head.conv",
    "rpn_bbox_pred_fpn2": "proposal_generator.rpn_head.anchor_deltas",
    "rpn_cls_logits_fpn2": "proposal_generator.rpn_head.objectness_logits",
    "fc6": "box_head.fc1",
    "fc7": "box_head.fc2",
    "head_conv{k}": "box_head.conv{k}",
    "_[mask]_fcn{k}": "mask_head.mask_fcn{k}",
    "conv5_mask": "mask_head.deconv",
    "conv_fcn{k}": "roi_heads.keypoint_head.conv_fcn{k}",
    "kps_score_lowres": "roi_heads.keypoint_head.score_lowres",
    "kps_score": "roi_heads.keypoint_head.score",
    "fpn_inner_res{s}_{n}_sum_lateral": "fpn_lateral{s}",
    "fpn_inner_res{s}_{n}_sum": "fpn_lateral{s}",
    "fpn_res{s}_{n}_sum": "fpn_output{s}",
}
# Read only: their rows are moved, and nothing moves them back.
SCORES = {"cls_score": "cls_score", "bbox_pred": "bbox_pred", "mask_fcn_logits": "mask_head.predictor"}


def adapt(tensors: Mapping[str, LazyTensor]) -> tuple[dict[str, LazyTensor], dict[str, str]]:
    """Move or drop the background's rows, give fused norms the statistics that change nothing, set biases aside."""
    adapted: dict[str, LazyTensor] = {}
    done: dict[str, str] = {}
    for name, tensor in tensors.items():
        fused = FUSED.match(name)
        if UNUSED_BIAS.match(name):
            done[name] = _why_unused(tensor)
            continue
        if name.startswith("cls_score_"):
            adapted[name] = joined([tensor[1:], tensor[:1]])
            done[name] = "background row moved to the end"
        elif name.startswith(("bbox_pred_", "mask_fcn_logits_")):
            adapted[name] = tensor[4 if name.startswith("bbox_pred_") else 1 :]
            done[name] = "background rows dropped"
        else:
            adapted[name] = tensor
        if fused and f"{fused['norm']}_rm" not in tensors:
            for ending, value in (("rm", 0.0), ("riv", 1 - EPS)):
                adapted[f"{fused['norm']}_{ending}"] = GivenTensor(torch.full(tensor.shape, value, dtype=tensor.dtype))
                done[f"{fused['norm']}_{ending}"] = (
                    "not in the file: its norms are fused, so that statistics change nothing"
                )
    return adapted, done


def _why_unused(bias: LazyTensor) -> str:
    largest = float(bias.load().abs().max()) if all(bias.shape) else 0.0
    if largest == 0:
        return "bias of a convolution in front of a norm: all zeros"
    return f"bias of a convolution in front of a norm, which Detectron runs without it: NOT ZERO, up to {largest:.3g}"


def _pairs(norm: Mapping[str, str], classifier: tuple[str, str]) -> tuple[Pair, ...]:
    """The table of a dialect: how it ends the names of a norm's tensors, and what it calls the classifier."""
    pairs = []
    for theirs, ours in CONVS.items():
        stem = "res_conv1" if theirs == "conv1" and "_bn_" in norm["weight"] else theirs
        pairs.append(Pair(f"{theirs}_w", f"{ours}.weight"))
        pairs += [Pair(f"{stem}{ending}", f"{ours}.norm.{leaf}") for leaf, ending in norm.items()]
        if "running_mean" not in norm and "_bn_" in norm["weight"]:
            pairs += [
                _read_only(f"{stem}_bn_{end}", f"{ours}.norm.{leaf}")
                for leaf, end in zip(STATISTICS, ("rm", "riv"), strict=True)
            ]
    for ending, leaf in (("w", "weight"), ("b", "bias")):
        first, *others = (f"{name}_{ending}" for name in classifier)
        pairs.append(Pair(first, f"linear.{leaf}", also=tuple(others)))
        pairs += [_layer(theirs, ours, ending, leaf) for theirs, ours in LAYERS.items()]
        pairs += [_read_only(f"{theirs}_{ending}", f"{ours}.{leaf}") for theirs, ours in SCORES.items()]
    for ending, leaf in (("s", "weight"), ("b", "bias")):  # group norm of a detector, whatever the backbone has
        norms = {theirs: ours for theirs, ours in LAYERS.items() if theirs.startswith(("fpn", "head_conv", "_[mask]"))}
        pairs += [_layer(f"{theirs}_gn", f"{ours}.norm", ending, leaf) for theirs, ours in norms.items()]
    return tuple(pairs)


def _layer(theirs: str, ours: str, ending: str, leaf: str) -> Pair:
    # How many blocks a stage has, and whether there is a pyramid, is not in our name.
    pair = Pair(f"{theirs}_{ending}", f"{ours}.{leaf}")
    return _read_only(*pair[:2]) if "{n}" in theirs or theirs.startswith(("conv_rpn", "rpn_")) else pair


def _read_only(theirs: str, ours: str) -> Pair:
    return Pair("", ours, also=(theirs,))


MSRA_NORM = {
    "weight": "_bn_gamma",
    "bias": "_bn_beta",
    "running_mean": "_bn_running_mean",
    "running_var": "_bn_running_var",
}
CAFFE2_NORM = {"weight": "_bn_s", "bias": "_bn_b", "running_mean": "_bn_rm", "running_var": "_bn_riv"}
FUSED_NORM = {"weight": "_bn_s", "bias": "_bn_b"}
GROUP_NORM = {"weight": "_gn_s", "bias": "_gn_b"}

LEFT_OUT = {r"^(fc1000|pred)_": "head", r"^lr$": "learning rate", DETECTOR: "part of a detector"}
BGR = {"pixel_mean": [103.53, 116.28, 123.675], "pixel_std": [1.0, 1.0, 1.0], "input_format": "BGR"}

CONVENTIONS = (
    Convention(
        name="msra",
        anchors=(("res2_0_branch2a_bn_gamma", "conv1_w", "res2_0_branch2a_w"),),
        aliases=("caffe2", "detectron2"),
        pairs=_pairs(MSRA_NORM, ("fc1000", "pred")),
        left_out=LEFT_OUT,
        adapt=adapt,
        suggests={**BGR, "stride_in_1x1": True},
    ),
    Convention(
        name="caffe2",
        anchors=(("res2_0_branch2a_bn_s", "res2_0_branch2a_bn_rm", "conv1_w"),),
        aliases=("detectron2",),
        pairs=_pairs(CAFFE2_NORM, ("pred", "fc1000")),
        left_out=LEFT_OUT,
        adapt=adapt,
        suggests={**BGR, "pixel_std": [57.375, 57.12, 58.395], "stride_in_1x1": False},
    ),
    Convention(
        name="detectron",
        anchors=(("res2_0_branch2a_bn_s", "conv1_w"),),
        without=("res2_0_branch2a_bn_rm",),
        aliases=("caffe2", "detectron2"),
        pairs=_pairs(FUSED_NORM, ("fc1000", "pred")),
        left_out=LEFT_OUT,
        adapt=adapt,
        lookalikes="Detectron's ResNet-50 and 101 have stride_in_1x1=True, its ResNeXts stride_in_1x1=False",
        suggests={**BGR, "pixel_mean": [102.9801, 115.9465, 122.7717]},
    ),
    Convention(
        name="detectron-gn",
        anchors=(("res2_0_branch2a_gn_s", "conv1_w"),),
        aliases=("caffe2", "detectron", "detectron2"),
        pairs=_pairs(GROUP_NORM, ("fc1000", "pred")),
        left_out=LEFT_OUT,
        adapt=adapt,
        suggests={**BGR, "pixel_mean": [102.9801, 115.9465, 122.7717], "stride_in_1x1": False},
    ),
)
