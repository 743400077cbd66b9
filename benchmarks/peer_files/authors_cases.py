"""Files of networks' authors, whose code is on no package index: the names are written down here, by hand, from
transformers' classes of the same networks, which the maps are compared with.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from benchmarks.peer_files import transformers_cases
from benchmarks.peer_files.case import Case

__all__ = ["CASES"]

Rules = Sequence[tuple[str, str]]

VIT = [
    (r"^embeddings\.(cls_token|mask_token|register_tokens)$", r"\1"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.", "blocks."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
    (r"^layernorm\.", "norm."),
]
DINOV3 = [
    (r"^embeddings\.(cls_token|mask_token)$", r"\1"),
    (r"^embeddings\.register_tokens$", "storage_tokens"),
    (r"^embeddings\.patch_embeddings\.", "patch_embed.proj."),
    (r"^layer\.", "blocks."),
    (r"\.attention\.q_proj\.", ".attn.query."),
    (r"\.attention\.k_proj\.", ".attn.key."),
    (r"\.attention\.v_proj\.", ".attn.value."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
    (r"\.mlp\.up_proj\.", ".mlp.fc1."),
    (r"\.mlp\.down_proj\.", ".mlp.fc2."),
]
DINOV3_CONVNEXT = [
    (r"^stages\.(\d)\.downsample_layers\.", r"downsample_layers.\1."),
    (r"^stages\.(\d)\.layers\.", r"stages.\1."),
    (r"\.depthwise_conv\.", ".dwconv."),
    (r"\.layer_norm\.", ".norm."),
    (r"\.pointwise_conv(\d)\.", r".pwconv\1."),
]
SWIN = [
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.norm\.", "patch_embed.norm."),
    (r"^encoder\.layers\.", "layers."),
    (r"\.attention\.self\.(query|key|value)\.", r".attn.\1."),
    (r"\.attention\.self\.relative_position", ".attn.relative_position"),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"^swin\.layernorm\.", "norm."),
]
INDEX = ".self.relative_position_index"
MAP_NORM = re.compile(r"^hidden_states_norms\.stage(\d)\.")
SAM2 = [
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    (r"\.layer_norm(\d)\.", r".norm\1."),
    (r"\.mlp\.proj_in\.", ".mlp.layers.0."),
    (r"\.mlp\.proj_out\.", ".mlp.layers.1."),
]
PRESNET = [
    (r"^embedder\.embedder\.0\.", "conv1.conv1_1."),
    (r"^embedder\.embedder\.1\.", "conv1.conv1_2."),
    (r"^embedder\.embedder\.2\.", "conv1.conv1_3."),
    (r"^encoder\.stages\.(\d)\.layers\.", r"res_layers.\1.blocks."),
    (r"\.layer\.0\.", ".branch2a."),
    (r"\.layer\.1\.", ".branch2b."),
    (r"\.layer\.2\.", ".branch2c."),
    (r"\.shortcut\.1\.", ".short.conv."),
    (r"\.shortcut\.", ".short."),
    (r"\.convolution\.", ".conv."),
    (r"\.normalization\.", ".norm."),
]
# RF-DETR's files have transformers' names of DINOv2; its class of transformers 5 has others.
RF_DETR = [
    (r"\.attention\.q_proj\.", ".attention.attention.query."),
    (r"\.attention\.k_proj\.", ".attention.attention.key."),
    (r"\.attention\.v_proj\.", ".attention.attention.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
]
LW_DETR = [
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.", "blocks."),
    (r"\.attention\.([qv])_proj\.bias$", r".attn.\1_bias"),
    (r"\.attention\.q_proj\.", ".attn.query."),
    (r"\.attention\.k_proj\.", ".attn.key."),
    (r"\.attention\.v_proj\.", ".attn.value."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.intermediate\.", ".mlp."),
]


def renamed(state: Mapping[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    """By all rules, one after the other; then query, key and value are joined, zeros for biases that aren't there."""
    made = {}
    for name, value in state.items():
        for pattern, new in rules:
            name = re.sub(pattern, new, name)
        made[MAP_NORM.sub(lambda found: f"norm{int(found[1]) - 1}.", name)] = value
    for name in [name for name in made if ".attn.query." in name]:
        first = made.pop(name)
        others = [made.pop(name.replace("query", part), torch.zeros_like(first)) for part in ("key", "value")]
        made[name.replace("query", "qkv")] = torch.cat([first, *others])
    return made


def case(peer: str, name: str, rules: Rules, of: Callable[[Case], bool], prefix: str = "") -> Case:
    """A row: the case of transformers' class, with the authors' names."""
    base = next(filter(of, transformers_cases.CASES))

    def state(net: nn.Module) -> dict[str, Tensor]:
        # Which entry of its table a pair of tokens has, stands in the authors' files of Swin.
        places = {
            key.removeprefix("swin.").replace(".relative_position_bias", INDEX): index.view(49, 49)
            for key, module in net.named_modules()
            if rules is SWIN and isinstance(index := getattr(module, "relative_position_index", None), Tensor)
        }
        return {prefix + key: value for key, value in renamed({**base.state(net), **places}, rules).items()}

    return replace(base, peer=peer, name=name, state=state)


def named(name: str, called: str = "") -> Callable[[Case], bool]:
    """Whether a case is of this class of transformers, into this network."""
    return lambda case: case.name == name and called in case.called


CASES = [
    case("facebookresearch/dinov2", "DINOv2", VIT, named("Dinov2Backbone")),
    case("facebookresearch/dinov2", "DINOv2 with registers", VIT, named("Dinov2WithRegistersBackbone")),
    case("facebookresearch/dinov3", "DINOv3 ViT", DINOV3, named("DINOv3ViTBackbone")),
    case("facebookresearch/dinov3", "DINOv3 ConvNeXt", DINOV3_CONVNEXT, named("DINOv3ConvNextBackbone")),
    case("IDEA-Research/GroundingDINO", "Swin", SWIN, named("SwinBackbone"), "0."),
    case("IDEA-Research/GroundingDINO", "Swin", SWIN, named("SwinBackbone", "SwinTransformer"), "0."),
    case("Sense-X/Co-DETR", "Swin", SWIN, named("SwinBackbone", "Timm")),
    case("Sense-X/Co-DETR", "Swin", SWIN, named("SwinBackbone", "SwinTransformer")),
    case("roboflow/rf-detr", "DINOv2 in windows", RF_DETR, named("RfDetrDinov2Backbone"), "0.encoder.encoder."),
    case("Atten4Vis/LW-DETR", "ViT", LW_DETR, named("LwDetrViTBackbone"), "0.encoder."),
    case("facebookresearch/sam2", "Hiera", SAM2, named("Sam2HieraDetModel"), "image_encoder.trunk."),
    case("lyuwenyu/RT-DETR", "PResNet-50 vd", PRESNET, named("RTDetrResNetBackbone", "resnet26d")),
]
