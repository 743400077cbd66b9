"""What learns, at every choice of maps: no parameter waits for a gradient that never comes."""

import pytest

from detrex_backbones import (
    BasicStem,
    ConvNeXt,
    CSPDarknet,
    CSPResNet,
    FocalNet,
    InternImage,
    LWDETRViT,
    MViT,
    PyramidVisionTransformer,
    RegNet,
    ResNet,
    SwinTransformer,
    make_stage,
)
from tests.backbones.test_contract import FOCALNET, INTERNIMAGE, MVIT, PVT, REGNET, SMALL_VIT
from tests.reference import noise

CHOICES = [(0,), (1,), (2,), (3,), (0, 2), (2, 1), (0, 1, 2, 3)]
SWIN_OF_FOUR = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 2)}
OF_FOUR_MAPS = {
    "swin": lambda asked: SwinTransformer(**SWIN_OF_FOUR, out_indices=asked, frozen_stages=1, ape=True),
    "mvit": lambda asked: MViT(**MVIT | {"depth": 5, "last_block_indexes": (0, 1, 2, 4)}, out_features=scales(asked)),
    "focalnet": lambda asked: FocalNet(**FOCALNET, out_indices=asked, frozen_stages=0),
    "internimage": lambda asked: InternImage(**INTERNIMAGE, out_indices=asked),
    "convnext": lambda asked: ConvNeXt(depths=(1, 1, 1, 1), dims=(8, 16, 24, 32), out_indices=asked, frozen_stages=1),
    "pvt": lambda asked: PyramidVisionTransformer(**PVT, out_indices=asked),
    "csp_resnet": lambda asked: CSPResNet(return_idx=asked, frozen_stages=1),
    "csp_darknet": lambda asked: CSPDarknet(deepen_factor=0.1, widen_factor=0.25, out_indices=asked),
    "regnet": lambda asked: RegNet(**REGNET, out_features=[f"s{index}" if index else "stem" for index in asked]),
    "resnet": lambda asked: ResNet(BasicStem(), make_stage(18, norm="BN"), out_features=[f"res{i + 2}" for i in asked]),
    "lw_detr": lambda asked: LWDETRViT(28, depth=4, out_feature_indexes=asked, **SMALL_VIT),
}


def scales(asked):
    return [f"scale{index + 2}" for index in asked]


@pytest.mark.parametrize("asked", CHOICES, ids=str)
@pytest.mark.parametrize("kind", OF_FOUR_MAPS)
def test_every_parameter_that_wants_a_gradient_gets_one_whatever_maps_are_asked_for(kind, asked):
    """DistributedDataParallel waits for the gradients of all that want one."""
    net = OF_FOUR_MAPS[kind](asked).train()
    loss = sum(value.square().mean() for value in net(noise(2, 3, 112, 112)).values())
    if loss.requires_grad:
        loss.backward()
    learning = {name: parameter.grad for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert loss.requires_grad or asked == (0,)
    assert [name for name, gradient in learning.items() if gradient is None] == []
