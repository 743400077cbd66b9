"""LazyConfig.save: points 26 and 27 of the contract, and what is better."""

from __future__ import annotations

import copy
import enum
import functools
import itertools
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from detrex_backbones.config import LazyCall as L
from detrex_backbones.config import LazyConfig, instantiate
from detrex_backbones.errors import ConfigTypeError, ConfigValueError
from tests.config.config_targets import Model, Shape, keep


class Colour(enum.Enum):
    RED = 1


def config(content: Any) -> Any:
    return OmegaConf.create(content, flags={"allow_objects": True})


def saved(cfg: Any, folder: Path) -> Any:
    LazyConfig.save(cfg, folder / "cfg.yaml")
    return LazyConfig.load(folder / "cfg.yaml")


def test_26_writes_yaml_that_loads_again(tmp_path: Path) -> None:
    cfg = config({"lr": 1e-4, "name": "1e-4", "date": "2020-01-01", "yes": "yes", "empty": "", "n": None, "inf": 1e400,
                  "items": [1, "a", {"x": [2.5]}], 5: "five", "path": Path("a/b"), "text": "ä: # '\n", "m": "???",
                  "count": L(itertools.count)(start="${lr}"), "bytes": b"x"})  # fmt: skip
    before = copy.deepcopy(cfg)
    loaded = saved(cfg, tmp_path)
    assert cfg == before
    assert loaded["count"]._target_ == "itertools.count"
    assert OmegaConf.to_container(loaded)["count"]["start"] == "${lr}"
    cfg["count"]._target_ = "itertools.count"
    assert loaded == cfg
    assert type(loaded.lr) is float
    assert type(loaded.name) is str
    assert [file.name for file in tmp_path.iterdir()] == ["cfg.yaml"]


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (itertools.count, "itertools.count"),
        (Model.build, "tests.config.config_targets.Model.build"),
        (len, "builtins.len"),
        (functools.partial, "functools.partial"),
        (OmegaConf.create, "omegaconf.OmegaConf.create"),
        (dict.fromkeys, None),
    ],
)
def test_26_targets_are_written_as_their_shortest_name(tmp_path: Path, target: Any, name: str | None) -> None:
    if name is not None:
        assert saved(config({"m": L(target)()}), tmp_path).m._target_ == name
    else:
        with pytest.warns(UserWarning, match=r"m\._target_"):
            LazyConfig.save(config({"m": L(target)()}), tmp_path / "a.yaml")


def test_26_torch_names(tmp_path: Path) -> None:
    nn = pytest.importorskip("torch").nn
    assert saved(config({"m": L(nn.Conv2d)(in_channels=3)}), tmp_path).m._target_ == "torch.nn.Conv2d"


def test_26_dataclass_nodes_keep_loading(tmp_path: Path) -> None:
    loaded = saved(L(keep)(shape=Shape(channels=3)), tmp_path)
    assert loaded.shape == {"_target_": "tests.config.config_targets.Shape", "channels": 3, "height": None}
    assert instantiate(loaded)["shape"] == Shape(channels=3)


def test_26_tuples_are_written_as_lists(tmp_path: Path) -> None:
    loaded = saved(config({"betas": (0.9, 0.99), "blocks": (L(Model)(depth=2),)}), tmp_path)
    assert loaded.betas == [0.9, 0.99]
    assert instantiate(loaded.blocks)[0].depth == 2


def test_26_plain_containers_and_only_those(tmp_path: Path) -> None:
    assert saved({"a": [1]}, tmp_path) == {"a": [1]}
    with pytest.raises(ConfigTypeError, match="DictConfig, ListConfig, dict or list, not a int"):
        LazyConfig.save(3, tmp_path / "a.yaml")


def test_26_a_file_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved({"a": 1}, tmp_path)

    def fails(self: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(ConfigValueError, match=r"can't be written to .*cfg\.yaml: disk full"):
        LazyConfig.save({"a": 2}, tmp_path / "cfg.yaml")
    assert [file.name for file in tmp_path.iterdir()] == ["cfg.yaml"]
    assert LazyConfig.load(tmp_path / "cfg.yaml") == {"a": 1}
    with pytest.raises(ConfigValueError, match=r"nowhere"):
        LazyConfig.save({"a": 2}, tmp_path / "nowhere" / "cfg.yaml")


@pytest.mark.parametrize("value", [lambda: 3, Model, {1, 2}, Colour.RED, Model(), functools.partial(int, base=2)])
def test_27_what_yaml_cannot_hold_goes_beside_it(tmp_path: Path, value: Any) -> None:
    cfg = config({"a": {"x": [1, L(keep)(value=value)]}})
    path = tmp_path / "cfg.yaml"
    with pytest.warns(UserWarning, match=r"doesn't load again: a\.x\[1\]\.value is ") as caught:
        LazyConfig.save(cfg, path)
    assert str(path) in str(caught[0].message)
    assert str(tmp_path / "cfg.yaml.pkl") in str(caught[0].message)
    assert caught[0].filename == __file__
    with pytest.raises(ConfigValueError, match=r"unsaveable.*cfg\.yaml\.pkl"):
        LazyConfig.load(path)
    assert "_target_: tests.config.config_targets.keep" in path.read_text()
    loaded = pickle.loads((tmp_path / "cfg.yaml.pkl").read_bytes())
    assert type(loaded.a.x[1].value) is type(value)


def test_27_what_even_pickle_cannot_hold_is_said(tmp_path: Path) -> None:
    path = tmp_path / "cfg.yaml"
    with pytest.warns(UserWarning, match=r"Nor can cloudpickle write it to .*cfg\.yaml\.pkl: TypeError"):
        LazyConfig.save(config({"a": (n for n in ())}), path)
    assert os.listdir(tmp_path) == ["cfg.yaml"]  # noqa: PTH208


@pytest.mark.parametrize("as_argument", [True, False])
def test_better_functions_of_a_config_file_are_refused(write: Any, tmp_path: Path, as_argument: bool) -> None:
    path = write("a.py", f"""
        from detrex_backbones.config import LazyCall as L
        def double(x):
            return 2 * x
        model = {"L(dict)(x=double)" if as_argument else "L(double)(x=1)"}
    """)  # fmt: skip
    with pytest.raises(
        ConfigValueError, match=r"Can't save model\.\w+: double is defined inside a config file.*Move it"
    ):
        LazyConfig.save(LazyConfig.load(path), tmp_path / "cfg.yaml")
    assert not (tmp_path / "cfg.yaml").exists()
