"""torchvision's networks as backbones: the contract, the network's own numbers, and what is refused."""

import copy
import math
import pickle
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import ResNet18_Weights
from torchvision.ops import FrozenBatchNorm2d as TorchvisionFrozen

from detrex_backbones import FrozenBatchNorm2d, ShapeSpec
from detrex_backbones.backbones.torchvision.backbone import TorchvisionBackbone
from detrex_backbones.backbones.torchvision.stages import RESNET_NODES
from detrex_backbones.checkpoint.load import load_checkpoint
from detrex_backbones.errors import ArgumentError, CheckpointFileError, InputError
from tests.backbones.contract import BackboneContract, backbone, images, maps  # noqa: F401 (fixtures)
from tests.backbones.test_timm_learning import check_recomputing
from tests.reference import assert_close, assert_same_maps, noise, randomise_norms, torchvision_maps, torchvision_net

BUILDS = {
    "resnet18": lambda: TorchvisionBackbone("resnet18"),
    "resnet18_frozen": lambda: TorchvisionBackbone(
        "resnet18", return_nodes=["layer4", "layer2.0.relu"], norm_layer="FrozenBN"
    ),
    "mobilenet_v3_small": lambda: TorchvisionBackbone(
        "mobilenet_v3_small", return_nodes=["features.3", "features.12"], norm_layer=TorchvisionFrozen
    ),
    "convnext_tiny": lambda: TorchvisionBackbone("convnext_tiny", return_nodes={"features.1": "res2"}),
    "swin_t": lambda: TorchvisionBackbone("swin_t", return_nodes=["features.1", "features.3"]),
    "regnet_x_400mf": lambda: TorchvisionBackbone("regnet_x_400mf", return_nodes={"trunk_output.block3": "s3"}),
}


@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS, scope="class")
class TestContract(BackboneContract):
    rounding = (math.floor, math.ceil)  # as the architecture has it


IMAGE = noise(1, 3, 65, 97)


@pytest.fixture(scope="module")
def net():
    return torchvision_net("resnet18")


def with_weights_of(net, tmp_path, **kwargs):
    torch.save(net.state_dict(), tmp_path / "net.pth")
    ours = TorchvisionBackbone("resnet18", **kwargs).eval()
    report = load_checkpoint(ours, tmp_path / "net.pth")
    assert not report.missing
    assert {key.partition(".")[0] for key in report.left_over if not key.endswith("tracked")} == {"fc"}
    return ours


@torch.no_grad()
@pytest.mark.parametrize("norm", [None, "FrozenBN", FrozenBatchNorm2d])
def test_a_file_of_torchvision_gives_torchvisions_maps(net, norm, tmp_path):
    ours = with_weights_of(net, tmp_path, norm_layer=norm)
    theirs = torchvision_maps(net, IMAGE)
    assert list(ours.output_shape()) == list(RESNET_NODES.values())
    for name, value in ours(IMAGE).items():
        assert_close(value, theirs[name])
    assert {type(module) for module in ours.modules() if "Norm" in type(module).__name__} == {
        FrozenBatchNorm2d if norm else nn.BatchNorm2d
    }


def test_shapes_are_known_and_the_rest_is_left_out():
    ours = TorchvisionBackbone("resnet18", return_nodes={"layer3": "c4", "layer1": "c2"})
    assert ours.output_shape() == {"c4": ShapeSpec(channels=256, stride=16), "c2": ShapeSpec(channels=64, stride=4)}
    names = {name.split(".")[1] for name in ours.state_dict()}
    assert names == {"conv1", "bn1", "layer1", "layer2", "layer3"}
    assert list(ours(IMAGE)) == ["c4", "c2"]


def test_arguments_of_the_network():
    dilated = TorchvisionBackbone(
        "resnet50", return_nodes=["layer4"], replace_stride_with_dilation=[False, False, True]
    )
    assert dilated.output_shape() == {"layer4": ShapeSpec(channels=2048, stride=16)}
    grouped = TorchvisionBackbone("resnet18", norm_layer=lambda channels: nn.GroupNorm(8, channels))
    assert any(isinstance(module, nn.GroupNorm) for module in grouped.modules())


class TestModes:
    """Training and evaluation have a graph each, and a copy stays in the mode that it was copied in."""

    @pytest.fixture
    def stochastic(self):
        torch.manual_seed(0)
        nodes = {"features.3": "c3"}
        return TorchvisionBackbone("convnext_tiny", return_nodes=nodes, stochastic_depth_prob=0.9)

    @torch.no_grad()
    @pytest.mark.parametrize("duplicate", [lambda x: x, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
    def test_paths_are_dropped_in_training_alone(self, stochastic, duplicate):
        nn.init.ones_(stochastic.get_parameter("model.features.1.0.layer_scale"))
        image = noise(4, 3, 64, 64)
        stochastic.eval()
        expected = stochastic(image)["c3"]
        for _ in range(2):
            net = duplicate(stochastic)
            assert not any(module.training for module in net.modules())
            assert torch.equal(net(image)["c3"], expected)
            net.train()
            assert not torch.equal(net(image)["c3"], net(image)["c3"])
            net = duplicate(net)
            assert all(module.training for module in net.modules())
            assert not torch.equal(net(image)["c3"], net(image)["c3"])
            stochastic = net.eval()

    @torch.no_grad()
    def test_norms_held_in_evaluation_mode_stay_there_in_a_copy(self):
        net = randomise_norms(TorchvisionBackbone("resnet18").train())
        net.torchvision_model.bn1.eval()
        duplicate = copy.deepcopy(net)
        assert duplicate.training and duplicate.torchvision_model.training
        assert not duplicate.torchvision_model.bn1.training
        assert duplicate.torchvision_model.layer1.training


class TestWeights:
    @pytest.fixture
    def cached(self, net, tmp_path, monkeypatch):
        """torch's cache with a file of random weights; its hash is looked at only when it is downloaded."""
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        folder = tmp_path / "hub" / "checkpoints"
        folder.mkdir(parents=True)
        torch.save(net.state_dict(), folder / ResNet18_Weights.IMAGENET1K_V1.url.rpartition("/")[2])

    @torch.no_grad()
    @pytest.mark.parametrize(
        "weights", ["DEFAULT", "IMAGENET1K_V1", "ResNet18_Weights.IMAGENET1K_V1", ResNet18_Weights.IMAGENET1K_V1]
    )
    def test_come_from_torchs_cache(self, net, cached, weights):
        ours = TorchvisionBackbone("resnet18", weights=weights, norm_layer="FrozenBN").eval()
        assert_close(ours(IMAGE)["res5"], torchvision_maps(net, IMAGE)["res5"])

    @torch.no_grad()
    def test_are_asked_for_as_in_detrex(self, net, cached):
        ours = TorchvisionBackbone("resnet18", pretrained=True, norm_layer="FrozenBN").eval()
        assert_close(ours(IMAGE)["res5"], torchvision_maps(net, IMAGE)["res5"])
        with pytest.raises(ArgumentError, match="two sources"):
            TorchvisionBackbone("resnet18", weights="DEFAULT", pretrained=True)

    def test_that_cannot_be_downloaded(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))

        def refuse(*args, **kwargs):
            raise URLError("no network")

        monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
        with pytest.raises(CheckpointFileError) as caught:
            TorchvisionBackbone("resnet18", weights="DEFAULT")
        path = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
        assert "no network" in str(caught.value)
        assert f"put https://download.pytorch.org/models/resnet18-f37072fd.pth at {path}" in str(caught.value)

    @pytest.mark.parametrize("weights", ["IMAGENET1K_V7", torchvision.models.ResNet50_Weights.DEFAULT, True])
    def test_that_are_not_the_networks(self, weights):
        with pytest.raises(ArgumentError, match="Allowed: None, 'IMAGENET1K_V1'"):
            TorchvisionBackbone("resnet18", weights=weights)


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("name", "kwargs", "said"),
    [
        ("resnet5", {}, "Did you mean 'resnet50'"),
        ("fasterrcnn_resnet50_fpn", {}, "not an image classifier"),
        (50, {}, "model_name=50"),
        ("resnet18", {"return_nodes": ["layer5"]}, "no node 'layer5'. Did you mean 'layer"),
        ("resnet18", {"return_nodes": ["layer5"]}, "The outermost: x, conv1, bn1"),
        ("resnet18", {"return_nodes": "layer4"}, "It takes ['layer4']"),
        ("resnet18", {"return_nodes": []}, "at least one node"),
        ("resnet18", {"return_nodes": ["layer4", "layer4"]}, "twice"),
        ("resnet18", {"return_nodes": {"layer4": "a", "layer3": "a"}}, "twice"),
        ("resnet18", {"return_nodes": ["avgpool"]}, "no feature map: it gives shape (1, 512, 1, 1)"),
        ("resnet18", {"return_nodes": ["fc"]}, "no feature map: it gives shape (1, 1000)"),
        ("shufflenet_v2_x0_5", {"return_nodes": ["stage2.1.chunk"]}, "no feature map: it gives a tuple"),
        ("vit_b_16", {"return_nodes": ["encoder"]}, "images of any size"),
        ("resnet18", {"depth": 18}, "depth=18: TypeError"),
        ("resnet18", {"train_return_nodes": ["layer1"]}, "eval_return_nodes is missing"),
        ("resnet18", {"train_return_nodes": ["layer1"], "eval_return_nodes": ["layer2"]}, "the same names"),
        ("resnet18", {"train_return_nodes": ["layer7"], "eval_return_nodes": ["layer2"]}, "no node 'layer7'"),
        ("maxvit_t", {}, "images of any size"),
        ("resnet18", {"freeze_at": 6}, "Allowed: 0 (nothing), 1 (up to res1), 2 (up to res2)"),
        ("resnet18", {"freeze_at": True}, "freeze_at=True is of type bool. Allowed: whole numbers."),
        ("convnext_tiny", {"freeze_at": 1}, "Allowed: 0 (nothing), 2 (up to res2)"),
        ("resnet18", {"pretrained": "off"}, "pretrained='off' is neither True"),
        ("resnet18", {"pretrained": 1}, "Write pretrained=True"),
        ("resnet18", {"checkpoint_stages": ["layer1"]}, "network has: res2, res3, res4, res5"),
        ("resnet18", {"suppress_diff_warnings": "yes"}, "Write suppress_diff_warnings=True"),
        ("vgg11", {"norm_layer": nn.GroupNorm}, "norm_layer="),
    ],
)
def test_bad_arguments(name, kwargs, said):
    with pytest.raises(ArgumentError) as caught:
        TorchvisionBackbone(name, **kwargs)
    assert said in str(caught.value)


def test_an_error_of_the_network_without_memory_is_not_hidden(monkeypatch):
    def fail(*args, **kwargs):
        raise NotImplementedError("elsewhere")

    monkeypatch.setattr(torchvision.models, "get_model", fail)
    with pytest.raises(ArgumentError, match="elsewhere"):
        TorchvisionBackbone("resnet18")


@pytest.mark.few(1)
@torch.no_grad()
@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(
    ("name", "node", "later"),
    [
        ("densenet121", "features.norm0", "features.denseblock1"),  # a ReLU module
        ("resnet18", "layer2.1.bn2", "layer3"),  # `out += identity`
        ("googlenet", "inception3a.branch1.bn", "inception3b"),  # F.relu(x, inplace=True)
        ("shufflenet_v2_x0_5", "conv1.1", "stage2"),
    ],
)
def test_a_map_is_the_value_of_its_node(name, node, later, mode):
    options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(name, **options)
    ours = TorchvisionBackbone(name, return_nodes=[node, later], **options)
    own = ours.model.state_dict()
    ours.model.load_state_dict({key: value for key, value in theirs.state_dict().items() if key in own})
    seen = []
    theirs.get_submodule(node).register_forward_hook(lambda module, args, output: seen.append(output.clone()))
    image = noise(2, 3, 65, 97)
    theirs.train(mode)(image)
    copied = copy.deepcopy(ours.train(mode))
    for net in (ours, copied):
        value = net(image)[node]
        assert torch.equal(value, seen[0]) and value.min() < 0


class TestAsInDetrex:
    """Its arguments, and its state dicts, which hold the whole network under two names."""

    def test_other_nodes_in_training(self):
        net = TorchvisionBackbone(
            "resnet18", train_return_nodes={"layer2": "c3"}, eval_return_nodes={"layer2.1.relu_1": "c3"}
        )
        assert net.output_shape() == {"c3": ShapeSpec(channels=128, stride=8)}
        assert [list(net.train(mode)(IMAGE)) for mode in (True, False)] == [["c3"], ["c3"]]

    def test_what_the_tracer_does_not_look_into(self):
        net = TorchvisionBackbone(
            "resnet18",
            return_nodes=["layer1"],
            tracer_kwargs={"leaf_modules": [torchvision.models.resnet.BasicBlock]},
            suppress_diff_warnings=True,
        )
        assert any(str(node.target) == "layer1.0" for node in net.model.graph.nodes)

    @torch.no_grad()
    @pytest.mark.parametrize("prefix", ["", "backbone."])
    def test_a_state_dict_is_loaded(self, net, prefix, tmp_path):
        state = {f"{prefix}model.{key}": value for key, value in net.state_dict().items()}
        state |= {f"{prefix}feature_extractor.{k}": v for k, v in net.state_dict().items() if not k.startswith("fc.")}
        ours, other = (TorchvisionBackbone("resnet18").eval() for _ in range(2))
        whole = nn.ModuleDict({"backbone": ours}) if prefix else ours
        whole.load_state_dict(state)
        torch.save(state, tmp_path / "file.pth")
        load_checkpoint(nn.ModuleDict({"backbone": other}) if prefix else other, tmp_path / "file.pth")
        for given in (ours, other):
            assert_close(given(IMAGE)["res5"], torchvision_maps(net, IMAGE)["res5"])

    def test_a_state_dict_that_lacks_something_is_refused(self, net):
        state = {
            f"{part}.{key}": value for part in ("model", "feature_extractor") for key, value in net.state_dict().items()
        }
        for part in ("model", "feature_extractor"):
            del state[f"{part}.layer3.0.conv1.weight"]
        with pytest.raises(RuntimeError, match=r"Missing.*layer3\.0\.conv1\.weight"):
            TorchvisionBackbone("resnet18").load_state_dict(state)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "densenet121"])
def test_a_long_graph_is_pickled(name):
    """Its nodes are a chain, which pickle would follow from end to end."""
    net = TorchvisionBackbone(name).train()
    copied = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(net))))
    for mode in (True, False):
        assert_same_maps(copied.train(mode)(IMAGE.repeat(2, 1, 1, 1)), net.train(mode)(IMAGE.repeat(2, 1, 1, 1)), 0)
        assert [node.name for node in copied.model.graph.nodes] == [node.name for node in net.model.graph.nodes]


def test_a_file_as_pretrained_is_refused_with_where_it_belongs(net, tmp_path):
    path = tmp_path / "mine.pth"
    torch.save(net.state_dict(), path)
    for given in (path, str(path), "absent.pth"):
        with pytest.raises(ArgumentError, match=r"\.pth' is neither True.*train\.init_checkpoint"):
            TorchvisionBackbone("resnet18", pretrained=given)


RECOMPUTED = {
    "resnet18": {},
    "mobilenet_v3_small": {"return_nodes": ["features.3", "features.12"]},
    "swin_t": {"return_nodes": ["features.1", "features.3"]},
    "densenet121": {"return_nodes": ["features.norm0", "features.denseblock2"]},
}


@pytest.mark.few(1)
@pytest.mark.parametrize("name", RECOMPUTED)
def test_recomputing_keeps_less_and_changes_no_number(name):
    check_recomputing(TorchvisionBackbone, name, noise(2, 3, 64, 96), **RECOMPUTED[name])


@pytest.mark.parametrize(("name", "stem"), [("resnet18", "conv1"), ("convnext_tiny", "features.0.0")])
def test_a_stem_that_was_changed_by_hand_is_asked_for_its_channels(name, stem):
    net = TorchvisionBackbone(name, return_nodes=["layer1" if name == "resnet18" else "features.1"]).eval()
    old = net.model.get_submodule(stem)
    parent, _, key = stem.rpartition(".")
    new = nn.Conv2d(5, old.out_channels, old.kernel_size, old.stride, old.padding, bias=old.bias is not None)
    setattr(net.model.get_submodule(parent), key, new)
    assert net(noise(1, 5, 64, 64))
    with pytest.raises(InputError, match=r"in_channels=5.*has 3"):
        net(noise(1, 3, 64, 64))
