"""OpenMMLab's Swin and PVT, of both versions. Ours are the authors' names.

Read off `mmdet.models.backbones.swin` and `pvt`, `mmcv.cnn.bricks.transformer`, `microsoft/Swin-Transformer` and
`whai362/PVT`. Swin's patches are merged in the order of `torch.nn.Unfold`: a channel's four pixels one behind the
other, where the authors have a pixel's channels so. A PVT's layers of an MLP are 1x1 convolutions, and its attention
is torch's, with query, key and value in one tensor.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from detrex_backbones.checkpoint.names.conventions._convention import Convention, Pair
from detrex_backbones.checkpoint.names.conventions._parts import pairs_of
from detrex_backbones.checkpoint.read import LazyTensor

WINDOW = "attn.w_msa."
SWIN = {
    "norm1.": "norm1.",
    f"{WINDOW}qkv.": "attn.qkv.",
    f"{WINDOW}proj.": "attn.proj.",
    f"{WINDOW}relative_position_bias_table": "attn.relative_position_bias_table",
    f"{WINDOW}relative_position_index": "attn.relative_position_index",
    "norm2.": "norm2.",
    "ffn.layers.0.0.": "mlp.fc1.",
    "ffn.layers.1.": "mlp.fc2.",
}
IN_PROJ = "attn.attn.in_proj_"
PVT_V2 = {
    "norm1.": "norm1.",
    f"{IN_PROJ}weight": "attn.q.weight",
    f"{IN_PROJ}bias": "attn.q.bias",
    f"{IN_PROJ}weight_kv": "attn.kv.weight",
    f"{IN_PROJ}bias_kv": "attn.kv.bias",
    "attn.attn.out_proj.": "attn.proj.",
    "attn.sr.": "attn.sr.",
    "attn.norm.": "attn.norm.",
    "norm2.": "norm2.",
    "ffn.layers.0.": "mlp.fc1.",
    "ffn.layers.1.": "mlp.dwconv.dwconv.",
    "ffn.layers.4.": "mlp.fc2.",
}
MLP_WEIGHTS = tuple(f".ffn.layers.{place}.weight" for place in (0, 3, 4))
# Version 1 has no convolution in its MLP, so that its second layer is the fourth.
PVT = {name: ours for name, ours in PVT_V2.items() if "ffn.layers" not in name or ".0." in name}
PVT["ffn.layers.3."] = "mlp.fc2."


def _merged_as_authors(tensors: Mapping[str, LazyTensor]) -> tuple[dict[str, LazyTensor], dict[str, str]]:
    """What merges patches, with its inputs in the authors' order."""
    adapted, done = dict(tensors), {}
    for name, tensor in tensors.items():
        if ".downsample." in name and tensor.dim() in (1, 2) and tensor.shape[-1] % 4 == 0:
            adapted[name] = tensor.then(_pixels_first)
            done[name] = "inputs put from the order of unfold into the authors'"
    return adapted, done


def _pixels_first(values: Tensor) -> Tensor:
    """From (..., channels x rows x columns) of 2x2 pixels to (..., columns x rows x channels)."""
    pixels = values.reshape(*values.shape[:-1], -1, 2, 2)
    return pixels.transpose(-3, -1).flatten(-3)


def _apart(tensors: Mapping[str, LazyTensor]) -> tuple[dict[str, LazyTensor], dict[str, str]]:
    """Query apart from key and value; 1x1 convolutions as linear layers."""
    adapted, done = dict(tensors), {}
    for name, tensor in tensors.items():
        if IN_PROJ in name and len(tensor) % 3 == 0:
            third = len(tensor) // 3
            adapted[name], adapted[f"{name}_kv"] = tensor[:third], tensor[third:]
            done[name], done[f"{name}_kv"] = "its first third, the query's", f"cut out of {name}"
        elif name.endswith(MLP_WEIGHTS) and tensor.dim() == 4:
            adapted[name] = tensor.then(lambda weight: weight.flatten(1), tensor.shape[:2])
            done[name] = "1x1 convolution as a linear layer"
    return adapted, done


CONVENTIONS = (
    Convention(
        name="mmdet-swin",
        aliases=("mmdet", "mmpretrain"),
        anchors=((f"stages.0.blocks.0.{WINDOW}qkv.weight", "patch_embed.projection.weight"),),
        without=(f"stages.0.blocks.0.{WINDOW}logit_scale",),
        pairs=(
            Pair("patch_embed.projection.{leaf}", "patch_embed.proj.{leaf}"),
            Pair("patch_embed.norm.{leaf}", "patch_embed.norm.{leaf}"),
            Pair("absolute_pos_embed", "absolute_pos_embed"),
            *pairs_of("stages.{s}.blocks.{i}.", "layers.{s}.blocks.{i}.", SWIN),
            Pair("stages.{s}.downsample.norm.{leaf}", "layers.{s}.downsample.norm.{leaf}"),
            Pair("stages.{s}.downsample.reduction.weight", "layers.{s}.downsample.reduction.weight"),
            Pair("norm{s}.{leaf}", "norm{s}.{leaf}"),
        ),
        adapt=_merged_as_authors,
        one_way="the weights that merge patches were put into another order on reading",
        original=True,
    ),
    Convention(
        name="mmdet-pvt-v2",
        aliases=("mmdet", "mmpretrain"),
        anchors=(
            (f"layers.0.1.0.{IN_PROJ}weight", "layers.0.0.projection.weight", "layers.0.1.0.ffn.layers.1.weight"),
        ),
        # PVT of version 1 has tables of positions, and no convolution in its MLP.
        without=("layers.0.1.0.pos_embed", "layers.0.1.pos_embed"),
        pairs=(
            Pair("layers.{s}.0.projection.{leaf}", "patch_embed{s+1}.proj.{leaf}"),
            Pair("layers.{s}.0.norm.{leaf}", "patch_embed{s+1}.norm.{leaf}"),
            *pairs_of("layers.{s}.1.{i}.", "block{s+1}.{i}.", PVT_V2),
            Pair("layers.{s}.2.{leaf}", "norm{s+1}.{leaf}"),
        ),
        adapt=_apart,
        one_way="each attention's query was put apart on reading",
        original=True,
    ),
    Convention(
        name="mmdet-pvt",
        aliases=("mmdet",),
        anchors=((f"layers.0.1.1.{IN_PROJ}weight", "layers.0.0.projection.weight", "layers.0.1.0.pos_embed"),),
        pairs=(
            Pair("layers.{s}.0.projection.{leaf}", "patch_embed{s+1}.proj.{leaf}"),
            Pair("layers.{s}.0.norm.{leaf}", "patch_embed{s+1}.norm.{leaf}"),
            Pair("layers.{s}.1.0.pos_embed", "pos_embed{s+1}"),
            *pairs_of("layers.{s}.1.{i+1}.", "block{s+1}.{i}.", PVT),
        ),
        adapt=_apart,
        one_way="each attention's query was put apart on reading",
        original=True,
    ),
)
