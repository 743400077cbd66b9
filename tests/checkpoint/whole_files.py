"""Files that are whole, as names and shapes, and the networks that they fill: one of each naming convention."""

from __future__ import annotations

import itertools
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
    CSPDarknet,
    DeepStem,
    EVA02_ViT,
    FocalNet,
    InternImage,
    MViT,
    PyramidVisionTransformer,
    ResNet,
    SwinTransformer,
    TimmBackbone,
    TorchvisionBackbone,
    ViT,
    get_config,
    make_stage,
)
from detrex_backbones.checkpoint.names.conventions import conventions
from detrex_backbones.config import LazyCall
from detrex_backbones.zoo import build_on_meta
from tests.checkpoint.cut_files import Shapes, shapes_of
from tests.checkpoint.detr import detectors
from tests.checkpoint.detr.files import model_of, random_tensors
from tests.checkpoint.detr.test_huggingface import to_huggingface

# A network of timm's whose names the table of a convention leads from.
OF_TIMM = {
    **dict.fromkeys(("pycls", "mmdet-regnet", "torchvision-regnet", "timm-regnet", "timm"), "regnetx_002"),
    **dict.fromkeys(("mmdet-darknet", "timm-darknet"), "darknet53"),
    **dict.fromkeys(("mmdet-resnest", "mmpretrain-resnest", "detectron2-resnest", "timm-resnest"), "resnest14d"),
    "mmdet-res2net": "res2net50d",
    "timm-hrnet": "hrnet_w18_small",
    "cadene": "legacy_seresnet18",
    "mmdet-ssd": "vgg16",
    "torchvision-densenet": "densenet121",
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
# torchvision's network of these names, and timm's.
OF_TORCHVISION = {
    "torchvision-mobilenet-v2": ("mobilenet_v2", "mobilenetv2_100"),
    "torchvision-mobilenet-v3-small": ("mobilenet_v3_small", "mobilenetv3_small_100"),
    "torchvision-mobilenet-v3-large": ("mobilenet_v3_large", "mobilenetv3_large_100"),
    "torchvision-efficientnet": ("efficientnet_b0", "efficientnet_b0"),
    "torchvision-efficientnet-v2-s": ("efficientnet_v2_s", "efficientnetv2_s"),
    "torchvision-efficientnet-v2": ("efficientnet_v2_m", "efficientnetv2_m"),
    "torchvision-swin": ("swin_t", "swin_tiny_patch4_window7_224"),
    "torchvision-swinv2": ("swin_v2_t", "swinv2_tiny_window8_256"),
    "torchvision-convnext": ("convnext_tiny", "convnext_tiny"),
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
    backbone, plain = (
        LazyCall(TimmBackbone)(model_name=name, out_indices=None),
        LazyCall(timm.create_model)(model_name=name),
    )
    return build_on_meta(backbone), shapes_of(build_on_meta(plain))


@cache
def of_ours(norm, deep, shortcut, squeeze, classes=10):
    """A ResNet-18 of ours without memory."""
    kwargs = {"se_reduction": 16} if squeeze else {}
    with torch.device("meta"):
        stem = DeepStem(out_channels=64, norm=norm) if deep else BasicStem(norm=norm)
        stages = make_stage(depth=18, norm=norm, in_channels=64, shortcut=shortcut, **kwargs)
        maps = ["res2", "res3", "res4", "res5", *(["linear"] if classes else [])]
        return ResNet(stem, stages, num_classes=classes, out_features=maps)


def of_class(build):
    """A network of ours without memory, whose names are the authors', and its names and shapes."""
    with torch.device("meta"):
        model = build()
    return model, shapes_of(model)


OURS = list(itertools.product(("FrozenBN", "GN"), (False, True), ("conv1x1", "avg_pool"), (False, True)))


def file_in(name: str) -> tuple[nn.Module, Shapes]:
    """A network, and the names and shapes of a file in the names of this convention."""
    convention = conventions()[name]
    if name in OF_PEERS:
        return of_peer(*OF_PEERS[name])
    if name in OF_MMDET:
        network, rename, written = OF_MMDET[name]
        model, own = of_timm(network) if isinstance(network, str) else of_class(network)
        authors = {rename(key): shape for key, shape in own.items()}
        names = {convention.write(key, len(shape)): shape for key, shape in authors.items()}
        return model, written({theirs: shape for theirs, shape in names.items() if theirs})
    if name in DETRS or name.startswith("detrex") or name == "huggingface-detr":
        entries = DETRS.get(name, detectors.detr)(FEW)
        if name.startswith("detrex"):
            names = {convention.write(entry.ours, len(entry.our_shape)): entry.our_shape for entry in entries}
            return model_of(entries), names
        tensors = random_tensors(entries)
        tensors = to_huggingface(tensors) if name == "huggingface-detr" else tensors
        return model_of(entries), {key: tuple(value.shape) for key, value in tensors.items()}
    if name == "torchvision-detection":
        model = build_on_meta(get_config("detectors/retinanet_resnet18_fpn.py").model)
        return model, {convention.write(key, len(shape)): shape for key, shape in shapes_of(model).items()}
    if name in OF_TORCHVISION:
        theirs, network = OF_TORCHVISION[name]
        with torch.device("meta"):
            return of_timm(network)[0], shapes_of(torchvision.models.get_model(theirs))
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
    raise LookupError(f"no network here has files in the names of {name}: name one in OF_TIMM or OF_PEERS")


def of_peer(name: str, called: str) -> tuple[nn.Module, Shapes]:
    """This library's network, and the file that a class of another library writes, as its comparison has them."""
    pytest.importorskip("transformers")
    from benchmarks.peer_files import authors_cases, transformers_cases

    cases = [*transformers_cases.CASES, *authors_cases.CASES]
    case = next(case for case in cases if case.name == name and called in case.called)
    with torch.device("meta"):
        model = case.ours()
    return model, {key: tuple(value.shape) for key, value in case.state(case.build()).items() if value.dim()}


def stages_in_one(file: Shapes) -> Shapes:
    """OpenMMLab's EfficientNet: its fourth stage is two of the authors', one behind the other, and its fifth too."""
    block = re.compile(r"^blocks\.(\d)\.(\d+)\.")
    depths = {found[1]: int(found[2]) + 1 for key in file if (found := block.match(key))}
    first = {stage: (str(stage + 1), 0) for stage in range(4)} | {4: ("4", depths["3"])}
    first |= {5: ("5", 0), 6: ("5", depths["5"])}

    def place(found: re.Match[str]) -> str:
        layer, start = first[int(found[1])]
        return f"layers.{layer}.{start + int(found[2])}."

    return {block.sub(place, key): shape for key, shape in file.items()}


def blocks_through(file: Shapes) -> Shapes:
    """EfficientNet-PyTorch: blocks are counted through all stages."""
    block = re.compile(r"^blocks\.(\d)\.(\d+)\.")
    places = sorted({found.groups() for key in file if (found := block.match(key))})
    return {
        block.sub(lambda found: f"_blocks.{places.index(found.groups())}.", key): shape for key, shape in file.items()
    }


def authors_of_pvt(name: str) -> str:
    """From timm's names of a PVT v2 to its authors'."""
    name = re.sub(r"^patch_embed\.", "patch_embed1.", name)
    name = re.sub(r"^stages\.(\d)\.downsample\.", lambda found: f"patch_embed{int(found[1]) + 1}.", name)
    name = re.sub(r"^stages\.(\d)\.blocks\.", lambda found: f"block{int(found[1]) + 1}.", name)
    name = re.sub(r"^stages\.(\d)\.norm\.", lambda found: f"norm{int(found[1]) + 1}.", name)
    return name.replace(".mlp.dwconv.", ".mlp.dwconv.dwconv.")


def joined_attention(file: Shapes) -> Shapes:
    """OpenMMLab's PVT: torch's attention, with query, key and value in one tensor, and an MLP of 1x1 convolutions."""
    joined = {key: shape for key, shape in file.items() if not key.endswith("_kv")}
    for key, shape in joined.items():
        if ".in_proj_" in key:
            joined[key] = (3 * shape[0], *shape[1:])
        elif key.endswith((".ffn.layers.0.weight", ".ffn.layers.4.weight")):
            joined[key] = (*shape, 1, 1)
    return joined


# The class of another library whose files have these names, and the network of this one.
OF_PEERS = {
    "huggingface-convnext": ("ConvNextBackbone", "ConvNeXt"),
    "huggingface-dinov3-convnext": ("DINOv3ConvNextBackbone", ""),
    "huggingface-pp-lcnet": ("PPLCNetBackbone", ""),
    "huggingface-focalnet": ("FocalNetBackbone", ""),
    "huggingface-pvt-v2": ("PvtV2Backbone", ""),
    "huggingface-hiera": ("HieraModel", ""),
    "huggingface-sam2-hiera": ("Sam2HieraDetModel", ""),
    "huggingface-maskformer-swin": ("MaskFormerSwinBackbone", ""),
    "huggingface-dinov2": ("Dinov2WithRegistersBackbone", ""),
    "huggingface-dinov3": ("DINOv3ViTBackbone", "small_patch16"),
    "huggingface-dinov3-gated": ("DINOv3ViTBackbone", "small_plus"),
    "huggingface-beit": ("BeitBackbone", ""),
    "huggingface-vitdet": ("VitDetBackbone", "samvit"),
    "huggingface-rtdetr": ("RTDetrResNetBackbone", "resnet26d"),
    "huggingface-rf-detr": ("RfDetrDinov2Backbone", ""),
    "huggingface-lw-detr": ("LwDetrViTBackbone", ""),
    "huggingface-efficientnet": ("EfficientNetModel", "b1"),
    "huggingface-mobilenet-v2": ("MobileNetV2Model", ""),
    "rtdetr": ("PResNet-50 vd", ""),
}
# Of OpenMMLab's: a network of timm or a class of ours, from its names to those that the table of the convention
# leads to, and what is in no table.
OF_MMDET = {
    "mmdet-efficientnet": ("tf_efficientnet_b0", str, stages_in_one),
    "efficientnet-pytorch": ("tf_efficientnet_b0", str, blocks_through),
    "mmdet-pvt-v2": ("pvt_v2_b0", authors_of_pvt, joined_attention),
    "mmdet-pvt": (PyramidVisionTransformer, str, joined_attention),
    "yolox": (CSPDarknet, str, dict),  # Megvii's names of OpenMMLab's network
}

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
    for kinds in OURS:  # a detector's files have no classifier
        yield of_ours(*kinds, classes=None), shapes_of(of_ours(*kinds, classes=None)), True
    for other in SMALL:
        yield *of_timm(other), False
