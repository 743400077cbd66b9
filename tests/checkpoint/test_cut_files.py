"""No file with a fault loads as if it were whole: every naming convention, thirty families, faults at random places.

Every file here does load as long as nothing is wrong with it, into the network alone and into a detector that holds it.
"""

import itertools
import random
import re
from functools import cache, partial

import pytest
import timm
import torch
import torchvision
from torch import nn

from detrex_backbones import (
    BasicStem,
    ConvNeXt,
    DeepStem,
    EVA02_ViT,
    FocalNet,
    InternImage,
    MViT,
    ResNet,
    SwinTransformer,
    TimmBackbone,
    TorchvisionBackbone,
    ViT,
    make_stage,
)
from detrex_backbones.checkpoint.names.conventions import conventions
from detrex_backbones.checkpoint.names.model_names import ModelNames
from detrex_backbones.errors import CheckpointMatchError
from tests.checkpoint.cut_files import shapes_of, try_load, wrong_files
from tests.checkpoint.detr import detectors
from tests.checkpoint.detr.files import model_of, random_tensors
from tests.checkpoint.detr.test_huggingface import to_huggingface

FAMILIES = (
    *("resnet18", "resnet26d", "regnetx_002", "convnext_atto", "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"),
    *("efficientnet_b0", "mobilenetv3_small_050", "cspdarknet53", "darknet53", "densenet121", "hrnet_w18_small"),
    *("res2net50d", "resnest14d", "xcit_nano_12_p16_224", "cait_xxs24_224", "poolformer_s12", "pvt_v2_b0"),
    *("edgenext_xx_small", "efficientformer_l1", "mobilevit_xxs", "vgg11", "hiera_tiny_224", "repvgg_a0", "dla34"),
    *("ghostnet_100", "beit_base_patch16_224", "eva02_tiny_patch14_224", "test_vit", "swinv2_tiny_window8_256"),
)
QUICK = ("resnet18", "convnext_atto", "test_vit")

# A network, and another one of its family, deeper or wider.
SIBLINGS = (
    ("resnet18", "resnet34"),
    ("convnext_tiny", "convnext_small"),
    ("swin_tiny_patch4_window7_224", "swin_small_patch4_window7_224"),
    ("efficientnet_b0", "efficientnet_b1"),
    ("efficientnet_lite0", "efficientnet_b0"),
    ("vit_small_patch16_224", "vit_base_patch16_224"),
    ("vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2"),
    ("deit_tiny_patch16_224", "deit_small_patch16_224"),
    ("regnety_002", "regnety_004"),
    ("pvt_v2_b1", "pvt_v2_b2"),
    ("mobilenetv3_small_050", "mobilenetv3_small_100"),
    ("res2net50_26w_4s", "res2net101_26w_4s"),
    ("hrnet_w18_small", "hrnet_w18"),
    ("densenet121", "densenet169"),
    ("xcit_nano_12_p16_224", "xcit_tiny_12_p16_224"),
    ("poolformer_s12", "poolformer_s24"),
)

# A network of timm's whose names the table of a convention leads from.
OF_TIMM = {
    **dict.fromkeys(("pycls", "mmdet-regnet", "torchvision-regnet", "timm-regnet", "timm"), "regnetx_002"),
    **dict.fromkeys(("mmdet-darknet", "timm-darknet"), "darknet53"),
    **dict.fromkeys(("mmdet-resnest", "mmpretrain-resnest", "detectron2-resnest", "timm-resnest"), "resnest14d"),
    "mmdet-res2net": "res2net50d",
    "timm-hrnet": "hrnet_w18_small",
    "cadene": "legacy_seresnet18",
    "mmdet-ssd": "vgg16",
    "timm-efficientnet": "efficientnet_b0",
}
# Classes of ours whose names are the authors'.
OF_CLASSES = {
    "swin": SwinTransformer,
    "convnext": ConvNeXt,
    "focalnet": FocalNet,
    "mvitv2": MViT,
    "vit": ViT,
    "eva02": EVA02_ViT,
    "internimage": partial(InternImage, groups=[4, 8, 16, 32]),
}
FEW = detectors.Size(layers=2, stem=1)
DETRS = {
    "detr": detectors.detr,
    "conditional-detr": detectors.conditional,
    "deformable-detr": detectors.deformable,
    "dn-deformable-detr": detectors.dn_deformable,
}


@cache
def of_timm(name):
    """The backbone without memory, and the names and shapes of timm's file."""
    with torch.device("meta"):
        return TimmBackbone(name, out_indices=None), shapes_of(timm.create_model(name))


def detector_of(backbone):
    """A model that holds it and has a part of its own."""
    model = nn.Module()
    model.backbone, model.neck = backbone, nn.Conv2d(8, 8, 1, device="meta")
    return model


def check(model, file, seeds, prefixes=("",), faults=1000):
    """The file loads whole, and with a fault never: so many of them, drawn."""
    assert (report := try_load(model, file)).coverage == report.file_coverage == 1
    own = ModelNames({key: tuple(value.shape) for key, value in model.state_dict().items()})
    for draw in map(random.Random, seeds):
        made = list(wrong_files(file, draw))
        for what, cut in draw.sample(made, min(faults, len(made))):
            # Two blocks alike can be exchanged, and the names of timm's own wrappers are as good as the plain ones.
            new = cut.keys() - file.keys()
            if not cut or cut == file or (new and len(cut) == len(file) and all(name in own for name in new)):
                continue
            lost = file.keys() - cut.keys()
            if lost and not new and not any(name in own for name in lost):
                continue  # behind the last map
            for prefix in prefixes:
                try:
                    report = try_load(model, {prefix + key: shape for key, shape in cut.items()})
                except CheckpointMatchError:
                    continue
                pytest.fail(f"{what}, prefix {prefix!r}, loads into {report.scope!r}:\n{report}")


@pytest.mark.parametrize("name", QUICK)
def test_a_file_with_a_fault_is_refused(name):
    model, file = of_timm(name)
    check(detector_of(model), file, seeds=[0], prefixes=["backbone."], faults=6)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_file_with_a_fault_is_refused_by_every_family(name):
    model, file = of_timm(name)
    check(model, file, [1], ["backbone."])
    check(detector_of(model), file, [2])


@pytest.mark.parametrize(
    "names", [pytest.param(names, marks=[pytest.mark.slow] * (at not in (0, 4))) for at, names in enumerate(SIBLINGS)]
)
@pytest.mark.parametrize("turned", [False, True])
def test_another_network_of_the_family_is_refused(names, turned):
    (model, _), (_, file) = map(of_timm, reversed(names) if turned else names)
    for holder in (model, detector_of(model)):
        with pytest.raises(CheckpointMatchError):
            try_load(holder, file)
        with pytest.raises(CheckpointMatchError):
            try_load(holder, {f"backbone.{key}": shape for key, shape in file.items()})


@cache
def of_ours(norm, deep, shortcut, squeeze):
    """A ResNet-18 of ours without memory."""
    kwargs = {"se_reduction": 16} if squeeze else {}
    with torch.device("meta"):
        stem = DeepStem(out_channels=64, norm=norm) if deep else BasicStem(norm=norm)
        stages = make_stage(depth=18, norm=norm, in_channels=64, shortcut=shortcut, **kwargs)
        return ResNet(stem, stages, num_classes=10, out_features=["res2", "res3", "res4", "res5", "linear"])


OURS = list(itertools.product(("FrozenBN", "GN"), (False, True), ("conv1x1", "avg_pool"), (False, True)))


def file_in(name):
    """A network, and the names and shapes of a file in the names of this convention."""
    convention = conventions()[name]
    if name in DETRS or name.startswith("detrex") or name == "huggingface-detr":
        entries = DETRS.get(name, detectors.detr)(FEW)
        if name.startswith("detrex"):
            names = {convention.write(entry.ours, len(entry.our_shape)): entry.our_shape for entry in entries}
            return model_of(entries), names
        tensors = random_tensors(entries)
        tensors = to_huggingface(tensors) if name == "huggingface-detr" else tensors
        return model_of(entries), {key: tuple(value.shape) for key, value in tensors.items()}
    if name == "torchvision-mobilenet":
        with torch.device("meta"):
            file = shapes_of(torchvision.models.mobilenet_v3_small())
            return TorchvisionBackbone("mobilenet_v3_small", return_nodes=["features.3", "features.12"]), file
    if name in OF_CLASSES:
        with torch.device("meta"):
            model = OF_CLASSES[name]()
        state = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        own = {key: shape for key, shape in state.items() if not convention.why_kept(key)}
        return model, own | ({"cls_token": (1, 1, 8)} if "pos_embed" in own else {})
    if name == "mmdet-ssd":
        model, own = of_timm("vgg16")
        own = {key: shape for key, shape in own.items() if key.startswith("features.")}
        return model, own | {"features.31.weight": (1024, 512, 3, 3), "features.33.weight": (1024, 1024, 1, 1)}
    for model, own, whole in networks_for(name):
        # What files of this source never hold; Detectron's norms are folded into two vectors.
        left = {key for key in own if convention.why_kept(key) or (name == "detectron" and "running_" in key)}
        names = {key: convention.write(key, len(shape)) for key, shape in own.items() if key not in left}
        if not whole:  # the classifier has no name in some of them
            names = {key: written for key, written in names.items() if written or not HEAD.match(key)}
        if None not in names.values() and (convention.prefixes(names.values()) or not convention.anchors):
            return model, {names[key]: own[key] for key in names}
    pytest.skip("its files take more than names: tests/checkpoint/conventions makes them of the authors' own classes")


HEAD = re.compile(r"head|fc\.|classifier|norm\.|conv_head|bn2|last_linear|final|incre_modules|downsamp_modules")
# Of a source that isn't named here, the first of these whose names its table has.
SMALL = (
    *("convnext_atto", "swin_tiny_patch4_window7_224", "pvt_v2_b0", "mobilenetv2_050", "efficientnet_b0", "test_vit"),
    *("hiera_tiny_224", "swinv2_tiny_window8_256", "hgnetv2_b0", "resnetv2_50", "focalnet_tiny_srf"),
)


def networks_for(name):
    """Networks that may have files of this source, the names and shapes of each, and whether all must have a name."""
    if name in OF_TIMM:
        yield *of_timm(OF_TIMM[name]), False
        return
    for kinds in OURS:
        yield of_ours(*kinds), shapes_of(of_ours(*kinds)), True
    for other in SMALL:
        yield *of_timm(other), False


QUICK_ONES = (
    "torchvision",
    "detectron2",
    "caffe2",
    "gluon",
    "mmdet",
    "pycls-resnet",
    "huggingface",
    "detr",
    "swin",
    "vit",
)


@pytest.mark.parametrize("name", QUICK_ONES)
def test_a_file_with_a_fault_is_refused_in_a_convention(name):
    check(*file_in(name), seeds=[0], faults=5)


@pytest.mark.slow
@pytest.mark.parametrize("name", conventions())
def test_every_fault_is_refused_in_every_convention(name):
    check(*file_in(name), seeds=[1])
