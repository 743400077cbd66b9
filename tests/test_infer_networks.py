"""`infer` of networks that are no ResNets: the config that it writes takes the file, with the maps of its source."""

import json

import pytest
import timm
import torch

from detrex_backbones import (
    BasicStem,
    LazyConfig,
    ResNet,
    build_model,
    convert_checkpoint,
    get_config,
    infer_config,
    instantiate,
    make_stage,
    swap_backbone,
)
from detrex_backbones.errors import CheckpointError, CheckpointMatchError
from detrex_backbones.zoo import InferredNetwork, InferredResNet

# A ready config of each kind of class, and another of its family, which its file is not of.
READY = {
    "convnext/tiny_384": "convnext/small_384",
    "deimv2/s": "deimv2/m",
    "focalnet/tiny_lrf_fl3": "focalnet/small_lrf_fl3",
    "internimage/tiny": "internimage/small",
    "lw_detr/small": "lw_detr/medium",
    "mvit/tiny": "mvit/base",
    "pvt/tiny": "pvt/small",
    "swin/tiny": "swin/small",
    "vgg/ssd_vgg16": "",
    "yolox/s": "yolox/m",
}
IMAGE = torch.rand(1, 3, 64, 64) * 255


def written(tmp_path, path):
    """The maps of the model of the config that is inferred."""
    config = tmp_path / "config.py"
    config.write_text(infer_config(path).to_py(str(path)))
    model = build_model(LazyConfig.apply_overrides(LazyConfig.load(config), ["train.device=cpu"])).eval()
    with torch.no_grad():
        return model(IMAGE)


@pytest.mark.few(1)
@pytest.mark.parametrize("name", READY)
def test_a_detectors_file_of_a_ready_config(tmp_path, name):
    torch.manual_seed(0)
    source = instantiate(get_config(name).model).eval()
    state = {f"backbone.{key}": value for key, value in source.backbone.state_dict().items()}
    path = tmp_path / "detector.pth"
    torch.save({"model": state | {"head.weight": torch.zeros(3, 3)}}, path)
    found = infer_config(path)
    assert (found.config, found.prefix) == (name, "backbone.")
    maps = written(tmp_path, path)
    with torch.no_grad():
        expected = source(IMAGE)
    assert maps.keys() == expected.keys()
    for key, value in maps.items():
        assert torch.equal(value, expected[key]), key


@pytest.mark.few(1)
@pytest.mark.parametrize("name", ["swinv2_cr_tiny_ns_224", "resnest14d", "res2net50_26w_4s", "convnext_atto"])
def test_a_file_of_timms(tmp_path, name):
    """Three of them have blocks that `make_stage` doesn't make, under names that a ResNet has, too."""
    net = timm.create_model(name)
    path = tmp_path / "net.pth"
    torch.save(net.state_dict(), path)
    found = infer_config(path)
    assert found.config == f"timm/{name}"
    (tmp_path / "config.py").write_text(found.to_py(str(path)))
    model = build_model(LazyConfig.apply_overrides(LazyConfig.load(tmp_path / "config.py"), ["train.device=cpu"]))
    loaded = dict(model.backbone.named_parameters())
    for key, value in net.named_parameters():
        if f"timm_model.{key}" in loaded:
            assert torch.equal(loaded[f"timm_model.{key}"], value), key


@pytest.mark.parametrize(("to", "config"), [("pycls", "regnet/regnetx_400mf"), ("timm", "timm/regnetx_004")])
def test_a_regnet_is_its_sources(tmp_path, to, config):
    """pycls's weights are for images in BGR, timm's for RGB."""
    net = timm.create_model("regnetx_004")
    torch.save(net.state_dict(), tmp_path / "timm.pth")
    path = tmp_path / "timm.pth"
    if to == "pycls":
        path = tmp_path / "pycls.pth"
        convert_checkpoint(tmp_path / "timm.pth", path, to="pycls", source="timm-regnet")
    assert infer_config(path).config == config


@pytest.mark.slow
def test_a_file_of_hugging_faces_with_its_preprocessor(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.SwinConfig(depths=[2, 2, 6, 2], out_features=["stage1", "stage2", "stage3", "stage4"])
    net = transformers.SwinBackbone(config).eval()
    net.save_pretrained(tmp_path / "swin")
    given = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25], "do_rescale": True, "do_normalize": True}
    (tmp_path / "swin" / "preprocessor_config.json").write_text(json.dumps(given))
    found = infer_config(tmp_path / "swin")
    assert (found.config, found.source, found.assumed) == ("swin/tiny", "huggingface-swin", {})
    assert found.preprocessing == {"pixel_mean": [127.5] * 3, "pixel_std": [63.75] * 3, "input_format": "RGB"}
    maps = written(tmp_path, tmp_path / "swin")
    with torch.no_grad():
        expected = net((IMAGE - 127.5) / 63.75).feature_maps
    for ours, theirs in zip(maps.values(), expected, strict=True):
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def test_a_resnet_with_group_norms(tmp_path):
    net = ResNet(BasicStem(norm="GN"), make_stage(50, norm="GN"))
    path = tmp_path / "gn.pth"
    torch.save(net.state_dict(), path)
    found = infer_config(path)
    assert isinstance(found, InferredResNet)
    assert found.norm == "GN"
    (tmp_path / "config.py").write_text(found.to_py(str(path)))
    build_model(LazyConfig.apply_overrides(LazyConfig.load(tmp_path / "config.py"), ["train.device=cpu"]))


@pytest.mark.slow
def test_a_plain_vit_comes_before_the_one_in_windows(tmp_path):
    torch.save(timm.create_model("vit_small_patch14_dinov2").state_dict(), tmp_path / "vit.pth")
    found = infer_config(tmp_path / "vit.pth")
    assert isinstance(found, InferredNetwork)
    assert (found.config, found.also) == ("timm/vit_small_patch14_dinov2", ("rf_detr/base",))
    text = found.to_py("vit.pth")
    assert "# The network is that of timm/vit_small_patch14_dinov2. rf_detr/base takes the file, too." in text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["swin/tiny", "pvt/tiny"])
def test_a_stage_less_is_no_network(tmp_path, name):
    state = instantiate(get_config(name).model.backbone).state_dict()
    last = "layers.3." if name.startswith("swin") else "block4."
    torch.save({key: value for key, value in state.items() if not key.startswith(last)}, tmp_path / "cut.pth")
    with pytest.raises(CheckpointError, match="fits no ready config and no timm model"):
        infer_config(tmp_path / "cut.pth")


@pytest.mark.few(1)
@pytest.mark.parametrize("name", ["swin/tiny", "yolox/s", "mvit/tiny"])
def test_a_refused_load_names_the_ready_config_that_takes_it(tmp_path, name):
    path = tmp_path / "net.pth"
    torch.save(instantiate(get_config(name).model.backbone).state_dict(), path)
    cfg = get_config(READY[name])
    cfg.train = {"device": "cpu", "init_checkpoint": str(path)}
    with pytest.raises(CheckpointMatchError) as error:
        build_model(cfg)
    text = str(error.value)
    assert f"The file holds the network of {name}. Load it with backbone={name} train.init_checkpoint=" in text
    swap_backbone(cfg, name)
    cfg.train.init_checkpoint = str(path)
    build_model(cfg)
