"""No file with a fault loads as if it were whole: every naming convention, thirty families, faults at random places.

Every file here does load as long as nothing is wrong with it, into the network alone and into a detector that holds it.
"""

import random

import pytest
from torch import nn

from detrex_backbones.checkpoint.names.conventions import conventions
from detrex_backbones.checkpoint.names.model_names import ModelNames
from detrex_backbones.errors import CheckpointMatchError
from tests.checkpoint.cut_files import STYLES, loaded_as, try_load, wrong_files
from tests.checkpoint.whole_files import file_in, of_timm

FAMILIES = (
    *("resnet18", "resnet26d", "regnetx_002", "convnext_atto", "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"),
    *("efficientnet_b0", "mobilenetv3_small_050", "cspdarknet53", "darknet53", "densenet121", "hrnet_w18_small"),
    *("res2net50d", "resnest14d", "xcit_nano_12_p16_224", "cait_xxs24_224", "poolformer_s12", "pvt_v2_b0"),
    *("edgenext_xx_small", "efficientformer_l1", "mobilevit_xxs", "vgg11", "hiera_tiny_224", "repvgg_a0", "dla34"),
    *("ghostnet_100", "beit_base_patch16_224", "eva02_tiny_patch14_224", "test_vit", "swinv2_tiny_window8_256"),
)
QUICK = ("resnet18", "convnext_atto", "test_vit")

# A network, and another one of its family, deeper or wider.
SIBLINGS = (
    ("resnet18", "resnet34"),
    ("convnext_tiny", "convnext_small"),
    ("swin_tiny_patch4_window7_224", "swin_small_patch4_window7_224"),
    ("efficientnet_b0", "efficientnet_b1"),
    ("efficientnet_lite0", "efficientnet_b0"),
    ("vit_small_patch16_224", "vit_base_patch16_224"),
    ("vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2"),
    ("deit_tiny_patch16_224", "deit_small_patch16_224"),
    ("regnety_002", "regnety_004"),
    ("pvt_v2_b1", "pvt_v2_b2"),
    ("mobilenetv3_small_050", "mobilenetv3_small_100"),
    ("res2net50_26w_4s", "res2net101_26w_4s"),
    ("hrnet_w18_small", "hrnet_w18"),
    ("densenet121", "densenet169"),
    ("xcit_nano_12_p16_224", "xcit_tiny_12_p16_224"),
    ("poolformer_s12", "poolformer_s24"),
)


def detector_of(backbone):
    """A model that holds it and has a part of its own."""
    model = nn.Module()
    model.backbone, model.neck = backbone, nn.Conv2d(8, 8, 1, device="meta")
    return model


def check(model, file, seeds, prefixes=("",), faults=None):
    """The file loads whole, and with a fault never: so many of them, drawn; None for all, in every style of names."""
    report, right = loaded_as(model, file)
    assert report.coverage == report.file_coverage == 1
    own = ModelNames({key: tuple(value.shape) for key, value in model.state_dict().items()})
    for draw in map(random.Random, seeds):
        made = list(wrong_files(file, draw, styles=len(STYLES) if faults is None else 3))
        for what, cut in made if faults is None else draw.sample(made, faults):
            # Two blocks alike can be exchanged, and the names of timm's own wrappers are as good as the plain ones.
            new = cut.keys() - file.keys()
            if not cut or cut == file or (new and len(cut) == len(file) and all(name in own for name in new)):
                continue
            lost = file.keys() - cut.keys()
            if lost and not new and not any(name in own for name in lost):
                continue  # behind the last map
            for prefix in prefixes:
                try:
                    report, placed = loaded_as(model, {prefix + key: shape for key, shape in cut.items()})
                except CheckpointMatchError:
                    continue
                if len(cut) == len(file) and placed == right:
                    continue  # "features." renamed "blocks." is a prefix: each tensor is where it belongs
                pytest.fail(f"{what}, prefix {prefix!r}, loads into {report.scope!r}:\n{report}")


@pytest.mark.parametrize("name", QUICK)
def test_a_file_with_a_fault_is_refused(name):
    model, file = of_timm(name)
    check(detector_of(model), file, seeds=[0], prefixes=["backbone."], faults=6)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_file_with_a_fault_is_refused_by_every_family(name):
    model, file = of_timm(name)
    check(model, file, [1], ["backbone."])
    check(detector_of(model), file, [2])


@pytest.mark.parametrize(
    "names", [pytest.param(names, marks=[pytest.mark.slow] * (at not in (0, 4))) for at, names in enumerate(SIBLINGS)]
)
@pytest.mark.parametrize("turned", [False, True])
def test_another_network_of_the_family_is_refused(names, turned):
    (model, _), (_, file) = map(of_timm, reversed(names) if turned else names)
    for holder in (model, detector_of(model)):
        with pytest.raises(CheckpointMatchError):
            try_load(holder, file)
        with pytest.raises(CheckpointMatchError):
            try_load(holder, {f"backbone.{key}": shape for key, shape in file.items()})


QUICK_ONES = (
    "torchvision",
    "detectron2",
    "caffe2",
    "gluon",
    "mmdet",
    "pycls-resnet",
    "huggingface",
    "detr",
    "swin",
    "vit",
)


@pytest.mark.parametrize("name", QUICK_ONES)
def test_a_file_with_a_fault_is_refused_in_a_convention(name):
    check(*file_in(name), seeds=[0], faults=5)


@pytest.mark.slow
@pytest.mark.parametrize("name", conventions())
def test_every_fault_is_refused_in_every_convention(name):
    check(*file_in(name), seeds=[1])
