"""LazyConfig.apply_overrides: points 28, 29, 31 and 32 of docs/reference/config.md, and what is better."""

from __future__ import annotations

import datetime
import enum
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from detrex_backbones.config import LazyCall as L
from detrex_backbones.config import LazyConfig, instantiate
from detrex_backbones.config.nodes import made_at, to_plain
from detrex_backbones.config.values import escaped, parse_value
from detrex_backbones.errors import ConfigTypeError, OverrideError
from tests.config.config_targets import Model, OwnError, Shape, keep


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
        ({"a": {"b": 1}, "c": "${a}"}, "c.b=2", {"a": {"b": 1}, "c": {"b": 2}}),
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
    assert OmegaConf.to_container(cfg) == {"other": {"x": 1}, "model": [{"a": "${other}"}]}
    LazyConfig.apply_overrides(cfg.model[0], ["a.x=2"])
    assert cfg.other.x == 1
    assert cfg.model[0].a.x == 2


@pytest.mark.parametrize(
    ("override", "after"),
    [
        ("b.x=7", {"x": 7, "y": {"z": 2}}),
        ("b={x: 7}", {"x": 7, "y": {"z": 2}}),
        ("b.y.z=7", {"x": 1, "y": {"z": 7}}),
        ("~b.x", {"y": {"z": 2}}),
        ("+b.new=7", {"x": 1, "y": {"z": 2}, "new": 7}),
        ("b=7", 7),
    ],
)
def test_28_a_path_through_an_interpolation_changes_what_stands_there_alone(override: str, after: Any) -> None:
    content = {"a": {"x": 1, "y": {"z": 2}}, "b": "${a}", "c": "${a}"}
    cfg = apply(content, override)
    assert cfg.b == after
    assert cfg.a == cfg.c == content["a"]


def test_28_also_in_lists_and_calls_and_with_the_objects_that_they_hold() -> None:
    anything = (n for n in ())
    cfg = config({"stem": L(Model)(depth=1, stem=anything), "pair": (1, 2), "model": {"stems": ["${stem}"]}})
    cfg.model.pair, cfg.model.block = "${pair}", L(keep)(stem="${stem}", pair="${pair}")
    LazyConfig.apply_overrides(cfg, ["model.stems.0.depth=2", "model.block.stem.depth=3", "model.block.pair.0=9"])
    assert (cfg.stem.depth, cfg.model.stems[0].depth, cfg.model.block.stem.depth) == (1, 2, 3)
    assert cfg.model.stems[0].stem is anything
    assert made_at(cfg.model.stems[0]) == made_at(cfg.stem)
    assert instantiate(cfg.model.block)["pair"] == (9, 2)
    assert list(cfg.pair) == list(cfg.model.pair) == [1, 2]


def test_28_relative_interpolations_keep_their_meaning_in_the_copy() -> None:
    content = {
        "k": 3,
        "a": {"out": "${..k}", "in": "${.x}", "x": 1, "deep": {"up": "${...k}"}},
        "m": {"n": {"b": "${a}"}},
    }
    cfg = apply(content, "m.n.b.x=7")
    assert OmegaConf.to_container(cfg.m.n.b, resolve=True) == {"out": 3, "in": 7, "x": 7, "deep": {"up": 3}}
    assert OmegaConf.to_container(cfg.a, resolve=True) == {"out": 3, "in": 1, "x": 1, "deep": {"up": 3}}


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
        ("true", True), ("False", False), ("null", None), ("None", None), ("none", "none"), ("yes", "yes"),
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
    "text", ["[1", "{x: 1", "[1,,2]", "{x}", "{: 1}", "'open", '"a" b', "[1] 2", "${a", "[1}", "{x: 1]", "[,]"]
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
    assert f"Write '+{override}' to set it anyway." in text
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


TRAIN = {"model": L(Model)(depth=1, stem=L(Model)()), "train": {"device": "", "amp": {"enabled": False}}, "mine": {}}


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("train.init_checkpiont=x.pth", "'init_checkpoint'"),
        ("train.devise=cpu", "'device'"),
        ("train.loadoptions.stem_adapt=repeat", "'load_options'"),
        ("trian.init_checkpoint=x.pth", "'train'"),
        ("modle.depth=2", "'model'"),
        ("bakcbone=resnet101", "'backbone'"),
        ("init_checkpoint=x.pth", "'train.init_checkpoint'"),
        ("init_chekpoint=x.pth", "'train.init_checkpoint'"),
        ("device=cpu", "'train.device'"),
        ("load_options={}", "'train.load_options'"),
        ("train.amp.enabeld=true", "'enabled'"),
        ("train={amp: {enabeld: true}}", "'enabled'"),
        ("model.dpeth=2", "'depth'"),
        ("model.stem.freze_at=2", "'freeze_at'"),
        ("mine2.list.0.widht=2", "'width'"),
        ("free.widht=2", "'width'"),
        ("free.modelname=x", "'model_name'"),
        ("sized.szie=2", "'size'"),
    ],
)
def test_31_a_key_within_two_letters_of_another_is_an_error(override: str, meant: str) -> None:
    content = {**TRAIN, "mine2": {"list": [{"width": 1}]}, "free": L(takes_more)(width=1), "sized": {"size": 1}}
    with pytest.raises(OverrideError) as caught:
        apply(content, override)
    assert f"Did you mean {meant}" in str(caught.value)
    assert f"Write '+{override}' to set it anyway." in str(caught.value)
    apply(content, "+" + override)


def takes_more(model_name: str = "", **kwargs: Any) -> None:
    pass


@pytest.mark.parametrize("override", ["train.max_iter=1", "train={max_iter: 1}", "train.eval.period=1"])
def test_31_a_new_key_of_train_needs_a_plus(override: str) -> None:
    with pytest.raises(OverrideError, match=r"train has no key '(max_iter|eval)'\. It has: amp, device, init_check"):
        apply(TRAIN, override)
    assert "train" in apply(TRAIN, "+" + override)


@pytest.mark.parametrize(
    "override",
    [
        "train.init_checkpoint=x.pth", "train.load_options.stem_adapt=repeat", "train.load_options={source: x}",
        "mine.anything=1", "mine.deep.er=1", "other=1", "res2.x=1", "free.res4=1", "free.stage2={x: 1}", "free.lr=2",
        "free.anything=1", "free.model_name=x", "model.stages=1", "new_section.train=1",
        "mine={min_size: 1, min_sizes: 2}", "other={top_left: 1, top_lefts: {width: 1, widths: 2}}",
    ],
)  # fmt: skip
def test_31_what_is_read_and_what_is_the_users_own_is_free(override: str) -> None:
    """Keys that differ in digits alone are no slips, nor are very short ones."""
    apply({**TRAIN, "free": L(takes_more)(res3=1, stage1=1, l2=1), "res1": 0}, override)


def test_31_a_config_without_train_takes_the_keys_that_are_read() -> None:
    assert apply({"model": 1}, "train.init_checkpoint=x.pth").train.init_checkpoint == "x.pth"
    with pytest.raises(OverrideError, match="Did you mean 'train'"):
        apply({"model": 1}, "trian.init_checkpoint=x.pth")


@pytest.mark.parametrize(
    ("override", "inner"),
    [
        ("train=some.pth", "train.init_checkpoint"),
        ("train=[1]", "train.device"),
        ("train=null", "train.device"),
        ("model=resnet50", "model._target_"),
        ("train.load_options=strict", "train.load_options.allow"),
    ],
)
def test_31_a_section_is_not_replaced(override: str, inner: str) -> None:
    content = {"model": L(Model)(), "train": {"device": "", "load_options": {"allow": 1}}}
    with pytest.raises(OverrideError, match=rf"is a section, with the keys .*Set one of them, such as {inner}\."):
        apply(content, override)
    apply(content, "+" + override)
    assert apply({**content, "mine": {"x": 1}}, "mine=3", "train=${mine}", "~train").mine == 3


def test_32_a_list_over_a_tuple_becomes_one() -> None:
    content = {"m": L(keep)(sizes=((16,), (32,)), pair=(1, [2, 3]), plain=[1], at="${..sizes}"), "sizes": (1, 2)}
    cfg = apply(content, "m.sizes=[[8,9],[16],[32]]", "m.pair=[4,[5]]", "m.plain=[2]", "m.at=[3]", "sizes=[3]")
    made = instantiate(cfg.m)
    assert made["sizes"] == ((8, 9), (16,), (32,))
    assert made["pair"] == (4, [5])
    assert type(made["pair"]) is tuple
    assert not isinstance(made["plain"], tuple)
    assert (made["at"], instantiate((cfg.sizes,))) == ((3,), ((3,),))


def test_32_what_is_longer_goes_on_as_the_tuple_ended() -> None:
    made = instantiate(apply({"m": L(keep)(sizes=((1,), [2]))}, "m.sizes=[[5],[6],[7]]").m)
    assert [type(item) is tuple for item in made["sizes"]] == [True, False, False]


def test_32_a_list_where_the_target_has_a_tuple_becomes_one() -> None:
    for text in ("[3,4]", "(3,4)"):
        made = instantiate(apply({"m": L(pairs)()}, f"m.pair={text}").m)
        assert type(made) is tuple
        assert made == (3, 4)


def pairs(pair: Any = (1, 2)) -> Any:
    return pair


def test_32_the_name_of_a_class_over_a_class_is_the_class() -> None:
    cfg = apply({"m": L(keep)(norm=Model, name="x")}, f"m.norm={OwnError.__module__}.OwnError", "m.name=os.mkdir")
    assert cfg.m.norm is OwnError
    assert cfg.m.name == "os.mkdir"
    with pytest.raises(OverrideError, match=r"has no 'OwnErorr'\. Did you mean 'OwnError'"):
        apply({"m": L(keep)(norm=Model)}, f"m.norm={OwnError.__module__}.OwnErorr")


@pytest.mark.parametrize(
    "value",
    [[torch.float16], (torch.nn.ReLU, 1), [{"norm": Model}], ((math.sqrt,),), [[torch.channels_last, "a.b"]], ["???"]],
)
def test_29_what_is_shown_for_objects_inside_of_others_gives_them_back(value: Any) -> None:
    """And over other objects of their kind, in lists, tuples and dicts of arguments."""
    if value == ["???"]:
        assert apply({"x": value}, "x=[1]").x == [1]
        return
    text = LazyConfig.to_py(config([value]), prefix="").strip()[1:-1]
    for call in (L(keep)(x=value), config({"x": value})):
        assert _exactly(to_plain(apply({"m": call}, f"m.x={text}").m.x)) == _exactly(value)
    changed = to_plain(apply({"x": [torch.nn.GELU, 1]}, "x=[torch.nn.ReLU, os.mkdir, torch.nn.Tanh]").x)
    assert changed == [torch.nn.ReLU, "os.mkdir", "torch.nn.Tanh"]


@pytest.mark.parametrize("value", [range(3), {1, 2}, 1 + 2j, slice(1, 2), torch.Size([1]), datetime.date(2020, 1, 1)])
def test_29_what_no_text_can_set_is_said_where_its_text_is_given_back(value: Any) -> None:
    for held in (value, [value], (value, 1)):
        text = LazyConfig.to_py(config([held]), prefix="").strip()[1:-1]
        with pytest.raises(OverrideError, match=f"shown for the {type(value).__name__} there, which no text can set"):
            apply({"m": {"x": held}}, f"m.x={text}")
        assert repr(value) in str(apply({"m": {"x": held}}, f"+m.x={text}").m.x)
    assert apply({"x": value}, "x=3").x == 3


MEANT_IN_PYTHON = {
    "(1,2,3)": (1, 2, 3), "( 1, 2 )": (1, 2), "(1,)": (1,), "(1, )": (1,), "()": (), "(1)": 1,
    "((1,2),[3])": ((1, 2), [3]), "[1,]": [1], "{x: [1, ], }": {"x": [1]}, "[\n    1,\n]": [1],
    "[(1,2),(3,)]": [(1, 2), (3,)], "{'a': (1, None)}": {"a": (1, None)}, "None": None, "[None, True]": [None, True],
    "-1": -1, "(-1, +2.5)": (-1, 2.5), "(a, 'b c', d e)": ("a", "b c", "d e"), "True": True, "b'x\\x00'": b"x\0",
    '[b"]"]': [b"]"], 'pathlib.Path("a/b")': Path("a/b"), '[pathlib.Path(\n"a/b"\n)]': [Path("a/b")],
    '[float("inf")]': [math.inf],
    "'\\u00e4\\U0001F600'": "\u00e4\U0001f600",
    "(${a.b},${c})": ("${a.b}", "${c}"), "'(1,2)'": "(1,2)", "(('x'))": "x",
    "a(b": "a(b", "model(1).pth": "model(1).pth",
    "C:\\data\\x": "C:\\data\\x", "none": "none", "'\\\\u0041'": "\\u0041",
}  # fmt: skip


@pytest.mark.parametrize("text", MEANT_IN_PYTHON)
def test_29_what_is_python_is_read_as_python_reads_it(text: str) -> None:
    assert repr(parse_value(text)) == repr(MEANT_IN_PYTHON[text])
    if isinstance(parse_value(text), tuple):
        cfg = apply({"m": L(keep)(x=0)}, f"m.x={text}", "+c=5", "+a={b: 6}")
        assert isinstance(instantiate(cfg.m)["x"], tuple)


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("int(1e5)", '"int(1e5)"'),
        ("range(10,11)", '"range(10,11)"'),
        ("choice(a,b)", '"choice(a,b)"'),
        ("sort(3,1)", '"sort(3,1)"'),
        ("glob(*)", '"glob(*)"'),
        ("x\\,y", '"x,y"'),
        ("x\\ y\\=z", '"x y=z"'),
        ("\\[1\\]", '"[1]"'),
        ("a\\:b", '"a:b"'),
        ("1,2", "[1,2]"),
        ("1,2", '"1,2"'),
        ("'a',b", "\"'a',b\""),
        ("a,[", '"a,["'),
        ("(x) y.pth", '"(x) y.pth"'),
    ],
)
def test_29_what_hydra_reads_otherwise_is_refused_with_a_cure_that_works(text: str, cure: str) -> None:
    with pytest.raises(OverrideError) as caught:
        apply({"a": 0}, f"a={text}")
    assert cure in str(caught.value)
    assert apply({"a": 0}, f"a={cure}").a == ([1, 2] if cure == "[1,2]" else cure[1:-1])


@pytest.mark.parametrize(
    "text", ["[range(10,11)]", "{x: int(3)}", "(f(1),)", "[x\\,y]", "[a\\]b]", "r'\\d'", "f'x'", "[rb'x']"]
)
def test_29_so_it_is_inside_of_brackets(text: str) -> None:
    with pytest.raises(OverrideError, match=r"function of Hydra's grammar|escape outside of quotes|letters before its"):
        apply({"a": 0}, f"a={text}")


_SCALARS = (
    (st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text() | st.binary())
    | st.text("${}\\'\"a.:?", max_size=6).filter(lambda text: text != "???")
    | st.text("ab/. \\'").map(Path)
)
# omegaconf takes no "1" beside 1, and a dict takes no True beside 1.
_KEYS = st.text().filter(lambda key: key != "_target_" and not re.fullmatch(r"-?\d+", key)) | st.one_of(
    st.sampled_from([True, False]), st.integers(2), st.floats(-0.9, -0.1), st.just(-math.inf), st.binary()
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(_KEYS, inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(_VALUES)
def test_29_what_show_prints_is_the_value_that_it_was_printed_for(value: Any) -> None:
    """For every value that a config can hold: its text in `to_py`, given back as an override."""
    text = LazyConfig.to_py(config([_as_text_of_a_config(value)]), prefix="")
    assert _exactly(to_plain(apply({"x": 0}, f"x={text}").x)) == _exactly([value])
    assert _exactly(to_plain(apply({"m": {"x": 0}}, f"m={{x: {text.strip()[1:-1]}}}").m.x)) == _exactly(value)
    alone = apply({"x": 0}, f"x={text.strip()[1:-1]}").x
    assert _exactly(to_plain(alone)) == _exactly(value)


class Kind(enum.Enum):
    ONE = 1


@pytest.mark.parametrize(
    "key",
    ["a b", "a.b", "a]b", "a=b", 'a"b', "", " a", "x\\", "\n", 1, -3, 1.5, True, b"a", math.inf, math.nan, Kind.ONE],
)
def test_29_so_is_the_key_that_show_prints(key: Any) -> None:
    """In the path and inside of a value; where it's a new one, too, if it is a text."""
    cfg = config({"x": {key: 1, "zz": 0}})
    line = LazyConfig.to_py(cfg, prefix="").splitlines()[0]
    apply_to_x = LazyConfig.apply_overrides(cfg, [line.replace("= 1", "= 2")])
    assert list(apply_to_x.x.values()) == [2, 0]
    LazyConfig.apply_overrides(cfg, [f"x={LazyConfig.to_py(config([{key: 3}]), prefix='').strip()[1:-1]}"])
    assert list(cfg.x.values()) == [3, 0] or key != key
    if isinstance(key, str) and key.isprintable():
        assert apply({"x": {}}, line) == {"x": {key: 1}}
        assert apply({"x": {key: 1}}, f"~{line.partition(' = ')[0]}") == {"x": {}}


@settings(deadline=None)
@given(_VALUES)
def test_29_so_is_what_messages_print(value: Any) -> None:
    """Their text is Python's repr; a character that can't be printed is written otherwise by it, and a path."""
    text = repr(value)
    if "\\x" not in text and not re.search(r"\\[nrtuU]|Path\(|inf", text) and "{'':" not in text and "'': " not in text:
        assert _exactly(parse_value(text)) == _exactly(value)


def _as_text_of_a_config(value: Any) -> Any:
    if isinstance(value, str):
        return escaped(value)
    if isinstance(value, dict):
        return {key: _as_text_of_a_config(inner) for key, inner in value.items()}
    return type(value)(map(_as_text_of_a_config, value)) if isinstance(value, (list, tuple)) else value


def _exactly(value: Any) -> Any:
    """So that 1, 1.0 and True differ, and -0.0 and 0.0; the order of keys doesn't matter."""
    if isinstance(value, dict):
        return {"dict": {repr(key): _exactly(value[key]) for key in sorted(value, key=repr)}}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [_exactly(item) for item in value]}
    return repr(value)


def test_options_of_a_load_are_known_to_overrides():
    """They stand as text in the config layer, which imports no torch."""
    from dataclasses import fields

    from detrex_backbones.checkpoint.load import LoadOptions
    from detrex_backbones.config.new_keys import SECTIONS

    assert set(SECTIONS["train.load_options"]) == {field.name for field in fields(LoadOptions)}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.load_options.sourse=x", r"train\.load_options has no key 'sourse'\. Did you mean 'source'\?"),
        ("train.load_options.resize_position=False", r"Did you mean 'resize_positions'\?"),
        ("train.load_options.other=1", r"train\.load_options has no key 'other'\. It has: allow_missing, "),
        ("train.load_options=x", r"train\.load_options is a section, with the keys source, prefix, "),
    ],
)
def test_slips_in_options_of_a_load_are_errors(override, message):
    from detrex_backbones import get_config

    cfg = get_config("resnet/resnet18.py")
    with pytest.raises(OverrideError, match=message):
        LazyConfig.apply_overrides(cfg, [override])
    LazyConfig.apply_overrides(cfg, ["train.load_options.resize_positions=False"])
    assert cfg.train.load_options == {"resize_positions": False}


def test_options_of_a_load_that_are_no_section_are_an_error():
    from detrex_backbones import get_config
    from detrex_backbones.errors import ConfigTypeError
    from detrex_backbones.zoo import load_options

    cfg = get_config("resnet/resnet18.py")
    cfg.train.load_options = "x"
    with pytest.raises(ConfigTypeError, match=r"train\.load_options='x' is a str\. It is a section"):
        load_options(cfg)


@pytest.mark.parametrize("value", ["resnet101", "timm/convnext_tiny", "{a: 1}"])
def test_a_swap_that_nothing_would_read_is_an_error(value):
    """`lazyconfig_train_net.py` hands its command line to `apply_overrides`, which swaps nothing."""
    cfg = LazyConfig.apply_overrides(DictConfig({"model": {"backbone": {"depth": 18}}}), ["model.backbone.depth=50"])
    with pytest.raises(OverrideError, match=r"swap_backbone\(cfg, NAME\)"):
        LazyConfig.apply_overrides(cfg, [f"backbone={value}"])
    assert "backbone" not in cfg
    assert "backbone" in LazyConfig.apply_overrides(cfg, [f"+backbone={value}"])
    assert "backbone" in LazyConfig.apply_overrides(DictConfig({"a": 1}), [f"backbone={value}"])
