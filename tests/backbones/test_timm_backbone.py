import pytest
import timm
import torch
import torchvision
from timm.layers import BatchNormAct2d
from torch import nn

import detrex_backbones
from detrex_backbones import FrozenBatchNorm2d, TimmBackbone
from detrex_backbones.errors import ArgumentError, CheckpointError, CheckpointFileError, InputError
from tests.reference import assert_close, assert_same_maps, noise, randomise_norms


@pytest.fixture(scope="module")
def images():
    return noise(1, 3, 65, 97)


def reference(name: str, out_indices: tuple[int, ...]) -> nn.Module:
    """timm's own feature network with random weights and statistics."""
    torch.manual_seed(0)
    net = timm.create_model(name, features_only=True, out_indices=out_indices)
    return randomise_norms(net).eval()


@torch.no_grad()
def maps_of(net: nn.Module, images: torch.Tensor, indices) -> dict[str, torch.Tensor]:
    return {f"p{index}": value for index, value in zip(indices, net(images), strict=True)}


def with_weights_of(theirs: nn.Module, name: str, monkeypatch, **kwargs) -> TimmBackbone:
    """A TimmBackbone around these weights: what it freezes, it freezes after they are in."""
    create = timm.create_model

    def create_with_weights(*args, **kwargs):
        net = create(*args, **kwargs)
        if not next(net.parameters()).is_meta:
            net.load_state_dict(theirs.state_dict())
        return net

    with monkeypatch.context() as patch:
        patch.setattr(timm, "create_model", create_with_weights)
        return TimmBackbone(name, **kwargs)


@pytest.fixture(scope="module")
def resnet152d():
    return reference("resnet152d", (1, 2, 3))


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    return randomise_norms(timm.create_model("resnet18d", num_classes=1000)).eval()


@pytest.fixture(scope="module")
def path(classifier, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet18d.pth"
    torch.save(classifier.state_dict(), path)
    return path


class TestFreezing:
    @pytest.mark.few(1)
    @pytest.mark.parametrize(
        "norm_layer",
        [FrozenBatchNorm2d, torchvision.ops.FrozenBatchNorm2d, "FrozenBN"],
        ids=["ours", "torchvision", "name"],
    )
    def test_the_documented_resnet152d_equals_timms(self, norm_layer, resnet152d, images, monkeypatch):
        ours = with_weights_of(
            resnet152d, "resnet152d", monkeypatch, out_indices=(1, 2, 3), norm_layer=norm_layer
        ).train()  # frozen: training changes nothing
        norms = [module for module in ours.modules() if hasattr(module, "running_var")]
        assert {type(norm) for norm in norms} == {FrozenBatchNorm2d}
        assert len(norms) == sum(isinstance(module, nn.BatchNorm2d) for module in resnet152d.modules())
        expected = maps_of(resnet152d, images, (1, 2, 3))
        with torch.no_grad():
            maps = ours(images)
        assert list(maps) == ["p1", "p2", "p3"]
        assert_same_maps(maps, expected)

    @pytest.mark.parametrize(
        ("name", "eps"), [("efficientnet_b0", 1e-5), ("tf_efficientnet_b0", 1e-3), ("regnetx_002", 1e-5)]
    )
    def test_a_norm_that_also_activates_still_does_and_keeps_its_eps(self, name, eps, images, monkeypatch):
        theirs = reference(name, (1, 3))
        ours = with_weights_of(theirs, name, monkeypatch, out_indices=(1, 3), norm_layer="FrozenBN").train()
        assert {module.eps for module in ours.modules() if hasattr(module, "running_var")} == {eps}
        assert not any(isinstance(module, BatchNormAct2d | nn.BatchNorm2d) for module in ours.modules())
        assert not any("running" in name or "bn" in name for name, _ in ours.named_parameters())
        with torch.no_grad():
            assert_same_maps(ours(images), maps_of(theirs, images, (1, 3)))

    def test_nothing_is_frozen_unless_asked_for(self):
        ours = TimmBackbone("resnet18d", out_indices=(1,))
        assert any(type(module) is nn.BatchNorm2d for module in ours.modules())
        assert all(parameter.requires_grad for parameter in ours.parameters())


class TestMaps:
    def test_equal_timms_and_the_parameters_have_its_names(self, images):
        theirs = reference("resnet18d", (0, 2, 4))
        ours = TimmBackbone("resnet18d", out_indices=(0, 2, 4)).eval()
        ours.timm_model.load_state_dict(theirs.state_dict(), strict=True)
        assert set(ours.state_dict()) == {f"timm_model.{name}" for name in theirs.state_dict()}
        with torch.no_grad():
            assert_same_maps(ours(images), maps_of(theirs, images, (0, 2, 4)), 0)

    def test_keep_their_names_in_whatever_order_they_are_asked_for(self, images):
        theirs = reference("resnet18d", (1, 3))
        ours = TimmBackbone("resnet18d", out_indices=(3, 1)).eval()
        ours.timm_model.load_state_dict(theirs.state_dict())
        with torch.no_grad():
            maps = ours(images)
        assert list(maps) == list(ours.output_shape()) == ["p3", "p1"]
        assert_same_maps(maps, maps_of(theirs, images, (1, 3)), 0)
        assert {name: spec.channels for name, spec in ours.output_shape().items()} == {"p3": 256, "p1": 64}

    def test_of_swin_are_channels_first(self):
        ours = TimmBackbone("swin_tiny_patch4_window7_224", out_indices=(1, 3)).eval()
        images = noise(1, 3, 224, 224)
        with torch.no_grad():
            maps, theirs = ours(images), ours.timm_model(images)
        assert [tuple(value.shape) for value in maps.values()] == [(1, 192, 28, 28), (1, 768, 7, 7)]
        assert all(
            torch.equal(value, their.permute(0, 3, 1, 2)) for value, their in zip(maps.values(), theirs, strict=True)
        )

    @pytest.mark.parametrize("in_channels", [1, 4])
    def test_are_made_of_images_of_any_channels(self, in_channels):
        ours = TimmBackbone("resnet18d", in_channels=in_channels, out_indices=(1,)).eval()
        assert ours(noise(1, in_channels, 33, 47))["p1"].shape == (1, 64, 9, 12)

    @pytest.mark.parametrize("shape", [(3, 65, 97), (1, 1, 3, 65, 97)])
    def test_of_something_that_is_no_batch_are_an_error(self, shape):
        with pytest.raises(InputError, match=r"\(N, C, H, W\)"):
            TimmBackbone("resnet18d", out_indices=(1,))(torch.zeros(shape))

    def test_another_norm_is_handed_to_timm(self):
        ours = TimmBackbone("resnet18d", out_indices=(1,), norm_layer=nn.SyncBatchNorm)
        assert any(isinstance(module, nn.SyncBatchNorm) for module in ours.modules())


class TestCheckpoint:
    @pytest.mark.parametrize("norm_layer", [None, "FrozenBN"])
    def test_of_the_whole_classifier_gives_its_maps(self, norm_layer, classifier, path, images):
        ours = TimmBackbone("resnet18d", checkpoint_path=str(path), out_indices=(2, 4), norm_layer=norm_layer).eval()
        expected = {}
        handles = [
            layer.register_forward_hook(lambda _, args, output, name=name: expected.__setitem__(name, output))
            for name, layer in (("p2", classifier.layer2), ("p4", classifier.layer4))
        ]
        with torch.no_grad():
            classifier(images)
            assert_same_maps(ours(images), expected)
        for handle in handles:
            handle.remove()

    def test_takes_a_path_object(self, classifier, path):
        ours = TimmBackbone("resnet18d", checkpoint_path=path, out_indices=(1,))
        assert_close(ours.timm_model.conv1[0].weight, classifier.conv1[0].weight, 0)

    def test_that_is_missing_or_a_folder_is_an_error(self, tmp_path):
        with pytest.raises(CheckpointFileError, match=r"checkpoint_path='.*nowhere\.pth' does not exist"):
            TimmBackbone("resnet18d", checkpoint_path=str(tmp_path / "nowhere.pth"))
        with pytest.raises(CheckpointFileError, match="is a folder"):
            TimmBackbone("resnet18d", checkpoint_path=str(tmp_path))

    @pytest.mark.parametrize("content", [b"", b"no weights", None], ids=["empty", "text", "truncated"])
    def test_that_is_none_is_an_error(self, content, path, tmp_path):
        broken = tmp_path / "broken.pth"
        broken.write_bytes(path.read_bytes()[:1000] if content is None else content)
        with pytest.raises(CheckpointError, match=r"resnet18d can't take.*broken\.pth"):
            TimmBackbone("resnet18d", checkpoint_path=str(broken))

    def test_of_another_architecture_is_an_error(self, path):
        with pytest.raises(CheckpointError, match="resnet26d can't take the weights"):
            TimmBackbone("resnet26d", checkpoint_path=str(path))

    def test_beside_pretrained_is_an_error(self, path):
        with pytest.raises(ArgumentError, match=r"pretrained=True and checkpoint_path.*Keep one"):
            TimmBackbone("resnet18d", pretrained=True, checkpoint_path=str(path))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"model_name": "resnet5o"}, r"model_name='resnet5o'.*Did you mean 'resnet50'"),
        ({"model_name": "convnext_tinny.fb_in22k"}, r"Did you mean 'convnext_tiny'"),
        ({"model_name": None}, "model_name=None is not a model of timm"),
        ({"features_only": False}, "features_only=False"),
        ({"out_indices": (7,)}, r"out_indices=\[7\].*maps \[0, 1, 2, 3, 4\]"),
        ({"out_indices": (-6,)}, r"out_indices=.*-6.*maps \[0, 1, 2, 3, 4\], and -1 is the last"),
        ({"out_indices": (4, -1)}, "none of them twice"),
        ({"pretrained": "False"}, "pretrained='False' is of type str.*Write pretrained=False"),
        ({"pretrained": "my.pth"}, "pretrained='my.pth' is of type str. Allowed: True or False"),
        ({"features_only": "no"}, "features_only='no' is of type str"),
        ({"output_stride": 7}, r"resnet18d.*output_stride=7.*`assert output_stride in \(8, 16, 32\)`"),
        ({"in_channels": 0}, r"in_channels=0.*Allowed: whole numbers from 1 on"),
        (
            {"model_name": "efficientformer_l1", "img_size": 100},
            r"makes 'efficientformer_l1' with in_channels=3, img_size=100.*runs no image: RuntimeError",
        ),
        ({"model_name": "davit_tiny", "window_size": 0}, "window_size=0.*runs no image: ZeroDivisionError"),
        ({"checkpoint_stages": ["p9"]}, r"checkpoint_stages=\['p9'\].*p0, p1, p2, p3"),
        ({"checkpoint_stages": "p1"}, "checkpoint_stages='p1'"),
        ({"use_act_checkpoint": "off"}, "Write use_act_checkpoint=False"),
        ({"out_indices": (1, 1)}, "none of them twice"),
        ({"out_indices": ()}, "at least one"),
        ({"out_indices": 3}, r"out_indices=3.*maps \[0, 1, 2, 3, 4\]"),
        ({"out_indices": ("1",)}, r"Write out_indices\[0\]=1\."),
        ({"norm_layer": "NoNorm"}, r"norm_layer='NoNorm'.*FrozenBatchNorm2d or 'FrozenBN'"),
        ({"norm_layer": nn.GroupNorm}, r"does not take norm_layer=.*GroupNorm"),
    ],
)
def test_wrong_arguments_are_errors_that_say_what_is_allowed(kwargs, message, capsys):
    with pytest.raises(ArgumentError, match=message):
        TimmBackbone(**{"model_name": "resnet18d", **kwargs})
    assert capsys.readouterr() == ("", "")


def test_building_prints_nothing(capsys):
    detrex_backbones.TimmBackbone("resnet18d", out_indices=(1,), norm_layer="FrozenBN")
    assert capsys.readouterr() == ("", "")
