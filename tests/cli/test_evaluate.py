"""`detrex-backbones evaluate`: image by image the scores of torchvision and timm, whatever the batch."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torchvision.transforms._presets import ImageClassification

from detrex_backbones.checkpoint.fetch import Recipe, find_weight
from detrex_backbones.cli import main
from detrex_backbones.config import LazyConfig
from detrex_backbones.errors import ArgumentError, CheckpointMatchError, InputError
from detrex_backbones.evaluation import evaluate
from detrex_backbones.evaluation.image_folder import cut, open_folder
from detrex_backbones.zoo import get_config
from tests.reference import randomise_norms

SMALL = Recipe(36, 32)  # where it is not numbers that are looked at

# Class, height, width, mode of each image.
IMAGES = (
    ("3", 300, 400, "RGB"),
    ("20", 224, 224, "L"),
    ("20", 180, 500, "RGBA"),
    ("100", 641, 330, "P"),
    ("999", 256, 257, "RGB"),
)
LABELS = [100, 20, 20, 3, 999]


def photo(height: int, width: int, seed: int, mode: str = "RGB") -> Image.Image:
    """Blobs of colour under noise: unlike noise alone, they survive a resize."""
    rng = np.random.default_rng(seed)
    blobs = Image.fromarray(rng.integers(0, 256, (5, 4, 3), dtype=np.uint8)).resize((width, height), Image.BICUBIC)
    noise = rng.integers(-20, 20, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(blobs) + noise, 0, 255).astype(np.uint8)).convert(mode)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four classes, called by number; images of several sizes and modes."""
    root = tmp_path_factory.mktemp("data")
    for seed, (name, height, width, mode) in enumerate(IMAGES):
        (root / name).mkdir(exist_ok=True)
        photo(height, width, seed, mode).save(root / name / f"{seed}.{'jpg' if mode in ('RGB', 'L') else 'png'}")
    return root


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Makes a network's file: random weights and statistics, scores that differ from image to image."""
    folder = tmp_path_factory.mktemp("weights")

    def make(net: torch.nn.Module, name: str) -> Path:
        torch.manual_seed(1)
        randomise_norms(net).eval()
        classifier = net.get_classifier() if hasattr(net, "get_classifier") else net.fc
        torch.nn.init.normal_(classifier.weight, std=0.5)
        with torch.inference_mode():
            spread = net(torch.randn(1, 3, 224, 224)).std()
        with torch.no_grad():
            classifier.weight.mul_(5 / spread)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(net.state_dict(), path)
        return path

    return make


def config(name: str, checkpoint: Path, *overrides: str):
    cfg = LazyConfig.apply_overrides(get_config(name), ["train.device=cpu", *overrides])
    cfg.train.init_checkpoint = str(checkpoint)
    return cfg


def predict(cfg, data, **kwargs):
    predictions = []
    result = evaluate(cfg, data, workers=0, each=predictions.append, **kwargs)
    assert result.images == len(predictions)
    return predictions, result


def assert_same(predictions, net, transform):
    """The scores of the reference's network, its own transform before it, image by image."""
    for prediction in predictions:
        with Image.open(prediction.path) as image, torch.inference_mode():
            scores = net(transform(image.convert("RGB"))[None])[0]
        torch.testing.assert_close(prediction.scores, scores, rtol=1e-4, atol=1e-4)
        assert prediction.top == tuple(scores.topk(5).indices.tolist())
    assert len({prediction.top for prediction in predictions}) > 1  # or the test could not fail


@pytest.mark.parametrize("name", ["resnet18-v1", "resnet50-v2"])
def test_predictions_are_torchvisions(name, data, files):
    weight = find_weight(f"torchvision://{name}")
    torch.manual_seed(0)
    net = getattr(torchvision.models, weight.model)(weights=None)
    path = files(net, weight.file)
    predictions, result = predict(config(weight.config, path), data, limit=3)
    preset = torchvision.models.get_model_weights(weight.model)[f"IMAGENET1K_{name[-2:].upper()}"].transforms()
    assert_same(predictions, net, preset)
    assert result.weight == weight
    assert [prediction.label for prediction in predictions] == [LABELS[0], LABELS[1], LABELS[3]]


@pytest.mark.parametrize("name", ["resnet18_v1b", "resnet50_v1d"])
def test_predictions_of_gluons_are_timms(name, data, files):
    """In our own ResNet, as timm's model and timm's transform give them: bicubic."""
    weight = find_weight(f"gluon://{name}")
    torch.manual_seed(0)
    net = timm.create_model({"resnet18_v1b": "resnet18", "resnet50_v1d": "resnet50d"}[name])
    predictions, _ = predict(config(weight.config, files(net, weight.file)), data, limit=3)
    cfg = timm.get_pretrained_cfg(f"{net.pretrained_cfg['architecture']}.gluon_in1k").to_dict()
    assert_same(predictions, net, create_transform(**resolve_data_config(pretrained_cfg=cfg)))


def test_predictions_of_any_timm_model_are_timms(data, files):
    """A whole timm model in the place of a TimmBackbone, with its own mean and its own crop (0.9, bicubic)."""
    name = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    torch.manual_seed(0)
    net = timm.create_model("vit_tiny_patch16_224")
    path = files(net, f"models--timm--{name}/snapshots/0/model.pth")
    predictions, result = predict(
        config("timm/resnet152d.py", path, "model.backbone.model_name=vit_tiny_patch16_224"), data
    )
    cfg = timm.get_pretrained_cfg(name).to_dict()
    assert_same(predictions, net, create_transform(**resolve_data_config(pretrained_cfg=cfg)))
    assert result.recipe == Recipe(248, 224, "bicubic")
    assert "set model.pixel_mean=[127.5,127.5,127.5]" in result.notes


def test_the_preprocessing_is_the_weights_own(data, files):
    """pycls' ResNet-50 wants BGR; the config that is given says RGB."""
    torch.manual_seed(0)
    net = torchvision.models.resnet50(weights=None)
    path = files(net, "R-50-1x64d_dds_8gpu.pyth")
    predictions, result = predict(config("resnet/resnet50.py", path), data, recipe=SMALL)
    assert "set model.input_format=BGR" in result.notes
    preset = ImageClassification(resize_size=36, crop_size=32)
    assert_same(predictions, net, lambda image: preset(image).flip(0))


def test_an_override_stands_against_the_weight(data, files, capsys):
    path = files(torchvision.models.resnet18(weights=None), "resnet18-f37072fd.pth")
    cfg = config("resnet/resnet18.py", path, "model.pixel_mean=[123.7,116.3,103.5]")
    _, result = predict(cfg, data, limit=1, keep=["model.pixel_mean"], recipe=SMALL)
    assert not any("pixel_mean" in note for note in result.notes)
    assert list(cfg.model.pixel_mean) == [123.7, 116.3, 103.5]  # and the config is not changed
    assert "num_classes" not in cfg.model.backbone


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("mode", ["center", "squash"])
@pytest.mark.parametrize(("crop", "fraction"), [(224, 0.875), (224, 0.95), (96, 1.0), (160, 0.9)])
def test_images_are_cut_as_timm_cuts_them(crop, fraction, mode, interpolation):
    recipe = Recipe(int(crop / fraction), crop, interpolation, mode)
    theirs = create_transform(
        (3, crop, crop), crop_pct=fraction, crop_mode=mode, interpolation=interpolation, normalize=False
    )
    for seed, (height, width) in enumerate([(300, 401), (97, 131), (500, 200), (224, 224), (90, 700)]):
        image = photo(height, width, seed)
        assert torch.equal(cut(image, recipe), theirs(image))


@pytest.fixture(scope="module")
def resnet18(files):
    torch.manual_seed(0)
    return files(torchvision.models.resnet18(weights=None), "plain.pth")


def test_batch_size_and_workers_change_nothing(data, resnet18):
    cfg = config("resnet/resnet18.py", resnet18)
    one, _ = predict(cfg, data, batch_size=1, recipe=SMALL)
    for kwargs in ({"batch_size": 3, "workers": 0}, {"batch_size": 2, "workers": 2}):
        predictions = []
        evaluate(cfg, data, each=predictions.append, recipe=SMALL, **kwargs)
        assert [item.path for item in predictions] == [item.path for item in one]
        assert [item.top for item in predictions] == [item.top for item in one]


def test_an_unknown_file_is_cut_the_usual_way_and_says_so(data, resnet18):
    _, result = predict(config("resnet/resnet18.py", resnet18), data, limit=2)
    assert result.recipe == Recipe(256, 224, "bilinear")
    assert "images: center 256 -> 224, bilinear (the usual one)" in result.notes
    assert "set model.backbone.num_classes=1000" in result.notes
    assert "set model.backbone.out_features=[linear]" in result.notes


# --- which class a folder is


def folders(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
        photo(20, 30, 0).save(root / name / "a.png")
    return root


@pytest.mark.parametrize(
    ("names", "classes", "labels", "note"),
    [
        (["n02", "n01", "n10"], None, {"n01": 0, "n02": 1, "n10": 2}, "in the order of their names"),
        (["10", "9", "0"], None, {"0": 0, "9": 9, "10": 10}, "by the numbers"),
        (["7", "cat"], None, {"7": 0, "cat": 1}, "in the order of their names"),
        (["cat", "ant"], ["bee", "cat", "dog", "ant"], {"cat": 1, "ant": 3}, "by the list of 4"),
    ],
)
def test_which_class_a_folder_is(tmp_path, names, classes, labels, note):
    folder = open_folder(folders(tmp_path, *names), Recipe(), classes)
    assert {Path(path).parent.name: label for path, label in folder.samples} == labels
    assert note in folder.note


def test_a_limit_is_spread_over_the_folder(tmp_path):
    folder = open_folder(folders(tmp_path, *map(str, range(8))), Recipe(), limit=4)
    assert [label for _, label in folder.samples] == [0, 2, 4, 6]
    assert "4 of 8 images" in folder.note


# --- what is wrong


def test_a_folder_that_is_none(tmp_path, resnet18):
    cfg = config("resnet/resnet18.py", resnet18)
    with pytest.raises(InputError, match="not a folder with a folder of images"):
        predict(cfg, tmp_path / "missing")
    with pytest.raises(InputError, match="not a folder with a folder of images"):
        predict(cfg, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="not a folder with a folder of images"):
        predict(cfg, tmp_path)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_is_broken_is_named(tmp_path, resnet18, workers):
    folders(tmp_path, "0")
    content = (tmp_path / "0" / "a.png").read_bytes()
    (tmp_path / "0" / "b.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"b\.png' can't be read"):
        evaluate(config("resnet/resnet18.py", resnet18), tmp_path, workers=workers)


def test_a_class_that_the_classifier_has_not(tmp_path, resnet18):
    with pytest.raises(InputError, match="has a class 1000, the classifier has 1000: 0 to 999"):
        predict(config("resnet/resnet18.py", resnet18), folders(tmp_path, "1000"))


def test_a_folder_that_the_list_has_not(tmp_path):
    with pytest.raises(InputError, match=r"--classes has no folder 'catt'. Did you mean 'cat'"):
        open_folder(folders(tmp_path, "catt"), Recipe(), ["cat", "dog"])


def test_weights_without_a_classifier_are_refused(data, tmp_path):
    state = torchvision.models.resnet18(weights=None).state_dict()
    torch.save({key: value for key, value in state.items() if not key.startswith("fc.")}, tmp_path / "headless.pth")
    with pytest.raises(CheckpointMatchError, match=r"linear\.weight"):
        predict(config("resnet/resnet18.py", tmp_path / "headless.pth"), data)


def test_numbers_and_models_that_are_not_possible(data, resnet18):
    cfg = config("resnet/resnet18.py", resnet18)
    for kwargs in ({"batch_size": 0}, {"limit": 0}):
        with pytest.raises(ArgumentError, match="at least 1"):
            predict(cfg, data, **kwargs)
    with pytest.raises(ArgumentError, match="workers=-1"):
        evaluate(cfg, data, workers=-1)
    cfg.model.backbone = {"_target_": "torch.nn.Identity"}
    with pytest.raises(ArgumentError, match="Identity, which has no classifier"):
        predict(cfg, data)


# --- the command


def run(capsys, *argv):
    status = main(["evaluate", *map(str, argv)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_command_prints_what_it_did(data, files, capsys, tmp_path):
    path = files(torchvision.models.resnet18(weights=None), "resnet18-f37072fd.pth")
    arguments = ["resnet/resnet18.py", "--data", data, f"train.init_checkpoint={path}", "--device", "cpu"]
    status, out, _ = run(capsys, *arguments, "--workers", 0, "--predictions", tmp_path / "out.csv")
    assert status == 0
    lines = out.splitlines()
    assert lines[0] == "images: center 256 -> 224, bilinear (as torchvision://resnet18-v1)"
    assert lines[-2].startswith("top-1") and lines[-2].endswith("(published: 69.758 %)")
    assert lines[-1].startswith("top-5")
    assert max(map(len, lines)) <= 80
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["label"]) for row in rows] == LABELS
    assert all(len(row["top5"].split()) == 5 for row in rows)
    status, out, _ = run(capsys, *arguments, "--json", "--limit", 3, "--batch-size", 2, "--resize", 40, "--crop", 32)
    content = json.loads(out)
    assert (content["images"], content["published_top1"]) == (3, 69.758)
    assert content["recipe"] == "center 40 -> 32, bilinear"


def test_accuracies_are_counted(tmp_path, files, capsys):
    """Folders called after what the network sees in their image: all right; then all a place too far."""
    path = files(torchvision.models.resnet18(weights=None), "plain2.pth")
    cfg = config("resnet/resnet18.py", path)
    for seed in range(3):
        (tmp_path / "0").mkdir(exist_ok=True)
        photo(60, 80, seed).save(tmp_path / "0" / f"{seed}.png")
    predictions, _ = predict(cfg, tmp_path, recipe=SMALL)
    for rank, expected in ((0, (100.0, 100.0)), (4, (0.0, 100.0)), (None, (0.0, 0.0))):
        root = tmp_path / f"rank{rank}"
        for item in predictions:
            unseen = next(index for index in range(1000) if index not in item.top)
            folder = root / str(unseen if rank is None else item.top[rank])
            folder.mkdir(parents=True, exist_ok=True)
            (folder / Path(item.path).name).write_bytes(Path(item.path).read_bytes())
        _, result = predict(cfg, root, recipe=SMALL)
        assert (result.to_dict()["top1"], result.to_dict()["top5"]) == expected


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--data", "no/such/folder"], 1, "'no/such/folder' is not a folder"),
        (["--data", ".", "--classes", "missing.txt"], 1, "--classes 'missing.txt' can't be read"),
        (["--data", ".", "--predictions", "no/such/out.csv"], 1, "--predictions 'no/such/out.csv' can't be written"),
        (["--data", ".", "--crop", "0"], 2, "'0' is not a number of pixels"),
        ([], 2, "--data"),
    ],
)
def test_the_command_explains_what_is_wrong(arguments, status, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "resnet/resnet18.py", *arguments)
    assert code == status
    assert said in err
