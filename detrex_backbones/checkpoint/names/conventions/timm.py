"""timm's own names, which this library keeps for the networks that it takes from timm.

Read off `timm.models`. Where a source of such a network has names of its own (RegNet, Darknet-53, ResNeSt), its table
leads here. Names that a feature wrapper changes are no matter of a table, see `fitting`.
"""

from detrex_backbones.checkpoint.names.conventions._convention import Convention

HEAD = {
    r"^(head|head_dist|fc|classifier|last_linear|conv_head|norm_head)\.": "head",
    r"\.num_batches_tracked$": "batch counter",
}

# Where this library has networks of these blocks, too.
OF_TORCHVISION = (
    *("torchvision-mobilenet-v2", "torchvision-mobilenet-v3-small", "torchvision-mobilenet-v3-large"),
    *("torchvision-efficientnet", "torchvision-efficientnet-v2-s", "torchvision-efficientnet-v2"),
)

CONVENTIONS = (
    # No marks: any network of timm, where the user says so or the model in hand shows it.
    Convention(name="timm", left_out=HEAD),
    Convention(
        name="timm-regnet",
        anchors=(("s1.b1.conv1.conv.weight", "stem.conv.weight"),),
        aliases=("timm",),
        left_out=HEAD,
        lookalikes="pycls' and OpenMMLab's weights in these names take BGR images; timm's *.pycls_in1k take RGB: the "
        "first convolution was flipped",
    ),
    Convention(
        name="timm-darknet",
        anchors=(("stages.0.conv_down.conv.weight", "stem.conv1.conv.weight"),),
        aliases=("timm",),
        left_out=HEAD,
        lookalikes="OpenMMLab's Darknet-53 in these names needs LeakyReLU(0.1), timm's LeakyReLU(0.01)",
    ),
    Convention(
        name="timm-resnest",
        anchors=(("layer1.0.conv2.fc1.weight", "conv1.0.weight", "bn1.weight"),),
        aliases=("timm", "resnest"),
        left_out=HEAD,
        lookalikes="OpenMMLab's and detectron2's ResNeSt weights take pixel_mean 123.68, 116.779, 103.939 and "
        "pixel_std 58.393, 57.12, 57.375, the original ones ImageNet's usual",
    ),
    Convention(
        name="timm-hrnet",
        anchors=(("stage2.0.branches.0.0.conv1.weight", "conv1.weight", "conv2.weight"),),
        aliases=("timm", "mmdet", "mmpretrain"),
        left_out={r"^(downsamp_modules|incre_modules|final_layer)\.": "head of HRNet's classifier", **HEAD},
    ),
    Convention(
        name="timm-efficientnet",
        anchors=(
            ("blocks.0.0.conv_dw.weight", "conv_stem.weight", "bn1.weight"),
            ("blocks.0.0.conv.weight", "conv_stem.weight", "bn1.weight"),
        ),
        aliases=("timm",),
        left_out=HEAD,
        others=OF_TORCHVISION,
        lookalikes="TensorFlow's weights in these names (timm's tf_*) were trained with SAME padding and norm_eps "
        "1e-3, the others as a rule with even padding and 1e-5",
    ),
    Convention(
        name="cadene",
        anchors=(
            ("layer0.conv1.weight", "layer1.0.se_module.fc1.weight"),
            ("layer0.conv1.weight", "layer1.0.conv1.weight", "last_linear.weight"),
        ),
        aliases=("timm",),
        left_out=HEAD,
        lookalikes="Cadene's SE networks (timm's legacy_*) pool without padding behind the stem, and "
        "legacy_seresnet50, 101 and 152 have stride_in_1x1=True: Gluon's SE networks are others, and their weights not "
        "interchangeable",
    ),
)
