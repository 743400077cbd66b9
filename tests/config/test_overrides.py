"""LazyConfig.apply_overrides: points 28 and 29 of the contract, and what is better."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from detrex_backbones.config import LazyCall as L
from detrex_backbones.config import LazyConfig, instantiate
from detrex_backbones.config.nodes import made_at
from detrex_backbones.config.values import parse_value
from detrex_backbones.errors import ConfigTypeError, OverrideError
from tests.config.config_targets import Model, Shape, keep


def config(content: Any) -> Any:
    return OmegaConf.create(content, flags={"allow_objects": True})


def apply(content: Any, *overrides: str) -> Any:
    return LazyConfig.apply_overrides(config(content), list(overrides))


def test_28_changes_in_place_and_returns_the_same() -> None:
    cfg = config({"a": {"b": 0}})
    inner = cfg.a
    assert LazyConfig.apply_overrides(cfg, ["a.b=1"]) is cfg
    assert cfg.a is inner
    assert inner.b == 1


@pytest.mark.parametrize(
    ("content", "override", "after"),
    [
        ({"a": {"b": 0, "c": 2}}, "a={b: 1, d: 3}", {"a": {"b": 1, "c": 2, "d": 3}}),
        ({"a": {"b": {"c": 1}}}, "a={b: {d: 2}}", {"a": {"b": {"c": 1, "d": 2}}}),
        ({}, "a.b.c=1", {"a": {"b": {"c": 1}}}),
        ({"a": None}, "a.b=1", {"a": {"b": 1}}),
        ({"a": "???"}, "a.b=1", {"a": {"b": 1}}),
        ({"a": 1}, "a={b: 1}", {"a": {"b": 1}}),
        ({"a": {"b": 1}}, "a=3", {"a": 3}),
        ({"a": [{"x": 0}, 5]}, "a.0.x=1", {"a": [{"x": 1}, 5]}),
        ({"a": [{"x": 0}, 5]}, "a[0].x=1", {"a": [{"x": 1}, 5]}),
        ({"a": [[1], 5]}, "a[0][0]=2", {"a": [[2], 5]}),
        ({"a": [1, 5]}, "a.-1=2", {"a": [1, 2]}),
        ({"a": [1, 5]}, "a=[7]", {"a": [7]}),
        ([1, {"x": 2}], "[1].x=3", [1, {"x": 3}]),
        ({"a": {1: "x"}}, "a.1=y", {"a": {1: "y"}}),
        ({"a": {"b.c": 1}}, "a[b.c]=2", {"a": {"b.c": 2}}),
        ({"a": 1}, " a = 2 ", {"a": 2}),
        ({"a": "x"}, "a=b=c", {"a": "b=c"}),
        ({"a": {"b": 1}, "c": "${a}"}, "c.b=2", {"a": {"b": 2}, "c": "${a}"}),
    ],
)
def test_28_paths(content: Any, override: str, after: Any) -> None:
    assert apply(content, override) == config(after)


def test_28_a_path_through_a_scalar_is_a_key_error() -> None:
    with pytest.raises(KeyError, match=r"looks for 'c\.d' inside a\.b, which is no dict or list but 5 of type int"):
        apply({"a": {"b": 5}}, "a.b.c.d=1")


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("a.2=1", "has no item 2 to change: a has 2 items"),
        ("a.x=1", "needs an index, not 'x': a is a list"),
        ("a.x.y=1", "needs an index, not 'x': a is a list"),
        ("b", "has no '='; write 'key=value', or '~key' to delete"),
        ("=1", "has no key that can be read"),
        ("a..b=1", "has no key that can be read"),
        ("a[0=1", "has no key that can be read"),
        ("~nex", r"deletes nex, which isn't there\. Did you mean 'new'\? There is: a, b, new\."),
        ("~c.d", r"deletes c, which isn't there"),
        ("~b=1", r"deletes and takes no value; write '~b'"),
        ("b=[1", "value that can't be read"),
    ],
)
def test_28_wrong_overrides_name_what_is_wrong_and_change_nothing(override: str, problem: str) -> None:
    cfg = config({"a": [1, 2], "b": 1, "cc": 2})
    with pytest.raises(OverrideError, match=problem) as caught:
        LazyConfig.apply_overrides(cfg, ["b=7", "a.0=7", "~cc", "new.key=1", override])
    assert repr(override) in str(caught.value)
    assert cfg == {"a": [1, 2], "b": 1, "cc": 2}


def test_28_live_objects_are_neither_copied_nor_lost() -> None:
    model, numbers = object(), (n for n in range(3))
    cfg = config({"model": L(keep)(model=model, numbers=numbers), "x": 1})
    LazyConfig.apply_overrides(cfg, ["x=2", "model.y=3"])
    assert cfg.model.model is model
    assert cfg.model.numbers is numbers
    assert made_at(cfg.model) is not None


def test_28_a_failure_changes_nothing_outside_either() -> None:
    """The path leads through an interpolation to a part of the config beside the one that is changed."""
    cfg = config({"other": {"x": 1}, "model": [{"a": "${other}"}]})
    with pytest.raises(OverrideError):
        LazyConfig.apply_overrides(cfg.model[0], ["a.x=2", "a.x.y=3"])
    assert cfg.other.x == 1
    LazyConfig.apply_overrides(cfg.model[0], ["a.x=2"])
    assert cfg.other.x == 2


def test_28_read_only_configs_refuse() -> None:
    cfg = config({"a": {"b": 1}, "t": (1, 2)})
    OmegaConf.set_readonly(cfg, True)
    for override in ("a.b=2", "t.0=2", "~a.b", "~t.0"):
        with pytest.raises(OverrideError, match="read-only"):
            LazyConfig.apply_overrides(cfg, [override])
    assert cfg.a.b == 1


def test_28_takes_a_config_and_a_list() -> None:
    with pytest.raises(ConfigTypeError, match="changes a DictConfig or ListConfig, not a dict"):
        LazyConfig.apply_overrides({}, [])
    with pytest.raises(ConfigTypeError, match=r"list of texts; write \['a=1'\] for one"):
        LazyConfig.apply_overrides(config({}), "a=1")
    with pytest.raises(OverrideError, match="not 3 of type int"):
        LazyConfig.apply_overrides(config({}), [3])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("123", 123), ("-5", -5), ("+5", 5), ("0", 0), ("1_000", 1000),
        ("1e-4", 1e-4), (".1", 0.1), ("1.", 1.0), ("-1.5E3", -1500.0), ("inf", math.inf),
        ("true", True), ("False", False), ("null", None), ("None", "None"), ("yes", "yes"),
        ('"123"', "123"), ("'123'", "123"), (r"'it\'s'", "it's"), (r'"C:\new"', "C:\\new"), ("''", ""),
        ("word", "word"), ("two words", "two words"), ("path/to/file.pth", "path/to/file.pth"), ("1.2.3", "1.2.3"),
        ("007", "007"), ("12:30", "12:30"), ("torchvision://resnet50-v2", "torchvision://resnet50-v2"), ("a#b", "a#b"),
        ("~/x", "~/x"), ("foo[0]", "foo[0]"), ("it's", "it's"), ("a: b", "a: b"), ("*x", "*x"), ("???", "???"),
        ("[1,2,{x: 3}]", [1, 2, {"x": 3}]), ("{x: 1}", {"x": 1}),
        ("{x:1,y:[a b,'c,d']}", {"x": 1, "y": ["a b", "c,d"]}),
        ("[]", []), ("{}", {}), ("[ [ ] , { } ]", [[], {}]), ("{1: a, 'b c': null}", {1: "a", "b c": None}),
        ("{url: http://x/y}", {"url": "http://x/y"}), ("", ""), ("  ", ""),
        ("${other.key}", "${other.key}"), ("[${a.b},1]", ["${a.b}", 1]), ("${f:1,2}", "${f:1,2}"),
        ("x_${a}_${b:{c:1},2}", "x_${a}_${b:{c:1},2}"),
    ],
)  # fmt: skip
def test_29_values(text: str, value: Any) -> None:
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    "text", ["[1", "{x: 1", "[1,,2]", "[1,]", "{x}", "{: 1}", "'open", '"a" b', "[1] 2", "${a", "[1}", "{x: 1]", "[,]"]
)
def test_29_values_that_cannot_be_read(text: str) -> None:
    with pytest.raises(OverrideError, match=re.escape(repr("a=" + text)) + " has a value that can't be read: ."):
        apply({"a": 0}, "a=" + text)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("ab,:[]{} '\\"),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abc", min_size=1), inner),
)


def _written(value: Any) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{_written(key)}: {_written(inner)}" for key, inner in value.items()) + "}"
    return str(value) if isinstance(value, float) else json.dumps(value)


@given(_JSON)
def test_29_what_is_written_is_read(value: Any) -> None:
    assert parse_value(_written(value)) == value


@given(st.text("ab1e.,:[]{}'\" $\\-+"))
def test_29_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_value(text)
    except ValueError as error:
        assert str(error)


def test_29_interpolations_resolve() -> None:
    assert apply({"a": 1, "b": {"c": 5}}, "a=${b.c}").a == 5


def test_29_plus_adds_and_tilde_deletes() -> None:
    cfg = config({"a": {"b": 1, "c": 2}, "list": [1, 2, 3]})
    OmegaConf.set_struct(cfg, True)
    with pytest.raises(OverrideError, match=r"'a\.d=3' doesn't fit"):
        LazyConfig.apply_overrides(cfg, ["a.d=3"])
    LazyConfig.apply_overrides(cfg, ["+a.d=3", "~a.b", "~list.1", "++e=4"])
    assert cfg == {"a": {"c": 2, "d": 3}, "list": [1, 3], "e": 4}


@pytest.mark.parametrize("wrap", [tuple, list])
def test_better_tuples_take_overrides(wrap: Any) -> None:
    cfg = config({"opt": L(keep)(betas=wrap([0.9, 0.999]), blocks=wrap([L(Model)(depth=1), 2]))})
    LazyConfig.apply_overrides(cfg, ["opt.betas.0=0.8", "opt.blocks[0].depth=5", "opt.blocks.1={x: 1}"])
    assert list(cfg.opt.betas) == [0.8, 0.999]
    made = instantiate(cfg.opt)
    assert list(made["betas"]) == [0.8, 0.999]
    assert made["blocks"][0].depth == 5
    assert made["blocks"][1].x == 1
    LazyConfig.apply_overrides(cfg, ["~opt.betas.0", "opt.blocks.1=${opt.betas.0}"])
    assert list(cfg.opt.betas) == [0.999]
    assert cfg.opt.blocks[1] == 0.999


MODEL = {"model": L(Model)(depth=1, stem=L(Model)())}


@pytest.mark.parametrize(
    "override", ["model.stem.freze_at=2", "model.stem={freze_at: 2}", "model={stem: {freze_at: 2}}"]
)
def test_better_a_key_the_target_does_not_take_is_an_error(override: str) -> None:
    cfg = config(MODEL)
    with pytest.raises(KeyError) as caught:
        LazyConfig.apply_overrides(cfg, [override])
    text = str(caught.value)
    assert f"The override {override!r} sets model.stem.freze_at, but" in text
    assert "tests.config.config_targets.Model takes no argument 'freze_at'. Did you mean 'freeze_at'?" in text
    assert "It takes: depth, freeze_at, stem, stages." in text
    assert f"Write '+{override}' to set it all the same." in text
    assert cfg == config(MODEL)


def test_better_also_on_the_way_to_a_deeper_key() -> None:
    with pytest.raises(OverrideError, match=r"sets model\.stm, but .*Did you mean 'stem'"):
        apply(MODEL, "model.stm.depth=1")
    assert apply(MODEL, "model.stages.x=1").model.stages.x == 1


def test_better_a_key_that_is_there_is_no_typo() -> None:
    with pytest.warns(UserWarning, match="takes no argument 'freze_at'"):
        node = L(Model)(freze_at=1)
    assert apply({"m": node}, "m.freze_at=2").m.freze_at == 2


def test_better_plus_forces_it_in() -> None:
    assert apply(MODEL, "+model.freze_at=2", "+model.stm.depth=1").model == config(
        {**MODEL["model"], "freze_at": 2, "stm": {"depth": 1}}
    )


def test_better_what_takes_anything_is_let_through() -> None:
    assert apply({"m": L(keep)()}, "m.anything=1", "m.deep.er=2").m.anything == 1
    assert apply({"m": L("no.such.module")()}, "m.anything=1").m.anything == 1
    assert apply({"m": {"_target_": "${t}"}, "t": "x"}, "m.anything=1").m.anything == 1
    assert apply({"m": L(L(keep)())()}, "m.anything=1").m.anything == 1
    assert apply({"m": {}}, "m.anything=1").m.anything == 1
    assert apply({"m": {"_target_": getattr}}, "m.anything=1").m.anything == 1


def test_better_a_new_target_counts_for_later_overrides() -> None:
    name = "tests.config.config_targets.Model.build"
    assert apply(MODEL, f"model._target_={name}", "model.width=3").model.width == 3
    assert apply(MODEL, f"model={{width: 3, _target_: {name}}}").model.width == 3
    with pytest.raises(OverrideError, match=r"takes no argument 'freeze_at'\. It takes: width"):
        apply(MODEL, f"model._target_={name}", "model.freeze_at=3")


@pytest.mark.parametrize("value", ["3", "null", "''", "[a]"])
def test_better_a_target_is_a_name(value: str) -> None:
    with pytest.raises(OverrideError, match=r"sets model\._target_, which is a dotted name"):
        apply(MODEL, f"model._target_={value}")


def test_better_structured_configs_refuse_what_they_do_not_have() -> None:
    cfg = config({"shape": Shape(channels=3)})
    LazyConfig.apply_overrides(cfg, ["shape.channels=4"])
    assert cfg.shape.channels == 4
    for override in ("shape.chanels=5", "shape.channels=many"):
        with pytest.raises(OverrideError, match=f"{override!r} doesn't fit"):
            LazyConfig.apply_overrides(cfg, [override])


def test_better_a_comma_never_sweeps() -> None:
    with pytest.raises(OverrideError, match=r"several values; write \[1,2\] for a list, or quote it"):
        apply({"a": 0}, "a=1,2")
    assert apply({"a": 0}, "a='1,2'").a == "1,2"
