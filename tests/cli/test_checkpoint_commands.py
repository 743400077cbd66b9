"""match, infer and convert: what they print, and that what they write is true."""

import json

import pytest
import timm
import torch
import torchvision

from detrex_backbones import LazyConfig, build_model, instantiate, read_checkpoint
from detrex_backbones.cli import main


def run(capsys, *argv):
    status = main([str(argument) for argument in argv])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "r18.pth"
    torch.save(torchvision.models.resnet18().state_dict(), path)
    return path


def test_match_is_a_dry_run(file, capsys):
    status, out, _ = run(capsys, "match", "resnet/resnet18.py", file)
    assert status == 0
    assert "loaded      100 of 100 of model.backbone" in out
    assert max(map(len, out.splitlines())) <= 80
    status, out, _ = run(capsys, "match", "resnet/resnet50", file, "model.backbone.stages.depth=18", "--json")
    assert (status, json.loads(out)["coverage"]) == (0, 1.0)
    _, out, _ = run(capsys, "match", "resnet/resnet18.py", file, "--all")
    assert "layer1.0.bn1.weight -> backbone.res2.0.conv1.norm.weight (64,) (torchvision: in the scope)" in out
    assert "fc.weight: head" in out


def test_match_says_why_a_load_would_be_refused(file, capsys):
    status, out, err = run(capsys, "match", "resnet/resnet34.py", file)
    assert status == 1
    assert "missing" in out
    assert err.startswith("error: checkpoint") and "res2.2.conv1.weight" in err


@pytest.mark.parametrize("layer", ["LazyLinear", "LazyConv2d", "LazyConvTranspose2d"])
def test_match_of_a_lazy_layer_takes_the_shapes_of_the_file(tmp_path, capsys, layer):
    config, given = (
        tmp_path / "config.py",
        ["out_features=4"] if layer == "LazyLinear" else ["out_channels=4", "kernel_size=1"],
    )
    config.write_text(
        "from torch import nn\nfrom detrex_backbones.config import LazyCall as L\n"
        f"model = L(nn.{layer})({', '.join(given)})\n"
    )
    made = getattr(torch.nn, layer)(*(int(argument.partition("=")[2]) for argument in given))
    made(torch.ones(1, 3, 5, 3 if layer == "LazyLinear" else 5))
    torch.save(made.state_dict(), tmp_path / "file.pth")
    status, out, _ = run(capsys, "match", config, tmp_path / "file.pth")
    assert status == 0 and "loaded      2 of 2" in out


@pytest.mark.few(2)
@pytest.mark.parametrize("argv", [("match", "resnet/resnet18.py"), ("infer",), ("convert", "--to", "timm")])
@pytest.mark.parametrize("where", ["layer1.0.conv1.weight", "layer4.1.conv2.weight", "conv1.weight"])
def test_none_takes_a_file_with_a_wrong_checksum(file, tmp_path, capsys, argv, where):
    data = bytearray(file.read_bytes())
    data[data.index(torch.load(file)[where].numpy().tobytes()[:64]) + 7] ^= 1
    file.write_bytes(data)
    command, *rest = argv
    output = [tmp_path / "out.safetensors"] if command == "convert" else []
    given = [*rest, file] if command == "match" else [file, *output, *rest]
    status, _, err = run(capsys, command, *given)
    assert status == 1 and "checksum" in err and not (tmp_path / "out.safetensors").exists()


def test_match_refuses_what_the_load_would_refuse_for_its_preprocessing(tmp_path, capsys):
    path = tmp_path / "resnet50-11ad3fa6.pth"
    torch.save(torchvision.models.resnet50().state_dict(), path)
    assert run(capsys, "match", "resnet/resnet50", path)[0] == 0
    bgr = ["model.input_format=BGR", "model.pixel_std=[1,1,1]"]
    status, out, err = run(capsys, "match", "resnet/resnet50", path, *bgr)
    assert (status, "265 of 265" in out) == (1, True)
    assert "Fix it with:\n      model.pixel_std=[58.395,57.12,57.375] model.input_format=RGB" in err
    off = "train.load_options.check_preprocessing=off"
    assert run(capsys, "match", "resnet/resnet50", path, *bgr, off)[0] == 0


def test_convert_there_and_back(tmp_path, file, capsys):
    status, out, _ = run(capsys, "convert", file, tmp_path / "r18.pkl", "--to", "detectron2")
    assert status == 0
    assert out.startswith("122 tensors, torchvision -> detectron2\n")
    status, out, _ = run(
        capsys, "convert", tmp_path / "r18.pkl", tmp_path / "back.pth", "--to", "torchvision", "--json"
    )
    assert (status, json.loads(out)["names"]["res2.0.conv1.weight"]) == (0, "layer1.0.conv1.weight")
    torchvision.models.resnet18().load_state_dict(torch.load(tmp_path / "back.pth"), strict=True)


def test_convert_refuses(tmp_path, file, capsys):
    status, _, err = run(capsys, "convert", file, tmp_path / "out.pth", "--to", "huggingface-detr")
    assert status == 1
    assert "Nothing was written" in err
    assert not (tmp_path / "out.pth").exists()


NETS = {
    "resnet18": {"depth": 18},
    "resnet50": {"depth": 50},
    "resnet101": {"depth": 101},
    "resnext50_32x4d": {"depth": 50, "num_groups": 32, "width_per_group": 4},
    "wide_resnet50_2": {"depth": 50, "width_per_group": 128},
}


@pytest.mark.parametrize("name", NETS)
def test_infer_finds_torchvisions_networks(tmp_path, name, capsys):
    path = tmp_path / "weights.pth"
    with torch.device("meta"):
        shapes = getattr(torchvision.models, name)(num_classes=7).state_dict()
    torch.save({key: torch.zeros(value.shape, dtype=torch.uint8) for key, value in shapes.items()}, path)
    status, out, _ = run(capsys, "infer", path, "--json")
    found = json.loads(out)
    assert status == 0
    assert found["stages"] == NETS[name]
    assert (found["num_classes"], found["source"]) == (7, "torchvision")
    assert ("stride_in_1x1" in found["assumed"]) == (name != "resnet18")
    assert {"dilation", "input_format", "pixel_mean", "norm_eps", "activation"} < set(found["assumed"])


TIMM = {
    "resnet50d": ("DeepStem", {"depth": 50, "shortcut": "avg_pool"}),
    "resnet50c": ("DeepStem", {"depth": 50}),
    "resnet50s": ("DeepStem", {"depth": 50, "in_channels": 128}),
    "seresnext50_32x4d": ("BasicStem", {"depth": 50, "se_reduction": 16, "num_groups": 32, "width_per_group": 4}),
}


@pytest.mark.few(1)
@pytest.mark.parametrize("name", TIMM)
def test_infer_writes_a_config_that_loads_the_file(tmp_path, name, capsys):
    path = tmp_path / "weights.pth"
    torch.save(timm.create_model(name, num_classes=5).state_dict(), path)
    _, out, _ = run(capsys, "infer", path, "--json")
    assert (json.loads(out)["stem"]["class"], json.loads(out)["stages"]) == TIMM[name]
    status, text, _ = run(capsys, "infer", path)
    assert status == 0
    assert "# stride_in_1x1=False is assumed: the weights have the same names and shapes either way" in text
    config = tmp_path / "config.py"
    config.write_text(text)
    cfg = LazyConfig.apply_overrides(LazyConfig.load(config), ["train.device=cpu"])
    model = build_model(cfg)
    assert list(model.output_shape()) == ["res2", "res3", "res4", "res5"]
    assert model.backbone.linear.out_features == 5


def with_channels(channels, name="resnet18", **options):
    """A network of torchvision or timm for images of so many channels."""
    if name == "resnet18d":
        return timm.create_model(name, in_chans=channels, num_classes=5)
    net = torchvision.models.resnet18(num_classes=5)
    net.conv1 = torch.nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
    return net


@pytest.mark.few(1)
@pytest.mark.parametrize("name", ["resnet18", "resnet18d"])
@pytest.mark.parametrize("channels", [1, 2, 4, 6, 13])
def test_infer_of_other_images_writes_a_config_that_runs(tmp_path, capsys, caplog, name, channels):
    net = with_channels(channels, name).eval()
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    status, text, _ = run(capsys, "infer", tmp_path / "weights.pth")
    assert status == 0
    pixels = [line for line in text.splitlines() if line.startswith(("# pixel_mean=", "# pixel_std="))]
    assert all(name in "".join(pixels) for name in ("pixel_mean=", "pixel_std="))
    assert all(line.endswith(f"the average of ImageNet's for each of the {channels} channels") for line in pixels)
    assert f"# input_format='RGB' is assumed: the order of the {channels} channels is stored in no tensor" in text
    (tmp_path / "config.py").write_text(text)
    assert run(capsys, "show", tmp_path / "config.py")[0] == 0
    cfg = LazyConfig.apply_overrides(LazyConfig.load(tmp_path / "config.py"), ["train.device=cpu"])
    with caplog.at_level("WARNING"):
        model = build_model(cfg).eval()
    assert not caplog.records
    assert len(model.pixel_mean) == len(model.pixel_std) == channels
    images = 255 * torch.rand(1, channels, 64, 96)
    with torch.no_grad():
        maps = model(images)
        normalised = (images - model.pixel_mean) / model.pixel_std
        reference = timm.create_model("resnet18", in_chans=channels, num_classes=5, features_only=True)
        if name == "resnet18d":
            reference = timm.create_model(name, in_chans=channels, num_classes=5, features_only=True)
        reference.load_state_dict({key: v for key, v in net.state_dict().items() if not key.startswith("fc.")})
        expected = reference.eval()(normalised)
    for ours, theirs in zip(maps.values(), expected[1:], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_infer_of_three_channels_says_what_it_said(tmp_path, capsys):
    torch.save(with_channels(3).state_dict(), tmp_path / "weights.pth")
    _, text, _ = run(capsys, "infer", tmp_path / "weights.pth")
    assert "pixel_mean=[123.675, 116.28, 103.53]" in text and "this is ImageNet's" in text


def test_infer_takes_what_a_source_has_as_a_rule(tmp_path, capsys):
    state = {
        f"backbone.body.{'stem.' if key.startswith(('conv1', 'bn1')) else ''}{key}": value
        for key, value in with_channels(3).state_dict().items()
    }
    torch.save(state, tmp_path / "weights.pth")
    _, text, _ = run(capsys, "infer", tmp_path / "weights.pth")
    assert "input_format='BGR', pixel_mean=[102.9801, 115.9465, 122.7717]" in text
    assert "assumed: files in maskrcnn-benchmark's names usually have it" in text
    assert "pixel_mean=[102.9801, 115.9465, 122.7717]" in text


def test_infer_knows_a_published_file_by_its_name(tmp_path, capsys):
    path = tmp_path / "resnet50_msra-5891d200.pth"
    torch.save({"state_dict": torchvision.models.resnet50().state_dict()}, path)
    _, out, _ = run(capsys, "infer", path, "--json")
    found = json.loads(out)
    assert found["known"] == "open-mmlab://detectron2/resnet50_caffe"
    assert found["stages"]["stride_in_1x1"] is True
    assert found["preprocessing"]["input_format"] == "BGR"
    assert "stride_in_1x1" not in found["assumed"] and "input_format" not in found["assumed"]


def test_infer_finds_the_prefix_and_refuses_two(tmp_path, capsys):
    state = torchvision.models.resnet18().state_dict()
    torch.save({f"detector.body.{key}": value for key, value in state.items()}, tmp_path / "one.pth")
    _, out, _ = run(capsys, "infer", tmp_path / "one.pth", "--json")
    assert json.loads(out)["prefix"] == "detector.body."
    torch.save({f"{side}.{key}": value for side in "ab" for key, value in state.items()}, tmp_path / "two.pth")
    status, _, err = run(capsys, "infer", tmp_path / "two.pth")
    assert (status, "2 ResNets: say which by prefix=" in err) == (1, True)
    status, out, _ = run(capsys, "infer", tmp_path / "two.pth", "--prefix", "b", "--json")
    assert (status, json.loads(out)["prefix"]) == (0, "b.")


@pytest.mark.slow
def test_infer_refuses_what_no_network_takes(tmp_path, capsys):
    state = timm.create_model("convnext_atto").state_dict()
    torch.save({key: value for key, value in state.items() if "stages.2.blocks.1" not in key}, tmp_path / "net.pth")
    status, _, err = run(capsys, "infer", tmp_path / "net.pth")
    assert status == 1
    assert "holds no ResNet with known key names, and fits no ready config and no timm model" in err


def test_infer_of_deformable_stages(tmp_path, capsys):
    from detrex_backbones import get_config

    cfg = get_config("resnet/resnet50.py")
    cfg.model.backbone.stages.update(deform_on_per_stage=[False, False, True, True], deform_modulated=True)
    with torch.device("meta"):
        shapes = instantiate(cfg.model).backbone.state_dict()
    path = tmp_path / "deform.pth"
    torch.save({key: torch.zeros(value.shape, dtype=torch.uint8) for key, value in shapes.items()}, path)
    _, out, _ = run(capsys, "infer", path, "--json")
    stages = json.loads(out)["stages"]
    assert stages == {
        "depth": 50,
        "deform_on_per_stage": [False, False, True, True],
        "deform_modulated": True,
        "deform_num_groups": 1,
    }


def test_convert_takes_detrexs_options_and_prints_names(tmp_path, file, capsys):
    out = tmp_path / "r18.pth"
    status, said, _ = run(
        capsys, "convert", "--source_model", file, "--output_model", out, "--to", "detectron2", "--verbose"
    )
    lines = said.splitlines()
    assert status == 0 and out.is_file()
    assert "layer1.0.conv1.weight -> res2.0.conv1.weight" in lines
    assert sum(" -> " in line for line in lines) == len(read_checkpoint(out).tensors) + 1  # and the sum
    status, said, _ = run(capsys, "convert", file, tmp_path / "quiet.pth", "--to", "detectron2")
    assert status == 0 and sum(" -> " in line for line in said.splitlines()) == 1
    for argv, why in (((file,), "OUT is missing"), ((file, out, "--source_model", file), "IN is given twice")):
        status, _, err = run(capsys, "convert", *argv, "--to", "detectron2")
        assert status == 1 and why in err
