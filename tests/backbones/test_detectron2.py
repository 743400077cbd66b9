"""Beside the real detectron2, where there is one."""

import dataclasses
import subprocess
import sys

import pytest
import torch

import detrex_backbones
from detrex_backbones import BasicStem, FrozenBatchNorm2d, ResNet, TimmBackbone, make_stage
from tests.reference import assert_close, assert_same_maps, noise, randomise_norms

pytest.importorskip("detectron2.modeling", reason="detectron2 is not importable", exc_type=ImportError)

import detectron2.layers
import detectron2.modeling
from detectron2.config import get_cfg
from detectron2.modeling.backbone import FPN, resnet

STAGES = ["res2", "res3", "res4", "res5"]


@pytest.fixture(scope="module")
def images():
    return noise(1, 3, 64, 96)


def in_a_fresh_python(code: str) -> None:
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr


class TestIsinstance:
    BUILD = "ResNet(BasicStem(), make_stage(18), out_features=['stem'])"

    def test_is_true_when_detectron2_came_first(self):
        in_a_fresh_python(
            "from detectron2.modeling import Backbone\n"
            "from detrex_backbones import BasicStem, ResNet, make_stage\n"
            f"assert isinstance({self.BUILD}, Backbone)"
        )

    def test_is_true_when_we_came_first_also_for_what_was_built_before(self):
        in_a_fresh_python(
            "import sys\n"
            "from detrex_backbones import BasicStem, ResNet, make_stage\n"
            f"before = {self.BUILD}\n"
            "assert not any(name.startswith('detectron2') for name in sys.modules), 'we imported detectron2'\n"
            "from detectron2.modeling import Backbone\n"
            f"assert isinstance(before, Backbone) and isinstance({self.BUILD}, Backbone)\n"
            "assert not isinstance(before.stem, Backbone)\n"
            "assert not any('detrex_backbones' in type(finder).__module__ for finder in sys.meta_path)\n"
            "import detectron2.modeling.backbone.backbone as module\n"
            "assert type(module.__loader__).__name__ == type(module.__spec__.loader).__name__ == 'SourceFileLoader'"
        )

    def test_is_true_when_interop_came_alone_and_first(self):
        in_a_fresh_python(
            "import detrex_backbones.interop\n"
            "from detectron2.modeling import Backbone\n"
            "from detrex_backbones import TimmBackbone\n"
            "assert issubclass(TimmBackbone, Backbone)"
        )

    def test_is_false_for_networks_that_are_no_backbones(self):
        assert not isinstance(torch.nn.Identity(), detectron2.modeling.Backbone)


class TestFpn:
    """detectron2's neck over our backbones."""

    @pytest.mark.parametrize(
        ("build", "names"),
        [
            (lambda: ResNet(BasicStem(norm="FrozenBN"), make_stage(18), out_features=STAGES), STAGES),
            (lambda: TimmBackbone("resnet18d", out_indices=(1, 2, 3, 4)), ["p1", "p2", "p3", "p4"]),
        ],
        ids=["resnet", "timm"],
    )
    def test_runs(self, build, names, images):
        neck = FPN(build(), names, out_channels=16).eval()
        maps = neck(images)
        assert {name: tuple(value.shape) for name, value in maps.items()} == {
            "p2": (1, 16, 16, 24),
            "p3": (1, 16, 8, 12),
            "p4": (1, 16, 4, 6),
            "p5": (1, 16, 2, 3),
        }


def theirs_by_config(**resnets) -> torch.nn.Module:
    """detectron2's own builder: what its yaml configs get."""
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.RESNETS.OUT_FEATURES = STAGES
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    for name, value in resnets.items():
        setattr(cfg.MODEL.RESNETS, name, value)
    torch.manual_seed(0)
    return randomise_norms(resnet.build_resnet_backbone(cfg, detectron2.layers.ShapeSpec(channels=3))).eval()


class TestSameWeights:
    @pytest.mark.parametrize(
        ("resnets", "arguments"),
        [
            ({"DEPTH": 50}, {"depth": 50}),
            ({"DEPTH": 50, "RES5_DILATION": 2}, {"depth": 50, "res5_dilation": 2}),
            ({"DEPTH": 50, "STRIDE_IN_1X1": True}, {"depth": 50, "stride_in_1x1": True}),
            (
                {"DEPTH": 50, "NUM_GROUPS": 32, "WIDTH_PER_GROUP": 4},
                {"depth": 50, "num_groups": 32, "width_per_group": 4},
            ),
            ({"DEPTH": 18, "RES2_OUT_CHANNELS": 64}, {"depth": 18}),
        ],
        ids=str,
    )
    def test_give_the_same_maps(self, resnets, arguments, images):
        theirs = theirs_by_config(**resnets)
        ours = ResNet(BasicStem(norm="BN"), make_stage(norm="BN", **arguments), out_features=STAGES).eval()
        assert list(ours.state_dict()) == list(theirs.state_dict())
        ours.load_state_dict(theirs.state_dict(), strict=True)
        with torch.no_grad():
            assert_same_maps(ours(images), theirs(images), 1e-6)

    def test_go_both_ways_frozen_and_with_default_stages(self, images):
        theirs = resnet.ResNet(
            resnet.BasicStem(norm="FrozenBN"),
            resnet.ResNet.make_default_stages(50, norm="FrozenBN"),
            out_features=STAGES,
        ).eval()
        ours = ResNet(BasicStem(norm="FrozenBN"), ResNet.make_default_stages(50, norm="FrozenBN"), out_features=STAGES)
        ours.eval().load_state_dict(theirs_by_config(DEPTH=50).state_dict(), strict=True)
        theirs.load_state_dict(ours.state_dict(), strict=True)
        with torch.no_grad():
            assert_same_maps(ours(images), theirs(images), 1e-6)

    def test_freeze_the_same_parameters(self):
        nets = []
        for module in (resnet, detrex_backbones):
            stages = module.ResNet.make_default_stages(18, norm="BN")
            nets.append(module.ResNet(module.BasicStem(norm="BN"), stages, freeze_at=3))
        trainable = [[name for name, p in net.named_parameters() if p.requires_grad] for net in nets]
        assert trainable[0] == trainable[1]

    @pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
    def test_frozen_states_load_both_ways(self, norm):
        nets = []
        for module in (resnet, detrex_backbones):
            stages = module.ResNet.make_default_stages(18, norm=norm)
            nets.append(module.ResNet(module.BasicStem(norm=norm), stages, freeze_at=3))
        theirs, ours = nets
        assert set(theirs.state_dict()) == set(ours.state_dict())
        theirs.load_state_dict(ours.state_dict(), strict=True)
        ours.load_state_dict(theirs.state_dict(), strict=True)

    @pytest.mark.parametrize("gradient", [False, True])
    def test_of_frozen_norms_give_the_same_values(self, gradient):
        theirs = detectron2.layers.FrozenBatchNorm2d(6, eps=1e-3)
        theirs.load_state_dict(randomise_norms(torch.nn.BatchNorm2d(6)).state_dict(), strict=False)
        ours = FrozenBatchNorm2d(6, eps=1e-3)
        ours.load_state_dict(theirs.state_dict(), strict=True)
        theirs.load_state_dict(ours.state_dict(), strict=True)
        x = noise(2, 6, 5, 7).requires_grad_(gradient)
        assert_close(ours(x), theirs(x), 1e-6)


class TestTheirParts:
    def test_their_blocks_are_stages_of_our_resnet(self, images):
        theirs = theirs_by_config(DEPTH=50)
        stages = [list(stage) for stage in theirs.stages]
        ours = ResNet(theirs.stem, stages, out_features=STAGES).eval()
        with torch.no_grad():
            assert_same_maps(ours(images), theirs(images), 0)
        ours.freeze(2)
        assert not any(parameter.requires_grad for parameter in ours.res2.parameters())

    def test_their_frozen_norm_freezes_a_timm_model(self):
        net = TimmBackbone("resnet18d", out_indices=(1,), norm_layer=detectron2.layers.FrozenBatchNorm2d)
        assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in net.modules())

    def test_their_shape_spec_has_the_fields_of_ours(self):
        ours, theirs = detrex_backbones.ShapeSpec, detectron2.layers.ShapeSpec
        assert [field.name for field in dataclasses.fields(ours)] == [f.name for f in dataclasses.fields(theirs)]


class TestConfigs:
    """Nodes of either config layer, instantiated by the other."""

    @pytest.mark.parametrize("their_nodes", [False, True])
    @pytest.mark.parametrize("their_instantiate", [False, True])
    def test_build_the_same_network(self, their_instantiate, their_nodes):
        import detectron2.config as theirs

        import detrex_backbones.config as ours

        L = (theirs if their_nodes else ours).LazyCall
        node = L(ResNet)(
            stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
            stages=L(make_stage)(depth=18, norm="FrozenBN", deform_on_per_stage=[False] * 4),
            out_features=["res2", "res3"],
            freeze_at=1,
        )
        net = (theirs if their_instantiate else ours).instantiate(node)
        assert type(net) is ResNet
        assert list(net.output_shape()) == ["res2", "res3"]
        assert not any(parameter.requires_grad for parameter in net.stem.parameters())
