"""From a name to a file: the catalogue's names, URLs, paths, and the Hugging Face hub by its own client."""

import dataclasses
import functools
import hashlib
import json
import logging
import socket
import sys
from pathlib import Path

import huggingface_hub.constants
import huggingface_hub.utils._http
import pytest
import safetensors.torch
import torch
import torchvision

from detrex_backbones import BasicStem, ResNet, load_checkpoint, make_stage
from detrex_backbones.checkpoint.fetch import find_known, find_weight, local_file, resolve
from detrex_backbones.checkpoint.fetch.catalog import lookup
from detrex_backbones.checkpoint.files import read_checkpoint
from detrex_backbones.errors import CheckpointFileError

from .server import Server, body, status


@pytest.fixture
def server():
    made = Server()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DETREX_BACKBONES_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def random_resnet18() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return torchvision.models.resnet18(weights=None).state_dict()


def our_resnet18() -> ResNet:
    return ResNet(BasicStem(), make_stage(depth=18), num_classes=1000, out_features=["linear"])


def test_a_path_stays_as_it_is(tmp_path):
    assert resolve(tmp_path / "a.pth") == tmp_path / "a.pth"
    assert resolve("no/such/file.pth") == Path("no/such/file.pth")
    assert resolve((tmp_path / "a b.pth").as_uri()) == tmp_path / "a b.pth"
    assert resolve("C:\\weights\\a.pth") == Path("C:\\weights\\a.pth")


HEURISTICS = "?matching_heuristics=True"


def test_detectron2s_matching_heuristics_are_what_is_done_anyway(tmp_path, server):
    path = tmp_path / "a.pth"
    torch.save(random_resnet18(), path)
    server.answers["/b.pth?key=1"] = server.answers["/b.pth"] = body(path.read_bytes())
    for name in (str(path), path, path.as_uri(), f"{server.url}/b.pth", f"{server.url}/b.pth?key=1"):
        found = resolve(f"{name}{'&' if '?' in str(name) else '?'}{HEURISTICS[1:]}")
        assert found.read_bytes() == path.read_bytes()
    assert resolve(f"{server.url}/b.pth{HEURISTICS}&key=1") == resolve(f"{server.url}/b.pth?key=1")
    assert resolve(Path(f"{path}{HEURISTICS}")) == path
    assert load_checkpoint(our_resnet18(), f"{path}{HEURISTICS}").path == str(path)
    assert resolve(f"no/such/file.pth{HEURISTICS}") == Path("no/such/file.pth")
    assert find_weight(f"torchvision://resnet50-v2{HEURISTICS}").name == "torchvision://resnet50-v2"


def test_a_question_mark_in_the_name_of_a_file(tmp_path):
    path = tmp_path / "a?b=1.pth"
    torch.save(random_resnet18(), path)
    assert resolve(path) == path
    assert load_checkpoint(our_resnet18(), f"{path}{HEURISTICS.replace('?', '&')}").coverage == 1


@pytest.mark.parametrize("option", ["other=1", "matching_heuristics=True&other=1", "other"])
def test_other_options_of_local_files_are_refused(tmp_path, option):
    torch.save(random_resnet18(), tmp_path / "a.pth")
    for name in (f"{tmp_path / 'a.pth'}?{option}", f"{(tmp_path / 'a.pth').as_uri()}?{option}"):
        with pytest.raises(CheckpointFileError, match=r"other.*but matching_heuristics=True"):
            resolve(name)


@pytest.mark.parametrize("value", ["False", "0", ""])
def test_names_that_are_not_to_be_recognised_are_asked_for_otherwise(tmp_path, value):
    with pytest.raises(CheckpointFileError, match="taken as they are stored with source='as stored'"):
        resolve(f"{tmp_path / 'a.pth'}?matching_heuristics={value}")


def test_a_name_is_downloaded_checked_and_loaded(server, tmp_path, monkeypatch):
    """torchvision's own metadata, its host replaced by one that is here."""
    torch.save(random_resnet18(), tmp_path / "file.pth")
    content = (tmp_path / "file.pth").read_bytes()
    file = f"/resnet18-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    server.answers[file] = body(content)
    weight = dataclasses.replace(
        find_weight("torchvision://resnet18-v1"), url=server.url + file, hash=f"sha256:{file[10:18]}"
    )
    monkeypatch.setitem(lookup.SOURCES, "torchvision://", lookup.Source(lambda: ["resnet18-v1"], lambda name: weight))
    model = our_resnet18()
    report = load_checkpoint(model, "torchvision://resnet18-v1")
    assert report.coverage == 1.0
    assert torch.equal(model.linear.bias, random_resnet18()["fc.bias"])
    server.close()
    load_checkpoint(our_resnet18(), "torchvision://resnet18-v1")  # from the cache


def test_a_url_is_loaded_and_the_hash_in_its_name_is_checked(server, tmp_path):
    torch.save(random_resnet18(), tmp_path / "file.pth")
    content = (tmp_path / "file.pth").read_bytes()
    good = f"/net-{hashlib.md5(content).hexdigest()[:8]}.pth"
    server.answers[good] = server.answers["/net-abcdef12.pth"] = body(content)
    if any(character in "abcdef" for character in good[5:13]):  # eight decimal digits would be taken for a date
        assert load_checkpoint(our_resnet18(), server.url + good).coverage == 1.0
    with pytest.raises(CheckpointFileError, match="expected abcdef12"):
        load_checkpoint(our_resnet18(), f"{server.url}/net-abcdef12.pth")


def test_a_known_url_is_checked_by_the_table(server, monkeypatch):
    url = f"{server.url}/plain.pkl"
    server.answers["/plain.pkl"] = body(b"\x80\x04}.")
    row = dataclasses.replace(find_weight("moco://v2_800ep"), url=url)
    monkeypatch.setattr(lookup, "_tables", lambda: (row,))
    with pytest.raises(CheckpointFileError, match="expected a04e12f8"):
        resolve(url)


def test_an_unlisted_path_of_detectron2_that_is_missing_suggests_one(monkeypatch):
    def missing(url, hash):
        raise CheckpointFileError(f"can't download {url}: the server says 404 Not Found")

    monkeypatch.setattr(local_file, "download", missing)
    with pytest.raises(CheckpointFileError, match=r"404.*Did you mean 'ImageNetPretrained/MSRA/R-50.pkl'"):
        resolve("detectron2://ImageNetPretrained/MSRA/R50.pkl")


# --- the Hugging Face hub, by its own client, on a server that is here

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(server, tmp_path, monkeypatch):
    """The hub's client, sent to our server and to an empty cache."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("detrex_backbones.checkpoint.fetch.hub.getproxies", lambda: {"https": "one that knows the hub"})
    original = huggingface_hub.hf_hub_download
    monkeypatch.setattr(
        huggingface_hub,
        "hf_hub_download",
        functools.partial(original, endpoint=server.url, cache_dir=tmp_path / "hub", token=False),
    )
    return server


def hub_file(content: bytes):
    return body(content, X_Repo_Commit=COMMIT, ETag=f'"{hashlib.sha256(content).hexdigest()}"')


def hub_status(code: int, error: str):
    return status(code, X_Error_Code=error)


@pytest.mark.parametrize("name", ["hf-hub:org/net", "timm://resnet50.a1_in1k"])
def test_without_a_network_the_hub_is_one_error_at_once(hub, monkeypatch, caplog, name):
    """The client would ask again five times, and say so each time."""

    def nowhere(*args):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("detrex_backbones.checkpoint.fetch.hub.getproxies", dict)
    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    monkeypatch.setattr(huggingface_hub.utils._http.time, "sleep", lambda seconds: pytest.fail("asked again"))
    with caplog.at_level(logging.WARNING), pytest.raises(CheckpointFileError, match="Name or service not known"):
        resolve(name)
    assert not caplog.records
    assert not hub.requests


def test_what_the_hubs_client_says_of_each_attempt_is_not_passed_on(hub, monkeypatch, caplog):
    def told(*args, local_files_only=False, **kwargs):
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not here")
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s")
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", told)
    with caplog.at_level(logging.WARNING), pytest.raises(CheckpointFileError, match="no route"):
        resolve("hf-hub:org/net:a.pth")
    assert not caplog.records


def test_the_hub_gives_the_first_file_that_is_there(hub):
    hub.answers["/org/net/resolve/main/model.safetensors"] = hub_status(404, "EntryNotFound")
    hub.answers["/org/net/resolve/main/pytorch_model.bin"] = hub_file(b"bin")
    assert resolve("hf-hub:org/net").read_bytes() == b"bin"
    hub.answers["/org/net/resolve/v2/other.pth"] = hub_file(b"other")
    assert resolve("hf-hub:org/net@v2:other.pth").read_bytes() == b"other"


def several(
    hub, name: str, head: str = "main", names=("conv.weight", "conv.bias"), folder: str = ""
) -> dict[str, bytes]:
    """A file of a repository in two pieces, and the index of them: name -> content, as the server has it."""
    stem, _, ending = name.rpartition(".")
    places = {key: f"{stem}-0000{at}-of-00002.{ending}" for at, key in enumerate(names, 1)}
    files = {f"{name}.index.json": json.dumps({"weight_map": places}).encode()}
    for key, place in places.items():
        files[place] = safetensors.torch.save({key: torch.ones(2)})
    for revision in (head, COMMIT):
        for file, content in files.items():
            hub.answers[f"/org/net/resolve/{revision}/{folder}{file}"] = hub_file(content)
    return files


@pytest.mark.parametrize(
    ("given", "folder"),
    [
        ("hf-hub:org/net", ""),
        ("hf-hub:org/net:pytorch_model.safetensors.index.json", ""),
        ("hf-hub:org/net:pytorch_model-00002-of-00002.safetensors", ""),
        ("hf-hub:org/net:unet/pytorch_model.safetensors.index.json", "unet/"),
        ("hf-hub:org/net@v2:unet/pytorch_model-00001-of-00002.safetensors", "unet/"),
    ],
)
def test_all_pieces_are_fetched_of_one_commit(hub, given, folder):
    name = "model.safetensors" if given == "hf-hub:org/net" else "pytorch_model.safetensors"
    several(hub, name, "v2" if "@v2" in given else "main", folder=folder)
    path = resolve(given)
    assert {*read_checkpoint(path).tensors} == {"conv.weight", "conv.bias"}
    wanted = [request.split("/resolve/")[1] for request in hub.requests if "-of-" in request]
    assert {f"{COMMIT}/{folder}{name[:-12]}-0000{at}-of-00002.safetensors" for at in (1, 2)} - {*wanted} <= {
        f"{COMMIT}/{given.rpartition(':')[2]}"  # the one that was named is there already
    }
    hub.close()  # no network: the hub's cache serves
    assert resolve(given) == path


@pytest.mark.parametrize("file", ["../../secrets", "/etc/passwd", "sub/piece.safetensors"])
def test_an_index_of_the_hub_fetches_nothing_from_elsewhere(hub, file):
    hub.answers["/org/net/resolve/main/model.safetensors.index.json"] = hub_file(
        json.dumps({"weight_map": {"conv.weight": file}}).encode()
    )
    with pytest.raises(CheckpointFileError, match="it names a file elsewhere"):
        resolve("hf-hub:org/net")
    assert not [request for request in hub.requests if file.rpartition("/")[2] in request]


def test_a_piece_that_the_hub_does_not_have_is_named(hub):
    files = several(hub, "model.safetensors")
    gone = max(files)
    hub.answers |= {
        f"/org/net/resolve/{COMMIT}/{name}": hub_status(404, "EntryNotFound") for name in files if name != gone
    }
    with pytest.raises(CheckpointFileError, match=r"has no file model-0000\d-of-00002.safetensors"):
        resolve("hf-hub:org/net")


def test_timms_names_come_from_the_hub_and_are_known_again(hub, monkeypatch):
    hub.answers["/timm/resnet50d.gluon_in1k/resolve/main/model.safetensors"] = hub_file(b"weights")
    path = resolve("timm://resnet50d.gluon_in1k")
    assert path.read_bytes() == b"weights"
    assert find_known(path) == find_weight("timm://resnet50d.gluon_in1k")
    hub.close()  # no network: the hub's cache serves
    assert resolve("timm://resnet50d.gluon_in1k") == path


def test_a_repository_without_weights_or_that_is_missing_is_an_error(hub):
    for file in ("model.safetensors", "pytorch_model.bin"):
        hub.answers[f"/org/net/resolve/main/{file}"] = hub_status(404, "EntryNotFound")
    with pytest.raises(CheckpointFileError, match=r"has no file model.safetensors or pytorch_model.bin"):
        resolve("hf-hub:org/net")
    hub.answers["/org/none/resolve/main/model.safetensors"] = hub_status(404, "RepoNotFound")
    with pytest.raises(CheckpointFileError, match="the hub returned nothing for 'org/none'"):
        resolve("hf-hub:org/none")


def test_a_hub_that_is_out_of_reach_says_what_to_fetch(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.utils._http.time, "sleep", lambda seconds: None)  # the client's own patience
    hub.close()
    with pytest.raises(CheckpointFileError, match=r"can't fetch model.safetensors") as caught:
        resolve("hf-hub:microsoft/resnet-50")
    assert "/microsoft/resnet-50/resolve/main/model.safetensors elsewhere and give the file's path" in str(caught.value)


def test_without_the_client_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointFileError, match="pip install huggingface_hub"):
        resolve("hf-hub:microsoft/resnet-50")
