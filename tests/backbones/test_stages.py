import inspect

import pytest
import torch
from torch import nn

from detrex_backbones import BasicBlock, BasicStem, BottleneckBlock, DeformBottleneckBlock, ResNet, make_stage
from detrex_backbones.errors import ArgumentError

DEFORM_ONLY_IN_RES2 = [True, False, False, False]


@pytest.fixture(autouse=True)
def without_weights():
    """Structure alone is asked for here."""
    with torch.device("meta"):
        yield


def defaults(function) -> dict:
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.name != "self" and p.kind != p.VAR_KEYWORD}


EMPTY = inspect.Parameter.empty

# What neither detrex nor detectron2 has.
BLOCK_OURS = {"shortcut": "conv1x1", "se_reduction": None}
OURS = {"dilation_style": "detectron2", "reduce_first": 1, **BLOCK_OURS}


class TestSignatures:
    """What detectron2 and detrex have under the same name has the same arguments, in the same order."""

    def test_make_stage_is_detrexs_with_ours_added(self):
        assert list(defaults(make_stage).items()) == [
            ("depth", 50),
            ("norm", "FrozenBN"),
            ("num_groups", 1),
            ("width_per_group", 64),
            ("in_channels", 64),
            ("out_channels", None),  # 256 as in detrex, or what depths 18 and 34 need: 64
            ("stride_in_1x1", False),
            ("res5_dilation", 1),
            ("deform_on_per_stage", (False, False, False, False)),
            ("deform_modulated", False),
            ("deform_num_groups", 1),
            *OURS.items(),
            ("project_res2", False),
        ]
        kinds = {inspect.signature(make_stage).parameters[name].kind for name in OURS}
        assert kinds == {inspect.Parameter.KEYWORD_ONLY}

    def test_of_resnet_are_detectron2s(self):
        assert list(defaults(ResNet).items()) == [
            ("stem", EMPTY),
            ("stages", EMPTY),
            ("num_classes", None),
            ("out_features", None),
            ("freeze_at", 0),
            ("checkpoint_stages", False),  # ours, and by name only, as the next
            ("weight_standardization", False),
        ]
        assert defaults(ResNet.freeze) == {"freeze_at": 0}
        assert list(defaults(ResNet.make_stage)) == ["block_class", "num_blocks", "in_channels", "out_channels"]
        assert list(defaults(ResNet.make_default_stages).items()) == [
            ("depth", EMPTY),
            ("block_class", None),
            ("in_channels", 64),
            ("res5_dilation", 1),
            ("dilation_style", "detectron2"),
        ]

    def test_of_the_stem_are_detectron2s(self):
        assert list(defaults(BasicStem).items()) == [("in_channels", 3), ("out_channels", 64), ("norm", "BN")]

    def test_of_the_blocks_are_detectron2s(self):
        channels = {"in_channels": EMPTY, "out_channels": EMPTY}
        # detectron2's basic block has no dilation; ours needs it for DC5.
        assert (
            defaults(BasicBlock) == channels | {"stride": 1, "norm": "BN", "dilation": 1, "project": False} | BLOCK_OURS
        )
        bottleneck = channels | {
            "bottleneck_channels": EMPTY,
            "stride": 1,
            "num_groups": 1,
            "norm": "BN",
            "stride_in_1x1": False,
            "dilation": 1,
            "reduce_first": 1,
            **BLOCK_OURS,
        }
        assert defaults(BottleneckBlock) == bottleneck
        assert defaults(DeformBottleneckBlock) == bottleneck | {"deform_modulated": False, "deform_num_groups": 1}


class TestMakeStage:
    @pytest.mark.parametrize(("depth", "width"), [(18, 64), (34, 64), (50, 256), (101, 256), (152, 256)])
    def test_left_out_widths_are_the_papers(self, depth, width):
        for stages in (make_stage(depth), ResNet.make_default_stages(depth)):
            assert [stage[-1].out_channels for stage in stages] == [width, 2 * width, 4 * width, 8 * width]

    def test_widths_may_be_any(self):
        stages = make_stage(50, in_channels=16, out_channels=32, num_groups=2, width_per_group=4)
        assert [(stage[0].in_channels, stage[0].out_channels) for stage in stages] == [
            (16, 32),
            (32, 64),
            (64, 128),
            (128, 256),
        ]
        assert [stage[0].conv2.in_channels for stage in stages] == [8, 16, 32, 64]
        assert {stage[0].conv2.groups for stage in stages} == {2}

    def test_deformable_stages_are_those_asked_for(self):
        stages = make_stage(
            50, deform_on_per_stage=[False, True, False, True], deform_modulated=True, deform_num_groups=2
        )
        kinds = [{type(block) for block in stage} for stage in stages]
        assert kinds == [{BottleneckBlock}, {DeformBottleneckBlock}, {BottleneckBlock}, {DeformBottleneckBlock}]
        assert stages[1][0].conv2_offset.out_channels == 3 * 9 * 2

    @pytest.mark.parametrize("style", ["detectron2", "torchvision"])
    @pytest.mark.parametrize("depth", [18, 50])
    def test_dc5_takes_the_stride_out_of_res5(self, depth, style):
        for make in (make_stage, ResNet.make_default_stages):
            stages = make(depth, res5_dilation=2, dilation_style=style)
            assert [stage[0].stride for stage in stages] == [1, 2, 2, 1]
            assert {block.dilation for stage in stages[:3] for block in stage} == {1}
            first = 2 if style == "detectron2" else 1
            assert [block.dilation for block in stages[3]] == [first, *[2] * (len(stages[3]) - 1)]

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"depth": 49}, "depth=49.*18, 34, 50, 101, 152"),
            ({"depth": "50"}, "depth='50'"),
            ({"norm": "BatchNorm"}, "norm='BatchNorm'.*'BN', 'SyncBN', 'FrozenBN'"),
            ({"res5_dilation": 3}, "res5_dilation=3.*1 .*2"),
            ({"dilation_style": "caffe"}, "dilation_style='caffe'.*'detectron2'.*'torchvision'"),
            ({"num_groups": 0}, "num_groups=0"),
            ({"deform_on_per_stage": [True]}, "deform_on_per_stage=.*no list of four"),
            ({"deform_on_per_stage": DEFORM_ONLY_IN_RES2, "deform_num_groups": 3}, "deform_num_groups=3.*64"),
            ({"depth": 18, "out_channels": 256}, "out_channels=256.*depth=18.*64"),
            ({"depth": 34, "num_groups": 32}, "num_groups=32.*depth=34"),
            ({"depth": 34, "width_per_group": 128}, "width_per_group=128"),
            ({"depth": 18, "deform_on_per_stage": DEFORM_ONLY_IN_RES2}, "deform_on_per_stage"),
        ],
    )
    def test_names_what_is_wrong_and_what_is_allowed(self, kwargs, message):
        with pytest.raises(ArgumentError, match=message):
            make_stage(**kwargs)


class TestResNetMakeStage:
    def test_gives_every_block_its_own_and_the_common_arguments(self):
        blocks = ResNet.make_stage(
            BottleneckBlock,
            3,
            in_channels=16,
            out_channels=64,
            bottleneck_channels=8,
            stride_per_block=[2, 1, 1],
            dilation_per_block=[1, 1, 2],
        )
        assert [(block.in_channels, block.out_channels) for block in blocks] == [(16, 64), (64, 64), (64, 64)]
        assert [block.stride for block in blocks] == [2, 1, 1]
        assert [block.conv2.dilation for block in blocks] == [(1, 1), (1, 1), (2, 2)]
        assert {block.conv2.out_channels for block in blocks} == {8}

    def test_a_list_of_another_length_is_an_error(self):
        with pytest.raises(ArgumentError, match=r"stride_per_block=\[2, 1\] has 2 entries for num_blocks=3"):
            ResNet.make_stage(BasicBlock, 3, in_channels=8, out_channels=8, stride_per_block=[2, 1])

    def test_a_name_given_both_ways_is_an_error(self):
        with pytest.raises(ArgumentError, match="'stride_per_block' or 'stride'"):
            ResNet.make_stage(BasicBlock, 1, in_channels=8, out_channels=8, stride=1, stride_per_block=[1])

    def test_groups_that_do_not_divide_the_width_are_an_error(self):
        with pytest.raises(ArgumentError, match=r"num_groups=3.*bottleneck_channels=8"):
            ResNet.make_stage(BottleneckBlock, 1, in_channels=8, out_channels=8, bottleneck_channels=8, num_groups=3)

    def test_a_dilation_below_one_is_an_error(self):
        with pytest.raises(ArgumentError, match="dilation=0"):
            ResNet.make_stage(BasicBlock, 1, in_channels=8, out_channels=8, dilation=0)


class TestMakeDefaultStages:
    def test_hands_further_arguments_to_every_block(self):
        stages = ResNet.make_default_stages(50, norm="GN", stride_in_1x1=True)
        assert {type(block.conv1.norm) for stage in stages for block in stage} == {nn.GroupNorm}
        assert [stage[0].conv1.stride for stage in stages] == [(1, 1), (2, 2), (2, 2), (2, 2)]

    def test_takes_blocks_of_the_user_that_know_no_dilation(self):
        class Block(nn.Module):
            def __init__(self, in_channels, out_channels, bottleneck_channels, stride):
                super().__init__()
                self.in_channels, self.out_channels, self.stride = in_channels, out_channels, stride

        stages = ResNet.make_default_stages(101, Block)
        assert [len(stage) for stage in stages] == [3, 4, 23, 3]
        assert {type(block) for stage in stages for block in stage} == {Block}

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"depth": 20}, "depth=20"),
            ({"depth": 50, "res5_dilation": 4}, "res5_dilation=4"),
            ({"depth": 50, "dilation_style": ""}, "dilation_style=''"),
        ],
    )
    def test_names_what_is_wrong(self, kwargs, message):
        with pytest.raises(ArgumentError, match=message):
            ResNet.make_default_stages(**kwargs)
