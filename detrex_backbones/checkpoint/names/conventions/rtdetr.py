"""RT-DETR's ResNet vd: its authors' PResNet, and Hugging Face's.

Read off `lyuwenyu/RT-DETR` (`presnet.py`) and `transformers.models.rt_detr`. Where a shortcut keeps its size there is
no pool in front of it, nor, in the authors' names, a part of its own for the convolution.
"""

from detrex_backbones.checkpoint.names.conventions._convention import Convention, Pair
from detrex_backbones.checkpoint.names.conventions._parts import BATCH_COUNTERS
from detrex_backbones.checkpoint.names.conventions._resnet import POOLS

THEIR_BLOCK, BLOCK = "res_layers.{s}.blocks.{i}", "res{s+2}.{i}"
LAYER = "encoder.stages.{s}.layers.{i}"

PAIRS = tuple(
    pair
    for letter, k in zip("abc", (1, 2, 3), strict=True)
    for pair in (
        Pair(f"conv1.conv1_{k}.conv.weight", f"stem.conv{k}.weight"),
        Pair(f"conv1.conv1_{k}.norm.{{leaf}}", f"stem.conv{k}.norm.{{leaf}}"),
        Pair(f"{THEIR_BLOCK}.branch2{letter}.conv.weight", f"{BLOCK}.conv{k}.weight"),
        Pair(f"{THEIR_BLOCK}.branch2{letter}.norm.{{leaf}}", f"{BLOCK}.conv{k}.norm.{{leaf}}"),
    )
)
# In front of `short.conv` there may be a pool: then the two are in a row.
SHORT = f"{THEIR_BLOCK}.short"

CONVENTIONS = (
    Convention(
        name="rtdetr",
        anchors=(("conv1.conv1_1.conv.weight", "res_layers.0.blocks.0.branch2a.conv.weight"),),
        pairs=(
            *PAIRS,
            Pair(f"{SHORT}.conv.conv.weight", f"{BLOCK}.shortcut.weight", also=(f"{SHORT}.conv.weight",)),
            Pair(f"{SHORT}.conv.norm.{{leaf}}", f"{BLOCK}.shortcut.norm.{{leaf}}", also=(f"{SHORT}.norm.{{leaf}}",)),
        ),
        left_out=BATCH_COUNTERS,
        others=("gluon",),
        proves=POOLS,
    ),
    Convention(
        name="huggingface-rtdetr",
        aliases=("huggingface", "transformers"),
        anchors=(("embedder.embedder.0.convolution.weight", "encoder.stages.0.layers.0.layer.0.convolution.weight"),),
        pairs=(
            Pair("embedder.embedder.{k}.convolution.weight", "stem.conv{k+1}.weight"),
            Pair("embedder.embedder.{k}.normalization.{leaf}", "stem.conv{k+1}.norm.{leaf}"),
            Pair(f"{LAYER}.layer.{{k}}.convolution.weight", f"{BLOCK}.conv{{k+1}}.weight"),
            Pair(f"{LAYER}.layer.{{k}}.normalization.{{leaf}}", f"{BLOCK}.conv{{k+1}}.norm.{{leaf}}"),
            *(
                Pair(f"{LAYER}.shortcut.1.{theirs}", f"{BLOCK}.shortcut.{ours}", also=(f"{LAYER}.shortcut.{theirs}",))
                for theirs, ours in (("convolution.weight", "weight"), ("normalization.{leaf}", "norm.{leaf}"))
            ),
        ),
        left_out=BATCH_COUNTERS,
        others=("gluon",),
        proves=POOLS,
    ),
)
