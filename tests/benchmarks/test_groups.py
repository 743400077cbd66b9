"""That the groups measure what they say, with and without detectron2; no time is asserted."""

import json
from contextlib import nullcontext

import pytest
import torch
import torchvision
from torch import nn

from benchmarks import __main__ as command
from benchmarks import attention, building, commands, configs, families, features, loading, peers, startup
from benchmarks.measure import Options, Row
from detrex_backbones import instantiate


@pytest.mark.slow
def test_configs_are_measured_without_detectron2(monkeypatch, tmp_path):
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    peers.detectron2_there.cache_clear()
    try:
        monkeypatch.setattr(configs, "SHAPES", [(source, 6, *rest) for source, _, *rest in configs.SHAPES])
        assert command.main(["--only", "configs", "--rounds", "1", "--json", str(tmp_path / "c.json")]) == 0
    finally:
        peers.detectron2_there.cache_clear()
    (run,) = json.loads((tmp_path / "c.json").read_text())
    assert run["machine"]["detectron2"] == "not installed"
    assert len(run["rows"]) == 6
    assert all(row["ours"] > 0 for row in run["rows"])
    assert [Row(**row).result for row in run["rows"][:3:2]] == ["not installed", "not installed"]


def test_both_chains_make_the_same():
    head = configs.HEAD.format(library=configs.LIBRARIES["ours"])
    made = []
    for source in (configs.in_a_loop, configs.one_in_another):
        names: dict = {}
        exec(head + source(4), names)
        made.append(instantiate(names["node"]))
    assert made == [(3, (2, (1, (0, None))))] * 2


def test_imports_are_measured_of_all_that_are_there(monkeypatch):
    asked = {}
    monkeypatch.setattr(startup, "detectron2_there", lambda: False)

    def measured(programs, rounds, printed=False):
        asked.update(programs)
        return {name: [2.0 + 0.1 * (name == "ours")] * rounds.least for name in programs}

    monkeypatch.setattr(startup, "in_processes", measured)
    row = startup._import("import", Options(rounds=2))
    assert list(asked) == ["ours", "torch", "torchvision", "timm"]
    assert (row.met, row.peers["detectron2"], row.rounds) == (True, None, 2)
    monkeypatch.setattr(startup, "EXTRA", 0.05)
    assert startup._import("import", Options()).result == "missed"


def test_both_start_from_the_same_file(tmp_path, monkeypatch):
    monkeypatch.setattr(startup, "CONFIG", startup.CONFIG.replace("depth=101", "depth=50"))  # as good, and smaller
    programs = startup._programs(tmp_path, "pkl")
    lines = [(tmp_path / f"{name}.py").read_text().split("model = ")[1] for name in ("ours", "detectron2")]
    assert lines[0] == lines[1]
    exec(programs["ours"], {})  # asserts that the weights were loaded
    with pytest.raises(AssertionError, match="not loaded"):
        exec(programs["ours"].replace("== 0.5", "== 0.25"), {})


def test_building_is_measured_with_and_without_init(monkeypatch):
    monkeypatch.setattr(building, "detectron2_there", lambda: False)
    monkeypatch.setattr(building, "DETECTOR", "detectors/faster_rcnn_resnet18_fpn.py")
    monkeypatch.setattr(building, "write_weights", lambda folder: write_resnet18(folder))
    monkeypatch.setattr(building, "peak_memory", lambda before, during: float("''" not in during) + 1)
    rows = list(building.rows(Options(rounds=1)))
    assert [(row.failed, row.rounds) for row in rows] == [(False, 1)] * 4
    assert [row.result for row in rows[:2]] == ["not installed"] * 2
    assert rows[2].ratio > 0 and rows[2].peers["no file"] > 0
    assert (rows[3].ours, rows[3].peers, rows[3].met) == (2.0, {"no file": 1.0}, False)
    build = building._builder("detrex_backbones.config", "detrex_backbones")
    torch.manual_seed(0)
    before = torch.get_rng_state()
    names = set(building._without_init(build).state_dict())
    assert torch.equal(torch.get_rng_state(), before)  # nothing was drawn
    assert set(build().state_dict()) == names
    assert not torch.equal(torch.get_rng_state(), before)


def write_resnet18(folder):
    path = f"{folder}/resnet18.pth"
    torch.save(torchvision.models.resnet18().state_dict(), path)
    return path


def test_commands_are_measured_beside_the_import_of_torch(monkeypatch):
    asked = []

    def measured(programs, rounds):
        asked.append(programs["ours"])
        return {"ours": [2.3] * rounds.least, "import torch": [2.0] * rounds.least}

    monkeypatch.setattr(commands, "in_processes", measured)
    rows = list(commands.rows(Options(rounds=2)))
    assert [row.what.split()[1] for row in rows] == ["--help", "list", "weights", "show", "match"]
    assert [row.met for row in rows] == [False, False, False, True, True]
    assert all(words[:3] == list(commands.COMMAND) for words in asked) and asked[-1][-1].endswith(".pth")
    monkeypatch.setattr(commands, "EXTRA", 0.2)
    monkeypatch.setattr(
        commands, "_imported", lambda *given: {"torch": 1, **({} if "-c" in given else {"yaml.a": 0.5})}
    )
    missed = list(commands.rows(Options(rounds=2)))
    assert not any(row.met for row in missed)
    assert "beyond torch takes yaml 500 ms;" in missed[-1].note


def test_a_load_is_measured_beside_floors_that_load_the_same(monkeypatch, tmp_path):
    monkeypatch.setattr(loading, "detectron2_there", lambda: False)
    monkeypatch.setattr(loading, "MANY", (30,))
    monkeypatch.setattr(loading, "CONFIG", "resnet/resnet18.py")
    monkeypatch.setattr(loading, "peak_memory", lambda before, during: 1.0)
    rows = {row.what: row for row in loading.rows(Options(rounds=1))}
    assert not any(row.failed for row in rows.values())
    assert list(rows["R-101 from .pth"].peers) == ["floor", "checked floor"]
    assert "checksums" in rows["R-101 from .pth"].note
    assert rows["R-101 from .pth, beside others"].peers["torch.load"] > 0
    assert rows["30 keys, the whole load of a .pth"].ratio > 0
    assert rows["R-101 from .pkl of protocol 2"].ratio > 0


@pytest.mark.parametrize("kind", loading.FORMATS)
@pytest.mark.parametrize("number", [1.5, torch.nan])
def test_the_checked_floor_reads_what_is_in_the_file(kind, number, tmp_path):
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3))
    model[0].weight.data[0, 0] = number
    path = tmp_path / f"weights.{kind}"
    loading.write_files(model, path)
    targets = model.state_dict()
    wanted = {name: value.clone() for name, value in targets.items()}
    load = loading._checked(loading.FLOORS[path.suffix](path, targets), path, targets)
    for value in targets.values():
        value.zero_()
    with pytest.raises(AssertionError) if number != number else nullcontext():
        load()
    for name, value in wanted.items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=0, equal_nan=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", attention.NETWORKS)
def test_transformers_are_networks_of_the_same_size(name):
    with torch.device("meta"):
        there = [whose for whose in attention.whose_there(name) if whose != "detectron2"]  # its ViT has no meta device
        nets = [attention._network(attention.NETWORKS[name], whose, 512) for whose in there]
    counts = [sum(value.numel() for value in net.parameters()) for net in nets]
    assert max(counts) < 1.02 * min(counts)


@pytest.mark.parametrize("name", families.FAMILIES)
def test_families_are_networks_of_the_same_size(name, monkeypatch):
    monkeypatch.setattr(families, "_detrexs", lambda kind, arguments: None)
    with torch.device("meta"):
        nets = families.networks(families.FAMILIES[name])
    counts = [sum(value.numel() for value in net.parameters()) for net in nets.values() if net is not None]
    assert max(counts) < 1.01 * min(counts)


@pytest.mark.slow
def test_families_are_measured_beside_whoever_is_there(monkeypatch):
    monkeypatch.setattr(families, "_detrexs", lambda kind, arguments: None)
    small = {"ours": ("ConvNeXt", {"depths": (2, 2, 6, 2), "dims": (40, 80, 160, 320)}), "timm": "convnext_atto"}
    monkeypatch.setattr(families, "FAMILIES", {"ConvNeXt": {**small, "size": (32, 32), "target": 1.0}})
    rows = list(families.rows(Options(rounds=1)))
    kinds = ["ConvNeXt inference", "ConvNeXt step", "ConvNeXt tensors at the peak of a step"]
    assert [row.what.split(",")[0] for row in rows] == kinds
    assert not any(row.failed for row in rows)
    assert all(row.peers["detrex"] is None and row.peers["timm"] > 0 and row.ratio > 0 for row in rows)
    assert rows[2].unit == "MiB" and 5 < rows[2].ours < 50


def test_features_are_measured_of_all_images_and_of_the_same_network(monkeypatch):
    for name, value in (("IMAGES", 4), ("SIZE", (64, 96)), ("BATCH", 2), ("MANY", 20), ("SMALL", (32, 32))):
        monkeypatch.setattr(features, name, value)
    found = []
    extract = features.extract_features
    monkeypatch.setattr(features, "extract_features", lambda *a, **k: found.append(extract(*a, workers=0, **k)))
    monkeypatch.setattr(features, "peak_memory", lambda before, during: _images_of(before, during))
    speed, memory = features.rows(Options(rounds=1))
    assert [(done.images, done.before, len(done.broken)) for done in found] == [(4, 0, 0)]
    assert list(speed.peers) == ["plain loop", "network alone"] and speed.ratio > 0 and not speed.failed
    assert (memory.ours, memory.peers["a tenth"], memory.met) == (20, 2, False)  # "MiB"


def _images_of(before, during):
    """How many images the second of two programs goes through, in place of its memory."""
    names: dict = {}
    exec(before, names)
    return eval(during, names).images
