"""RegNet, Darknet-53 and SSD's VGG-16 with the files of pycls and OpenMMLab, through their ready configs."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from detrex_backbones import FrozenBatchNorm2d, ShapeSpec, TimmBackbone, get_config, instantiate, list_configs
from detrex_backbones.backbones.darknet import Darknet53
from detrex_backbones.backbones.timm.build import timm_network
from detrex_backbones.backbones.vgg import SSDVGG
from detrex_backbones.checkpoint.fetch import find_weight, list_weights
from detrex_backbones.cli.weights import overrides_of
from detrex_backbones.errors import ArgumentError
from tests.backbones.contract import BackboneContract, backbone, images, maps  # noqa: F401 (fixtures)
from tests.checkpoint.conventions.files import assert_same, load, prefixed, write_mmengine, write_torch
from tests.checkpoint.conventions.nets import MMDET_REGNET, PYCLS, rename, shift, timm_maps, timm_plain
from tests.reference import assert_close, noise

IMAGE = noise(1, 3, 65, 97)
BGR = ([103.53, 116.28, 123.675], [57.375, 57.12, 58.395], "BGR")

BUILDS = {
    "vgg": SSDVGG,
    "vgg_one_map": lambda: SSDVGG(out_features=["conv4_3"]),
    "vgg_other_order": lambda: SSDVGG(out_features=["fc7", "conv4_3"]),
    "darknet": lambda: Darknet53(out_indices=(5, 3), norm_layer="FrozenBN"),
}


@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS, scope="class")
class TestContract(BackboneContract):
    rounding = (math.ceil,)


def config_of(name):
    """The model of a ready config, its backbone in evaluation mode, and its preprocessing."""
    cfg = get_config(name)
    model = instantiate(cfg.model).eval()
    assert cfg.train.init_checkpoint == ""
    return model, (cfg.model.pixel_mean, cfg.model.pixel_std, cfg.model.input_format)


# --- RegNet


def sizes():
    """Ready config -> timm's name."""
    ours = ["200mf", "400mf", "600mf", "800mf", "1_6gf", "3_2gf", "4_0gf", "6_4gf", "8_0gf", "12gf", "16gf", "32gf"]
    theirs = ["002", "004", "006", "008", "016", "032", "040", "064", "080", "120", "160", "320"]
    return {
        f"regnet/regnet{letter}_{one}.py": f"regnet{letter}_{other}"
        for letter in "xy"
        for one, other in zip(ours, theirs, strict=True)
    }


def pycls_file(plain, path):
    return write_torch(path, {"epoch": 1, "model_state": rename(plain.state_dict(), PYCLS), "cfg": "MODEL: {}"})


def mmdet_regnet_file(plain, path):
    state = shift(plain.state_dict(), r"^(s\d)\.b(\d+)\.", "{}.{}.", by=-1)
    return write_torch(path, {"state_dict": rename(state, MMDET_REGNET)}, legacy=True)


@pytest.mark.few(1)
@pytest.mark.parametrize("name", sizes())
def test_every_regnet_is_the_network_of_its_weights(name):
    cfg = get_config(name)
    assert cfg.model.backbone.model_name == sizes()[name]
    assert (cfg.model.pixel_mean, cfg.model.pixel_std, cfg.model.input_format) == BGR
    with torch.device("meta"):
        net = instantiate(cfg.model.backbone)
        plain = timm_network(sizes()[name])
    assert isinstance(net, TimmBackbone)
    assert [spec.stride for spec in net.output_shape().values()] == [4, 8, 16, 32]
    assert list(net.output_shape()) == ["p1", "p2", "p3", "p4"]
    weight = find_weight("pycls://" + weight_name(name))
    assert weight.config == name
    assert weight.parameters == sum(value.numel() for value in plain.parameters())
    assert overrides_of(weight) == []


def weight_name(config):
    family, size = config.removeprefix("regnet/").removesuffix(".py").split("_", 1)
    return f"RegNet{family[-1].upper()}-{size.upper().replace('_', '.')}"


@pytest.mark.few(2)
@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "write", "source"),
    [
        ("regnet/regnetx_200mf.py", pycls_file, "pycls"),
        ("regnet/regnety_200mf.py", pycls_file, "pycls"),
        ("regnet/regnetx_400mf.py", pycls_file, "pycls"),
        ("regnet/regnetx_400mf.py", mmdet_regnet_file, "mmdet-regnet"),
        ("regnet/regnetx_800mf.py", mmdet_regnet_file, "mmdet-regnet"),
    ],
)
def test_files_of_regnet(name, write, source, tmp_path, caplog):
    plain = timm_plain(sizes()[name])
    model, _ = config_of(name)
    report = load(model, write(plain, tmp_path / "file.pyth"))
    assert report.source == source
    assert not caplog.records, "the config is what these files suggest"
    assert set(report.left_over.values()) == {"head", "batch counter"}
    norms = [module for module in model.modules() if "BatchNorm" in type(module).__name__]
    assert norms and not any(isinstance(module, nn.BatchNorm2d) for module in norms)
    assert not any(parameter.requires_grad for norm in norms for parameter in norm.parameters())
    theirs = timm_maps(plain, sizes()[name], IMAGE, out_indices=(1, 2, 3, 4))
    assert_same(list(model.backbone(IMAGE).values()), theirs)
    # Frozen: training changes nothing.
    assert_same(list(model.train().backbone(IMAGE).values()), theirs)


def test_every_named_weight_has_a_config_that_fits():
    configs = set(list_configs())
    named = {weight.name: weight for scheme in ("pycls", "open-mmlab") for weight in list_weights(f"{scheme}://*")}
    assert all(weight.config in configs for weight in named.values() if weight.config)
    files = [name for name in named if name.startswith("open-mmlab://regnetx")]
    assert len(files) == 8
    for name in (*files, "open-mmlab://darknet53", "open-mmlab://vgg16_caffe"):
        assert named[name].config
        assert overrides_of(named[name]) == []
    assert named["open-mmlab://regnetx_3.2gf"].config == "regnet/regnetx_3_2gf.py"
    assert "norm_eps" not in named["open-mmlab://vgg16_caffe"].traits


# --- Darknet-53


@pytest.fixture(scope="module")
def darknet():
    return timm_plain("darknet53")


@pytest.fixture(scope="module")
def darknet_path(darknet, tmp_path_factory):
    return darknet_file(darknet, tmp_path_factory.mktemp("darknet") / "file.pth")


def darknet_file(plain, path):
    state = shift(plain.state_dict(), r"^stages()\.(\d)\.", "conv_res_block{}{}.", by=1)
    rules = [(r"^stem\.", ""), (r"\.conv_down\.", ".conv."), (r"\.blocks\.(\d+)\.", r".res\1.")]
    state = {key: value for key, value in rename(state, rules).items() if not key.startswith("head.")}
    assert len(state) == 312
    return write_torch(path, {"state_dict": state}, legacy=True)


def leaky(plain, slope):
    """timm's network with another slope."""
    changed = copy.deepcopy(plain)
    for module in changed.modules():
        if isinstance(module, nn.LeakyReLU):
            assert module.negative_slope == 0.01
            module.negative_slope = slope
    return changed


def stages_of(plain, image):
    outputs = []
    x = plain.stem(image)
    for stage in plain.stages:
        x = stage(x)
        outputs.append(x)
    return outputs


@torch.no_grad()
def test_the_file_of_darknet(darknet, darknet_path, caplog):
    model, pixels = config_of("darknet/darknet53.py")
    assert pixels == ([0.0, 0.0, 0.0], [255.0, 255.0, 255.0], "RGB")
    report = load(model, darknet_path)
    assert report.source == "mmdet-darknet"
    assert set(report.left_over.values()) <= {"batch counter"}
    assert not caplog.records
    ours = model.backbone(IMAGE)
    theirs = stages_of(leaky(darknet, 0.1), IMAGE)[2:]
    assert model.backbone.output_shape() == {
        name: ShapeSpec(channels=channels, stride=stride)
        for name, channels, stride in (("p3", 256, 8), ("p4", 512, 16), ("p5", 1024, 32))
    }
    assert_same(list(ours.values()), theirs)
    # The slope matters: with timm's own, the same weights give other maps.
    for one, other in zip(theirs, stages_of(darknet, IMAGE)[2:], strict=True):
        assert (one - other).norm() > 0.01 * one.norm()


@torch.no_grad()
@pytest.mark.parametrize("norm", [None, "FrozenBN", FrozenBatchNorm2d])
def test_the_slope_is_an_argument(darknet, darknet_path, norm):
    model = Darknet53(out_indices=(1,), norm_layer=norm, negative_slope=0.3).eval()
    slopes = {module.negative_slope for module in model.modules() if isinstance(module, nn.LeakyReLU)}
    assert slopes == {0.3}
    load(model, darknet_path, known=False)
    assert_close(model(IMAGE)["p1"], stages_of(leaky(darknet, 0.3), IMAGE)[0])


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"negative_slope": "0.1"}, "negative_slope='0.1'"),
        ({"negative_slope": True}, "negative_slope=True is of type bool. Allowed: numbers."),
        ({"model_name": "resnet50"}, "'resnet50' is a model for TimmBackbone"),
        ({"out_indices": (6,)}, "[0, 1, 2, 3, 4, 5]"),
    ],
)
def test_bad_arguments_of_darknet(kwargs, said):
    with pytest.raises(ArgumentError) as caught:
        Darknet53(**kwargs)
    assert said in str(caught.value)


# --- VGG-16 of SSD


@pytest.fixture(scope="module")
def vgg():
    """torchvision's VGG-16, and the two layers behind it in the names of SSD's file."""
    torch.manual_seed(0)
    plain = torchvision.models.vgg16(weights=None).eval()
    state = {key: value for key, value in plain.state_dict().items() if key.startswith("features.")}
    for index, shape in ((31, (1024, 512, 3, 3)), (33, (1024, 1024, 1, 1))):
        fan = math.prod(shape[1:])
        state[f"features.{index}.weight"] = torch.randn(shape) * (2 / fan) ** 0.5
        state[f"features.{index}.bias"] = torch.randn(shape[0]) * 0.1
    assert len(state) == 30
    return plain, state


def by_hand(state):
    """SSD's layers one after the other: up to "conv4_3", and from there to "fc7"."""
    convs = [value for key, value in state.items() if key.endswith(".weight")]
    layers = []
    for number, weight in enumerate(convs):
        dilation = 6 if number == 13 else 1
        layers.append(
            nn.Conv2d(
                *weight.shape[1::-1], weight.shape[2], padding=dilation * (weight.shape[2] // 2), dilation=dilation
            )
        )
        layers.append(nn.ReLU())
        if number in (1, 3, 6, 9):
            layers.append(nn.MaxPool2d(2, 2, ceil_mode=True))
        elif number == 12:
            layers.append(nn.MaxPool2d(3, 1, 1))
    net = nn.Sequential(*layers)
    net.load_state_dict({key.removeprefix("features."): value for key, value in state.items()}, strict=True)
    return net[:23], net[23:]


@pytest.mark.few(1)
@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 96), (65, 97), (300, 301)])
def test_the_file_of_ssd(vgg, size, tmp_path, caplog):
    _, state = vgg
    model, pixels = config_of("vgg/ssd_vgg16.py")
    assert pixels == ([123.675, 116.28, 103.53], [1.0, 1.0, 1.0], "RGB")
    report = load(model, write_torch(tmp_path / "file.pth", {"state_dict": state}, legacy=True))
    assert len(report.loaded) == 30 and not report.left_over
    assert not caplog.records
    image = noise(1, 3, *size)
    first, second = by_hand(state)
    conv4_3 = first(image)
    theirs = {"conv4_3": conv4_3, "fc7": second(conv4_3)}
    assert_same(model.backbone(image), theirs)
    for name, stride in (("conv4_3", 8), ("fc7", 16)):
        assert theirs[name].shape[2:] == tuple(math.ceil(pixels / stride) for pixels in size)


@torch.no_grad()
def test_the_shared_part_is_torchvisions(vgg):
    plain, state = vgg
    net = SSDVGG().eval()
    net.load_state_dict(state, strict=True)
    image = noise(1, 3, 64, 96)
    ours = net(image)
    assert_close(ours["conv4_3"], plain.features[:23](image))
    # Up to the fifth pool, where even sizes hide how pools round; then by hand.
    x = F.max_pool2d(plain.features[:30](image), 3, 1, 1)
    x = F.relu(F.conv2d(x, state["features.31.weight"], state["features.31.bias"], padding=6, dilation=6))
    x = F.relu(F.conv2d(x, state["features.33.weight"], state["features.33.bias"]))
    assert_close(ours["fc7"], x)


def test_a_detector_of_mmdet_loads_wholly(vgg, tmp_path):
    _, state = vgg
    model, _ = config_of("vgg/ssd_vgg16.py")
    file = {**prefixed(state, "backbone."), "neck.l2_norm.weight": torch.ones(512)}
    report = load(model, write_mmengine(tmp_path / "file.pth", file), known=False)
    assert len(report.loaded) == 30
    assert list(report.left_over) == ["neck.l2_norm.weight"]
    assert torch.equal(model.backbone.features[31].weight, state["features.31.weight"])


def test_one_map_needs_no_more_layers():
    net = SSDVGG(out_features=["conv4_3"])
    assert len(net.features) == 23
    assert net.output_shape() == {"conv4_3": ShapeSpec(channels=512, stride=8)}


def test_channels_of_the_image():
    assert SSDVGG(in_channels=4).features[0].weight.shape == (64, 4, 3, 3)


@pytest.mark.parametrize(
    ("out_features", "said"),
    [
        (["conv4_2"], "Did you mean 'conv4_3'"),
        ([], "at least"),
        (["fc7", "fc7"], "none of them twice"),
        ("fc7", "it takes a list"),
        ("fc6", "there is no 'fc6'"),
    ],
)
def test_bad_maps_of_vgg(out_features, said):
    with pytest.raises(ArgumentError) as caught:
        SSDVGG(out_features=out_features)
    assert said in str(caught.value)
