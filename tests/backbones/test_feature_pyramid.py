"""The pyramid over one map: by hand, beside detectron2's, over a ViT of timm."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from detrex_backbones import Backbone, FeatureExtractor, ShapeSpec, TimmBackbone
from detrex_backbones.backbones.pyramids import LastLevelMaxPool, SimpleFeaturePyramid
from detrex_backbones.errors import ArgumentError, InputError
from tests.backbones.contract import BackboneContract, backbone, maps  # noqa: F401 (fixtures)
from tests.reference import assert_close, assert_same_maps, noise

FACTORS = (4.0, 2.0, 1.0, 0.5)


class Patches(Backbone):
    """One map of stride 16: what is left of a ViT without its blocks."""

    def __init__(self, name="last_feat", stride=16, channels=24, divisor=0, square=0):
        super().__init__()
        self.proj = nn.Conv2d(3, channels, stride, stride=stride)
        self._out_features = [name]
        self._out_feature_channels, self._out_feature_strides = {name: channels}, {name: stride}
        self.divisor, self.square = divisor, square

    def forward(self, x):
        if x.dim() != 4:
            raise InputError("(N, C, H, W)")
        return {self._out_features[0]: self.proj(x)}

    @property
    def size_divisibility(self):
        return self.divisor

    @property
    def padding_constraints(self):
        return {"square_size": self.square} if self.square else {}


def pyramid(net=None, scale_factors=FACTORS, norm="LN", **kwargs):
    net = net or Patches()
    return SimpleFeaturePyramid(net, net._out_features[0], 16, scale_factors, norm=norm, **kwargs)


BUILDS = {
    "layer_norm": pyramid,
    "p6": lambda: pyramid(top_block=LastLevelMaxPool()),
    "batch_norm": lambda: pyramid(norm="BN"),
    "no_norm": lambda: pyramid(norm=""),
    "two_levels": lambda: pyramid(scale_factors=[2, 1]),
}


@pytest.fixture(scope="class")
def images():
    return noise(2, 3, 64, 128)  # multiples of what it asks for, and of p6's stride


@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS, scope="class")
class TestContract(BackboneContract):
    pass


def test_strides_and_names():
    spec = {f"p{level}": ShapeSpec(channels=16, stride=2**level) for level in range(2, 7)}
    net = pyramid(top_block=LastLevelMaxPool(), square_pad=1024)
    assert net.output_shape() == spec
    assert list(net.output_shape()) == list(spec)
    assert net.size_divisibility == 0
    assert net.padding_constraints == {"size_divisibility": 0, "size_divisiblity": 32, "square_size": 1024}
    # Whatever the net itself needs is kept.
    net = pyramid(Patches(divisor=48, square=512), scale_factors=[2.0, 1.0])
    assert net.size_divisibility == 48
    assert net.padding_constraints == {"size_divisibility": 48, "size_divisiblity": 48, "square_size": 512}


def test_parameter_names():
    names = {name for name in pyramid().state_dict() if name.startswith("simfp")}
    convs = {f"{conv}.{leaf}" for conv in ("{}", "{}.norm") for leaf in ("weight", "bias")} - {"{}.bias"}
    expected = {"simfp_2.0.weight", "simfp_2.0.bias", "simfp_2.1.weight", "simfp_2.1.bias"}
    expected |= {"simfp_2.3.weight", "simfp_2.3.bias", "simfp_3.0.weight", "simfp_3.0.bias"}
    for stage, indices in (("simfp_2", (4, 5)), ("simfp_3", (1, 2)), ("simfp_4", (0, 1)), ("simfp_5", (1, 2))):
        expected |= {name.format(f"{stage}.{index}") for index in indices for name in convs}
    assert names == expected


@torch.no_grad()
def test_maps_by_hand(images):
    torch.manual_seed(0)
    net = pyramid(top_block=LastLevelMaxPool()).eval()
    state = {name: torch.randn_like(value) * 0.2 for name, value in net.state_dict().items()}
    net.load_state_dict(state)

    def norm(x, name):
        x = F.layer_norm(x.movedim(1, -1), x.shape[1:2], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)
        return x.movedim(-1, 1)

    def up(x, name):
        return F.conv_transpose2d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride=2)

    def convs(x, stage, first):
        x = norm(F.conv2d(x, state[f"{stage}.{first}.weight"]), f"{stage}.{first}.norm")
        x = F.conv2d(x, state[f"{stage}.{first + 1}.weight"], padding=1)
        return norm(x, f"{stage}.{first + 1}.norm")

    x = net.net(images)["last_feat"]
    p5 = convs(F.max_pool2d(x, 2), "simfp_5", 1)
    theirs = {
        "p2": convs(up(F.gelu(norm(up(x, "simfp_2.0"), "simfp_2.1")), "simfp_2.3"), "simfp_2", 4),
        "p3": convs(up(x, "simfp_3.0"), "simfp_3", 1),
        "p4": convs(x, "simfp_4", 0),
        "p5": p5,
        "p6": p5[:, :, ::2, ::2],
    }
    assert_same_maps(net(images), theirs)


@torch.no_grad()
def test_a_top_block_may_take_a_map_of_the_net(images):
    net = pyramid(top_block=LastLevelMaxPool("last_feat"), scale_factors=[1.0])
    given = net(images)
    assert list(given) == ["p4", "p5"]
    assert torch.equal(given["p5"], net.net(images)["last_feat"][:, :, ::2, ::2])
    # A name that both have is the pyramid's.
    net = pyramid(Patches(name="p5"), top_block=LastLevelMaxPool())
    assert net(images)["p6"].shape[1] == 16


def test_an_extractor_pads_to_the_last_stride():
    extractor = FeatureExtractor(pyramid(), pixel_mean=[0.0] * 3, pixel_std=[1.0] * 3)
    assert extractor([torch.zeros(3, 40, 70)])["p2"].shape[2:] == (64 // 4, 96 // 4)


@torch.no_grad()
def test_over_timms_vit():
    net = SimpleFeaturePyramid(
        TimmBackbone("vit_tiny_patch16_224", out_indices=(11,)), "p11", 32, FACTORS, LastLevelMaxPool()
    ).eval()
    image = noise(1, 3, 224, 224)
    given = net(image)
    assert {name: value.shape[1:] for name, value in given.items()} == {
        name: (32, -(-224 // spec.stride), -(-224 // spec.stride)) for name, spec in net.output_shape().items()
    }
    single = net.net(image)["p11"]
    assert_close(given["p4"], net.simfp_4(single))
    assert "net.timm_model.blocks.0.attn.qkv.weight" in {name.replace(".model.", ".") for name in net.state_dict()}


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"in_feature": "last_feet"}, "Did you mean 'last_feat'"),
        ({"scale_factors": [4.0, 1.0]}, "without a gap"),
        ({"scale_factors": [1.0, 2.0]}, "4, 2, 1, 0.5 in this order"),
        ({"scale_factors": [8.0]}, "4, 2, 1, 0.5"),
        ({"scale_factors": []}, "scale_factors"),
        ({"scale_factors": 4.0}, "scale_factors=4.0"),
        ({"scale_factors": "4"}, "scale_factors='4'"),
        ({"norm": "LayerNorm"}, "norm='LayerNorm'"),
        ({"top_block": nn.Identity()}, "num_levels"),
        ({"top_block": LastLevelMaxPool("p7")}, "'p7', which isn't there"),
        ({"net": Patches(stride=14)}, "power of two"),
        ({"net": Patches(stride=2), "scale_factors": [4.0]}, "power of two"),
    ],
)
def test_bad_arguments(kwargs, said):
    given = {"net": Patches(), "in_feature": "last_feat", "out_channels": 16, "scale_factors": FACTORS, **kwargs}
    with pytest.raises(ArgumentError) as caught:
        SimpleFeaturePyramid(**given)
    assert said in str(caught.value)


def test_a_net_that_does_not_say_its_channels():
    net = Patches()
    net._out_feature_channels["last_feat"] = None
    with pytest.raises(ArgumentError, match="how many channels"):
        pyramid(net)


@torch.no_grad()
@pytest.mark.parametrize("norm", ["LN", "BN"])
def test_detectron2_has_the_same_names_and_maps(norm, images):
    pytest.importorskip("detectron2.modeling", reason="detectron2 is not importable", exc_type=ImportError)
    from detectron2.modeling.backbone.fpn import LastLevelMaxPool as TheirMaxPool
    from detectron2.modeling.backbone.vit import SimpleFeaturePyramid as Theirs

    torch.manual_seed(0)
    theirs = Theirs(Patches(), "last_feat", 16, FACTORS, TheirMaxPool(), norm=norm, square_pad=64).eval()
    state = {
        name: value if "num_batches" in name else torch.rand_like(value) * 0.5 + 0.1
        for name, value in theirs.state_dict().items()
    }
    theirs.load_state_dict(state)
    ours = pyramid(top_block=LastLevelMaxPool(), norm=norm, square_pad=64).eval()
    ours.load_state_dict(state, strict=True)
    assert list(ours.state_dict()) == list(state)
    assert_same_maps(ours(images), theirs(images))
    # Their block in ours, too.
    mixed = pyramid(top_block=TheirMaxPool(), norm=norm).eval()
    mixed.load_state_dict(state)
    assert_same_maps(mixed(images), theirs(images))
    assert ours.size_divisibility == theirs.size_divisibility
    assert ours.padding_constraints == {**theirs.padding_constraints, "size_divisibility": 0}
    for name, spec in theirs.output_shape().items():
        assert (spec.channels, spec.stride) == (ours.output_shape()[name].channels, ours.output_shape()[name].stride)
