"""torchvision's ResNet, ResNeXt and wide ResNet, and all that kept its names.

Read off `torchvision.models.resnet`. A shortcut's convolution and norm are told apart by rank, as others number them
differently.
"""

from detrex_backbones.checkpoint.conventions._convention import Convention, Rule

CONVENTION = Convention(
    name="torchvision",
    anchors=("layer1.0.conv1.weight", "conv1.weight", "bn1.weight"),
    rules=(
        Rule(r"^fc\.", "linear."),
        Rule(r"^conv1\.", "stem.conv1."),
        Rule(r"^bn1\.", "stem.conv1.norm."),
        Rule(r"^layer1\.", "res2."),
        Rule(r"^layer2\.", "res3."),
        Rule(r"^layer3\.", "res4."),
        Rule(r"^layer4\.", "res5."),
        Rule(r"\.bn(\d)\.", r".conv\1.norm."),
        Rule(r"\.downsample\.\d\.weight$", ".shortcut.weight", rank=4),
        Rule(r"\.downsample\.\d\.", ".shortcut.norm."),
    ),
    left_out={r"^fc\.": "classifier head", r"\.num_batches_tracked$": "batch counter"},
    stage=r"(^|\.)layer[1-4](?=\.)",
)
