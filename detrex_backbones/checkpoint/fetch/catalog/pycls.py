"""pycls' baselines (Radosavovic et al. 2020): RegNetX, RegNetY, ResNet, ResNeXt and EfficientNet, trained on BGR.

Accuracies and parameters are those of pycls' own test data. Nobody published a hash of these files. The accuracies
were measured with OpenCV's bilinear resize, which smooths less than Pillow's when an image shrinks.
"""

from __future__ import annotations

from detrex_backbones.checkpoint.fetch.catalog.weight import CAFFE2, Recipe, Weight

__all__ = ["SCHEME", "WEIGHTS"]

SCHEME = "pycls://"
URL = "https://dl.fbaipublicfiles.com/pycls/dds_baselines/{id}/{file}_dds_8gpu.pyth"
RECIPE = Recipe(256, 224, "bilinear")

# name, id, beginning of the file's name, top-1, parameters.
TABLE = (
    ("RegNetX-200MF", 160905981, "RegNetX-200MF", 68.912, 2_684_792),
    ("RegNetX-400MF", 160905967, "RegNetX-400MF", 72.618, 5_157_512),
    ("RegNetX-600MF", 160906442, "RegNetX-600MF", 74.136, 6_196_040),
    ("RegNetX-800MF", 160906036, "RegNetX-800MF", 75.154, 7_259_656),
    ("RegNetX-1.6GF", 160990626, "RegNetX-1.6GF", 76.962, 9_190_136),
    ("RegNetX-3.2GF", 160906139, "RegNetX-3.2GF", 78.264, 15_296_552),
    ("RegNetX-4.0GF", 160906383, "RegNetX-4.0GF", 78.644, 22_118_248),
    ("RegNetX-6.4GF", 161116590, "RegNetX-6.4GF", 79.156, 26_209_256),
    ("RegNetX-8.0GF", 161107726, "RegNetX-8.0GF", 79.272, 39_572_648),
    ("RegNetX-12GF", 160906020, "RegNetX-12GF", 79.712, 46_106_056),
    ("RegNetX-16GF", 158460855, "RegNetX-16GF", 80.044, 54_278_536),
    ("RegNetX-32GF", 158188473, "RegNetX-32GF", 80.502, 107_811_560),
    ("RegNetY-200MF", 176245422, "RegNetY-200MF", 70.342, 3_162_996),
    ("RegNetY-400MF", 160906449, "RegNetY-400MF", 74.102, 4_344_144),
    ("RegNetY-600MF", 160981443, "RegNetY-600MF", 75.460, 6_055_160),
    ("RegNetY-800MF", 160906567, "RegNetY-800MF", 76.316, 6_263_168),
    ("RegNetY-1.6GF", 160906681, "RegNetY-1.6GF", 77.934, 11_202_430),
    ("RegNetY-3.2GF", 160906834, "RegNetY-3.2GF", 78.926, 19_436_338),
    ("RegNetY-4.0GF", 160906838, "RegNetY-4.0GF", 79.360, 20_646_656),
    ("RegNetY-6.4GF", 160907112, "RegNetY-6.4GF", 79.890, 30_583_252),
    ("RegNetY-8.0GF", 161160905, "RegNetY-8.0GF", 79.948, 39_180_068),
    ("RegNetY-12GF", 160907100, "RegNetY-12GF", 80.330, 51_822_544),
    ("RegNetY-16GF", 161303400, "RegNetY-16GF", 80.392, 83_590_140),
    ("RegNetY-32GF", 161277763, "RegNetY-32GF", 80.934, 145_046_770),
    ("ResNet-50", 161235311, "R-50-1x64d", 76.810, 25_557_032),
    ("ResNet-101", 161167170, "R-101-1x64d", 78.586, 44_549_160),
    ("ResNet-152", 161167467, "R-152-1x64d", 79.130, 60_192_808),
    ("ResNeXt-50", 161167411, "X-50-32x4d", 78.116, 25_028_904),
    ("ResNeXt-101", 161167590, "X-101-32x4d", 79.336, 44_177_704),
    ("ResNeXt-152", 162471172, "X-152-32x4d", 79.614, 59_951_400),
)

# name -> ready config, and what to change in it.
CONFIGS: dict[str, tuple[str, ...]] = {
    "ResNet-50": ("resnet/resnet50.py",),
    "ResNet-101": ("resnet/resnet101.py",),
    "ResNet-152": ("resnet/resnet152.py",),
    "ResNeXt-50": ("resnet/resnext50_32x4d.py",),
    "ResNeXt-101": ("resnet/resnext50_32x4d.py", "model.backbone.stages.depth=101"),
    "ResNeXt-152": ("resnet/resnext50_32x4d.py", "model.backbone.stages.depth=152"),
    # RegNetX-3.2GF has regnet/regnetx_3_2gf.py, and so on.
    **{
        row[0]: (f"regnet/{row[0].lower().replace('-', '_').replace('.', '_')}.py",)
        for row in TABLE
        if row[0].startswith("RegNet")
    },
}


def _weight(name: str, number: int, file: str, top1: float, parameters: int) -> Weight:
    config, *overrides = CONFIGS.get(name, ("",))
    return Weight(
        name=SCHEME + name,
        url=URL.format(id=number, file=file),
        preprocessing=CAFFE2,
        model=name.lower(),
        config=config,
        overrides=tuple(overrides),
        stride_in_1x1=False,
        norm_eps=1e-5,
        top1=top1,
        parameters=parameters,
        classes=1000,
        recipe=RECIPE,
    )


WEIGHTS = {row[0]: _weight(*row) for row in TABLE}
