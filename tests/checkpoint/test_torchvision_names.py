"""torchvision's files fill timm's network of the same name and our classes, with torchvision's own maps."""

import re

import pytest
import timm
import torch
import torchvision

from detrex_backbones import ConvNeXt, SwinTransformer, TimmBackbone, TorchvisionBackbone, load_checkpoint
from detrex_backbones.checkpoint.fetch import find_weight
from detrex_backbones.errors import CheckpointMatchError, PreprocessingError
from tests.reference import assert_close, noise, randomise_parameters

EPS = {"bn_eps": 1e-3}
SWIN, CONVNEXT = ["features.1", "features.3", "features.5", "features.7"], ["features.1", "features.3", "features.5"]
V1, V2 = ["features.1", "features.2", "features.3", "features.5"], ["features.1", "features.2", "features.3"]
# Of both libraries' network: torchvision's name, timm's, timm's arguments, and torchvision's modules that give the maps
# which timm has, from the finest on.
NETWORKS = [
    ("mobilenet_v2", "mobilenetv2_100", {}, ["features.1", "features.3", "features.6", "features.13", "features.17"]),
    ("mobilenet_v3_small", "mobilenetv3_small_100", EPS, ["features.0", "features.1", "features.3", "features.8"]),
    ("mobilenet_v3_large", "mobilenetv3_large_100", EPS, ["features.1", "features.3", "features.6", "features.12"]),
    ("efficientnet_b0", "efficientnet_b0", {}, [*V1, "features.7"]),
    ("efficientnet_b5", "efficientnet_b5", EPS, V1),
    ("efficientnet_v2_s", "efficientnetv2_s", EPS, [*V2, "features.5", "features.6"]),
    ("efficientnet_v2_m", "efficientnetv2_m", EPS, [*V2, "features.5", "features.7"]),
    ("swin_t", "swin_tiny_patch4_window7_224", {}, SWIN),
    ("swin_v2_t", "swinv2_tiny_window8_256", {}, SWIN),
    ("convnext_tiny", "convnext_tiny", {}, CONVNEXT),
    ("regnet_y_1_6gf", "regnety_016", {}, ["stem", *(f"trunk_output.block{number}" for number in (1, 2, 3, 4))]),
    ("densenet121", "densenet121", {}, []),
    ("vgg11_bn", "vgg11_bn", {}, []),
]
CLASSES = [("swin_t", SwinTransformer, SWIN), ("convnext_tiny", ConvNeXt, CONVNEXT)]
SIZES = [(192, 256), (160, 228)]  # in patches of 4 pixels no multiple of a window


@pytest.fixture(scope="module")
def theirs():
    made = {}

    def make(name):
        if name not in made:
            made.clear()  # one at a time
            torch.manual_seed(0)
            made[name] = randomise_parameters(torchvision.models.get_model(name)).eval()
        return made[name]

    return make


def outputs(net, modules, image):
    """What these modules of torchvision's give, (N, C, H, W)."""
    seen, hooks = [], []
    for path in modules:
        hook = net.get_submodule(path).register_forward_hook(lambda module, args, output: seen.append(output.clone()))
        hooks.append(hook)
    with torch.no_grad():
        net(image)
    for hook in hooks:
        hook.remove()
    return [value.permute(0, 3, 1, 2) if "Swin" in type(net).__name__ else value for value in seen]


def check(model, net, modules, path, sizes):
    report = load_checkpoint(model.eval(), path)
    assert (report.coverage, report.file_coverage) == (1, 1)
    assert not report.missing and not report.unplaced
    for size in sizes:
        image = noise(1, 3, *size)
        with torch.no_grad():
            maps = list(model(image).values())
        for found, expected in zip(maps, outputs(net, modules, image), strict=False):
            assert_close(found, expected)
        assert len(maps) >= len(modules)


@pytest.mark.few(1)
@pytest.mark.parametrize(("name", "timms", "kwargs", "modules"), NETWORKS, ids=[row[0] for row in NETWORKS])
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_timms_network(theirs, tmp_path, name, timms, kwargs, modules, prefix):
    net = theirs(name)
    state = {prefix + key: value for key, value in net.state_dict().items()}
    torch.save(state, tmp_path / "net.pth")
    model = TimmBackbone(timms, out_indices=None, **kwargs)
    check(model, net, modules, tmp_path / "net.pth", SIZES if not prefix else SIZES[1:])
    if prefix:
        lost = next(key for key in state if re.search(r"(layer_scale|norm1\.weight|\.1\.weight|bn\d?.weight)$", key))
        del state[lost]
        torch.save(state, tmp_path / "cut.pth")
        with pytest.raises(CheckpointMatchError):
            load_checkpoint(model, tmp_path / "cut.pth")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "build", "modules"), CLASSES)
def test_our_classes(theirs, tmp_path, name, build, modules):
    net = theirs(name)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    model = build(out_indices=(0, 1, 2, 3)).eval()
    report = load_checkpoint(model, tmp_path / "net.pth")
    assert not report.missing and not report.unplaced
    norms = {key.rpartition(".")[0] for key in report.kept if not key.endswith("relative_position_index")}
    assert norms == {"norm0", "norm1", "norm2", "norm3"}
    assert ("single window" in str(report).replace("\n            ", " ")) == (name == "swin_t")
    for size in [(256, 292), (448, 480)]:  # a last map of one window is not shifted by torchvision, but by detectors
        image = noise(1, 3, *size)
        for at, (found, expected) in enumerate(zip(model(image).values(), outputs(net, modules, image), strict=False)):
            norm = model.get_submodule(f"norm{at}")
            layer = torch.nn.functional.layer_norm(expected.permute(0, 2, 3, 1), expected.shape[1:2], eps=norm.eps)
            assert_close(found, layer.permute(0, 3, 1, 2))


@pytest.mark.few(1)
@pytest.mark.parametrize(("name", "timms", "kwargs", "modules"), NETWORKS[:7], ids=[row[0] for row in NETWORKS[:7]])
def test_timms_file_into_torchvisions_network(tmp_path, name, timms, kwargs, modules):
    torch.manual_seed(0)
    whole = randomise_parameters(timm.create_model(timms, **kwargs)).eval()
    torch.save({"state_dict": whole.state_dict()}, tmp_path / "timm.pth")
    model = TorchvisionBackbone(name, return_nodes=modules).eval()
    report = load_checkpoint(model, tmp_path / "timm.pth")
    assert (report.coverage, report.file_coverage) == (1, 1)
    peer = TimmBackbone(timms, out_indices=None, **kwargs).eval()
    load_checkpoint(peer, tmp_path / "timm.pth")
    image = noise(1, 3, 161, 227)
    with torch.no_grad():
        for found, expected in zip(model(image).values(), peer(image).values(), strict=False):
            assert_close(found, expected)


@pytest.mark.parametrize(
    ("name", "timms", "wrong"),
    [("efficientnet_b0", "tf_efficientnet_b0", "padding=same"), ("mobilenet_v3_large", "mobilenetv3_large_100", "eps")],
)
def test_what_computes_otherwise_is_refused(tmp_path, name, timms, wrong):
    """timm's weights of its own recipe, and TensorFlow's, have the names of what torchvision computes otherwise."""
    whole = timm.create_model(timms)
    weight = find_weight(f"timm://{timms}")
    path = tmp_path / f"models--timm--{weight.name.removeprefix('timm://')}" / "model.pth"
    path.parent.mkdir()
    torch.save(whole.state_dict(), path)
    with pytest.raises(PreprocessingError, match=wrong):
        load_checkpoint(TorchvisionBackbone(name), path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "timms"), [("mobilenet_v3_large", "mobilenetv3_large_100"), ("efficientnet_v2_s", "efficientnetv2_s")]
)
def test_a_published_file_is_held_to_its_eps(theirs, tmp_path, name, timms):
    weight = find_weight(f"torchvision://{name}")
    assert weight.norm_eps == 1e-3
    path = tmp_path / weight.file
    torch.save(theirs(name).state_dict(), path)
    load_checkpoint(TorchvisionBackbone(name), path)
    with pytest.raises(PreprocessingError, match=r"norm_eps=0\.001"):
        load_checkpoint(TimmBackbone(timms, out_indices=None), path)
    load_checkpoint(TimmBackbone(timms, out_indices=None, **EPS), path)


@pytest.mark.slow
def test_hugging_faces_resnet_into_torchvisions(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        embedding_size=64, hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic"
    )
    torch.manual_seed(0)
    peer = randomise_parameters(transformers.ResNetModel(config)).eval()
    torch.save(peer.state_dict(), tmp_path / "model.pth")
    model = TorchvisionBackbone("resnet18").eval()
    report = load_checkpoint(model, tmp_path / "model.pth")
    assert (report.coverage, report.file_coverage) == (1, 1)
    image = noise(1, 3, 161, 227)
    with torch.no_grad():
        expected = peer(image, output_hidden_states=True).hidden_states[1:]
        for found, wanted in zip(model(image).values(), expected, strict=True):
            assert_close(found, wanted)


def test_densenets_names_of_published_files(theirs, tmp_path):
    """Which torchvision renames itself: `norm.1` and `conv.2` in a dense layer."""
    net = theirs("densenet121")
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", key): v for key, v in net.state_dict().items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "old.pth")
    check(TimmBackbone("densenet121", out_indices=None), net, [], tmp_path / "old.pth", [(64, 96)])
