"""LazyConfig.save: points 26 and 27 of docs/reference/config.md, and what is better."""

from __future__ import annotations

import copy
import dataclasses
import enum
import functools
import inspect
import itertools
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from detrex_backbones.config import LazyCall as L
from detrex_backbones.config import LazyConfig, instantiate, lambda_of
from detrex_backbones.config.allow import ACTIVE, Allowlist
from detrex_backbones.config.by_name import OBJECT_NAMED, object_named
from detrex_backbones.config.imports import file_of
from detrex_backbones.config.lambdas import LAMBDA_OF, Lambda
from detrex_backbones.config.nodes import to_plain
from detrex_backbones.config.targets import locate
from detrex_backbones.errors import ConfigImportError, ConfigTypeError, ConfigValueError, InstantiateError
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


def test_26_tuples_stay_tuples(tmp_path: Path) -> None:
    node = L(keep)(sizes=((16,), [32, (64,)]), blocks=(L(Model)(depth=2),), none=(), same="${..ratios}", items=[(1, 2)])
    cfg = config({"model": node, "ratios": (0.5, 1.0), "train": {"betas": (0.9, "${ratios.1}")}})
    LazyConfig.save(cfg, tmp_path / "first.yaml")
    loaded = LazyConfig.load(tmp_path / "first.yaml")
    for one in (cfg, loaded, saved(loaded, tmp_path), copy.deepcopy(loaded), pickle.loads(pickle.dumps(loaded))):
        made = instantiate(one.model)
        assert made["sizes"] == ((16,), [32, (64,)])
        assert (made["none"], made["same"], made["items"][0]) == ((), (0.5, 1.0), (1, 2))
        assert type(made["blocks"]) is type(made["items"][0]) is tuple
        assert made["blocks"][0].depth == 2
        assert to_plain(one.train.betas) == (0.9, 1.0)
    assert (tmp_path / "cfg.yaml").read_text() == (tmp_path / "first.yaml").read_text()


def test_26_tuples_stay_tuples_whichever_way_they_came_into_the_config() -> None:
    cfg = config({"model": L(keep)(), "read": {"x": (1,)}})
    cfg.model.set = (1, 2)
    cfg.model["item"] = [(1,)]
    cfg.model.update({"update": (3,)})
    cfg.model.other = cfg.read.x
    cfg = OmegaConf.merge(cfg, {"model": {"merged": (4,)}})
    made = instantiate(L(keep)(inner=cfg.model))["inner"]
    assert (made["set"], made["item"][0], made["update"], made["other"], made["merged"]) == (
        (1, 2),
        (1,),
        (3,),
        (1,),
        (4,),
    )


NAMED = {
    "class": Model,
    "builtin class": int,
    "function": keep,
    "builtin": len,
    "method of a class": Model.build,
    "enum": Colour.RED,
    "partial": functools.partial(Model, depth=3, stages=[1, (2,)]),
    "partial with positions": functools.partial(Model, 3, (4,)),
    "partial of a partial's class": functools.partial(functools.partial, int),
}


@pytest.mark.parametrize("kind", NAMED)
def test_26_what_has_a_name_is_saved_by_it(tmp_path: Path, kind: str) -> None:
    value = NAMED[kind]
    node = L(keep)(value=value, items=[value], pair=(value,), inner=L(Model)(stem=value))
    loaded = saved(config({"model": node, "other": L(keep)(x="${model.value}")}), tmp_path)
    made = instantiate(loaded.model)
    for found in (made["value"], made["items"][0], made["pair"][0], made["inner"].stem, instantiate(loaded.other)["x"]):
        assert found is value or (found.func, found.args, found.keywords) == (value.func, value.args, value.keywords)  # type: ignore[attr-defined]
    assert [file.name for file in tmp_path.iterdir()] == ["cfg.yaml"]


def test_26_dtypes_and_layers_are_saved_by_their_names(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    norm = functools.partial(torch.nn.LayerNorm, eps=1e-6)
    node = L(keep)(dtype=torch.bfloat16, layout=torch.strided, memory=torch.channels_last, act=torch.nn.GELU, norm=norm)
    made = instantiate(saved(config({"m": node}), tmp_path).m)
    assert (made["dtype"], made["layout"], made["memory"]) == (torch.bfloat16, torch.strided, torch.channels_last)
    assert made["act"] is torch.nn.GELU
    assert made["norm"](4).eps == 1e-6
    LazyConfig.save(config({"m": node}), tmp_path / "a.yaml")
    changed = LazyConfig.apply_overrides(
        LazyConfig.load(tmp_path / "a.yaml"), ["m.norm.eps=0.5", "m.act._name_=torch.nn.ReLU"]
    )
    assert instantiate(changed.m)["norm"](4).eps == 0.5
    assert instantiate(changed.m)["act"] is torch.nn.ReLU


def test_27_keys_of_an_enum_are_written_by_their_names_and_said(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"can't be loaded again: the key a\.Colour\.RED is of an enum"):
        LazyConfig.save(config({"a": {Colour.RED: 1}}), tmp_path / "cfg.yaml")
    assert LazyConfig.load(tmp_path / "cfg.yaml") == {"a": {"RED": 1}}


def test_27_what_reads_back_differently_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detrex_backbones.config.save.parse_yaml", lambda text: {"a": 2})
    with pytest.warns(UserWarning, match="something in it reads back differently"):
        LazyConfig.save(config({"a": 1}), tmp_path / "cfg.yaml")


def test_27_a_class_in_a_plain_dict_is_written_and_said(tmp_path: Path) -> None:
    """`instantiate` makes nothing in a dict without a target."""
    with pytest.warns(UserWarning, match=r"can't be loaded again: model\.table\.norm is .*Model"):
        LazyConfig.save(config({"model": L(keep)(table={"norm": Model})}), tmp_path / "cfg.yaml")
    loaded = LazyConfig.load(tmp_path / "cfg.yaml")
    assert instantiate(instantiate(loaded.model)["table"].norm) is Model


READY = sorted((Path(__file__).parents[2] / "configs").rglob("*/*.py"))


@pytest.mark.parametrize("path", [file for file in READY if file.parent.name != "common"], ids=lambda path: path.stem)
def test_26_a_ready_config_that_was_saved_is_the_same_config(tmp_path: Path, path: Path) -> None:
    pytest.importorskip("torch")
    cfg = LazyConfig.load(path)
    loaded = saved(cfg, tmp_path)
    first = (tmp_path / "cfg.yaml").read_text()
    assert LazyConfig.to_yaml(loaded) == LazyConfig.to_yaml(cfg)
    assert LazyConfig.to_py(loaded) == LazyConfig.to_py(cfg)
    assert unequal(cfg, loaded) == []
    saved(loaded, tmp_path)
    assert (tmp_path / "cfg.yaml").read_text() == first


def unequal(one: Any, other: Any, path: str = "") -> list[str]:
    """Where two configs differ: functions are compared by identity, partials by their parts, lambdas by results."""
    one, other = to_plain(one), to_plain(other)
    if isinstance(one, dict) and isinstance(other, dict) and other.keys() - one.keys() == {"_target_"}:
        other = dict(other)  # a dataclass, which is written as a call of it
        if not dataclasses.is_dataclass(locate(other.pop("_target_"))):
            return [path]
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [place for key in one for place in unequal(one[key], other[key], f"{path}.{key}")]
    if type(one) in (list, tuple) and type(one) is type(other) and len(one) == len(other):
        return [
            place for at, pair in enumerate(zip(one, other, strict=True)) for place in unequal(*pair, f"{path}[{at}]")
        ]
    is_saved = isinstance(other, dict) and other.get("_target_") in (OBJECT_NAMED, LAMBDA_OF)
    other = instantiate(other) if is_saved else other
    if path.endswith("._target_") and not isinstance(one, str):
        other = locate(other) if isinstance(other, str) else other
    if isinstance(one, functools.partial) and isinstance(other, functools.partial):
        pairs = zip((one.func, one.args, one.keywords), (other.func, other.args, other.keywords), strict=True)
        return [place for pair in pairs for place in unequal(*pair, path)]
    if isinstance(other, Lambda):
        return [] if outcomes(one) == outcomes(other) else [path]
    if file_of(one) is not None:  # such a file is run afresh each time
        return [] if (file_of(one), one.__qualname__) == (file_of(other), other.__qualname__) else [path]
    return [] if type(one) is type(other) and (one is other or one == other) else [path]


def outcomes(function: Any) -> list[Any]:
    """What a function of any number of arguments gives for a few values, or which error it raises."""
    count, found = len(inspect.signature(function).parameters), []
    for value in ("backbone.0.bias", "head", "", 7):
        try:
            found.append(repr(function(*[value] * count)))
        except Exception as error:
            found.append(type(error))
    return found


def test_26_what_differs_is_found() -> None:
    cfg: dict[str, Any] = {
        "a": L(Model)(depth=1, stem=int),
        "f": L(keep)(f=lambda name: 1 if name else 0),
        "t": (1, [2]),
    }
    others = [{"a": L(Model)(depth=1.0)}, {"a": L(keep)(depth=1, stem=int)}, {"t": (1, (2,))}, {"t": [1, [2]]}]
    cfg["shape"], function = Shape(channels=3), lambda_of("lambda name: 1 if name else 0")
    as_call = {"_target_": "tests.config.config_targets.Shape", "channels": 3, "height": None}
    assert unequal(config(cfg), {**cfg, "shape": as_call, "f": L(keep)(f=function)}) == []
    others += [{"shape": {**as_call, "channels": 4}}, {"shape": {**as_call, "_target_": "builtins.dict"}}]
    others += [{"f": L(keep)(f=lambda_of("lambda name: 1"))}, {"a": L(Model)(depth=1, stem=float)}, {"u": 1}]
    for other in others:
        assert unequal(config(cfg), {**cfg, **other})


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


@pytest.mark.parametrize("value", [lambda: lambda: 3, {1, 2}, Model(), Model().__init__, functools.partial(lambda: 3)])
def test_27_what_yaml_cannot_hold_goes_beside_it(tmp_path: Path, value: Any) -> None:
    cfg = config({"a": {"x": [1, L(keep)(value=value)]}})
    path = tmp_path / "cfg.yaml"
    with pytest.warns(UserWarning, match=r"can't be loaded again: a\.x\[1\]\.value is ") as caught:
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


DEFINES = """
import functools
from detrex_backbones.config import LazyCall as L
def double(x, times=2):
    return times * x
class Outer:
    class Inner:
        def __init__(self, x): self.x = x
def made():
    def inner(x): pass
    return inner
"""
USES = {
    "L(double)(x=3)": lambda made: made == 6,
    "L(Outer.Inner)(x=3)": lambda made: type(made).__qualname__ == "Outer.Inner" and made.x == 3,
    "L(dict)(x=double)": lambda made: made["x"](4) == 8,
    "L(dict)(x=functools.partial(double, times=5))": lambda made: made["x"](4) == 20,
    "L(dict)(x=[Outer.Inner])": lambda made: made["x"][0](7).x == 7,
}


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("uses", USES)
def test_26_what_a_config_file_defines_is_saved_by_the_path_of_the_file(
    write: Any, tmp_path: Path, uses: str, beside: bool
) -> None:
    if beside:
        write("defines.py", DEFINES)
    head = "import functools\nfrom detrex_backbones.config import LazyCall as L\nfrom .defines import double, Outer\n"
    cfg = LazyConfig.load(write("a.py", f"{head if beside else DEFINES}model = {uses}"))
    loaded = saved(cfg, tmp_path)
    assert USES[uses](instantiate(cfg.model)) and USES[uses](instantiate(loaded.model))
    text = (tmp_path / "cfg.yaml").read_text()
    assert f"_file_: {tmp_path / ('defines.py' if beside else 'a.py')}" in text
    saved(loaded, tmp_path)
    assert (tmp_path / "cfg.yaml").read_text() == text
    for allow in [(OBJECT_NAMED, "dict", "double", "Outer."), (OBJECT_NAMED, "detrex_backbones.", "builtins.")]:
        with pytest.raises(InstantiateError, match="allowed"):  # nothing of a file is run for a stranger
            instantiate(loaded.model, allow=allow)


def test_36_a_target_that_looks_up_in_a_file_is_refused_too(write: Any) -> None:
    path = write("a.py", "ran = open(__file__ + '.ran', 'w')\ndef double(x): pass")
    token = ACTIVE.set((Allowlist((OBJECT_NAMED, "double")),))
    try:
        with pytest.raises(InstantiateError, match=r"double of the file .*a\.py is not allowed"):
            object_named("double", _file_=str(path))
    finally:
        ACTIVE.reset(token)
    assert not path.with_name("a.py.ran").exists()


def test_26_a_file_that_has_changed_since_is_said(write: Any, tmp_path: Path) -> None:
    path = write("a.py", f"{DEFINES}model = L(double)(x=1)")
    loaded = saved(LazyConfig.load(path), tmp_path)
    path.write_text("def doubled(x): pass")
    with pytest.raises(ConfigImportError, match=r"a\.py defines no 'double'. Did you mean 'doubled'"):
        instantiate(loaded.model)
    path.unlink()
    with pytest.raises(ConfigImportError, match=r"The config file .*a\.py does not exist"):
        instantiate(loaded.model)


@pytest.mark.parametrize("uses", ["L(dict)(x=made())", "L(made())(x=1)", "L(functools.wraps(made())(made))()"])
def test_better_what_a_config_file_makes_without_a_name_is_refused(write: Any, tmp_path: Path, uses: str) -> None:
    path = write("a.py", f"{DEFINES}model = {uses}")
    with pytest.raises(ConfigValueError, match=r"Can't save model\.\w+: made.*inner is made while a config.*Move it"):
        LazyConfig.save(LazyConfig.load(path), tmp_path / "cfg.yaml")
    assert not (tmp_path / "cfg.yaml").exists()
