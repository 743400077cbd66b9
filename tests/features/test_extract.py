"""Many images: what is written is what a plain loop gives, each image once, whatever is broken or called alike."""

import json
import shutil
import stat
import sys

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from safetensors import safe_open
from torch.utils.data import DataLoader

from detrex_backbones import FeatureExtractor
from detrex_backbones.cli import main
from detrex_backbones.cli.features import split_words
from detrex_backbones.errors import ArgumentError, ConfigTypeError, DetrexBackbonesError, InputError
from detrex_backbones.features import ImageFeatures, extract_features, find_images, open_features
from detrex_backbones.features.extract import _alone
from detrex_backbones.features.reading import read_tensor
from detrex_backbones.features.runner import MapRunner
from detrex_backbones.features.shards import list_shards
from tests.checkpoint.server import Server, body


def agree(found, wanted):
    return torch.allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("workers", [0, 2])
def test_maps_are_those_of_one_image_at_a_time(photos, config, reference, tmp_path, workers):
    result = extract_features(config, [photos], tmp_path, batch_size=3, workers=workers, shard_images=4)
    assert (result.images, result.before, result.written, result.broken) == (10, 0, 10, {})
    features = open_features(tmp_path)
    assert sorted(features) == sorted(reference) and len(features.shards) == 3
    for name, maps in reference.items():
        assert set(features[name]) == set(maps)
        assert all(agree(features[name][key], value) for key, value in maps.items())
    assert features.size("dogs/0.png") == (64, 96)


@pytest.mark.parametrize("file_format", ["safetensors", "parquet"])
def test_vectors_are_the_means(photos, config, reference, tmp_path, file_format):
    if file_format == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    options = {"pool": True, "maps": ["res3", "res5"], "batch_size": 4, "workers": 0, "file_format": file_format}
    extract_features(config, [photos], tmp_path, shard_images=6, **options)
    features = open_features(tmp_path)
    names, vectors = features.vectors("res5")
    assert sorted(names) == sorted(reference) and vectors.shape == (10, 512)
    for name, vector in zip(names, vectors, strict=True):
        assert agree(vector, reference[name]["res5"].mean(dim=(1, 2)))
        assert torch.equal(features[name]["res5"], vector)
        assert agree(features[name]["res3"], reference[name]["res3"].mean(dim=(1, 2)))
    with pytest.raises(InputError, match="no vectors 'res4'"):
        features.vectors("res4")


def test_an_interruption_keeps_what_is_finished(photos, config, reference, tmp_path, monkeypatch):
    options = {"batch_size": 2, "workers": 0}
    run, batches = MapRunner.run, []

    def interrupted(self, *arguments):
        batches.append(arguments)
        if len(batches) == 3:
            raise KeyboardInterrupt
        return run(self, *arguments)

    monkeypatch.setattr(MapRunner, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract_features(config, [photos], tmp_path, **options)
    assert len(open_features(tmp_path)) == 4
    result = extract_features(config, [photos], tmp_path, **options)
    assert (result.before, result.written) == (4, 6)
    assert sum(map(len, list_shards(tmp_path).values())) == 10 and sorted(open_features(tmp_path)) == sorted(reference)


def test_parquet_without_pyarrow_is_an_error_before_the_work(photos, config, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr(MapRunner, "run", lambda *_: pytest.fail("ran"))
    with pytest.raises(InputError, match=r"pip install 'detrex-backbones\[parquet\]'"):
        extract_features(config, [photos], tmp_path / "out", pool=True, workers=0, file_format="parquet")
    assert not (tmp_path / "out").exists()


class Padded(FeatureExtractor):
    """Every image is padded to multiples of 64."""

    def _padded_size(self, height, width):
        return tuple(-(-side // 64) * 64 for side in (height, width))


def test_what_is_padded_is_cut_off(photos, config, tmp_path):
    padded = config.copy()
    padded.model._target_ = Padded
    extract_features(padded, [photos], tmp_path / "maps", batch_size=4, workers=0)
    extract_features(padded, [photos], tmp_path / "vectors", batch_size=4, workers=0, pool=True)
    maps, vectors = open_features(tmp_path / "maps"), open_features(tmp_path / "vectors")
    for name in maps:
        height, width = maps.size(name)
        assert maps[name]["res4"].shape == (256, -(-height // 16), -(-width // 16))
        assert agree(vectors[name]["res4"], maps[name]["res4"].mean(dim=(1, 2)))


def test_files_say_what_they_are_of(photos, config, tmp_path):
    extract_features(config, [photos / "cats"], tmp_path, workers=0, pool=True, dtype="bfloat16", resize=(32, 48))
    (shard,) = tmp_path.glob("part-*")
    with safe_open(shard, framework="pt") as opened:
        said = opened.metadata()
        assert opened.get_tensor("res2").dtype == torch.bfloat16
    about = open_features(tmp_path).about
    assert said["weights"] == about["weights"] and about["weights"].startswith("sha256:")
    assert json.loads(said["preprocessing"])["pixel_mean"] == pytest.approx([123.675, 116.28, 103.53])
    assert "depth: 18" in said["config"] and json.loads(said["resize"]) == [32, 48]
    assert [entry[1:3] for entry in json.loads(said["images"])] == [[32, 48]] * 5
    assert stat.S_IMODE(shard.stat().st_mode) == stat.S_IMODE((tmp_path / "features.json").stat().st_mode) == 0o644


def test_the_file_of_one_photo_says_the_same(photos, config, tmp_path, capsys):
    photo = photos / "cats" / "0.png"
    extract_features(config, [photo], tmp_path / "many", workers=0, maps=["res3", "res4"])
    argv = ["features", "resnet/resnet18", f"train.init_checkpoint={config.train.init_checkpoint}", "train.device=cpu"]
    options = ["--no-picture", "--maps", "res3,res4", "--output", str(tmp_path / "one")]
    assert main([*argv, "--image", str(photo), *options]) == 0
    said = []
    for file in (next((tmp_path / "many").glob("part-*")), tmp_path / "one" / "0_features.safetensors"):
        with safe_open(file, framework="pt") as opened:
            said.append(opened.metadata())
    assert said[0] == said[1] and json.loads(said[1]["images"])[0][0] == "0.png"


def test_an_image_is_fetched_from_its_url(photos, config, reference, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DETREX_BACKBONES_CACHE", str(tmp_path / "cache"))
    server = Server()
    content = (photos / "dogs" / "0.png").read_bytes()
    server.answers |= {"/a/0.png": body(content, Content_Type="image/png"), "/a/1.png": body(b"<html>gone</html>")}
    (tmp_path / "list.txt").write_text((photos / "dogs" / "1.png").as_uri())
    sources = [f"{server.url}/a/0.png", f"{server.url}/a/1.png", str(tmp_path / "list.txt")]
    result = extract_features(config, [*sources, (photos / "cats" / "0.png").as_uri()], tmp_path / "out", workers=0)
    assert "of a web page were received" in result.broken["127.0.0.1/a/1.png"] and result.written == 3
    features = open_features(tmp_path / "out")
    assert agree(features["127.0.0.1/a/0.png"]["res5"], reference["dogs/0.png"]["res5"])
    assert agree(features["0.png"]["res5"], reference["cats/0.png"]["res5"])
    for url in (f"{server.url}/a/0.png", (photos / "dogs" / "0.png").as_uri()):
        argv = ["features", "resnet/resnet18", "--image", url, "--no-picture", "--output", str(tmp_path)]
        assert main(argv) == 0 and (tmp_path / "0_features.safetensors").exists()
        (tmp_path / "0_features.safetensors").unlink()
    server.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--draw", "similarity=97,3"], "whose width is 96 and whose height is 64"),
        (["--workers", "-1"], "workers=-1"),
        (["--dtype", "float31"], "'float32'"),
        (["--batch-size", "0"], "batch_size=0"),
    ],
)
def test_what_can_not_be_done_is_refused_before_the_work(photos, tmp_path, monkeypatch, capsys, options, said):
    monkeypatch.setattr("detrex_backbones.zoo.build_for_maps", lambda *_: pytest.fail("built"))
    monkeypatch.setattr("detrex_backbones.features.extract.build_for_maps", lambda *_: pytest.fail("built"))
    photo = str(photos / "dogs" / "0.png")
    for image in ([photo], ["--image", photo]) if "--draw" in options else ([photo],):
        argv = ["features", "resnet/resnet18", *image, "--output", str(tmp_path / "out"), *options]
        assert main(argv) == 1 and said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("resize", "size"), [(32, (32, 48)), ((40, 24), (40, 24))])
def test_resize_is_pillows_antialiased_one(photos, resize, size):
    found = read_tensor(str(photos / "dogs" / "0.png"), resize)
    with Image.open(photos / "dogs" / "0.png") as image:
        wanted = np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))
    assert found.dtype == torch.uint8 and tuple(found.shape) == (3, *size)
    assert np.abs(found.permute(1, 2, 0).numpy().astype(int) - wanted).max() <= 1


def test_a_broken_image_is_told_and_the_others_are_written(photos, config, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    (folder / "cats" / "cut.png").write_bytes((folder / "cats" / "0.png").read_bytes()[:200])
    (folder / "empty.jpg").touch()
    result = extract_features(config, [folder], tmp_path / "out", workers=0, pool=True)
    assert result.written == 10 and set(result.broken) == {"cats/cut.png", "empty.jpg"}
    again = extract_features(config, [folder], tmp_path / "out", workers=0, pool=True)
    assert (again.written, again.before, set(again.broken)) == (0, 10, set(result.broken))
    with pytest.raises(InputError, match="none of 1 image can be read"):
        extract_features(config, [folder / "empty.jpg"], tmp_path / "none", workers=0)


def test_sources(photos, tmp_path, monkeypatch):
    def names(*sources):
        return [image.name for image in find_images(sources)]

    assert names(photos)[:2] == ["cats/0.png", "cats/1.png"] and len(names(photos)) == 10
    assert names(photos / "cats" / "0.png", photos / "cats" / "1.png") == ["0.png", "1.png"]
    assert names(f"{photos}/**/0.png") == ["cats/0.png", "dogs/0.png"]
    assert len(names(photos, photos / "cats")) == 10  # each once
    monkeypatch.chdir(photos)
    (tmp_path / "list.txt").write_text(f"{photos}/cats/0.png\n\nhttps://example.org/a/b.jpg\n")
    assert names(tmp_path / "list.txt") == [f"{photos}/cats/0.png".lstrip("/"), "example.org/a/b.jpg"]
    urls = ["https://example.org/i?id=1", "https://example.org/i?id=2"]
    assert names(*urls) == urls and names(urls[0]) == ["example.org/i"]
    for source, message in (
        ("cat", "'cat' does not exist. Did you mean 'cats'?"),
        ("*.gif", "no file matches"),
        (tmp_path, "holds no images"),
    ):
        with pytest.raises(InputError, match=message.replace("?", "[?]").replace("*", "[*]")):
            find_images([source])


def test_images_that_are_called_alike_are_told_apart(photos, config, reference, tmp_path):
    both = [image.name for image in find_images([photos / "cats", photos / "dogs"])]
    assert len(set(both)) == 10 and f"{photos}/cats/0.png".lstrip("/") in both
    out = tmp_path / "out"  # also where they come in two runs
    extract_features(config, [photos / "cats"], out, workers=0, pool=True)
    second = extract_features(config, [photos / "dogs"], out, workers=0, pool=True)
    assert second.written == 5
    features = open_features(out)
    assert agree(features["0.png"]["res4"], reference["cats/0.png"]["res4"].mean(dim=(1, 2)))
    other = features[f"{photos}/dogs/0.png".lstrip("/")]
    assert agree(other["res4"], reference["dogs/0.png"]["res4"].mean(dim=(1, 2)))


def test_features_made_otherwise_are_not_mixed(photos, config, tmp_path):
    extract_features(config, [photos / "cats"], tmp_path, workers=0, pool=True)
    before = sorted((path.name, path.stat().st_mtime_ns) for path in tmp_path.glob("[!.]*"))
    changed = config.copy()
    changed.model.pixel_std = [1, 1, 1]
    with pytest.raises(InputError, match="differ in config, preprocessing"):
        extract_features(changed, [photos], tmp_path, workers=0, pool=True)
    random = config.copy()
    random.train.init_checkpoint = ""
    with pytest.raises(InputError, match="differ in checkpoint, weights"):
        extract_features(random, [photos], tmp_path, workers=0, pool=True)
    with pytest.raises(InputError, match="differ in pool"):
        extract_features(config, [photos], tmp_path, workers=0)
    assert before == sorted((path.name, path.stat().st_mtime_ns) for path in tmp_path.glob("[!.]*"))


def test_two_runs_at_once_are_refused(photos, config, tmp_path):
    with _alone(tmp_path, 0), pytest.raises(DetrexBackbonesError, match="another run is writing"):
        extract_features(config, [photos], tmp_path, workers=0)


def test_a_data_loader_reads_each_once(photos, config, reference, tmp_path):
    extract_features(config, [photos], tmp_path, workers=0, maps=["res4"], shard_images=3)
    loader = DataLoader(open_features(tmp_path).dataset(), batch_size=None, num_workers=2)
    found = dict(loader)
    assert sorted(found) == sorted(reference)
    assert all(agree(maps["res4"], reference[name]["res4"]) for name, maps in found.items())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 0}, ArgumentError, "batch_size=0"),
        ({"maps": ["res6"]}, ArgumentError, "there is no 'res6'"),
        ({"dtype": "float23"}, ArgumentError, "Did you mean 'float32'"),
        ({"file_format": "parquet"}, ArgumentError, "Parquet is for vectors"),
        ({"file_format": "parket", "pool": True}, ArgumentError, "Did you mean 'parquet'"),
        ({"resize": 0}, ArgumentError, "resize=0"),
        ({"workers": -1}, ArgumentError, "workers=-1"),
    ],
)
def test_wrong_arguments(photos, config, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        extract_features(config, [photos], tmp_path / "out", **options)
    assert not list(tmp_path.rglob("part-*"))


def test_a_model_that_takes_no_images_is_refused(photos, config, tmp_path):
    bare = config.copy()
    bare.model = bare.model.backbone
    bare.train.init_checkpoint = ""
    with pytest.raises(ConfigTypeError, match="model is a ResNet"):
        extract_features(bare, [photos], tmp_path)


def test_workers_without_a_checkpoint_have_the_same_weights(photos, reference):
    files = {"bytes": [(photos / min(reference)).read_bytes()]}
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(ImageFeatures("resnet/resnet18", maps=["res5"])(files)["res5"])
        assert torch.initial_seed() == seed
    assert np.isfinite(found[0]).all() and np.array_equal(*found)


def test_on_ray_the_same_vectors_come_out(photos, config, reference):
    worker = ImageFeatures(config, maps=["res5"])
    names = sorted(reference)
    contents = [*[(photos / name).read_bytes() for name in names], b"no image"]
    batch = {"bytes": np.array(contents, dtype=object), "path": np.array([*names, "broken"])}
    result = worker(batch)
    assert set(result) == {"path", "res5", "error"} and result["res5"].shape == (11, 512)
    for row, name in enumerate(names):
        assert agree(torch.from_numpy(result["res5"][row]), reference[name]["res5"].mean(dim=(1, 2)))
    assert np.isnan(result["res5"][10]).all() and "can't be read as an image" in result["error"][10]
    assert set(result["error"][:10]) == {""}


def test_words_are_paths_or_overrides(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b=c.jpg").touch()
    words = ["a.jpg", "model.x=1", "+model.y=a/b.jpg", "~model.z", "b=c.jpg", "dir/a=b.jpg", "model.a[0].b=2"]
    assert split_words(words) == (
        ["a.jpg", "b=c.jpg", "dir/a=b.jpg"],
        ["model.x=1", "+model.y=a/b.jpg", "~model.z", "model.a[0].b=2"],
    )


def test_the_command(photos, config, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    checkpoint = f"train.init_checkpoint={config.train.init_checkpoint}"
    argv = ["features", "resnet/resnet18", str(photos), checkpoint, "--output", str(tmp_path), "--device", "cpu"]
    argv += ["--pool", "--workers", "0"]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "100 of 100 tensors" in out and "wrote the features of 10 of 10 images: " in out
    assert main([*argv, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["images"], content["before"], content["written"], content["broken"]) == (10, 10, 0, {})
    for wrong in (["--image", "a.jpg", str(photos)], ["--pool"]):
        assert main(["features", "resnet/resnet18", *wrong]) == 2
        assert "PATHS" in capsys.readouterr().err
    assert sys.stdout is not None


def test_a_contact_sheet_says_how_many_of_the_images_it_has(photos, tmp_path, capsys, monkeypatch):
    captions = []
    monkeypatch.setattr("detrex_backbones.cli.feature_files.SHEET", 2)
    monkeypatch.setattr("detrex_backbones.view.draw_sheet", lambda *args, **more: captions.append(more) or Figure())
    argv = ["features", "resnet/resnet18", str(photos / "cats"), "--output", str(tmp_path), "--workers", "0"]
    argv += ["--maps", "res5", "train.device=cpu"]
    assert main(argv) == 0
    assert f"wrote {tmp_path}/contact_sheet.png (2 of 5 images)" in capsys.readouterr().out
    assert [more["caption"] for more in captions] == ["2 of 5 images"]
