"""TorchvisionBackbone finds a map of each stride in every family of torchvision's networks by itself."""

import pytest
import torch
import torchvision
from torchvision.models import get_model_builder, list_models

from detrex_backbones import FrozenBatchNorm2d, ShapeSpec, TorchvisionBackbone
from detrex_backbones.errors import ArgumentError
from tests.reference import noise, randomise_norms

PLAIN = {"init_weights": False, "aux_logits": False}
# The smallest of each family: torchvision's modules whose outputs are the maps of stride 4, 8, 16 and 32, read off its
# networks; their channels; and arguments.
NETWORKS = {
    "alexnet": (["features.1", "features.4", "features.11", "features.12"], [64, 192, 256, 256], {}),
    "convnext_tiny": (["features.1", "features.3", "features.5", "features.7"], [96, 192, 384, 768], {}),
    "densenet121": (
        ["features.denseblock1", "features.denseblock2", "features.denseblock3", "features.norm5"],
        [256, 512, 1024, 1024],
        {},
    ),
    "efficientnet_b0": (["features.2", "features.3", "features.5", "features.8"], [24, 40, 112, 1280], {}),
    "efficientnet_v2_s": (["features.2", "features.3", "features.5", "features.7"], [48, 64, 160, 1280], {}),
    "googlenet": (["conv3", "inception3b", "inception4e", "inception5b"], [192, 480, 832, 1024], PLAIN),
    "inception_v3": (["Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e", "Mixed_7c"], [192, 288, 768, 2048], PLAIN),
    "mnasnet0_5": (["layers.8", "layers.9", "layers.11", "layers.16"], [16, 24, 48, 1280], {}),
    "mobilenet_v2": (["features.3", "features.6", "features.13", "features.18"], [24, 32, 96, 1280], {}),
    "mobilenet_v3_small": (["features.1", "features.3", "features.8", "features.12"], [16, 24, 48, 576], {}),
    "mobilenet_v3_large": (["features.3", "features.6", "features.12", "features.16"], [24, 40, 112, 960], {}),
    "regnet_y_400mf": ([f"trunk_output.block{n}" for n in (1, 2, 3, 4)], [48, 104, 208, 440], {}),
    "resnet18": (["layer1", "layer2", "layer3", "layer4"], [64, 128, 256, 512], {}),
    "shufflenet_v2_x0_5": (["maxpool", "stage2", "stage3", "conv5"], [24, 48, 96, 1024], {}),
    "squeezenet1_0": (["features.5", "features.10", "features.12"], [256, 512, 512], {}),
    "squeezenet1_1": (["features.4", "features.7", "features.12"], [128, 256, 512], {}),
    "swin_t": (["features.1", "features.3", "features.5", "norm"], [96, 192, 384, 768], {}),
    "swin_v2_t": (["features.1", "features.3", "features.5", "norm"], [96, 192, 384, 768], {}),
    "vgg11": (["features.9", "features.14", "features.19", "features.20"], [256, 512, 512, 512], {}),
    "vgg11_bn": (["features.13", "features.20", "features.27", "features.28"], [256, 512, 512, 512], {}),
}
OF_ONE_SIZE = ("vit_b_16", "maxvit_t")
IMAGE = noise(1, 3, 131, 163)


@pytest.fixture(params=NETWORKS, scope="module")
def case(request):
    modules, channels, options = NETWORKS[request.param]
    torch.manual_seed(0)
    theirs = randomise_norms(torchvision.models.get_model(request.param, **options)).eval()
    ours = TorchvisionBackbone(request.param, **options).eval()
    own = ours.model.state_dict()
    ours.model.load_state_dict({key: value for key, value in theirs.state_dict().items() if key in own})
    return ours, theirs, modules, channels, options


def test_every_family_is_here():
    families = {get_model_builder(name).__module__ for name in list_models(module=torchvision.models)}
    assert {get_model_builder(name).__module__ for name in (*NETWORKS, *OF_ONE_SIZE)} == families


@pytest.mark.few(1)
@torch.no_grad()
def test_maps_are_the_outputs_of_torchvisions_modules(case):
    ours, theirs, modules, channels, _ = case
    names = [f"res{number}" for number in range(2, 2 + len(modules))]
    assert ours.output_shape() == {
        name: ShapeSpec(channels=number, stride=2 ** (at + 2))
        for at, (name, number) in enumerate(zip(names, channels, strict=True))
    }
    seen, hooks = [], []
    for path in modules:
        hook = theirs.get_submodule(path).register_forward_hook(
            lambda module, args, output: seen.append(output.clone())
        )
        hooks.append(hook)
    theirs(IMAGE)
    for hook in hooks:
        hook.remove()
    for expected, (name, given) in zip(seen, ours(IMAGE).items(), strict=True):
        if "swin" in ours.model_name:
            expected = expected.permute(0, 3, 1, 2)
        assert torch.equal(given, expected.relu() if "densenet" in ours.model_name and name == "res5" else expected)


@pytest.mark.few(1)
def test_every_parameter_learns_and_freezing_holds_what_the_map_depends_on(case):
    ours, _, _, _, options = case
    maps = ours(IMAGE)
    maps["res2"].square().sum().backward(retain_graph=True)
    before = {name for name, parameter in ours.named_parameters() if parameter.grad is not None}
    sum(value.square().sum() for value in maps.values()).backward()
    assert all(parameter.grad is not None for parameter in ours.parameters())
    ours.zero_grad()
    frozen = TorchvisionBackbone(ours.model_name, freeze_at=2, **options)
    learning = {name for name, parameter in frozen.named_parameters() if parameter.requires_grad}
    assert learning == {name for name, _ in ours.named_parameters()} - before
    assert before and learning
    norms = {name.rpartition(".")[0] for name in before} & {
        name for name, module in ours.named_modules() if isinstance(module, torch.nn.BatchNorm2d)
    }
    assert all(isinstance(frozen.get_submodule(name), FrozenBatchNorm2d) for name in norms)
    assert frozen.state_dict().keys() >= {name for name, _ in ours.named_parameters()}


def test_a_stem_alone():
    net = TorchvisionBackbone("resnet18", freeze_at=1)
    frozen = {name for name, parameter in net.named_parameters() if not parameter.requires_grad}
    assert frozen == {"model.conv1.weight"} and isinstance(net.model.bn1, FrozenBatchNorm2d)


def test_a_dilated_network_keeps_its_four_maps():
    net = TorchvisionBackbone("resnet50", replace_stride_with_dilation=[False, False, True])
    assert [shape.stride for shape in net.output_shape().values()] == [4, 8, 16, 16]


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_ONE_SIZE)
def test_a_network_for_one_size_is_refused(name):
    with pytest.raises(ArgumentError, match=r"images of any size.*TimmBackbone"):
        TorchvisionBackbone(name)
