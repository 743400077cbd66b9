"""Hugging Face's ConvNeXt and ConvNeXt V2, and its DINOv3 ConvNeXt. Ours are the authors' names.

Read off `transformers.models.convnext`, `convnextv2` and `dinov3_convnext`, and `facebookresearch/ConvNeXt`. A backbone
has a norm for each map beside the network.
"""

from detrex_backbones.checkpoint.names.conventions._convention import Convention, Pair
from detrex_backbones.checkpoint.names.conventions._parts import LAST_NORM, pairs_of

BLOCK = {"dwconv.": "dwconv.", "layernorm.": "norm.", "pwconv1.": "pwconv1.", "pwconv2.": "pwconv2."}
BLOCK |= {"layer_scale_parameter": "gamma", "grn.weight": "grn.gamma", "grn.bias": "grn.beta"}
DINOV3 = {"depthwise_conv.": "dwconv.", "layer_norm.": "norm.", "gamma": "gamma"}
DINOV3 |= {"pointwise_conv1.": "pwconv1.", "pointwise_conv2.": "pwconv2."}

CONVENTIONS = (
    Convention(
        name="huggingface-convnext",
        aliases=("huggingface", "transformers"),
        anchors=(("encoder.stages.0.layers.0.pwconv1.weight", "embeddings.patch_embeddings.weight"),),
        pairs=(
            Pair("embeddings.patch_embeddings.{leaf}", "downsample_layers.0.0.{leaf}"),
            Pair("embeddings.layernorm.{leaf}", "downsample_layers.0.1.{leaf}"),
            Pair("encoder.stages.{s}.downsampling_layer.{k}.{leaf}", "downsample_layers.{s}.{k}.{leaf}"),
            *pairs_of("encoder.stages.{s}.layers.{i}.", "stages.{s}.{i}.", BLOCK),
            Pair("hidden_states_norms.stage{s+1}.{leaf}", "norm{s}.{leaf}"),
        ),
        left_out=LAST_NORM,
        original=True,
    ),
    Convention(
        name="huggingface-dinov3-convnext",
        aliases=("huggingface", "transformers"),
        anchors=(("stages.0.layers.0.pointwise_conv1.weight", "stages.0.downsample_layers.0.weight"),),
        pairs=(
            Pair("stages.{s}.downsample_layers.{k}.{leaf}", "downsample_layers.{s}.{k}.{leaf}"),
            *pairs_of("stages.{s}.layers.{i}.", "stages.{s}.{i}.", DINOV3),
        ),
        left_out={r"^layer_norm\.": "norm before the classifier"},
        original=True,
    ),
)
