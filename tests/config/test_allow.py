"""`instantiate(..., allow=...)`: what a config of a stranger may call (point 36 of docs/reference/config.md)."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from detrex_backbones.config import LazyCall as L
from detrex_backbones.config import LazyConfig, instantiate, object_named
from detrex_backbones.config.instantiation import target_of
from detrex_backbones.errors import ConfigImportError, ConfigTypeError, InstantiateError
from tests.config import config_targets
from tests.config.config_targets import Frame, Model, Shape, keep, record

HERE = "tests.config.config_targets"
PREFIX = (f"{HERE}.",)
MODEL = f"{HERE}.Model"


def config(content: Any) -> Any:
    return OmegaConf.create(content, flags={"allow_objects": True})


def call(target: Any, **arguments: Any) -> dict[str, Any]:
    return {"_target_": target, **arguments}


def test_36_what_is_allowed_is_made() -> None:
    cfg = config({"model": call(f"{HERE}.keep", x=[call(MODEL, depth=3)])})
    made = instantiate(cfg.model, allow=(f"{HERE}.", f"{HERE}.keep"))
    assert made["x"][0].depth == 3
    assert instantiate(L("os.getcwd")(), allow=("os.getcwd",)) == os.getcwd()  # noqa: PTH109
    assert instantiate(L(keep)(a=L(Model)()), allow=(f"{HERE}.", f"{HERE}.keep"))["a"].depth == 1
    assert instantiate(L(keep)(shape=Frame()), allow=(f"{HERE}.", f"{HERE}.keep"))["shape"] == Frame()


def test_36_nothing_is_called_before_all_is_checked() -> None:
    config_targets.calls.clear()
    node = L(record)(name="outer", child=L(record)(name="first", child=L("os.getcwd")()))
    with pytest.raises(InstantiateError, match=r"os\.getcwd is not allowed; allowed: .*record, len \(at child\.child"):
        instantiate(node, allow=(f"{HERE}.record", "len"))
    late = config({"a": call(f"{HERE}.record", name="first"), "b": {"c": call("os.getcwd")}, "d": call(f"{HERE}.keep")})
    late.d.x = ["${a}", "${b.c}"]
    with pytest.raises(InstantiateError, match=r"os\.getcwd is not allowed.*\(at d\.x\[1\]"):
        instantiate(late.d, allow=(f"{HERE}.record", f"{HERE}.keep"))
    assert config_targets.calls == []


PLACES = {
    "argument": lambda bad: call(MODEL, depth=bad),
    "list": lambda bad: call(MODEL, depth=[1, [bad]]),
    "tuple": lambda bad: call(MODEL, depth=(1, ({"x": 1}, bad))),
    "deep": lambda bad: call(MODEL, stem=call(MODEL, stages=[call(MODEL, depth=bad)])),
    "_args_": lambda bad: call(MODEL, _args_=[bad]),
    "_partial_": lambda bad: call(MODEL, _partial_=True, depth={**bad, "_partial_": True}),
    "interpolation": lambda bad: call(MODEL, depth="${bad}"),
    "interpolated name": lambda bad: call(MODEL, depth=call("${bad._target_}")),
    "built name": lambda bad: call(MODEL, stem=bad["_target_"][0], depth=call("${..stem}" + bad["_target_"][1:])),
    "resolver": lambda bad: call(MODEL, depth="${oc.create:{_target_: " + bad["_target_"] + "}}"),
    "whole": lambda bad: bad,
}  # fmt: skip
BAD = {
    "not listed": "os.getcwd",
    "through a module of theirs": f"{HERE}.dataclasses.sys.exit",
    "through an alias of a module": f"{HERE}.dataclasses.inspect.os.mkdir",
    "a class of somebody else": f"{HERE}.dataclasses.FrozenInstanceError",
    "imported beside": f"{HERE}.Any",
    "function": f"{HERE}.keep",
    "private class": f"{HERE}._Hidden",
    "private part": f"{HERE}.__builtins__.get",
    "method": f"{HERE}.Model.build",
    "class in a class": f"{HERE}.Outer.Inner",
    "attribute of a class": f"{HERE}.Model.__class__",
    "subclasses": f"{HERE}.Model.__subclasses__",
    "longer name": f"{HERE}x.evil",
    "the module": HERE,
    "object": f"{HERE}.calls",
    "builtin": "builtins.exec",
    "no module": f"{HERE}.nothing.x",
    "dots": f"{HERE}...Model",
    "a letter of another shape": f"{HERE}.Mo\ufb01el",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("bad", BAD)
def test_36_a_prefix_allows_public_classes_alone(place: str, bad: str) -> None:
    if place in ("interpolated name", "built name", "resolver") and bad in ("dots", "a letter of another shape"):
        pytest.skip("no text of an interpolation")
    cfg = config({"model": PLACES[place](call(BAD[bad])), "bad": call(BAD[bad])})
    with pytest.raises((InstantiateError, ConfigImportError)) as caught:
        instantiate(cfg.model, allow=PREFIX)
    assert str(caught.value)


@pytest.mark.parametrize(
    "target",
    [
        "torch.nn.modules.module.torch.os.mkdir",
        "torch.nn.modules.activation.warnings.catch_warnings",
        "torch.nn.modules.utils.collections.abc.Iterable",
        "torch.nn.modules.module.OrderedDict",
        "torch.nn.modules.module.functools.partial",
        "torch.nn.functional.relu",
        "torch.nn.functional.importlib.import_module",
        "torch.nn.init.kaiming_normal_",
        "torch.nn.modules.module._IncompatibleKeys",
        "torch.nn.Module.load_state_dict",
        "torch.nn.Module.__init__.__globals__.get",
        "torch.nn.Parameter",
        "torch.nn.parallel.DistributedDataParallel._get_ddp_logging_data",
        "torch.nnx.evil",
    ],
)
def test_36_what_torch_imports_is_not_torchs(target: str) -> None:
    pytest.importorskip("torch")
    if target == "torch.nn.Parameter":  # a class of its own, however it is made
        assert instantiate(call(target), allow=("torch.nn.",)).numel() == 0
        return
    with pytest.raises((InstantiateError, ConfigImportError)):
        instantiate(call(target), allow=("torch.nn.",))


def test_36_classes_that_a_package_offers_are_its_own_wherever_they_are_defined() -> None:
    torch = pytest.importorskip("torch")
    assert type(instantiate(call("torch.nn.Linear", in_features=1, out_features=2), allow=("torch.nn.",))) is (
        torch.nn.Linear
    )
    assert (
        instantiate(call("detrex_backbones.layers.ShapeSpec", channels=3), allow=("detrex_backbones.",)).channels == 3
    )
    with pytest.raises(InstantiateError, match=r"it is collections\.OrderedDict; allowed: torch\.nn\."):
        instantiate(call("torch.nn.modules.module.OrderedDict"), allow=("torch.nn.",))


MAKERS = [
    call("functools.partial", func="x"),
    call("operator.attrgetter", attr="system"),
    call(MODEL),
    [call(MODEL)],
    {"x": 1},
]


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("by_interpolation", [False, True])
def test_36_a_target_is_never_made_by_a_node(maker: Any, by_interpolation: bool) -> None:
    cfg = config({"model": call("${made}" if by_interpolation else maker), "made": maker})
    with pytest.raises(InstantiateError, match=r"A target that a node makes is not allowed; allowed: .*\(at model"):
        instantiate(cfg.model, allow=("functools.partial", "operator.attrgetter", f"{HERE}."))


def test_36_objects_are_looked_at_as_names_are() -> None:
    for target in (os.getcwd, functools.partial(Model), functools.partial(os.getcwd), lambda: 1, Model(), Model.build):
        node = config({"x": 1})
        node._target_ = target
        with pytest.raises(InstantiateError, match=r"not allowed|must be callable"):
            instantiate(node, allow=PREFIX)
    assert instantiate(L(Model)(), allow=(MODEL,)).depth == 1
    assert instantiate(L(Model.build)(width=2), allow=(f"{HERE}.Model.build",)) == ("built", 2)
    disguised = lambda: 1  # noqa: E731
    disguised.__module__, disguised.__qualname__ = HERE, "keep"
    node._target_ = disguised
    with pytest.raises(InstantiateError, match="not allowed"):
        instantiate(node, allow=(f"{HERE}.keep",))


def test_36_structured_configs_are_targets_too() -> None:
    with pytest.raises(InstantiateError, match=r"config_targets\.Shape is not allowed"):
        instantiate(L(keep)(shape=Shape(channels=1)), allow=(f"{HERE}.keep",))
    with pytest.raises(InstantiateError, match=r"config_targets\.Shape is not allowed"):
        instantiate(L(keep)(frames=[(Frame(),)]), allow=(f"{HERE}.keep", f"{HERE}.Frame"))


def test_36_no_module_is_imported_that_is_not_named(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("evil_on_import.py", "raise SystemExit('imported')")
    write("good_on_import.py", "class Good:\n    pass")
    monkeypatch.syspath_prepend(path.parent)
    with pytest.raises(InstantiateError, match=r"evil_on_import\.x is not allowed"):
        instantiate(call("evil_on_import.x"), allow=PREFIX)
    both = [call("good_on_import.Good"), call("evil_on_import.x")]
    with pytest.raises(InstantiateError, match=r"evil_on_import\.x is not allowed"):
        instantiate(both, allow=("good_on_import.",))
    assert "good_on_import" not in sys.modules


def test_36_the_list_holds_inside_a_target_that_instantiates() -> None:
    """A plain mapping is not searched beforehand; what a target makes of it is checked there."""
    hidden = {"model": call("os.getcwd")}
    for allow in (None, ("os.getcwd",), ("os.",)):
        with pytest.raises(InstantiateError, match=r"os\.getcwd is not allowed"):
            instantiate(call(f"{HERE}.NestsPlain", cfg=hidden, allow=allow), allow=PREFIX)
    with pytest.raises(InstantiateError, match=r"os\.getcwd is not allowed"):
        instantiate(call(f"{HERE}.NestsPlain", cfg=hidden, by_target=True), allow=PREFIX)
    both = instantiate(call(f"{HERE}.NestsPlain", cfg={"model": call(MODEL)}, allow=PREFIX), allow=PREFIX)
    assert both.made.depth == 1
    with pytest.raises(InstantiateError, match="not allowed"):
        instantiate(call(f"{HERE}.NestsPlain", cfg={"model": call(MODEL)}, allow=("os.",)), allow=PREFIX)
    assert instantiate({"_target_": "os.getcwd"}) == os.getcwd()  # noqa: PTH109  (the list is gone again)
    assert target_of({"_target_": "os.getcwd"}) is os.getcwd


@pytest.mark.slow
def test_36_interpolations_that_multiply_are_refused() -> None:
    content = {f"n{i}": call(MODEL, depth=f"${{n{i + 1}}}", stem=f"${{n{i + 1}}}") for i in range(40)}
    cfg = config({**content, "n40": call(MODEL)})
    with pytest.raises(InstantiateError, match="makes more than 10,000 calls"):
        instantiate(cfg.n0, allow=PREFIX)
    assert instantiate(cfg.n30, allow=PREFIX).depth.depth.stem.depth is not None


@pytest.mark.parametrize("allow", ["torch.", [3], [""]])
def test_36_an_allowlist_is_a_tuple_of_names(allow: Any) -> None:
    with pytest.raises(ConfigTypeError, match="allow takes a tuple of dotted names and prefixes"):
        instantiate({}, allow=allow)


def test_36_a_saved_class_may_be_named_where_it_may_be_called() -> None:
    named = call("detrex_backbones.config.object_named", _name_=MODEL, depth=5)
    assert instantiate(call(MODEL, stem=named), allow=PREFIX).stem().depth == 5
    for name in ("os.mkdir", f"{HERE}.keep", f"{HERE}.dataclasses.sys.exit", 3, None):
        node = call(MODEL, stem=call("detrex_backbones.config.object_named", _name_=name))
        with pytest.raises(InstantiateError, match=r"not allowed|must be callable"):
            instantiate(node, allow=PREFIX)
    alias = call("detrex_backbones.config.by_name.object_named", _name_="os.mkdir")
    with pytest.raises(InstantiateError, match=r"os\.mkdir is not allowed"):
        instantiate(alias, allow=("detrex_backbones.config.by_name.object_named",))
    assert object_named("os.mkdir") is os.mkdir


def test_36_words_of_the_config_cannot_forge_a_line() -> None:
    node = {"\x1b[2Jevil\nkey": call("os\n\x1b]0;x\x07.x")}
    with pytest.raises(InstantiateError) as caught:
        instantiate(call(MODEL, **node), allow=PREFIX)
    assert str(caught.value).isprintable()


def test_36_a_yaml_of_a_stranger(write: Any) -> None:
    path: Path = write("a.yaml", "model: {_target_: torch.nn.modules.module.torch.os.mkdir, path: made}")
    cfg: DictConfig = LazyConfig.load(path)
    with pytest.raises(InstantiateError, match="mkdir is not allowed"):
        instantiate(cfg.model, allow=("torch.nn.",))
