import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from detrex_backbones import BasicStem, FrozenBatchNorm2d, ResNet, ShapeSpec, make_stage
from detrex_backbones.errors import ArgumentError, InputError
from tests.reference import MAPS, assert_close, noise


def resnet(depth: int = 18, norm: str = "BN", in_channels: int = 3, stages: dict | None = None, **kwargs) -> ResNet:
    stem = BasicStem(in_channels=in_channels, norm=norm)
    return ResNet(stem, make_stage(**{"depth": depth, "norm": norm, **(stages or {})}), **kwargs)


def tensors(prefix: str, norm: bool = True) -> list[str]:
    statistics = ["weight", "bias", "running_mean", "running_var"]
    return [f"{prefix}.weight", *(f"{prefix}.norm.{name}" for name in statistics if norm)]


class TestNames:
    def test_of_every_tensor_are_detectron2s(self):
        net = resnet(18, norm="FrozenBN", out_features=["res3"])
        expected = [*tensors("stem.conv1")]
        for block in ("res2.0", "res2.1"):
            expected += [*tensors(f"{block}.conv1"), *tensors(f"{block}.conv2")]
        expected += [*tensors("res3.0.shortcut"), *tensors("res3.0.conv1"), *tensors("res3.0.conv2")]
        expected += [*tensors("res3.1.conv1"), *tensors("res3.1.conv2")]
        assert list(net.state_dict()) == expected

    def test_of_bottleneck_blocks_and_the_classifier_are_detectron2s(self):
        with torch.device("meta"):
            names = resnet(50, norm="", num_classes=10).state_dict()
        assert [name for name in names if name.startswith("res2.0")] == [
            "res2.0.shortcut.weight",
            "res2.0.conv1.weight",
            "res2.0.conv2.weight",
            "res2.0.conv3.weight",
        ]
        assert list(names)[-2:] == ["linear.weight", "linear.bias"]

    def test_resnet_50_has_265_tensors(self):
        with torch.device("meta"):
            net = resnet(50, norm="FrozenBN")
        assert len(net.state_dict()) == 265  # 53 convolutions, each with a weight and the four of its norm
        assert len(list(net.parameters())) == 53

    def test_of_a_deformable_block_are_detectron2s(self):
        with torch.device("meta"):
            net = resnet(50, stages={"norm": "", "deform_on_per_stage": [True, False, False, False]})
        assert {"res2.0.conv2.weight", "res2.0.conv2_offset.weight", "res2.0.conv2_offset.bias"} <= set(
            net.state_dict()
        )


class TestOutFeatures:
    def test_come_in_the_order_asked_for(self):
        net = resnet(out_features=["res4", "stem", "res2"]).eval()
        assert list(net(noise(1, 3, 65, 97))) == ["res4", "stem", "res2"]
        assert list(net.output_shape()) == ["res4", "stem", "res2"]

    def test_are_the_last_stage_or_the_classifier_when_left_out(self):
        with torch.device("meta"):
            assert list(resnet().output_shape()) == ["res5"]
            assert list(resnet(num_classes=10).output_shape()) == ["linear"]

    @pytest.mark.parametrize(
        ("out_features", "kept"), [(["stem"], []), (["res3", "res2"], ["res2", "res3"]), (["res5"], MAPS[1:5])]
    )
    def test_cut_off_what_nobody_asked_for(self, out_features, kept):
        with torch.device("meta"):
            net = resnet(out_features=out_features)
        assert [name for name, _ in net.named_children()] == ["stem", *kept]
        assert net.stage_names == tuple(kept)

    def test_do_not_cut_what_the_classifier_needs(self):
        with torch.device("meta"):
            assert resnet(num_classes=10, out_features=["res2"]).stage_names == ("res2", "res3", "res4", "res5")

    def test_have_the_shapes_that_are_promised(self):
        with torch.device("meta"):
            net = resnet(50, num_classes=10, out_features=MAPS)
        assert net.output_shape() == {
            "stem": ShapeSpec(channels=64, stride=4),
            "res2": ShapeSpec(channels=256, stride=4),
            "res3": ShapeSpec(channels=512, stride=8),
            "res4": ShapeSpec(channels=1024, stride=16),
            "res5": ShapeSpec(channels=2048, stride=32),
            "linear": ShapeSpec(channels=10, stride=32),
        }

    @pytest.mark.few(2)
    @pytest.mark.parametrize("res5_dilation", [1, 2])
    @pytest.mark.parametrize(
        "stages",
        [
            *({"depth": depth} for depth in (18, 34, 50, 101, 152)),
            {"depth": 101, "num_groups": 64, "width_per_group": 4},
            {"depth": 101, "width_per_group": 128},
            {"depth": 50, "out_channels": 64, "width_per_group": 16},
        ],
        ids=str,
    )
    def test_promise_the_channels_and_strides_of_the_real_maps(self, stages, res5_dilation):
        with torch.device("meta"):
            net = resnet(stages={**stages, "res5_dilation": res5_dilation}, out_features=MAPS[:5])
            maps = net(torch.zeros(2, 3, 97, 131))
        for name, spec in net.output_shape().items():
            size = (math.ceil(97 / spec.stride), math.ceil(131 / spec.stride))
            assert maps[name].shape == (2, spec.channels, *size)
        assert net.output_shape()["res5"].stride == (32 if res5_dilation == 1 else 16)

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"out_features": ["res6"]}, r"no 'res6'.*Allowed: stem, res2, res3, res4, res5.*Did you mean"),
            ({"out_features": ["linear"]}, "'linear' needs num_classes"),
            ({"out_features": "res5"}, r"is a string.*out_features=\[res5\]"),
            ({"out_features": []}, "at least one"),
            ({"out_features": ["res5", "res5"]}, "none of them twice"),
            ({"out_features": ["res4"], "stages": {"res5_dilation": 2}}, "DC5.*'res4'.*add 'res5'"),
        ],
    )
    def test_that_are_wrong_are_errors(self, kwargs, message):
        with torch.device("meta"), pytest.raises(ArgumentError, match=message):
            resnet(**kwargs)


class TestConstruction:
    @pytest.mark.parametrize("in_channels", [1, 4, 6])
    def test_takes_images_of_any_channels(self, in_channels):
        net = resnet(in_channels=in_channels, out_features=["stem"]).eval()
        x = noise(1, in_channels, 33, 47)
        stem = net.stem.conv1
        expected = F.max_pool2d(F.relu(stem.norm(F.conv2d(x, stem.weight, stride=2, padding=3))), 3, 2, 1)
        assert_close(net(x)["stem"], expected, 1e-6)

    def test_the_classifier_starts_with_goyals_deviation(self):
        torch.manual_seed(0)
        net = resnet(num_classes=100)
        assert abs(net.linear.weight.std().item() / 0.01 - 1) < 0.02

    @pytest.mark.parametrize("norm", ["GN", "LN", "SyncBN", ""])
    def test_every_norm_runs_and_gives_gradients(self, norm):
        net = resnet(norm=norm, out_features=["res3"]).eval()
        net(noise(1, 3, 33, 47))["res3"].sum().backward()
        assert all(parameter.grad is not None for parameter in net.parameters())

    def test_stages_that_do_not_follow_on_each_other_are_an_error(self):
        with torch.device("meta"), pytest.raises(ArgumentError, match=r"block 0 of res2 takes 64.*given 32 by stem"):
            ResNet(BasicStem(out_channels=32), make_stage(50))

    def test_a_block_without_channels_and_stride_is_an_error(self):
        with torch.device("meta"), pytest.raises(ArgumentError, match=r"block 0 of res2 is a Identity.*in_channels"):
            ResNet(BasicStem(), [[nn.Identity()]])

    def test_a_stage_without_blocks_is_an_error(self):
        with torch.device("meta"), pytest.raises(ArgumentError, match="res2 has no blocks"):
            ResNet(BasicStem(), [[]])

    def test_images_of_other_channels_are_an_error(self):
        with pytest.raises(InputError, match=r"in_channels=3, but the batch \(1, 4, 33, 33\) has 4"):
            resnet()(torch.zeros(1, 4, 33, 33))

    @pytest.mark.parametrize("shape", [(3, 65, 97), (97,), (1, 1, 3, 65, 97)])
    def test_images_that_are_no_batch_are_an_error(self, shape):
        net = resnet(out_features=["stem"])
        with pytest.raises(InputError, match=r"\(N, C, H, W\)"):
            net(torch.zeros(shape))


PARTS = ["stem", "res2", "res3", "res4", "res5", "linear"]


def frozen_norms(module: nn.Module) -> set[bool]:
    norms = (m for m in module.modules() if isinstance(m, nn.BatchNorm2d | FrozenBatchNorm2d))
    return {isinstance(norm, FrozenBatchNorm2d) for norm in norms}


class TestFreezing:
    @pytest.mark.parametrize("freeze_at", range(-1, 6))
    @pytest.mark.parametrize("norm", ["BN", "GN"])
    def test_stops_exactly_the_parts_up_to_freeze_at(self, norm, freeze_at):
        with torch.device("meta"):
            net = resnet(norm=norm, num_classes=10, freeze_at=freeze_at)
        for index, name in enumerate(PARTS):
            part = net.get_submodule(name)
            assert {parameter.requires_grad for parameter in part.parameters()} == {index >= freeze_at}
            if norm == "BN" and name != "linear":
                assert frozen_norms(part) == {index < freeze_at}

    def test_can_be_asked_for_later_and_returns_the_net(self):
        with torch.device("meta"):
            net = resnet()
            assert net.freeze(2) is net
        assert frozen_norms(net.res2) == {True}
        assert frozen_norms(net.res3) == {False}

    def test_frozen_parts_get_no_gradient_and_keep_their_statistics(self):
        net = resnet(freeze_at=2, out_features=["res4"]).train()
        before = {name: value.clone() for name, value in net.state_dict().items()}
        net(noise(2, 3, 33, 47))["res4"].sum().backward()
        for name, parameter in net.named_parameters():
            assert (parameter.grad is None) == name.startswith(("stem", "res2"))
        changed = {
            name.split(".")[0] for name, value in net.state_dict().items() if not torch.equal(value, before[name])
        }
        assert changed == {"res3", "res4"}

    def test_takes_a_stem_of_the_user_without_a_method_for_it(self):
        class Stem(nn.Module):
            out_channels, stride = 64, 2

            def __init__(self):
                super().__init__()
                self.conv, self.norm = nn.Conv2d(3, 64, 3, 2, 1), nn.BatchNorm2d(64)

            def forward(self, x):
                return self.norm(self.conv(x))

        net = ResNet(Stem(), make_stage(18, norm="BN"), freeze_at=1, out_features=["stem", "res2"])
        assert not any(parameter.requires_grad for parameter in net.stem.parameters())
        assert type(net.stem.norm) is FrozenBatchNorm2d
        assert frozen_norms(net.res2) == {False}
        assert net.output_shape()["res2"].stride == 2

    def test_asks_a_block_that_knows_how(self):
        class Block(nn.Identity):
            in_channels, out_channels, stride, frozen = 64, 64, 1, False

            def freeze(self):
                self.frozen = True

        net = ResNet(BasicStem(), [[Block()], [Block()]], freeze_at=2)
        assert (net.res2[0].frozen, net.res3[0].frozen) == (True, False)

    @pytest.mark.parametrize("freeze_at", [1.5, "1", True, None])
    def test_of_another_kind_is_an_error(self, freeze_at):
        with torch.device("meta"), pytest.raises(ArgumentError, match=r"freeze_at=.* is of type \w+\. Allowed: whole"):
            resnet(freeze_at=freeze_at)

    @pytest.mark.parametrize("freeze_at", [-2, 6])
    def test_out_of_range_is_an_error(self, freeze_at):
        with torch.device("meta"), pytest.raises(ArgumentError, match=r"freeze_at=.*0 \(nothing\).*5"):
            resnet(freeze_at=freeze_at)
