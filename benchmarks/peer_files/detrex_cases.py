"""detrex's backbones, from a checkout on the path, which needs detectron2's beside it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

from torch import nn

import detrex_backbones as ours
from benchmarks.peer_files.case import SIZES, Case, timm_network
from benchmarks.peer_files.detectron2_cases import LARGE_SIZES, PATCHES, named_maps
from benchmarks.peer_files.stand_ins import for_detrex

__all__ = ["CASES"]


def theirs(make: Callable[[Any], nn.Module]) -> Callable[[], nn.Module]:
    """What makes the peer's network of detrex's module of backbones."""

    def build() -> nn.Module:
        for_detrex()
        from detrex.modeling import backbone
        from detrex.modeling.backbone.torchvision_resnet import TorchvisionResNet

        backbone.TorchvisionResNet = TorchvisionResNet
        return make(backbone)

    return build


def case(name: str, make: Callable[[Any], nn.Module], **more: Any) -> Case:
    """A row of a class that both libraries have by one name: made alike from either."""
    arguments: dict[str, Any] = {"sizes": LARGE_SIZES, "ours": partial(make, ours), "called": name.split()[0]}
    return Case("detrex", name, build=theirs(make), maps=named_maps, **{**arguments, **more})


def of_timm(name: str, **arguments: Any) -> dict[str, Any]:
    """What `case` takes for timm's network in the place of ours."""
    return dict(zip(("ours", "called"), timm_network(name, **arguments), strict=True))


def of_maskdino(name: str) -> Callable[[], nn.Module]:
    """What makes one of the two backbones of MaskDINO, of what its yaml says."""

    def build() -> nn.Module:
        for_detrex()
        from projects.maskdino.modeling.backbone import focal, swin

        made: nn.Module
        if name == "D2SwinTransformer":
            made = swin.D2SwinTransformer(SimpleNamespace(MODEL=SimpleNamespace(SWIN=SimpleNamespace(**YAML))), None)
        else:
            made = focal.FocalNet(**MASKDINO_FOCAL)
        return made

    return build


def resnet(module: Any, **stages: Any) -> nn.Module:
    """detrex's ResNet-50."""
    made = module.make_stage(depth=50, norm="FrozenBN", **stages)
    net: nn.Module = module.ResNet(
        stem=module.BasicStem(in_channels=3, out_channels=64, norm="FrozenBN"),
        stages=made,
        out_features=["res3", "res4", "res5"],
    )
    return net


def simple_pyramid(kind: str, arguments: dict[str, Any], module: Any) -> nn.Module:
    """A transformer under the pyramid of ViTDet."""
    net: nn.Module = module.SimpleFeaturePyramid(
        net=getattr(module, kind)(**arguments),
        in_feature="last_feat",
        out_channels=32,
        scale_factors=(4.0, 2.0, 1.0, 0.5),
        norm="LN",
    )
    return net


def torchvision_resnet(module: Any) -> nn.Module:
    """torchvision's ResNet-50 with a dilated layer4, as DETR-DC5 has it."""
    layers = {"layer1": "res2", "layer2": "res3", "layer3": "res4", "layer4": "res5"}
    net: nn.Module = module.TorchvisionResNet(name="resnet50", train_backbone=True, dilation=True, return_layers=layers)
    return net


def resnet_dc5() -> nn.Module:
    """Ours with torchvision's kind of DC5."""
    stages = ours.make_stage(50, norm="FrozenBN", res5_dilation=2, dilation_style="torchvision")
    return ours.ResNet(ours.BasicStem(norm="FrozenBN"), stages, out_features=["res2", "res3", "res4", "res5"])


DIMS = {"depths": [1, 1, 2, 1], "dims": [8, 16, 24, 32]}
FOUR = {"out_indices": (0, 1, 2, 3)}
FOCAL = {"embed_dim": 24, "depths": (1, 2, 1, 1)}
LARGE_FOCAL = {**FOCAL, "use_conv_embed": True, "use_postln": True, "use_layerscale": True}
LARGE_FOCAL |= {"focal_levels": (3, 3, 3, 3), "focal_windows": (5, 5, 5, 5)}
PUBLISHED_LARGE = {**LARGE_FOCAL, "embed_dim": 192, "depths": (2, 2, 18, 2)}
INTERN = {"core_op": "DCNv3_pytorch", "channels": 16, "depths": [1, 2, 3, 1], "groups": [1, 2, 4, 8], **FOUR}
INTERN |= {"layer_scale": 1.0, "offset_scale": 1.0}
MASKDINO_FOCAL = {**FOCAL, "focal_levels": [2, 2, 2, 2], "focal_windows": [3, 3, 3, 3]}
VIT = {"img_size": 224, "patch_size": 16, "embed_dim": 48, "depth": 3, "num_heads": 3, "window_size": 7}
VIT |= {"window_block_indexes": [0, 1]}
EVA = {**VIT, "use_rel_pos": True, "residual_block_indexes": [2]}
EVA02 = {**VIT, "window_block_indexes": [0, 1, 2], "use_rel_pos": True}
WHOLE_EVA02 = {**VIT, "pretrain_img_size": 224}
YAML = {"PRETRAIN_IMG_SIZE": 224, "PATCH_SIZE": 4, "EMBED_DIM": 24, "DEPTHS": [1, 1, 2, 1], "NUM_HEADS": [1, 2, 4, 8]}
YAML |= {"WINDOW_SIZE": 7, "MLP_RATIO": 4.0, "QKV_BIAS": True, "QK_SCALE": None, "DROP_RATE": 0.0, "APE": False}
YAML |= {"ATTN_DROP_RATE": 0.0, "DROP_PATH_RATE": 0.1, "PATCH_NORM": True, "USE_CHECKPOINT": False}
YAML |= {"OUT_FEATURES": ["res2", "res3", "res4", "res5"]}
SWIN = {"embed_dim": 24, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8)}
EVEN = ((192, 256), (224, 224))
NODES = {"layer2": "res3", "layer3": "res4", "layer4": "res5"}
TIMM_18 = {"out_indices": (1, 2, 3), "pretrained": False, "features_only": True}
WHOLE = ((224, 224),)


def maskdino(name: str, network: tuple[Callable[[], nn.Module], str], **more: Any) -> Case:
    """A row of MaskDINO's."""
    return Case("detrex", f"MaskDINO's {name}", of_maskdino(name), *network, named_maps, **more)


CASES = [
    case("ResNet 50", resnet, sizes=SIZES),
    case("ResNet 50 DC5 of make_stage", partial(resnet, res5_dilation=2), sizes=SIZES),
    case("ConvNeXt", lambda module: module.ConvNeXt(**DIMS, layer_scale_init_value=1.0)),
    case(
        "ConvNeXt",
        lambda module: module.ConvNeXt(**DIMS, layer_scale_init_value=1.0),
        **of_timm("convnext_tiny", output_norms=True, **DIMS, **FOUR),
    ),
    case("FocalNet", lambda module: module.FocalNet(**FOCAL)),
    case(
        "FocalNet",
        lambda module: module.FocalNet(),
        **of_timm("focalnet_tiny_lrf", output_norms=True, **FOUR),
        sizes=EVEN,
        note="at other sizes it pads what timm cuts off",
    ),
    case("FocalNet large", lambda module: module.FocalNet(**LARGE_FOCAL)),
    case(
        "FocalNet large",
        lambda module: module.FocalNet(**PUBLISHED_LARGE),
        **of_timm("focalnet_large_fl3", output_norms=True, **FOUR),
        sizes=EVEN[:1],
        note="at other sizes it pads what timm cuts off",
    ),
    case("InternImage", lambda module: module.InternImage(**INTERN)),
    case("InternImage, norms behind", lambda module: module.InternImage(**INTERN, post_norm=True)),
    case("EVAViT", lambda module: module.EVAViT(**EVA), prefix="backbone.net."),
    case("SimpleFeaturePyramid of EVAViT", partial(simple_pyramid, "EVAViT", EVA)),
    case("EVA02_ViT", lambda module: module.EVA02_ViT(**EVA02), prefix="backbone.net."),
    case("EVA02_ViT with global blocks", lambda module: module.EVA02_ViT(**WHOLE_EVA02), sizes=WHOLE),
    case("SimpleFeaturePyramid of EVA02_ViT", partial(simple_pyramid, "EVA02_ViT", EVA02)),
    maskdino("D2SwinTransformer", (partial(ours.SwinTransformer, **SWIN), "SwinTransformer"), sizes=LARGE_SIZES),
    maskdino(
        "D2SwinTransformer",
        timm_network("swin_tiny_patch4_window7_224", output_norms=True, **SWIN, **FOUR),
        sizes=PATCHES,
    ),
    maskdino("FocalNet", (partial(ours.FocalNet, **MASKDINO_FOCAL), "FocalNet"), sizes=LARGE_SIZES),
    case("TimmBackbone resnet18d", lambda module: module.TimmBackbone("resnet18d", **TIMM_18), sizes=SIZES),
    case("TimmBackbone convnext_atto", lambda module: module.TimmBackbone("convnext_atto", **TIMM_18), sizes=SIZES),
    case(
        "TorchvisionBackbone resnet50",
        lambda module: module.TorchvisionBackbone("resnet50", pretrained=False, return_nodes=NODES),
        sizes=SIZES,
    ),
    case(
        "TorchvisionBackbone resnet50",
        lambda module: module.TorchvisionBackbone("resnet50", pretrained=False, return_nodes=NODES),
        ours=partial(resnet, ours),
        called="ResNet",
        sizes=SIZES,
    ),
    case("TorchvisionResNet DC5", torchvision_resnet, sizes=SIZES),
    case(
        "TorchvisionResNet DC5",
        torchvision_resnet,
        ours=resnet_dc5,
        called="ResNet with dilation_style='torchvision'",
        sizes=SIZES,
    ),
]
