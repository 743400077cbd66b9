"""torchvision's ConvNeXt. Ours are the authors' names.

Read off `torchvision.models.convnext` and `facebookresearch/ConvNeXt`. Stages and what makes maps coarser between them
are counted through, and factors of a branch are (C, 1, 1) where the authors have (C,).
"""

from __future__ import annotations

from collections.abc import Mapping

from detrex_backbones.checkpoint.names.conventions._convention import Convention, Pair
from detrex_backbones.checkpoint.names.conventions._parts import pairs_of
from detrex_backbones.checkpoint.names.conventions._resnet import RGB
from detrex_backbones.checkpoint.names.conventions.pretrained import KEPT_NORMS
from detrex_backbones.checkpoint.read import LazyTensor

BLOCK = {
    "block.0.": "dwconv.",
    "block.2.": "norm.",
    "block.3.": "pwconv1.",
    "block.5.": "pwconv2.",
    "layer_scale": "gamma",
}


def _flat_scales(tensors: Mapping[str, LazyTensor]) -> tuple[dict[str, LazyTensor], dict[str, str]]:
    adapted, done = dict(tensors), {}
    for name, tensor in tensors.items():
        if name.endswith(".layer_scale") and tensor.dim() == 3:
            adapted[name], done[name] = tensor.then(lambda scale: scale.flatten(), (tensor.shape[0],)), "flattened"
    return adapted, done


CONVENTION = Convention(
    name="torchvision-convnext",
    aliases=("torchvision",),
    anchors=(("features.1.0.layer_scale", "features.1.0.block.0.weight", "features.0.0.weight"),),
    pairs=(
        *(
            pair
            for stage in range(4)
            for pair in (
                Pair(f"features.{2 * stage}.{{k}}.{{leaf}}", f"downsample_layers.{stage}.{{k}}.{{leaf}}"),
                *pairs_of(f"features.{2 * stage + 1}.{{i}}.", f"stages.{stage}.{{i}}.", BLOCK),
            )
        ),
        Pair("classifier.0.{leaf}", "norm.{leaf}"),
    ),
    left_out={r"^classifier\.0\.": "norm before the classifier", r"^classifier\.": "head"},
    kept=KEPT_NORMS,
    suggests=RGB,
    adapt=_flat_scales,
    one_way="factors of a branch were made flat on reading",
    original=True,
)
