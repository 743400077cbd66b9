"""Every backbone through the contract."""

import math

import pytest

from detrex_backbones import (
    BasicStem,
    ConvNeXt,
    CSPDarknet,
    CSPResNet,
    DINOv3STAs,
    EVA02_ViT,
    EVAViT,
    FocalNet,
    InternImage,
    LWDETRViT,
    MViT,
    PyramidVisionTransformer,
    RegNet,
    ResBottleneckBlock,
    ResNet,
    SimpleStem,
    SwinTransformer,
    TimmBackbone,
    TorchvisionResNet,
    ViT,
    WindowedDINOv2,
    make_stage,
)
from tests.backbones.contract import BackboneContract, backbone, images, maps  # noqa: F401 (fixtures)
from tests.reference import noise


def resnet(out_features=("res2", "res3", "res4", "res5"), freeze_at=1, norm="FrozenBN", **kwargs):
    def build():
        stages = make_stage(norm=norm, **kwargs)
        return ResNet(BasicStem(norm=norm), stages, out_features=out_features, freeze_at=freeze_at)

    return build


def timm(name, **kwargs):
    return lambda: TimmBackbone(name, **kwargs)


DC5 = {"res5_dilation": 2}

RESNETS = {
    "resnet18": resnet(depth=18),
    "resnet34_dc5": resnet(depth=34, **DC5),
    "resnet50": resnet(depth=50),
    "resnet50_unfrozen": resnet(depth=50, norm="BN", freeze_at=0, out_features=["res5", "stem"]),
    "resnet50_dc5_detectron2": resnet(depth=50, **DC5),
    "resnet50_dc5_torchvision": resnet(depth=50, **DC5, dilation_style="torchvision"),
    "resnet50_stride_in_1x1": resnet(depth=50, stride_in_1x1=True),
    "resnet50_group_norm": resnet(depth=50, norm="GN", out_features=["res3"]),
    "resnext50_32x4d": resnet(depth=50, num_groups=32, width_per_group=4),
    "wide_resnet50_2": resnet(depth=50, width_per_group=128, out_features=["res3", "res4"]),
    "resnet18_standardised": lambda: ResNet(
        BasicStem(), make_stage(18, norm="GN"), out_features=["res3", "res5"], weight_standardization=True
    ),
    "resnet50_deformable": resnet(depth=50, deform_on_per_stage=[False, False, True, True]),
    "resnet50_modulated": resnet(depth=50, deform_on_per_stage=[False, True, False, True], deform_modulated=True),
}

TIMM = {
    "resnet18d": timm("resnet18d", out_indices=(1, 2, 3)),
    "resnet18d_frozen": timm("resnet18d", out_indices=(3, 1), norm_layer="FrozenBN"),
    "efficientnet_b0_frozen": timm("efficientnet_b0", norm_layer="FrozenBN"),
    "regnetx_002": timm("regnetx_002"),
    "convnext_atto": timm("convnext_atto"),
    "resnet14t_traced": timm("resnet14t", out_indices=(1, 3), feature_cls="fx"),
    "resnet14t_hooked": timm("resnet14t", out_indices=(0, 2), feature_cls="hook", freeze_at=2),
    "resnet14t_recomputed": timm("resnet14t", out_indices=(1, 3), checkpoint_stages=["p3"], drop_path_rate=0.3),
    "vit_tiny": timm("vit_tiny_patch16_224", out_indices=(-1, 0), depth=2, checkpoint_stages=True),
    "mobilenetv3_small_050": timm("mobilenetv3_small_050", out_indices=(2, 4)),
}


@pytest.mark.parametrize("build", RESNETS.values(), ids=RESNETS, scope="class")
class TestResNet(BackboneContract):
    pass


@pytest.mark.parametrize("build", TIMM.values(), ids=TIMM, scope="class")
class TestTimm(BackboneContract):
    rounding = (math.floor, math.ceil)  # as the architecture has it


TORCHVISION = {
    "resnet18": lambda: TorchvisionResNet("resnet18", True, {"layer2": "res3", "layer3": "res4"}),
    "resnet50_dc5": lambda: TorchvisionResNet("resnet50", True, dilation=True),
}


@pytest.mark.parametrize("build", TORCHVISION.values(), ids=TORCHVISION, scope="class")
class TestTorchvisionResNet(BackboneContract):
    pass


SWIN = {"embed_dim": 16, "depths": (2, 2), "num_heads": (1, 2), "out_indices": (0, 1)}
SWINS = {
    "two_stages": lambda: SwinTransformer(**SWIN),
    "turned_round": lambda: SwinTransformer(**SWIN | {"out_indices": [1, 0]}, drop_path_rate=0.0, window_size=4),
    "positions_frozen": lambda: SwinTransformer(
        **SWIN, ape=True, patch_norm=False, qkv_bias=False, frozen_stages=2, use_checkpoint=True
    ),
    "one_stage": lambda: SwinTransformer(32, (4, 4), 3, 16, [1], [2], 5, out_indices=[0]),
}


@pytest.mark.parametrize("build", SWINS.values(), ids=SWINS, scope="class")
class TestSwin(BackboneContract):
    pass


VIT = {"img_size": 64, "embed_dim": 24, "depth": 3, "num_heads": 2, "pretrain_img_size": 48}
VITS = {
    "global": lambda: ViT(**VIT),
    "windows": lambda: ViT(**VIT, use_rel_pos=True, window_size=3, window_block_indexes=[0, 2], drop_path_rate=0.1),
    "convolutions": lambda: ViT(
        **VIT, use_abs_pos=False, residual_block_indexes=[1], use_act_checkpoint=True, out_feature="map"
    ),
}


@pytest.mark.parametrize("build", VITS.values(), ids=VITS, scope="class")
class TestViT(BackboneContract):
    rounding = (math.floor,)


MVIT = {"img_size": 64, "embed_dim": 8, "depth": 4, "last_block_indexes": (0, 1, 3), "adaptive_window_size": 8}
MVITS = {
    "three_stages": lambda: MViT(**MVIT, out_features=["scale2", "scale3", "scale4"]),
    "plain": lambda: MViT(
        **MVIT, use_abs_pos=True, use_rel_pos=False, use_act_checkpoint=True, out_features=["scale4", "scale2"]
    ),
}


@pytest.mark.parametrize("build", MVITS.values(), ids=MVITS, scope="class")
class TestMViT(BackboneContract):
    pass


REGNET = {"stem_class": SimpleStem, "stem_width": 8, "block_class": ResBottleneckBlock}
REGNET |= {"depth": 5, "w_a": 12.0, "w_0": 16, "w_m": 2.2, "group_width": 8}
FOCALNET = {"embed_dim": 16, "depths": (1, 1, 2, 1)}
INTERNIMAGE = {"channels": 16, "depths": (1, 1, 2, 1), "groups": (1, 2, 4, 8)}
ROUNDING_UP = {
    "regnet": lambda: RegNet(**REGNET, freeze_at=1, se_ratio=0.25, out_features=["s2", "stem"]),
    "focalnet": lambda: FocalNet(**FOCALNET, frozen_stages=2, use_checkpoint=True),
    "focalnet_conv": lambda: FocalNet(**FOCALNET, use_conv_embed=True, use_postln=True, out_indices=(3, 1)),
    "internimage": lambda: InternImage(**INTERNIMAGE, post_norm=True, layer_scale=1.0, out_indices=(3, 1)),
    "csp_darknet": lambda: CSPDarknet(deepen_factor=0.1, widen_factor=0.25, out_indices=(4, 0), frozen_stages=0),
    "csp_darknet_p6": lambda: CSPDarknet("P6", 0.1, 0.25, (1, 2), use_depthwise=True, checkpoint_stages=True),
    "csp_resnet": lambda: CSPResNet(use_alpha=True, return_idx=(0, 2), frozen_stages=1, checkpoint_stages=["2"]),
    "internimage_batch_norm": lambda: InternImage(**INTERNIMAGE, norm_layer="BN", with_cp=True),
}
EVA = {"img_size": 64, "embed_dim": 24, "depth": 2, "num_heads": 2, "window_size": 2, "window_block_indexes": [0]}
PVT = {"pretrain_img_size": 64, "embed_dims": 8, "num_layers": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8)}
ROUNDING_DOWN = {
    "convnext": lambda: ConvNeXt(depths=(1, 1, 2, 1), dims=(8, 16, 24, 32), frozen_stages=1, drop_path_rate=0.2),
    "convnext_some": lambda: ConvNeXt(depths=(1, 1, 1, 1), dims=(8, 16, 24, 32), out_indices=[3, 1]),
    "eva": lambda: EVAViT(**EVA, use_rel_pos=True, freeze_patch_embed=True, residual_block_indexes=[1]),
    "eva02": lambda: EVA02_ViT(**EVA, use_act_checkpoint=True),
    "pvt": lambda: PyramidVisionTransformer(**PVT, frozen_stages=1, use_checkpoint=True),
    "pvt_some": lambda: PyramidVisionTransformer(**PVT, drop_path_rate=0.0, qkv_bias=False, out_indices=(2, 0)),
}


@pytest.mark.parametrize("build", ROUNDING_UP.values(), ids=ROUNDING_UP, scope="class")
class TestRoundingUp(BackboneContract):
    pass


@pytest.mark.parametrize("build", ROUNDING_DOWN.values(), ids=ROUNDING_DOWN, scope="class")
class TestRoundingDown(BackboneContract):
    rounding = (math.floor,)


SMALL_VIT = {"embed_dim": 24, "num_heads": 2, "num_windows": 2}
WINDOWED = {
    "dinov2": lambda: WindowedDINOv2(img_size=56, depth=4, out_indices=(1, 3), drop_path_rate=0.1, **SMALL_VIT),
    "lw_detr": lambda: LWDETRViT(
        7 * 2,
        depth=3,
        window_block_indexes=[0, 2],
        out_feature_indexes=(-1, 0),
        use_act_checkpoint=True,
        **SMALL_VIT,
    ),
    "lw_detr_plain": lambda: LWDETRViT(7 * 2, depth=2, use_cae=False, pretrain_use_cls_token=False, **SMALL_VIT),
}


@pytest.mark.parametrize("build", WINDOWED.values(), ids=WINDOWED, scope="class")
class TestWindowed(BackboneContract):
    @pytest.fixture(scope="class")
    def images(self):
        return noise(2, 3, 56, 84)


SMALL_STAS = {"embed_dim": 24, "num_heads": 2, "conv_inplane": 4, "hidden_dim": 16}
STAS = {
    "tiny": lambda: DINOv3STAs(interaction_indexes=(0, 1, 3), checkpoint_stages=["1"], **SMALL_STAS),
    "dinov3": lambda: DINOv3STAs("dinov3_vits16", (1,), **SMALL_STAS),
    "gated_frozen": lambda: DINOv3STAs("dinov3_vits16plus", (0, 1, 2), False, norm="LN", **SMALL_STAS),
}


@pytest.mark.parametrize("build", STAS.values(), ids=STAS, scope="class")
class TestDINOv3STAs(BackboneContract):
    @pytest.fixture(scope="class")
    def images(self):
        return noise(2, 3, 64, 96)
