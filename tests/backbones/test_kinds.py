"""Values of the wrong kind are refused, and what was changed by hand is asked, in every class alike."""

import pytest
import torch
from torch import nn

from detrex_backbones import (
    FPN,
    SSDVGG,
    BasicStem,
    BottleneckBlock,
    Darknet53,
    DeepStem,
    ResNet,
    SimpleFeaturePyramid,
    TimmBackbone,
    TorchvisionBackbone,
    TorchvisionResNet,
    make_stage,
)
from detrex_backbones.errors import ArgumentError, InputError
from tests.backbones.test_recompute import OWN, kept
from tests.reference import noise


def pyramid(**kwargs):
    net = ResNet(BasicStem(), make_stage(18, norm="BN"), out_features=["res4"])
    return SimpleFeaturePyramid(net, "res4", 8, (1.0,), **kwargs)


def fpn(**kwargs):
    net = ResNet(BasicStem(), make_stage(18, norm="BN"), out_features=["res4"])
    return FPN(net, ["res4"], 8, **kwargs)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: make_stage(50, stride_in_1x1="no"), "stride_in_1x1='no' is of type str.*Write stride_in_1x1=False"),
        (lambda: make_stage(18, stride_in_1x1=0), "Write stride_in_1x1=False"),
        (lambda: BottleneckBlock(64, 64, bottleneck_channels=16, stride_in_1x1=None), "of type NoneType"),
        (lambda: ResNet.make_default_stages(50, stride_in_1x1="yes"), "Write stride_in_1x1=True"),
        (lambda: make_stage(50, deform_modulated="off"), "Write deform_modulated=False"),
        (lambda: make_stage(50, deform_on_per_stage=[False, False, "no", 1]), "deform_on_per_stage='no'"),
        (lambda: make_stage(50, deform_on_per_stage="True"), "no list of four"),
        (lambda: TorchvisionResNet("resnet18", "False"), "Write train_backbone=False"),
        (lambda: TorchvisionResNet("resnet50", True, dilation="off"), "Write dilation=False"),
        (lambda: TorchvisionResNet("resnet50", True, dilation=1), "Write dilation=True"),
        (lambda: pyramid(square_pad="no"), "square_pad='no' is of type str. Allowed: whole numbers."),
        (lambda: fpn(square_pad="no"), "square_pad='no' is of type str. Allowed: whole numbers."),
        (lambda: fpn(square_pad=True), "square_pad=True is of type bool"),
        (lambda: pyramid(square_pad=True), "square_pad=True is of type bool"),
        (lambda: TimmBackbone("resnet18", features_only="True"), "Write features_only=True"),
        (lambda: Darknet53(pretrained="yolov3.pth"), "pretrained='yolov3.pth' is of type str"),
    ],
)
def test_words_for_true_and_false_are_refused(made, said):
    with pytest.raises(ArgumentError, match=said):
        made()


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: TimmBackbone("convnext_atto", drop_path_rate=2.0), "drop_path_rate=2.0 is a probability"),
        (lambda: TimmBackbone("vit_tiny_patch16_224", drop_rate=-1), "drop_rate=-1 is a probability"),
        (lambda: TimmBackbone("swin_tiny_patch4_window7_224", attn_drop_rate=1.5), "attn_drop_rate=1.5 is a"),
        (lambda: TorchvisionBackbone("convnext_tiny", stochastic_depth_prob=-0.1), "stochastic_depth_prob=-0.1"),
        *[
            (lambda kind=kind: OWN[kind][0](**OWN[kind][2] | {"drop_path_rate": 2.0}), "drop_path_rate=2.0 is a probab")
            for kind in ("swin", "vit", "mvit", "pvt", "eva", "dinov2", "focalnet")
        ],
    ],
)
def test_rates_that_are_no_probabilities_are_refused(made, said):
    with torch.device("meta"), pytest.raises(ArgumentError, match=said):
        made()


def test_a_file_that_timm_would_not_load_is_pointed_to_its_argument(tmp_path):
    path = tmp_path / "mine.pth"
    path.touch()
    with pytest.raises(ArgumentError, match=r"mine.pth' is a file.*checkpoint_path='.*mine.pth'"):
        TimmBackbone("resnet18", pretrained=path)


def deep_stem():
    net = ResNet(DeepStem(), make_stage(18, norm="BN"), out_features=["res2"])
    net.stem.conv1 = nn.Conv2d(5, 32, 3, 2, 1)
    return net


def other_stem():
    net = ResNet(BasicStem(), make_stage(18, norm="BN"), out_features=["res2"])
    net.stem = nn.Sequential(nn.Conv2d(5, 64, 4, 4))
    return net


def torchvision_resnet():
    net = TorchvisionResNet("resnet18", True, {"layer1": "res2"})
    net.body.conv1 = nn.Conv2d(5, 64, 7, 2, 3, bias=False)
    return net


def vgg():
    net = SSDVGG(out_features=["conv4_3"])
    net.features[0] = nn.Conv2d(5, 64, 3, padding=1)
    return net


@pytest.mark.few(2)
@torch.no_grad()
@pytest.mark.parametrize("kind", OWN)
def test_every_class_asks_its_first_convolution_for_the_channels(kind):
    build, _, kwargs = OWN[kind]
    net = build(**kwargs).eval()
    name, old = next((name, part) for name, part in net.named_modules() if isinstance(part, nn.Conv2d))
    squares = old.in_channels // 3  # YOLOX's stem takes four pixels as one
    parent, _, key = name.rpartition(".")
    shape = (old.kernel_size, old.stride, old.padding)
    new = nn.Conv2d(5 * squares, old.out_channels, *shape, bias=old.bias is not None)
    setattr(net.get_submodule(parent), key, new)
    size = {"lw_detr": (64, 96), "dinov2": (112, 56)}.get(kind, (112, 80))
    assert all(value.isfinite().all() for value in net(noise(1, 5, *size)).values())
    with pytest.raises(InputError, match=r"in_channels=5.*has 3"):
        net(noise(1, 3, *size))


@torch.no_grad()
@pytest.mark.parametrize("made", [deep_stem, other_stem, torchvision_resnet, vgg])
def test_a_stem_that_was_changed_by_hand_is_asked_for_its_channels(made):
    net = made().eval()
    assert net(noise(1, 5, 64, 64))
    with pytest.raises(InputError, match=r"in_channels=5.*has 3"):
        net(noise(1, 3, 64, 64))


@pytest.mark.few(1)
@pytest.mark.parametrize(
    "made",
    [
        lambda stages: TorchvisionResNet("resnet18", True, {"layer4": "res5"}, checkpoint_stages=stages),
        lambda stages: SSDVGG(checkpoint_stages=stages),
        lambda stages: Darknet53(checkpoint_stages=stages),
    ],
)
def test_recomputing_keeps_less_and_changes_no_number(made):
    nets = []
    for stages in (False, True):
        torch.manual_seed(0)
        nets.append(made(stages).train())
    image = noise(2, 3, 64, 64)
    assert kept(nets[1], image) < kept(nets[0], image)
    for net in nets:
        torch.manual_seed(0)
        sum(value.square().mean() for value in net(image).values()).backward()
    for (name, one), other in zip(nets[0].named_parameters(), nets[1].parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        assert one.grad is None or torch.allclose(one.grad, other.grad, rtol=1e-3, atol=1e-6), name
    with pytest.raises(ArgumentError, match="checkpoint_stages='all'"):
        made("all")
