"""Deep stems, shortcuts, squeeze-and-excitation and halved widths, each and together, against timm's."""

import functools

import pytest
import torch
from timm.layers import SqueezeExcite
from timm.models.resnet import BasicBlock
from torch import nn

from detrex_backbones import BasicStem, DeepStem, FrozenBatchNorm2d, ResNet, make_stage
from detrex_backbones.backbones.resnet.blocks import AvgPoolConv2d
from detrex_backbones.errors import ArgumentError
from tests.backbones.timm_reference import (
    assert_equal_nets,
    our_net,
    timm_net,
    to_our_names,
    without_pool_in_layer4,
)
from tests.reference import (
    MAPS,
    assert_close,
    assert_same_maps,
    dilate_by_hand,
    noise,
    strides_into_1x1,
    torchvision_maps,
)

# By default timm rounds the squeezed channels up to a multiple of 8.
SE = functools.partial(SqueezeExcite, rd_divisor=1)

# All parts at once, ours and timm's, a quarter as wide as usual.
AVG_POOL = {
    "in_channels": 32,
    "out_channels": 64,
    "num_groups": 8,
    "width_per_group": 4,
    "shortcut": "avg_pool",
    "se_reduction": 16,
    "reduce_first": 2,
}
TIMM_AVG_POOL = {
    "stem_width": 16,
    "stem_type": "deep",
    "channels": (16, 32, 64, 128),
    "cardinality": 8,
    "base_width": 16,
    "avg_down": True,
    "block_args": {"attn_layer": SE},
    "block_reduce_first": 2,
}
CONV3X3 = {**AVG_POOL, "shortcut": "conv3x3"}
TIMM_CONV3X3 = {**TIMM_AVG_POOL, "avg_down": False, "down_kernel_size": 3}

DC5_STYLES = [("detectron2", 2), ("torchvision", 1)]  # and the dilation of res5's first block

stem_of_32 = functools.partial(DeepStem, out_channels=32)
stem_of_128 = functools.partial(DeepStem, out_channels=128)


@pytest.fixture(scope="module")
def images():
    return noise(1, 3, 97, 131)


class TestBasicBlocks:
    @pytest.mark.parametrize(("depth", "layers", "width"), [(18, (2, 2, 2, 2), 64), (34, (3, 4, 6, 3), 32)])
    def test_take_a_deep_stem_an_average_pool_and_squeeze_excitation(self, depth, layers, width, images):
        theirs = timm_net(
            BasicBlock, layers, stem_width=width, stem_type="deep", avg_down=True, block_args={"attn_layer": SE}
        )
        stem = functools.partial(DeepStem, out_channels=2 * width)
        kwargs = {"in_channels": 2 * width, "shortcut": "avg_pool", "se_reduction": 16}
        assert_equal_nets(our_net(theirs, stem, depth=depth, **kwargs), theirs, images)

    def test_take_3x3_projections(self, images):
        theirs = timm_net(BasicBlock, (2, 2, 2, 2), down_kernel_size=3)
        assert_equal_nets(our_net(theirs, BasicStem, depth=18, shortcut="conv3x3"), theirs, images)

    @pytest.mark.parametrize(("style", "first"), DC5_STYLES)
    def test_with_dc5_equal_timms_dilated_by_hand(self, style, first, images):
        theirs = timm_net(BasicBlock, (2, 2, 2, 2), stem_width=32, stem_type="deep", avg_down=True)
        theirs = without_pool_in_layer4(dilate_by_hand(theirs, first))
        kwargs = {"depth": 18, "res5_dilation": 2, "dilation_style": style, "shortcut": "avg_pool"}
        with torch.device("meta"):
            defaults = ResNet.make_default_stages(norm="FrozenBN", **kwargs)
        for stages in (None, defaults):
            assert_equal_nets(our_net(theirs, DeepStem, stages, **kwargs), theirs, images)


@pytest.mark.parametrize(
    ("ours", "timms"), [(AVG_POOL, TIMM_AVG_POOL), (CONV3X3, TIMM_CONV3X3)], ids=["avg_pool", "conv3x3"]
)
class TestBottleneckBlocks:
    """With all parts at once."""

    @pytest.mark.few(3)
    @pytest.mark.parametrize("size", [(97, 131), (64, 64), (1, 1), (33, 7)], ids=str)
    def test_equal_timms_at_any_size(self, ours, timms, size):
        theirs = timm_net(**timms)
        assert_equal_nets(our_net(theirs, stem_of_32, **ours), theirs, noise(1, 3, *size))

    def test_equal_timms_with_the_strides_moved_to_the_1x1(self, ours, timms, images):
        theirs = strides_into_1x1(timm_net(**timms))
        assert_equal_nets(our_net(theirs, stem_of_32, **ours, stride_in_1x1=True), theirs, images)

    @pytest.mark.parametrize(("style", "first"), DC5_STYLES)
    def test_with_dc5_equal_timms_dilated_by_hand(self, ours, timms, style, first, images):
        theirs = dilate_by_hand(timm_net(**timms), first)
        if timms["avg_down"]:
            without_pool_in_layer4(theirs)
        kwargs = {**ours, "res5_dilation": 2, "dilation_style": style}
        assert_equal_nets(our_net(theirs, stem_of_32, **kwargs), theirs, images)

    def test_have_timms_gradients(self, ours, timms):
        # In float64: what differs is then the formula, not the rounding.
        theirs = timm_net(**timms).double()
        for name, parameter in theirs.named_parameters():
            if name.endswith("se.fc1.bias"):
                nn.init.ones_(parameter)  # or whole layers would be dead, their gradients zero
        net = our_net(theirs, stem_of_32, norm="BN", **ours)
        for maps in (net(noise(1, 3, 65, 97).double()), torchvision_maps(theirs, noise(1, 3, 65, 97).double())):
            sum((value * noise(*value.shape)).sum() / value.numel() for value in maps.values()).backward()
        gradients = to_our_names({name: parameter.grad for name, parameter in theirs.named_parameters()})
        assert_same_maps({name: parameter.grad for name, parameter in net.named_parameters()}, gradients, 1e-9)

    def test_fresh_deformable_stages_sample_where_the_plain_ones_do(self, ours, timms, images):
        plain = our_net(timm_net(**timms), stem_of_32, **ours)
        stages = make_stage(**ours, deform_on_per_stage=[False, True, True, True], deform_num_groups=4)
        net = ResNet(stem_of_32(norm="FrozenBN"), stages, 10, out_features=MAPS, freeze_at=2).eval()
        missing, unexpected = net.load_state_dict(plain.state_dict(), strict=False)
        assert missing and not unexpected
        assert all("conv2_offset" in name for name in missing)
        with torch.no_grad():
            assert_same_maps(net(images), plain(images))

    def test_freeze_and_train(self, ours, timms):
        stages = make_stage(**ours, norm="BN", deform_on_per_stage=[True] * 4, deform_modulated=True)
        net = ResNet(stem_of_32(), stages, freeze_at=3).train()
        net(noise(2, 3, 64, 64))["res5"].sum().backward()
        for name, parameter in net.named_parameters():
            frozen = name.startswith(("stem", "res2", "res3"))
            assert parameter.requires_grad != frozen
            assert (parameter.grad is None) == frozen
        assert "res4.0.se.fc1.weight" in dict(net.named_parameters())
        norms = [{type(m) for m in stage.modules() if "Norm" in type(m).__name__} for stage in (net.res3, net.res4)]
        assert norms == [{FrozenBatchNorm2d}, {nn.BatchNorm2d}]


class TestDC5:
    """Against what timm makes of `output_stride=16`: the first block of its last stage is not dilated."""

    @pytest.mark.parametrize(
        ("ours", "timms"),
        [({"in_channels": 128}, {"stem_type": "deep"}), (CONV3X3, TIMM_CONV3X3)],
        ids=["v1s", "everything"],
    )
    def test_in_torchvisions_way_equals_timms(self, ours, timms, images):
        theirs = timm_net(**timms, output_stride=16)
        stem = functools.partial(DeepStem, out_channels=ours["in_channels"])
        net = our_net(theirs, stem, **ours, res5_dilation=2, dilation_style="torchvision")
        assert_equal_nets(net, theirs, images)

    def test_with_an_average_pool_equals_timms_without_its_pool_at_stride_1(self, images):
        theirs = timm_net(**TIMM_AVG_POOL, output_stride=16)
        net = our_net(theirs, stem_of_32, **AVG_POOL, res5_dilation=2, dilation_style="torchvision")
        with torch.no_grad():
            ours, timms = net(images), torchvision_maps(theirs, images)
        assert_close(ours["res4"], timms["res4"])
        with pytest.raises(AssertionError, match="relative difference"):
            assert_close(ours["res5"], timms["res5"], 0.01)
        assert_equal_nets(net, without_pool_in_layer4(theirs), images)


class TestDefaultStages:
    @pytest.mark.parametrize(("shortcut", "kernel_size"), [("avg_pool", 1), ("conv3x3", 3)])
    def test_take_the_parts(self, shortcut, kernel_size, images):
        theirs = timm_net(
            stem_type="deep",
            avg_down=shortcut == "avg_pool",
            down_kernel_size=kernel_size,
            block_args={"attn_layer": "se"},
        )
        with torch.device("meta"):
            stages = ResNet.make_default_stages(
                50, in_channels=128, norm="FrozenBN", shortcut=shortcut, se_reduction=16
            )
        assert_equal_nets(our_net(theirs, stem_of_128, stages), theirs, images)


class TestDeepStem:
    def test_takes_two_widths(self, images):
        theirs = timm_net(BasicBlock, (2, 2, 2, 2), stem_width=32, stem_type="deep_tiered")
        stem = functools.partial(DeepStem, mid_channels=(24, 32))
        assert_equal_nets(our_net(theirs, stem, depth=18), theirs, images)

    @pytest.mark.parametrize("widths", [0, (32,), (32, 32, 64), (32, -1), ()], ids=str)
    def test_names_the_widths_that_are_wrong(self, widths):
        with pytest.raises(ArgumentError, match=r"mid_channels=.*one number, or two"):
            DeepStem(mid_channels=widths)

    def test_a_wide_stem_needs_stages_that_take_it(self):
        with torch.device("meta"), pytest.raises(ArgumentError, match="takes 64 channels but is given 128 by stem"):
            ResNet(DeepStem(out_channels=128), make_stage())


class TestErrors:
    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"shortcut": "avgpool"}, "shortcut='avgpool'.*'conv1x1'.*'conv3x3'.*'avg_pool'.*mean 'avg_pool'"),
            ({"shortcut": None}, "shortcut=None"),
            ({"se_reduction": 0}, "se_reduction=0.*256 channels.*1 to 256"),
            ({"se_reduction": 257}, "se_reduction=257.*1 to 256"),
            ({"se_reduction": 65, "depth": 18}, "se_reduction=65.*1 to 64"),
            ({"se_reduction": True}, "se_reduction=True.*whole number"),
            ({"se_reduction": 16.0}, "se_reduction=16.0.*whole number"),
            ({"reduce_first": 3}, "reduce_first=3.*bottleneck_channels=64"),
            ({"reduce_first": 0}, "reduce_first=0"),
            ({"reduce_first": 2, "depth": 34}, "reduce_first=2.*depth=34.*bottleneck"),
            ({"reduce_first": 4, "num_groups": 32, "width_per_group": 2}, "num_groups=32.*64 reduced to 16"),
            (
                {"reduce_first": 16, "deform_on_per_stage": [True] * 4, "deform_num_groups": 8},
                "deform_num_groups=8.*16",
            ),
        ],
        ids=str,
    )
    def test_of_stages_name_what_is_wrong_and_what_is_allowed(self, kwargs, message):
        with torch.device("meta"), pytest.raises(ArgumentError, match=message):
            make_stage(**kwargs)


def test_the_pool_leaves_out_the_border_and_rounds_the_size_up():
    conv = AvgPoolConv2d(1, 1, kernel_size=1, bias=False, pool_stride=2)
    nn.init.ones_(conv.weight)
    x = torch.arange(9.0).view(1, 1, 3, 3)
    assert conv(x).tolist() == [[[[2.0, 3.5], [6.5, 8.0]]]]
    assert "pool_stride=2" in repr(conv)
