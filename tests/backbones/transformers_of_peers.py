"""State dicts of others' transformers, two stages of two blocks where there are stages, under the names of ours."""

from __future__ import annotations

import re

from torch import Tensor

__all__ = ["rename"]

TABLES = {
    # torchvision's SwinTransformer: `features` holds patches, stages and mergers by turns.
    "torchvision_swin": [
        (r"^features\.0\.0\.", "patch_embed.proj."),
        (r"^features\.0\.2\.", "patch_embed.norm."),
        (r"\.mlp\.0\.", ".mlp.fc1."),
        (r"\.mlp\.3\.", ".mlp.fc2."),
        (r"^features\.1\.(\d+)\.", r"layers.0.blocks.\1."),
        (r"^features\.2\.", "layers.0.downsample."),
        (r"^features\.3\.(\d+)\.", r"layers.1.blocks.\1."),
        (r"^norm\.", "norm1."),
    ],
    "transformers_vitdet": [
        (r"^embeddings\.position_embeddings", "pos_embed"),
        (r"^embeddings\.projection\.", "patch_embed.proj."),
        (r"^encoder\.layer\.", "blocks."),
        (r"\.attention\.", ".attn."),
    ],
    "timm_mvit": [
        (r"^stages\.0\.blocks\.", "blocks."),
        (r"^stages\.1\.blocks\.0\.", "blocks.2."),
        (r"^stages\.1\.blocks\.1\.", "blocks.3."),
        (r"\.shortcut_proj_attn\.", ".proj."),
        (r"^norm\.", "scale3_norm."),
    ],
}


def rename(state_dict: dict[str, Tensor], table: str) -> dict[str, Tensor]:
    """The entries under the names of ours."""
    renamed = {}
    for name, value in state_dict.items():
        for pattern, replacement in TABLES[table]:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed
