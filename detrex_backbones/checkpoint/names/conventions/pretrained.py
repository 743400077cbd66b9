"""Files of backbones that were trained before they came into a detector, in the names that detectors' classes have too.

What detectors add is not in them and starts from its initial values: a norm for each map, which changes nothing but the
scale, and relative positions of zero. Read off the authors' repositories (microsoft/Swin-Transformer,
microsoft/FocalNet, facebookresearch/ConvNeXt, mae and mvit, baaivision/EVA, OpenGVLab/InternImage).
"""

from __future__ import annotations

from detrex_backbones.checkpoint.names.conventions._convention import Convention

MAP_NORMS = tuple(f"norm{number}.weight" for number in range(4))
NORM_ADDED = "norm of a map, which detectors add: it keeps its initial values"
POSITIONS_ADDED = "relative positions, which detectors add: they keep their initial values"
ROTARY = r"(^|\.)rope\w*\.freqs_(cos|sin)$"

KEPT_NORMS = {r"(^|(?<!\d)\.)norm[0-3]\.(weight|bias)$": NORM_ADDED}

HEADS = {
    r"^(head|head_dist|fc|classifier|conv_head|clip_projector|fc_norm)\.": "head",
    r"^(cls_token|mask_token|lm_head\.|decoder)": "of the pre-training",
    r"^norm\.(weight|bias)$": "norm before the classifier",
}


def _of_stages(name: str, *anchors: str) -> Convention:
    """A network of stages, whose maps have norms in a detector: `norm1`, where `blocks.3.norm1` is a block's own."""
    return Convention(name=name, anchors=(anchors,), without=MAP_NORMS, left_out=HEADS, kept=KEPT_NORMS)


CONVENTIONS = (
    _of_stages("swin", "patch_embed.proj.weight", "layers.0.blocks.0.attn.relative_position_bias_table"),
    _of_stages("convnext", "downsample_layers.0.0.weight", "stages.0.0.dwconv.weight"),
    _of_stages("focalnet", "patch_embed.proj.weight", "layers.0.blocks.0.modulation.f.weight"),
    Convention(
        name="internimage",
        anchors=(("patch_embed.conv1.weight", "levels.0.blocks.0.dcn.offset.weight"),),
        left_out=HEADS,
    ),
    Convention(
        name="mvitv2",
        anchors=(("patch_embed.proj.weight", "blocks.0.attn.pool_k.weight"),),
        without=("scale2_norm.weight", "scale3_norm.weight", "scale4_norm.weight", "scale5_norm.weight"),
        left_out=HEADS,
        kept={r"(^|\.)scale[2-5]_norm\.(weight|bias)$": NORM_ADDED},
    ),
    Convention(
        name="vit",
        anchors=(("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"),),
        without=("blocks.0.attn.rel_pos_h",),
        left_out=HEADS,
        kept={r"(^|\.)blocks\.\d+\.attn\.rel_pos_[hw]$": POSITIONS_ADDED},
    ),
    Convention(
        name="eva02",
        anchors=(("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.q_proj.weight"),),
        left_out=HEADS,
        kept={ROTARY: "computed from the size of the image"},
        computed=ROTARY,
    ),
)
