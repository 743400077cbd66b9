"""TorchvisionResNet against torchvision's own network, and against ResNet with the weights under other names."""

import pytest
import torch
import torchvision

from detrex_backbones import BasicStem, ResNet, TorchvisionResNet, load_checkpoint, make_stage
from detrex_backbones.errors import ArgumentError, InputError
from tests.reference import TORCHVISION_MAPS, assert_same_maps, noise, randomise_norms

MAPS = {key: value for key, value in TORCHVISION_MAPS.items() if key != "maxpool"}


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(0)
    return randomise_norms(torchvision.models.resnet50(weights=None)).eval()


@pytest.mark.parametrize("dilation", [False, True])
def test_gives_torchvisions_maps_and_those_of_resnet(dilation, weights, tmp_path):
    path = tmp_path / "resnet50.pth"
    torch.save(weights.state_dict(), path)
    net = TorchvisionResNet("resnet50", True, MAPS, dilation).eval()
    assert load_checkpoint(net, path).coverage == 1
    theirs = torchvision.models.resnet50(replace_stride_with_dilation=[False, False, dilation]).eval()
    theirs.load_state_dict(weights.state_dict())
    dc5 = {"res5_dilation": 2, "dilation_style": "torchvision"} if dilation else {}
    ours = ResNet(BasicStem(norm="FrozenBN"), make_stage(50, norm="FrozenBN", **dc5), out_features=list(MAPS.values()))
    load_checkpoint(ours.eval(), path)
    images = noise(1, 3, 64, 96)
    wanted, x = {}, images
    with torch.no_grad():
        for key, child in list(theirs.named_children())[:8]:
            x = child(x)
            if key in MAPS:
                wanted[MAPS[key]] = x
        maps = net(images)
        assert_same_maps(maps, wanted)
        assert_same_maps(maps, ours(images))
    assert {key: (shape.channels, shape.stride) for key, shape in net.output_shape().items()} == {
        key: (shape.channels, shape.stride) for key, shape in ours.output_shape().items()
    }


@pytest.mark.parametrize("train_backbone", [False, True])
def test_the_beginning_never_learns(train_backbone):
    net = TorchvisionResNet("resnet18", train_backbone)
    learning = {name.split(".")[1] for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert learning == ({"layer2", "layer3", "layer4"} if train_backbone else set())


def test_layers_after_the_last_one_asked_for_are_left_out():
    net = TorchvisionResNet("resnet18", True, {"layer2": "x"})
    assert list(dict(net.body.named_children()))[-1] == "layer2"
    assert net.num_channels == 512


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet51"}, "Did you mean 'resnet50'"),
        ({"name": "vgg16"}, "is no ResNet of torchvision"),
        ({"return_layers": {"layer5": "res6"}}, "there is no 'layer5'"),
        ({"return_layers": {}}, "at least one name"),
        ({"return_layers": {"layer3": "x", "layer4": "x"}}, "no two maps of one name"),
        ({"name": "resnet18", "dilation": True}, r"make_stage\(18, res5_dilation=2"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        TorchvisionResNet(**{"name": "resnet50", "train_backbone": True, **arguments})


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 4, 32, 32)])
def test_wrong_images_are_refused(shape):
    with pytest.raises(InputError):
        TorchvisionResNet("resnet18", True)(torch.zeros(shape))
