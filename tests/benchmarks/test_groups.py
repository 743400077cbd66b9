"""That the groups measure what they say, with and without detectron2; no time is asserted."""

import json

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import building, configs, families, features, peers, startup
from benchmarks.measure import Options, Row
from detrex_backbones import instantiate


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
        return {name: 2.0 + 0.1 * (name == "ours") for name in programs}

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
    rows = list(building.rows(Options(rounds=1)))
    assert [(row.failed, row.result, row.rounds) for row in rows] == [(False, "not installed", 1)] * 2
    build = building._builder("detrex_backbones.config", "detrex_backbones")
    torch.manual_seed(0)
    before = torch.get_rng_state()
    names = set(building._without_init(build).state_dict())
    assert torch.equal(torch.get_rng_state(), before)  # nothing was drawn
    assert set(build().state_dict()) == names
    assert not torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", families.FAMILIES)
def test_families_are_networks_of_the_same_size(name, monkeypatch):
    monkeypatch.setattr(families, "_detrexs", lambda kind, arguments: None)
    with torch.device("meta"):
        nets = families.networks(families.FAMILIES[name])
    counts = [sum(value.numel() for value in net.parameters()) for net in nets.values() if net is not None]
    assert max(counts) < 1.01 * min(counts)


def test_families_are_measured_beside_whoever_is_there(monkeypatch):
    monkeypatch.setattr(families, "_detrexs", lambda kind, arguments: None)
    small = {"ours": ("ConvNeXt", {"depths": (2, 2, 6, 2), "dims": (40, 80, 160, 320)}), "timm": "convnext_atto"}
    monkeypatch.setattr(families, "FAMILIES", {"ConvNeXt": {**small, "size": (32, 32), "target": 1.0}})
    rows = list(families.rows(Options(rounds=1)))
    assert [row.what.split(",")[0] for row in rows] == ["ConvNeXt inference", "ConvNeXt step"]
    assert not any(row.failed for row in rows)
    assert all(row.peers["detrex"] is None and row.peers["timm"] > 0 and row.ratio > 0 for row in rows)


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
