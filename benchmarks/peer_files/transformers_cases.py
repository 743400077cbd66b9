"""Hugging Face's backbones, in small."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.peer_files.case import SIZES, Case, timm_network, torchvision_network
from detrex_backbones import (
    BasicStem,
    ConvNeXt,
    DeepStem,
    LWDETRViT,
    ResNet,
    SwinTransformer,
    ViT,
    WindowedDINOv2,
    make_stage,
)

__all__ = ["CASES"]

STAGES = ["stage1", "stage2", "stage3", "stage4"]
FOUR = {"depths": [1, 1, 2, 1], "out_features": STAGES}
INDICES = {"out_indices": (0, 1, 2, 3)}


def build(name: str, **config: Any) -> nn.Module:
    """One of transformers' backbones."""
    import transformers

    settings = getattr(transformers, name.replace("Backbone", "Config").replace("Model", "Config"))(**config)
    net: nn.Module = getattr(transformers, name)(settings)
    return net


def maps(net: nn.Module, image: Tensor) -> Sequence[Tensor]:
    """Its feature maps."""
    found: Sequence[Tensor] = net(image).feature_maps
    return found


def hiera_maps(net: nn.Module, image: Tensor) -> Sequence[Tensor]:
    """Those behind each stage."""
    found = net(image, output_hidden_states=True).reshaped_hidden_states
    return [value.permute(0, 3, 1, 2) for value in found[1:]]


def sam2_maps(net: nn.Module, image: Tensor) -> Sequence[Tensor]:
    """Those behind each stage."""
    return [value.permute(0, 3, 1, 2) for value in net(image).intermediate_hidden_states]


def focalnet_maps(net: nn.Module, image: Tensor) -> Sequence[Tensor]:
    """Those in front of what makes them smaller, which `FocalNetBackbone` gives behind it."""
    found: list[Tensor] = []
    hooks = [
        stage.register_forward_hook(lambda stage, given, made: found.append(made[1]))
        for stage in net.focalnet.encoder.stages  # type: ignore[union-attr]
    ]
    net(image)
    for hook in hooks:
        hook.remove()
    return [value.transpose(1, 2).unflatten(2, size) for value, size in zip(found, sizes_of(image), strict=True)]


def behind_blocks(blocks: Sequence[int], net: nn.Module, image: Tensor) -> Sequence[Tensor]:
    """Those of a network that gives what is behind each of its blocks, and of EfficientNet's stem."""
    found = net(image, output_hidden_states=True).hidden_states
    return [found[index] for index in blocks]


def sizes_of(image: Tensor) -> list[tuple[int, int]]:
    """(H, W) of the maps of a network that takes patches of 4x4 and halves them thrice, rounding down."""
    return [(image.shape[2] // 4 // 2**k, image.shape[3] // 4 // 2**k) for k in range(4)]


def written(net: nn.Module) -> Mapping[str, Tensor]:
    """The names that `save_pretrained` writes, which aren't those in memory."""
    with tempfile.TemporaryDirectory() as folder:
        net.save_pretrained(folder)  # type: ignore[operator]
        return load_file(Path(folder) / "model.safetensors")


def case(
    name: str, ours: tuple[Callable[[], nn.Module], str], *, sizes: Any = SIZES, note: str = "", **config: Any
) -> Case:
    """A row."""
    network, called = ours
    return Case("transformers", name, partial(build, name, **config), network, called, maps, written, sizes, note)


def resnet18(deep: bool = False) -> nn.Module:
    """This library's, with torchvision's stem and shortcuts, or RT-DETR's."""
    stem = DeepStem(out_channels=64, norm="BN") if deep else BasicStem(norm="BN")
    stages = make_stage(18, norm="BN", shortcut="avg_pool" if deep else "conv1x1", project_res2=deep)
    return ResNet(stem, stages, out_features=["res2", "res3", "res4", "res5"])


TINY = {"hidden_sizes": [8, 16, 24, 32], **FOUR}
DIMS = {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}
SWIN = {"embed_dim": 24, "num_heads": [1, 2, 4, 8], **FOUR}
SWIN_OURS = {"embed_dim": 24, "num_heads": (1, 2, 4, 8), "depths": (1, 1, 2, 1)}
SWIN_TIMM = {"embed_dim": 24, "num_heads": (1, 2, 4, 8), "depths": (1, 1, 2, 1), **INDICES}
SWIN_NETWORK = timm_network("swin_tiny_patch4_window7_224", output_norms=True, **SWIN_TIMM)
SWIN_V2_NETWORK = timm_network("swinv2_tiny_window8_256", window_size=7, **SWIN_TIMM)
VIT = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2, "out_indices": [1, 3]}
VIT_TIMM = {"embed_dim": 48, "depth": 3, "num_heads": 2, "out_indices": (0, 2)}
VITDET = {**VIT, "use_relative_position_embeddings": True, "window_block_indices": [0, 1], "window_size": 7}
VITDET_OURS = {"img_size": 224, "embed_dim": 48, "depth": 3, "num_heads": 2, "use_rel_pos": True}
VITDET_OURS |= {"window_size": 7, "window_block_indexes": (0, 1), "norm_layer": partial(nn.LayerNorm, eps=1e-6)}
WINDOWED = {"img_size": 224, "embed_dim": 48, "depth": 3, "num_heads": 2, "num_windows": 2, "out_indices": (1, 3)}
LW_DETR = {"embed_dim": 48, "depth": 3, "num_heads": 2, "window_block_indexes": (0, 2), "out_feature_indexes": (0, 2)}
EVEN = ((192, 256), (224, 224))
WHOLE_PATCHES = ((192, 256), (164, 228), (224, 224))
SQUARE = ((224, 224),)
RESNET = {"layer_type": "basic", "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2], "out_features": STAGES}
SAM2 = {
    "hidden_size": 16,
    "num_attention_heads": 1,
    "blocks_per_stage": [1, 2, 2, 1],
    "embed_dim_per_stage": [16, 32, 64, 128],
    "num_attention_heads_per_stage": [1, 2, 4, 8],
    "global_attention_blocks": [4],
}
SAM2_TIMM = timm_network(
    "sam2_hiera_tiny", embed_dim=16, num_heads=1, stages=(1, 2, 2, 1), global_att_blocks=(4,), **INDICES
)
SAM2_SIZES = ((192, 256), (160, 224), (224, 224))
HGNET = {
    "stem_channels": [3, 16, 16],
    "stage_in_channels": [16, 64, 256, 512],
    "stage_mid_channels": [16, 32, 64, 128],
    "stage_out_channels": [64, 256, 512, 1024],
    "stage_num_blocks": [1, 1, 2, 1],
    "stage_numb_of_layers": [3, 3, 3, 3],
    "use_learnable_affine_block": True,
    "out_features": STAGES,
}
EFFICIENTNET = {"width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280}
AFTER_STEM = {"out_indices": (1, 2, 3, 4)}
RESNET_26 = {**RESNET, "layer_type": "bottleneck", "hidden_sizes": [256, 512, 1024, 2048]}
NODES = {f"layer{k}": f"res{k + 1}" for k in (1, 2, 3, 4)}

CASES = [
    case("ConvNextBackbone", timm_network("convnext_atto", output_norms=True, **DIMS), **TINY),
    case("ConvNextV2Backbone", timm_network("convnextv2_tiny", output_norms=True, **DIMS), **TINY),
    case("ConvNextBackbone", (partial(ConvNeXt, **DIMS), "ConvNeXt"), **TINY),
    case("SwinBackbone", SWIN_NETWORK, sizes=WHOLE_PATCHES, **SWIN),
    case("SwinBackbone", (partial(SwinTransformer, **SWIN_OURS), "SwinTransformer"), **SWIN),
    case("MaskFormerSwinBackbone", SWIN_NETWORK, sizes=WHOLE_PATCHES, **SWIN),
    case("Swinv2Backbone", SWIN_V2_NETWORK, sizes=WHOLE_PATCHES, window_size=7, **SWIN),
    Case(
        "transformers",
        "FocalNetBackbone",
        partial(build, "FocalNetBackbone", hidden_sizes=[96, 192, 384, 768]),
        *timm_network("focalnet_tiny_srf", **INDICES),
        focalnet_maps,
        written,
        EVEN,
        "its maps are taken in front of what makes them smaller, where FocalNetBackbone gives them behind it; at other "
        "sizes it pads what timm cuts off",
    ),
    case(
        "PvtV2Backbone",
        timm_network("pvt_v2_b0", depths=(1, 1, 1, 1), **INDICES),
        depths=[1, 1, 1, 1],
        out_features=STAGES,
    ),
    case("HGNetV2Backbone", timm_network("hgnetv2_b0", **INDICES), **HGNET),
    Case(
        "transformers",
        "HieraModel",
        partial(build, "HieraModel", embed_dim=16, depths=[1, 1, 2, 1]),
        *timm_network("hiera_tiny_224", embed_dim=16, stages=(1, 1, 2, 1), **INDICES),
        hiera_maps,
        written,
        SQUARE,
        "HieraBackbone of transformers 5 leaves out a step of HieraModel (`unroll`), and its maps are scrambled",
    ),
    Case(
        "transformers",
        "Sam2HieraDetModel",
        partial(build, "Sam2HieraDetModel", **SAM2),
        *SAM2_TIMM,
        sam2_maps,
        written,
        SAM2_SIZES,
        "sizes are multiples of 32",
    ),
    case(
        "BeitBackbone",
        timm_network("beit_base_patch16_224", **VIT_TIMM),
        intermediate_size=192,
        use_relative_position_bias=True,
        sizes=SQUARE,
        **VIT,
    ),
    case(
        "Dinov2Backbone",
        timm_network("vit_small_patch14_dinov2", img_size=224, **VIT_TIMM),
        image_size=224,
        apply_layernorm=False,
        sizes=SQUARE,
        **VIT,
    ),
    case(
        "Dinov2WithRegistersBackbone",
        timm_network("vit_small_patch14_reg4_dinov2", img_size=224, **VIT_TIMM),
        image_size=224,
        patch_size=14,
        apply_layernorm=False,
        sizes=SQUARE,
        **VIT,
    ),
    case(
        "DINOv3ViTBackbone",
        timm_network("vit_small_patch16_dinov3_qkvb", **{**VIT_TIMM, "out_indices": (0, 1)}),
        intermediate_size=192,
        num_register_tokens=4,
        apply_layernorm=False,
        sizes=((192, 256), (160, 224), (224, 224)),
        **{**VIT, "out_indices": [1, 2]},
    ),
    case(
        "Dinov2Backbone",
        timm_network("vit_giant_patch14_dinov2", img_size=224, **VIT_TIMM),
        image_size=224,
        use_swiglu_ffn=True,
        apply_layernorm=False,
        sizes=SQUARE,
        **VIT,
    ),
    case(
        "DINOv3ViTBackbone",
        timm_network("vit_small_plus_patch16_dinov3_qkvb", **{**VIT_TIMM, "out_indices": (0, 1)}),
        intermediate_size=192,
        num_register_tokens=4,
        use_gated_mlp=True,
        hidden_act="silu",
        apply_layernorm=False,
        sizes=((192, 256), (160, 224), (224, 224)),
        **{**VIT, "out_indices": [1, 2]},
    ),
    case("DINOv3ConvNextBackbone", timm_network("convnext_tiny", **DIMS), **TINY),
    case(
        "VitDetBackbone",
        timm_network("samvit_base_patch16", img_size=224, window_size=7, global_attn_indexes=(2,), **VIT_TIMM),
        sizes=SQUARE,
        note="for another size the network is made with `img_size=`",
        **VITDET,
    ),
    case(
        "VitDetBackbone",
        (partial(ViT, **VITDET_OURS), "ViT"),
        sizes=((192, 256), (160, 224), (224, 224)),
        **{**VITDET, "out_indices": [3]},
    ),
    case("BitBackbone", timm_network("resnetv2_50x1_bit", out_indices=(1, 2, 3, 4)), out_features=STAGES),
    case("ResNetBackbone", (resnet18, "ResNet"), **RESNET),
    case("ResNetBackbone", timm_network("resnet18", out_indices=(1, 2, 3, 4)), **RESNET),
    case("ResNetBackbone", torchvision_network("resnet18", return_nodes=NODES), **RESNET),
    case("RTDetrResNetBackbone", timm_network("resnet26d", out_indices=(1, 2, 3, 4)), **RESNET_26),
    case("RTDetrResNetBackbone", (partial(resnet18, deep=True), "ResNet with project_res2=True"), **RESNET),
    replace(
        case(
            "EfficientNetModel",
            timm_network("tf_efficientnet_b0", **AFTER_STEM),
            sizes=EVEN,
            note="B0; pads as for 224 pixels: at other sizes that don't halve five times it is another network's",
            **EFFICIENTNET,
        ),
        maps=partial(behind_blocks, (3, 5, 11, 16)),
    ),
    replace(
        case(
            "EfficientNetModel",
            timm_network("tf_efficientnet_b1", **AFTER_STEM),
            sizes=((240, 272),),
            note="as deep as B1; pads as for 240 pixels, whose fifth half is odd",
            depthwise_padding=[16],
            **EFFICIENTNET | {"depth_coefficient": 1.1},
        ),
        maps=partial(behind_blocks, (5, 8, 16, 23)),
    ),
    replace(
        case("MobileNetV2Model", timm_network("mobilenetv2_100", pad_type="same", bn_eps=1e-3, **AFTER_STEM)),
        called="TimmBackbone('mobilenetv2_100', pad_type='same', bn_eps=1e-3)",
        maps=partial(behind_blocks, (1, 4, 11, 15)),
    ),
    case("PPLCNetBackbone", timm_network("lcnet_100", out_indices=(0, 1, 2, 3, 4)), out_features=[*STAGES, "stage5"]),
    case(
        "RfDetrDinov2Backbone",
        (partial(WindowedDINOv2, **WINDOWED), "WindowedDINOv2"),
        sizes=((224, 224), (168, 168), (280, 280)),
        num_windows=2,
        patch_size=14,
        image_size=224,
        note="squares, whose sides are multiples of 14 times the windows in a row, as of its own code",
        **VIT,
    ),
    case(
        "LwDetrViTBackbone",
        (partial(LWDETRViT, **LW_DETR), "LWDETRViT"),
        sizes=((192, 256), (128, 320), (256, 256)),
        window_block_indices=[0, 2],
        note="sizes are multiples of 64, as of its own code",
        **VIT,
    ),
]
