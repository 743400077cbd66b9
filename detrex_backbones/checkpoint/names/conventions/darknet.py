"""OpenMMLab's Darknet-53, the backbone of YOLOv3. Ours are timm's names, whose Darknet this library runs.

Read off `mmdet.models.backbones.darknet` and `timm.models.cspnet`.
"""

from detrex_backbones.checkpoint.names.conventions._convention import Convention, Pair

CONVENTION = Convention(
    name="mmdet-darknet",
    anchors=(("conv_res_block1.conv.conv.weight", "conv1.conv.weight"),),
    aliases=("mmdet",),
    pairs=tuple(
        Pair(f"{theirs}.{part}.{{leaf}}", f"{ours}.{part}.{{leaf}}")
        for part in ("conv", "bn")
        for theirs, ours in (
            ("conv1", "stem.conv1"),
            ("conv_res_block{s}.conv", "stages.{s-1}.conv_down"),
            ("conv_res_block{s}.res{r}.conv{k}", "stages.{s-1}.blocks.{r}.conv{k}"),
        )
    ),
    left_out={r"\.num_batches_tracked$": "batch counter"},
    lookalikes="these weights need LeakyReLU(0.1); timm's darknet53 has LeakyReLU(0.01), and so other outputs",
    suggests={"pixel_mean": [0.0, 0.0, 0.0], "pixel_std": [255.0, 255.0, 255.0], "input_format": "RGB"},
)
