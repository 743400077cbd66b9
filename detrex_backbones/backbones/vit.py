"""The plain vision transformer that ViTDet runs on, and the decay of learning rates over its depth."""

from __future__ import annotations

from collections.abc import Callable, Collection

from torch import nn

from detrex_backbones.backbones.plain_vit import (
    ConvPropagation,
    PlainViT,
    RelativeAttention,
    ViTBlock,
    check_heads,
    window_sizes,
)
from detrex_backbones.backbones.staged import drop_paths
from detrex_backbones.backbones.transformer_parts import mlp

__all__ = ["ViT", "get_vit_lr_decay_rate"]

Layer = Callable[[], nn.Module]
NormLayer = Callable[[int], nn.Module]


class ViT(PlainViT):
    """Plain vision transformer with windows, for detection (ViTDet, Li et al. 2022).

    Arguments, defaults, parameter names and values are detectron2's. It takes images of any size and gives one map,
    whose sides are those of the image divided by `patch_size`, rounded down.

    Args:
        img_size: side in pixels of the images that the tables of relative positions are made for. At another size
            they are resized.
        patch_size: side of a patch in pixels.
        in_chans: channels of the image.
        embed_dim: channels of the tokens.
        depth: number of blocks.
        num_heads: attention heads of each block.
        mlp_ratio: hidden channels of the perceptrons, relative to `embed_dim`.
        qkv_bias: whether query, key and value have a bias.
        drop_path_rate: stochastic depth of the last block; it grows from 0 block by block.
        norm_layer: makes a norm over the last axis from the number of channels.
        act_layer: makes an activation.
        use_abs_pos: adds a table of absolute positions, which is resized to the map.
        use_rel_pos: adds decomposed relative positions to the attention.
        rel_pos_zero_init: whether their tables start from zero.
        window_size: side in tokens of the windows of the blocks that have some.
        window_block_indexes: the blocks whose attention stays within windows; the others' is global.
        residual_block_indexes: the blocks that are followed by a residual block of convolutions.
        use_act_checkpoint: whether blocks are computed again in the backward pass instead of kept: less memory, more
            time.
        pretrain_img_size: side in pixels of the images that the absolute positions were trained on.
        pretrain_use_cls_token: whether their table begins with one of a class token, which isn't used.
        out_feature: name of the map.

    Raises:
        ArgumentError: channels that the heads don't divide.
    """

    def __init__(
        self,
        img_size: int = 1024,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        norm_layer: NormLayer = nn.LayerNorm,
        act_layer: Layer = nn.GELU,
        use_abs_pos: bool = True,
        use_rel_pos: bool = False,
        rel_pos_zero_init: bool = True,
        window_size: int = 0,
        window_block_indexes: Collection[int] = (),
        residual_block_indexes: Collection[int] = (),
        use_act_checkpoint: bool = False,
        pretrain_img_size: int = 224,
        pretrain_use_cls_token: bool = True,
        out_feature: str = "last_feat",
    ) -> None:
        super().__init__(
            patch_size=patch_size,
            in_chans=in_chans,
            embed_dim=embed_dim,
            use_abs_pos=use_abs_pos,
            pretrain_img_size=pretrain_img_size,
            pretrain_use_cls_token=pretrain_use_cls_token,
            out_feature=out_feature,
            use_act_checkpoint=use_act_checkpoint,
        )
        check_heads(embed_dim, num_heads)
        blocks = []
        windows = window_sizes(depth, window_size, window_block_indexes)
        for index, (window, drop_path) in enumerate(zip(windows, *drop_paths(drop_path_rate, [depth]), strict=True)):
            side = (window or img_size // patch_size) if use_rel_pos else 0
            bias = "all" if qkv_bias else "none"
            attention = RelativeAttention(embed_dim, num_heads, bias, side, rel_pos_zero_init)
            perceptron = mlp(embed_dim, int(embed_dim * mlp_ratio), act_layer)
            residual = ConvPropagation(embed_dim, act_layer) if index in residual_block_indexes else None
            blocks.append(ViTBlock(embed_dim, attention, perceptron, drop_path, norm_layer, window, residual))
        self._set_blocks(blocks)


def get_vit_lr_decay_rate(name: str, lr_decay_rate: float = 1.0, num_layers: int = 12) -> float:
    """Factor of the learning rate of a parameter of a ViT: the deeper the block, the larger. As detectron2 has it.

    For `lr_factor_func` of an optimiser's parameter groups: `partial(get_vit_lr_decay_rate, num_layers=12,
    lr_decay_rate=0.7)`.

    Args:
        name: of the parameter, within a detector whose backbone is called "backbone".
        lr_decay_rate: factor from one block to the one below it.
        num_layers: blocks of the ViT.

    Returns:
        `lr_decay_rate ** (num_layers + 1 - layer)`: layer 0 is the patches and absolute positions, 1 the first block,
        and so on. Convolutions after a block and whatever is no part of the ViT: 1.0.
    """
    layer = num_layers + 1
    if name.startswith("backbone"):
        if ".pos_embed" in name or ".patch_embed" in name:
            layer = 0
        elif ".blocks." in name and ".residual." not in name:
            layer = int(name.partition(".blocks.")[2].partition(".")[0]) + 1
    return lr_decay_rate ** (num_layers + 1 - layer)
