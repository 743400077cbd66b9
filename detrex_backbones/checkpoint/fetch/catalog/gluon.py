"""The 21 ResNets of GluonCV that were ported to PyTorch, with the accuracies of the port's README.

The hexadecimal part of a file's name is the beginning of its sha256.
"""

from __future__ import annotations

from detrex_backbones.checkpoint.fetch.catalog.weight import IMAGENET, Recipe, Weight

__all__ = ["SCHEME", "TIMM_NAMES", "WEIGHTS"]

SCHEME = "gluon://"
URL = "https://github.com/rwightman/pytorch-pretrained-gluonresnet/releases/download/v0.1/gluon_{name}-{hash}.pth"
RECIPE = Recipe(256, 224, "bicubic")

# name, sha256, top-1, top-5, parameters, timm's name of the network.
TABLE = (
    ("resnet18_v1b", "0757602b", 70.830, 89.756, 11_689_512, "resnet18"),
    ("resnet34_v1b", "c6d82d59", 74.580, 91.988, 21_797_672, "resnet34"),
    ("resnet50_v1b", "0ebe02e2", 77.578, 93.718, 25_557_032, "resnet50"),
    ("resnet50_v1c", "48092f55", 78.010, 93.988, 25_576_264, "resnet50c"),
    ("resnet50_v1s", "1762acc0", 78.712, 94.242, 25_680_808, "resnet50s"),
    ("resnet50_v1d", "818a1b1b", 79.074, 94.476, 25_576_264, "resnet50d"),
    ("resnet101_v1b", "3b017079", 79.304, 94.524, 44_549_160, "resnet101"),
    ("resnext50_32x4d", "e6a097c1", 79.356, 94.424, 25_028_904, "resnext50_32x4d"),
    ("resnet101_v1c", "1f26822a", 79.544, 94.586, 44_568_392, "resnet101c"),
    ("resnet152_v1b", "c1edb0dd", 79.692, 94.738, 60_192_808, "resnet152"),
    ("seresnext50_32x4d", "90cf2d6e", 79.912, 94.818, 27_559_896, "seresnext50_32x4d"),
    ("resnet152_v1c", "a3bb0b98", 79.916, 94.842, 60_212_040, "resnet152c"),
    ("resnet101_v1s", "60fe0cc1", 80.300, 95.150, 44_672_936, "resnet101s"),
    ("resnext101_32x4d", "b253c8c4", 80.334, 94.926, 44_177_704, "resnext101_32x4d"),
    ("resnet101_v1d", "0f9c8644", 80.424, 95.020, 44_568_392, "resnet101d"),
    ("resnet152_v1d", "bd354e12", 80.470, 95.206, 60_212_040, "resnet152d"),
    ("resnext101_64x4d", "f9a8e184", 80.602, 94.994, 83_455_272, "resnext101_64x4d"),
    ("seresnext101_64x4d", "f9926f93", 80.890, 95.304, 88_232_984, "seresnext101_64x4d"),
    ("seresnext101_32x4d", "cf52900d", 80.902, 95.294, 48_955_416, "seresnext101_32x4d"),
    ("resnet152_v1s", "dcc41b81", 81.012, 95.416, 60_316_584, "resnet152s"),
    ("senet154", "70a1a3c0", 81.224, 95.356, 115_088_984, "senet154"),
)

TIMM_NAMES = {timm_name: name for name, *_, timm_name in TABLE}


def _weight(name: str, sha256: str, top1: float, top5: float, parameters: int) -> Weight:
    return Weight(
        name=SCHEME + name,
        url=URL.format(name=name, hash=sha256),
        hash=f"sha256:{sha256}",
        preprocessing=IMAGENET,
        model=name,
        config=f"gluon/{name}.py",
        stride_in_1x1=None if name.startswith(("resnet18", "resnet34")) else False,
        norm_eps=1e-5,
        top1=top1,
        top5=top5,
        parameters=parameters,
        classes=1000,
        recipe=RECIPE,
    )


WEIGHTS = {row[0]: _weight(*row[:-1]) for row in TABLE}
