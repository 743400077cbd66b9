"""OpenMMLab's VGG-16 of SSD. Its 13 convolutions have the names that torchvision and timm give them.

Read off `mmdet.models.backbones.ssd_vgg`. The two layers behind them, fc6 and fc7, were fully connected once. `SSDVGG`
has them, unless it ends before; a VGG of torchvision or timm has others there.
"""

from detrex_backbones.checkpoint.names.conventions._convention import Convention, Pair

CONVENTION = Convention(
    name="mmdet-ssd",
    anchors=(("features.33.weight", "features.31.weight", "features.28.weight", "features.0.weight"),),
    # VGG-16 with batch norm has one at 28.
    shapes={"features.28.weight": (None, None, 3, 3), "features.33.weight": (None, None, 1, 1)},
    aliases=("mmdet",),
    pairs=tuple(
        Pair(f"features.{index}.{{leaf}}", f"features.{index}.{{leaf}}")
        for index in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    ),
    left_out={
        r"^features\.31\.": "fc6 of SSD's VGG-16, a 3x3 convolution of dilation 6, which the model doesn't have",
        r"^features\.33\.": "fc7 of SSD's VGG-16, a 1x1 convolution, which the model doesn't have",
        r"^(l2_norm|extra)\b": "SSD's own layers",
    },
    lookalikes="these weights are for pooling with ceil_mode=True; torchvision's and timm's VGG-16 rounds odd sizes "
    "down",
    suggests={"pixel_mean": [123.675, 116.28, 103.53], "pixel_std": [1.0, 1.0, 1.0], "input_format": "RGB"},
)
