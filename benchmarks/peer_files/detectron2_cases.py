"""detectron2's backbones and pyramids, from a checkout on the path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

import detrex_backbones as ours
from benchmarks.peer_files.case import SIZES, Case, timm_network
from benchmarks.peer_files.stand_ins import for_detectron2

__all__ = ["CASES", "LARGE_SIZES", "named_maps"]

LARGE_SIZES = ((192, 256), (161, 227), (224, 224), (127, 333), (800, 1216))
WHOLE_LEVELS = ((192, 256), (160, 224), (224, 224), (128, 352), (800, 1216))
PATCHES = ((192, 256), (164, 228), (224, 224), (128, 332), (800, 1216))
STAGES = ["res2", "res3", "res4", "res5"]


def named_maps(net: nn.Module, image: Tensor) -> Sequence[Tensor]:
    """Those that a backbone of detectron2 or detrex gives, in its order."""
    return list(net(image).values())


def theirs(make: Callable[[Any], nn.Module]) -> Callable[[], nn.Module]:
    """What makes the peer's network of detectron2's module of backbones."""

    def build() -> nn.Module:
        for_detectron2()
        from detectron2.modeling import backbone
        from detectron2.modeling.backbone import regnet

        for name in ("RegNet", "SimpleStem", "ResBottleneckBlock"):
            setattr(backbone, name, getattr(regnet, name))
        return make(backbone)

    return build


def case(name: str, make: Callable[[Any], nn.Module], *, prefix: str = "backbone.", **more: Any) -> Case:
    """A row of a class that both libraries have by one name: made alike from either."""
    arguments: dict[str, Any] = {"sizes": LARGE_SIZES, "ours": partial(make, ours), "called": f"{name.split()[0]}"}
    return Case("detectron2", name, build=theirs(make), maps=named_maps, prefix=prefix, **{**arguments, **more})


def resnet(module: Any, depth: int = 50, **stages: Any) -> nn.Module:
    """A ResNet with norms that learn, whose statistics files hold."""
    blocks = module.ResNet.make_default_stages(depth, norm="BN", **stages)
    return module.ResNet(module.BasicStem(norm="BN"), blocks, out_features=STAGES)  # type: ignore[no-any-return]


def dc5(module: Any) -> nn.Module:
    """The same with a dilated res5."""
    stages = {"stride_in_1x1": False, "norm": "BN", "bottleneck_channels": 512, "num_groups": 1}
    if module is ours:
        made = ours.make_stage(50, norm="BN", res5_dilation=2)
    else:
        made = module.ResNet.make_default_stages(50, norm="BN")[:3]
        made.append(
            module.ResNet.make_stage(
                module.resnet.BottleneckBlock,
                3,
                stride_per_block=[1, 1, 1],
                in_channels=1024,
                out_channels=2048,
                dilation=2,
                **stages,
            )
        )
    return module.ResNet(module.BasicStem(norm="BN"), made, out_features=STAGES)  # type: ignore[no-any-return]


def regnet(module: Any, **more: Any) -> nn.Module:
    """A small RegNet."""
    sizes = {"stem_width": 32, "depth": 22, "w_a": 24.48, "w_0": 24, "w_m": 2.54, "group_width": 16}  # X-400MF
    sizes |= {"freeze_at": 0, "norm": "BN", "out_features": ["s1", "s2", "s3", "s4"], **more}
    net: nn.Module = module.RegNet(stem_class=module.SimpleStem, block_class=module.ResBottleneckBlock, **sizes)
    return net


def vit(module: Any, **more: Any) -> nn.Module:
    """A small ViT without a pyramid."""
    net: nn.Module = module.ViT(**{**VIT, **more})
    return net


def pyramid(module: Any, **more: Any) -> nn.Module:
    """The same under the pyramid of ViTDet."""
    levels = {"in_feature": "last_feat", "out_channels": 32, "scale_factors": (4.0, 2.0, 1.0, 0.5), "norm": "LN"}
    net: nn.Module = module.SimpleFeaturePyramid(vit(module, **more), top_block=max_pool(module), **levels)
    return net


def fpn(module: Any, **more: Any) -> nn.Module:
    """A pyramid over a ResNet-18."""
    net: nn.Module = module.FPN(resnet(module, 18), STAGES, 64, top_block=max_pool(module), **more)
    return net


def max_pool(module: Any) -> nn.Module:
    """The level on top."""
    return module.LastLevelMaxPool() if module is ours else module.fpn.LastLevelMaxPool()  # type: ignore[no-any-return]


VIT = {"img_size": 224, "embed_dim": 48, "depth": 3, "num_heads": 2, "pretrain_img_size": 224}
WINDOWS = {"use_rel_pos": True, "window_size": 7, "window_block_indexes": [0, 1]}
SWIN = {"embed_dim": 24, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8), "drop_path_rate": 0.1}
MVIT = {"embed_dim": 24, "depth": 4, "num_heads": 1, "last_block_indexes": (0, 1, 2, 3), "residual_pooling": True}
MVIT |= {"drop_path_rate": 0.0, "norm_layer": partial(nn.LayerNorm, eps=1e-6)}
MVIT |= {"out_features": ["scale2", "scale3", "scale4", "scale5"]}
SAMVIT = {"img_size": 224, "embed_dim": 48, "depth": 3, "num_heads": 2, "window_size": 7, "global_attn_indexes": (2,)}
TIMM_SWIN = {"embed_dim": 24, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8), "out_indices": (0, 1, 2, 3)}
EPS = {"norm_layer": partial(nn.LayerNorm, eps=1e-6)}
FOUR = (1, 2, 3, 4)


def timm(name: str, **arguments: Any) -> dict[str, Any]:
    """What `case` takes for timm's network in the place of ours."""
    return dict(zip(("ours", "called"), timm_network(name, **arguments), strict=True))


CASES = [
    case("ResNet 50", resnet, prefix="backbone.bottom_up."),
    case("ResNet 50 DC5", dc5),
    case("ResNet 50", resnet, **timm("resnet50", out_indices=FOUR), sizes=SIZES, prefix="backbone.bottom_up."),
    case("RegNet X-400MF", regnet, prefix="backbone.bottom_up."),
    case("RegNet Y-400MF", partial(regnet, se_ratio=0.25, w_a=27.89, w_0=48, w_m=2.09, group_width=8, depth=16)),
    case("RegNet X-400MF", regnet, **timm("regnetx_004", out_indices=FOUR), prefix="backbone.bottom_up."),
    case(
        "RegNet Y-400MF",
        partial(regnet, se_ratio=0.25, w_a=27.89, w_0=48, w_m=2.09, group_width=8, depth=16),
        **timm("regnety_004", out_indices=FOUR),
    ),
    case("SwinTransformer", lambda module: module.SwinTransformer(**SWIN), prefix="backbone.bottom_up."),
    case(
        "SwinTransformer",
        lambda module: module.SwinTransformer(**SWIN),
        **timm("swin_tiny_patch4_window7_224", output_norms=True, **TIMM_SWIN),
        sizes=PATCHES,
        prefix="backbone.bottom_up.",
    ),
    case("MViT v2", lambda module: module.MViT(**MVIT), prefix="backbone.bottom_up."),
    case("ViT windows", partial(vit, **WINDOWS), prefix="backbone.net."),
    case("ViT without relative positions", vit, prefix="backbone.net."),
    case("SimpleFeaturePyramid of ViT windows", partial(pyramid, **WINDOWS)),
    case("SimpleFeaturePyramid of a global ViT", pyramid),
    case(
        "ViT windows",
        partial(vit, **WINDOWS, **EPS),
        **timm("samvit_base_patch16", out_indices=(2,), **SAMVIT),
        sizes=((224, 224),),
        note="for another size the network is made with `img_size=`",
        prefix="backbone.net.",
    ),
    case("FPN of ResNet-18", fpn, sizes=WHOLE_LEVELS, note="sizes are multiples of 32, as it pads images to"),
    case(
        "FPN of ResNet-18, fuse_type avg, GN",
        partial(fpn, fuse_type="avg", norm="GN"),
        sizes=WHOLE_LEVELS,
        note="sizes are multiples of 32, as it pads images to",
    ),
]
