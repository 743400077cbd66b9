"""RegNet's names at pycls (and detectron2), OpenMMLab and torchvision. Ours are timm's, whose RegNet this library runs.

Read off `pycls.models.anynet`, `detectron2.modeling.backbone.regnet`, `mmdet.models.backbones.regnet` and
`torchvision.models.regnet`. pycls' ResNets have the names of its RegNets and a 7x7 stem: those become this library's
own ResNet.
"""

from detrex_backbones.checkpoint.names.conventions._convention import Convention, Pair
from detrex_backbones.checkpoint.names.conventions._resnet import RGB

BGR = {"pixel_mean": [103.53, 116.28, 123.675], "pixel_std": [57.375, 57.12, 58.395], "input_format": "BGR"}
TAKES_BGR = (
    "these weights take BGR images (pixel_mean 103.53, 116.28, 123.675, pixel_std 57.375, 57.12, 58.395); timm's "
    "weights for the same network take RGB: its first convolution was flipped"
)
LEFT_OUT = {r"^(head\.)?fc\.": "head", r"\.num_batches_tracked$": "batch counter"}

CONVENTIONS = (
    Convention(
        name="pycls",
        anchors=(("s1.b1.f.a.weight", "stem.conv.weight"),),
        shapes={"stem.conv.weight": (None, None, 3, 3)},
        aliases=("detectron2",),
        pairs=(
            Pair("stem.conv.weight", "stem.conv.weight"),
            Pair("stem.bn.{leaf}", "stem.bn.{leaf}"),
            *(
                Pair(f"s{{s}}.b{{i}}.f.{a}.weight", f"s{{s}}.b{{i}}.conv{k}.conv.weight")
                for k, a in enumerate("abc", 1)
            ),
            *(
                Pair(f"s{{s}}.b{{i}}.f.{a}_bn.{{leaf}}", f"s{{s}}.b{{i}}.conv{k}.bn.{{leaf}}")
                for k, a in enumerate("abc", 1)
            ),
            Pair("s{s}.b{i}.f.se.f_ex.0.{leaf}", "s{s}.b{i}.se.fc1.{leaf}"),
            Pair("s{s}.b{i}.f.se.f_ex.2.{leaf}", "s{s}.b{i}.se.fc2.{leaf}"),
            Pair("s{s}.b{i}.proj.weight", "s{s}.b{i}.downsample.conv.weight"),
            Pair("s{s}.b{i}.bn.{leaf}", "s{s}.b{i}.downsample.bn.{leaf}"),
            Pair("head.fc.{leaf}", "head.fc.{leaf}"),
        ),
        left_out=LEFT_OUT,
        lookalikes=TAKES_BGR,
        suggests=BGR,
    ),
    Convention(
        name="pycls-resnet",
        anchors=(("s1.b1.f.a.weight", "stem.conv.weight"),),
        shapes={"stem.conv.weight": (None, None, 7, 7)},
        aliases=("pycls",),
        pairs=(
            Pair("stem.conv.weight", "stem.conv1.weight"),
            Pair("stem.bn.{leaf}", "stem.conv1.norm.{leaf}"),
            *(
                Pair(f"s{{s}}.b{{i}}.f.{a}.weight", f"res{{s+1}}.{{i-1}}.conv{k}.weight")
                for k, a in enumerate("abc", 1)
            ),
            *(
                Pair(f"s{{s}}.b{{i}}.f.{a}_bn.{{leaf}}", f"res{{s+1}}.{{i-1}}.conv{k}.norm.{{leaf}}")
                for k, a in enumerate("abc", 1)
            ),
            Pair("s{s}.b{i}.proj.weight", "res{s+1}.{i-1}.shortcut.weight"),
            Pair("s{s}.b{i}.bn.{leaf}", "res{s+1}.{i-1}.shortcut.norm.{leaf}"),
            Pair("head.fc.{leaf}", "linear.{leaf}"),
        ),
        left_out=LEFT_OUT,
        suggests={**BGR, "stride_in_1x1": False},
    ),
    Convention(
        name="mmdet-regnet",
        anchors=(("layer1.0.conv1.weight", "layer1.0.conv3.weight", "conv1.weight", "bn1.weight"),),
        without=("conv2.weight", "layer1.0.se.fc1.weight"),  # HRNet; networks of timm with squeeze-and-excitation
        shapes={"conv1.weight": (32, None, 3, 3)},  # a ResNet for small images has 64
        aliases=("mmdet", "mmpretrain"),
        others=("pycls",),
        pairs=(
            Pair("conv1.weight", "stem.conv.weight"),
            Pair("bn1.{leaf}", "stem.bn.{leaf}"),
            Pair("layer{s}.{i}.conv{k}.weight", "s{s}.b{i+1}.conv{k}.conv.weight"),
            Pair("layer{s}.{i}.bn{k}.{leaf}", "s{s}.b{i+1}.conv{k}.bn.{leaf}"),
            Pair("layer{s}.{i}.downsample.0.weight", "s{s}.b{i+1}.downsample.conv.weight", rank=4),
            Pair("layer{s}.{i}.downsample.1.{leaf}", "s{s}.b{i+1}.downsample.bn.{leaf}"),
            Pair("fc.{leaf}", "head.fc.{leaf}"),
        ),
        left_out=LEFT_OUT,
        lookalikes=TAKES_BGR,
        suggests=BGR,
    ),
    Convention(
        name="torchvision-regnet",
        anchors=(("trunk_output.block1.block1-0.f.a.0.weight", "stem.0.weight"),),
        aliases=("torchvision",),
        pairs=(
            Pair("stem.0.weight", "stem.conv.weight"),
            Pair("stem.1.{leaf}", "stem.bn.{leaf}"),
            *(
                Pair(
                    f"trunk_output.block{{s}}.block{{s}}-{{i}}.f.{a}.{n}.{{leaf}}",
                    f"s{{s}}.b{{i+1}}.conv{k}.{part}.{{leaf}}",
                )
                for k, a in enumerate("abc", 1)
                for n, part in ((0, "conv"), (1, "bn"))
            ),
            Pair("trunk_output.block{s}.block{s}-{i}.f.se.fc{k}.{leaf}", "s{s}.b{i+1}.se.fc{k}.{leaf}"),
            Pair("trunk_output.block{s}.block{s}-{i}.proj.0.weight", "s{s}.b{i+1}.downsample.conv.weight"),
            Pair("trunk_output.block{s}.block{s}-{i}.proj.1.{leaf}", "s{s}.b{i+1}.downsample.bn.{leaf}"),
            Pair("fc.{leaf}", "head.fc.{leaf}"),
        ),
        left_out=LEFT_OUT,
        lookalikes="torchvision's regnet_x_400mf, regnet_y_800mf and regnet_y_8gf are wider than timm's and pycls' of "
        "these names; the weights of torchvision take RGB images, pycls' BGR",
        suggests=RGB,
    ),
)
