"""Files of remote storage, against a server that speaks S3 on this machine: moto's."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
import torch
import torchvision

import detrex_backbones
from detrex_backbones import LazyConfig, load_checkpoint, read_checkpoint
from detrex_backbones.cli import main
from detrex_backbones.errors import CheckpointFileError, ConfigImportError, InputError, RemoteError
from detrex_backbones.features import extract_features, open_features
from detrex_backbones.features.shards import list_shards
from detrex_backbones.remote import RemotePath, as_path, local_copy
from tests.features.conftest import config, photos, reference  # noqa: F401

pytest.importorskip("s3fs", reason="s3fs is not installed")
moto = pytest.importorskip("moto.server", reason="moto is not installed")
pytest.importorskip("flask_cors", reason="moto's server is not installed")

OPTIONS = {"pool": True, "maps": ["res3", "res5"], "batch_size": 2, "workers": 0, "shard_images": 2}
URL = "s3://models/nets/r18.pth"


@pytest.fixture(scope="module")
def server():
    made = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    made.start()
    yield "http://{}:{}".format(*made.get_host_and_port())
    made.stop()


@pytest.fixture
def storage(server, monkeypatch, tmp_path):
    """An empty bucket "models" and an empty cache."""
    import s3fs

    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_MAX_ATTEMPTS": "1",
        "DETREX_BACKBONES_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    urlopen(Request(f"{server}/moto-api/reset", method="POST")).close()
    s3fs.S3FileSystem.clear_instance_cache()
    made = s3fs.S3FileSystem()
    made.mkdir("models")
    yield made
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(0)
    return torchvision.models.resnet18().state_dict()


@pytest.fixture
def file(weights, tmp_path):
    torch.save(weights, tmp_path / "r18.pth")
    return tmp_path / "r18.pth"


@pytest.fixture
def transfers(storage, monkeypatch):
    """The objects whose content was asked for."""
    seen, get_file = [], storage.get_file
    monkeypatch.setattr(storage, "get_file", lambda path, *args, **kw: (seen.append(path), get_file(path, *args, **kw)))
    return seen


def test_a_checkpoint_is_the_same_and_fetched_once(storage, file, weights, transfers):
    storage.put_file(str(file), "models/nets/r18.pth")
    model = torchvision.models.resnet18()
    load_checkpoint(model, URL)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert read_checkpoint(URL).tensors.keys() == weights.keys()
    assert transfers == ["models/nets/r18.pth"]


def test_an_object_that_changed_is_fetched_anew(storage, file, weights, transfers):
    storage.put_file(str(file), "models/nets/r18.pth")
    before = local_copy(as_path(URL))
    torch.save({**weights, "fc.bias": weights["fc.bias"] + 1}, file)
    storage.put_file(str(file), "models/nets/r18.pth")
    model = torchvision.models.resnet18()
    load_checkpoint(model, URL)
    assert torch.equal(model.fc.bias, weights["fc.bias"] + 1)
    assert len(transfers) == 2 and before.is_file()  # whoever reads the old one goes on


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (lambda whole: b"<!DOCTYPE html><p>Sign in", "web page"),
        (lambda whole: whole[: len(whole) // 2], "the end of the file is missing"),
        (lambda whole: b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n", "no checkpoint"),
        (lambda whole: b"", "the download is empty"),
    ],
    ids=["page", "cut", "pointer", "empty"],
)
def test_what_is_no_checkpoint_is_refused_and_not_kept(storage, file, tmp_path, content, told):
    storage.pipe_file("models/nets/r18.pth", content(file.read_bytes()))
    with pytest.raises(CheckpointFileError, match=f"'{URL}' can't be read: .*{told}"):
        read_checkpoint(URL)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_the_hash_in_a_name_is_compared(storage, file):
    storage.put_file(str(file), "models/r18-0a1b2c3d.pth")
    with pytest.raises(CheckpointFileError, match=r"it is another file.*expected 0a1b2c3d"):
        read_checkpoint("s3://models/r18-0a1b2c3d.pth")


def test_an_object_that_is_replaced_meanwhile_is_not_kept(storage, file, monkeypatch):
    storage.put_file(str(file), "models/nets/r18.pth")
    get_file = storage.get_file

    def replaced(path, *args, **kw):
        get_file(path, *args, **kw)
        storage.pipe_file(path, b"other")

    monkeypatch.setattr(storage, "get_file", replaced)
    with pytest.raises(CheckpointFileError, match="replaced while it was read"):
        read_checkpoint(URL)


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("s3://models/nets/none.pth", "there is no such file in the bucket 'models'"),
        ("s3://nobody/r18.pth", "there is no bucket 'nobody'"),
        ("s3://models/nets", "it is a folder"),
        ("s3://models/../r18.pth", r"The form is s3://bucket/folder/file"),
    ],
)
def test_what_is_not_there(storage, file, url, told):
    storage.put_file(str(file), "models/nets/r18.pth")
    with pytest.raises(CheckpointFileError, match=told):
        read_checkpoint(url)


def test_credentials(storage, file, monkeypatch, capsys):
    storage.put_file(str(file), "models/nets/r18.pth")
    with monkeypatch.context() as checked:  # from now on the server knows nobody
        checked.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0)
        with pytest.raises(CheckpointFileError, match=r"refuses these credentials \(.*AWS_PROFILE"):
            read_checkpoint(URL)
    type(storage).clear_instance_cache()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert main(["match", "resnet/resnet18", URL]) == 1
    told = capsys.readouterr().err
    assert "no credentials were found" in told and "Traceback" not in told


def test_without_a_network_the_last_copy_is_taken(storage, file, weights, monkeypatch, caplog):
    storage.put_file(str(file), "models/nets/r18.pth")
    read_checkpoint(URL)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    type(storage).clear_instance_cache()
    assert read_checkpoint(URL).tensors.keys() == weights.keys()
    assert "The copy that was fetched last is taken" in caplog.text
    with pytest.raises(CheckpointFileError, match="no connection"):
        read_checkpoint("s3://models/nets/other.pth")


def test_a_driver_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(CheckpointFileError, match=r"gs:// needs gcsfs, .*: pip install gcsfs\.$"):
        read_checkpoint("gs://models/r18.pth")


def test_models_of_the_hub_come_by_its_own_cache(monkeypatch, file):
    asked = []
    monkeypatch.setattr("detrex_backbones.checkpoint.fetch.hub.from_hub", lambda *given: (asked.append(given), file)[1])
    read_checkpoint("hf://org/name@refs%2Fpr%2F1/nets/r18.pth")
    read_checkpoint("hf://org/name")
    assert asked == [("org/name", "refs/pr/1", "nets/r18.pth"), ("org/name", None, None)]
    assert RemotePath("hf", as_path("hf://datasets/org/name/a/b.pth").path).bucket == "datasets/org/name"


@pytest.mark.parametrize(("name", "text"), [("a.py", "model = dict(depth=18)\n"), ("a.yaml", "model: {depth: 18}\n")])
def test_a_config_is_read_as_it_is_now(storage, name, text):
    storage.pipe_file(f"models/{name}", text.encode())
    assert LazyConfig.load(f"s3://models/{name}").model.depth == 18
    storage.pipe_file(f"models/{name}", text.replace("18", "50").encode())
    assert LazyConfig.load(f"s3://models/{name}", "model") == {"depth": 50}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = 1\nfrom .common import model\n", "line 2, imports a file beside it"),
        ("<html>", "web page"),
        ("version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
    ],
)
def test_configs_that_can_not_be_had(storage, text, told):
    storage.pipe_file("models/a.py", text.encode())
    with pytest.raises(ConfigImportError, match=told):
        LazyConfig.load("s3://models/a.py")


@pytest.mark.slow
def test_commands_write_there(storage, file, tmp_path):
    storage.put_file(str(file), "models/nets/r18.pth")
    assert main(["show", "resnet/resnet18", "--save", "s3://models/out/r18.py"]) == 0
    own = "s3://models/out/r18.py"
    assert main(["match", own, URL, "--html", "s3://models/out/report.html"]) == 0
    assert storage.cat_file("models/out/report.html").startswith(b"<!doctype html>")
    assert main(["convert", URL, "s3://models/out/d2.pkl", "--to", "detectron2"]) == 0
    assert main(["match", own, "s3://models/out/d2.pkl"]) == 0
    weights = f"train.init_checkpoint={URL}"
    assert main(["export", own, "s3://models/out/r18.pt2", "--size", "64x64", "--fixed", weights]) == 0
    local = tmp_path / "r18.pt2"
    storage.get_file("models/out/r18.pt2", str(local))
    assert torch.export.load(local)
    assert main(["features", own, weights, "--output", "s3://models/out/one"]) == 0
    assert len(storage.ls("models/out/one")) == 2


@pytest.mark.parametrize(
    "command", [["show", "resnet/resnet18", "--save"], ["features", "resnet/resnet18", "--output"]]
)
def test_a_bucket_that_is_not_there_is_told_in_a_sentence(storage, capsys, command):
    assert main([*command, "s3://nobody/a.py"]) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert told.count("there is no bucket 'nobody'") == 1 and "Traceback" not in told


def check(folder, reference):  # noqa: F811
    counts = Counter(entry[0] for entries in list_shards(as_path(folder)).values() for entry in entries)
    assert counts == dict.fromkeys(reference, 1)
    features = open_features(folder)
    for name, maps in reference.items():
        for key in OPTIONS["maps"]:
            assert torch.allclose(features[name][key], maps[key].mean(dim=(1, 2)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("file_format", ["safetensors", "parquet"])
def test_features_go_there_and_a_run_goes_on(storage, config, photos, reference, transfers, file_format):  # noqa: F811
    folder = "s3://models/f"
    options = {**OPTIONS, "file_format": file_format}
    assert extract_features(config, [photos], folder, **options).written == 10
    again = extract_features(config, [photos], folder, **options)
    assert (again.before, again.written) == (10, 0)
    assert transfers == []  # what is there is told by the small files alone
    check(folder, reference)
    assert len(transfers) == 5  # each shard once


def test_features_need_a_bucket(storage, config, photos):  # noqa: F811
    with pytest.raises(InputError, match="there is no such file in the bucket"):
        open_features("s3://models/none")
    with pytest.raises(detrex_backbones.errors.DetrexBackbonesError, match="there is no bucket 'nobody'"):
        extract_features(config, [photos], "s3://nobody/f", **OPTIONS)


DIES = """
import os, sys
from detrex_backbones import LazyConfig
from detrex_backbones.remote import RemotePath
from detrex_backbones.features import extract_features

steps, put = iter(range(100)), RemotePath.write_whole
def write_whole(self, write):
    step = next(steps)
    if step == int(sys.argv[4]):
        os._exit(9)
    put(self, write)
RemotePath.write_whole = write_whole
extract_features(LazyConfig.load(sys.argv[1]), [sys.argv[2]], sys.argv[3], pool=True, maps=["res3", "res5"],
                 batch_size=2, workers=0, shard_images=2)
"""


@pytest.mark.slow
def test_a_kill_leaves_whole_shards_alone(storage, config, photos, reference, tmp_path):  # noqa: F811
    """It dies between a shard and its index, and before a shard."""
    LazyConfig.save(config, tmp_path / "config.yaml")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    url = "s3://models/killed"
    for step, shards in ((2, 1), (2, 2)):
        command = [sys.executable, "-c", DIES, str(tmp_path / "config.yaml"), str(photos), url, str(step)]
        assert subprocess.run(command, env=environment, check=False).returncode == 9
        assert len(list_shards(as_path(url))) == shards
    result = extract_features(config, [photos], url, **OPTIONS)
    assert (result.before, result.written) == (4, 6)
    check(url, reference)
    assert json.loads(storage.cat_file("models/killed/features.json"))["pool"] is True


def test_two_runs_of_one_rank_write_over_nothing(storage, config, photos, reference):  # noqa: F811
    """As on two machines, whose locks don't know of each other."""
    extract_features(config, [f"{photos}/cats*/*.png"], "s3://models/f", **OPTIONS)
    names = set(storage.ls("models/f", detail=False))
    storage.mkdir("other")
    extract_features(config, [f"{photos}/dogs*/*.png"], "s3://other/f", **OPTIONS)
    for path in storage.ls("other/f", detail=False):
        if "part-" in path or "index-" in path:
            assert f"models/{path.partition('/')[2]}" not in names
            storage.copy(path, f"models/{path.partition('/')[2]}")
    storage.invalidate_cache()
    features = open_features("s3://models/f")
    assert len(features) == 10
    with pytest.raises(RemoteError, match="no such file"):
        local_copy(as_path("s3://models/f/none"))
    assert Path(features._file(next(iter(features.shards)))).is_file()


def test_images_of_a_bucket(storage, photos, config, reference, tmp_path):  # noqa: F811
    storage.put_file(str(photos / "cats" / "0.png"), "models/cats/0.png")
    result = extract_features(config, ["s3://models/cats/0.png", "s3://models/none.png"], tmp_path, workers=0)
    assert "there is no such file" in result.broken["models/none.png"]
    found = open_features(tmp_path)["models/cats/0.png"]["res5"]
    assert torch.allclose(found, reference["cats/0.png"]["res5"], rtol=1e-4, atol=1e-5)
