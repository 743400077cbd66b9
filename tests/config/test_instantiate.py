"""instantiate: points 5 to 17 and 35 of docs/reference/config.md, and what is better."""

from __future__ import annotations

import functools
import operator
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, MissingMandatoryValue

from detrex_backbones.config import LazyCall as L
from detrex_backbones.config import instantiate
from detrex_backbones.config.instantiation import target_of
from detrex_backbones.config.nodes import peek
from detrex_backbones.errors import ConfigImportError, InstantiateError
from tests.config import config_targets
from tests.config.config_targets import Model, OwnError, Shape, fail, keep, record

HERE = "tests.config.config_targets"


def config(content: Any) -> Any:
    return OmegaConf.create(content, flags={"allow_objects": True})


def test_05_the_target_is_a_name_a_callable_or_a_node() -> None:
    assert instantiate({"_target_": "tests.config.config_targets.Model.build", "width": 3}) == ("built", 3)
    assert instantiate({"_target_": keep, "a": 1}) == {"a": 1}
    getter = L(L(_adder)(a=3))(b=4)
    assert instantiate(getter) == 7


def _adder(a: int) -> Callable[[int], int]:
    def add(b: int) -> int:
        return a + b

    return add


@pytest.mark.parametrize("name", ["os.path.join", "collections.OrderedDict", "len", f"{HERE}.Model.build"])
def test_05_names_are_located(name: str) -> None:
    assert callable(target_of({"_target_": name}))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tests.config.config_targets.Modle", r"config_targets has no 'Modle'\. Did you mean 'Model'\?"),
        ("no_such_package.x", "there is no module 'no_such_package'"),
        ("os..path", "is not a dotted name"),
        ("", "is not a dotted name"),
    ],
)
def test_05_a_name_that_leads_nowhere_is_an_import_error_that_says_where(name: str, text: str) -> None:
    with pytest.raises(ConfigImportError, match=text) as caught:
        instantiate(config({"model": L(name)()}).model)
    assert "at model" in caught.value.__notes__[0]


def test_05_a_module_that_fails_to_import_is_named(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("broken_target_module.py", "raise RuntimeError('no GPU')")
    monkeypatch.syspath_prepend(path.parent)
    with pytest.raises(ImportError, match=r"importing broken_target_module raised RuntimeError\('no GPU'\)"):
        instantiate({"_target_": "broken_target_module.x"})


def test_06_arguments_are_made_before_the_target_is_called() -> None:
    config_targets.calls.clear()
    instantiate(L(record)(name="outer", child=L(record)(name="inner")))
    assert config_targets.calls == ["inner", "outer"]


def test_07_lists_stay_lists_and_list_configs_list_configs() -> None:
    made = instantiate([1, L(keep)(a=1)])
    assert type(made) is list
    assert made == [1, {"a": 1}]
    made = instantiate(ListConfig([1, L(Model)(depth=2)], flags={"allow_objects": True}))
    assert type(made) is ListConfig
    assert made[1].depth == 2
    made.append(object())


def test_07_a_list_argument_is_a_list_config_of_its_own() -> None:
    node = L(keep)(items=[1, {"x": 2}])
    made = instantiate(node)["items"]
    assert type(made) is ListConfig
    made.append(3)
    made[1].x = 5
    assert node["items"] == [1, {"x": 2}]


def test_07_mappings_in_a_list_keep_their_objects_and_see_the_tree() -> None:
    anything = (n for n in ())
    cfg = config({"lr": 0.1, "optimizer": L(keep)(groups=[{"params": anything, "lr": "${lr}"}])})
    group = instantiate(cfg.optimizer)["groups"][0]
    assert group.params is anything
    assert group.lr == 0.1


def test_08_a_mapping_without_a_target_comes_back_itself_unsearched() -> None:
    plain = {"inner": L(record)(name="never")}
    assert instantiate(plain) is plain
    cfg = config({"train": {"x": 1, "inner": L(record)(name="never")}})
    assert instantiate(cfg) is cfg
    config_targets.calls.clear()
    node = L(keep)(train=cfg.train)
    made = instantiate(node)["train"]
    assert made is node.train
    assert config_targets.calls == []


@pytest.mark.parametrize("value", [5, "text", None, (1, 2), object(), keep, Model, {1, 2}])
def test_09_any_other_value_comes_back_itself(value: Any) -> None:
    assert instantiate(value) is value


def test_09_nothing_is_copied() -> None:
    class Uncopyable:
        def __deepcopy__(self, memo: Any) -> Any:
            raise RuntimeError("copied")

    model = Uncopyable()
    cfg = config({"optimizer": L(keep)(params=L(keep)(), more=[])})
    cfg.optimizer.params.model = model
    cfg.optimizer.more = [model]
    made = instantiate(cfg.optimizer)
    assert made["params"]["model"] is model
    assert made["more"][0] is model


def test_10_a_dataclass_node_as_an_argument_becomes_an_instance() -> None:
    made = instantiate(L(keep)(shape=Shape(channels=3)))
    assert type(made["shape"]) is Shape
    assert made["shape"] == Shape(channels=3)


def test_11_interpolations_see_the_whole_tree() -> None:
    cfg = config({"width": 8, "model": {"neck": L(keep)(channels="${width}", up="${..name}"), "name": "fpn"}})
    assert instantiate(cfg.model.neck) == {"channels": 8, "up": "fpn"}


def test_12_an_interpolation_to_a_call_makes_a_second_object() -> None:
    cfg = config({"stem": L(Model)(), "model": L(keep)(a="${stem}", b="${stem}")})
    made = instantiate(cfg.model)
    assert type(made["a"]) is Model
    assert made["a"] is not made["b"]


@pytest.mark.parametrize("node", [L(keep)(depth="???"), L(keep)(inner=[L(keep)(depth="???")])])
def test_13_a_missing_value_raises_and_says_where(node: DictConfig) -> None:
    with pytest.raises(MissingMandatoryValue) as caught:
        instantiate(config({"model": node}).model)
    assert len(caught.value.__notes__) == 1
    assert "at model." in caught.value.__notes__[0]
    assert "depth" in caught.value.__notes__[0]


def test_13_a_missing_target_raises() -> None:
    node = L(keep)(x=1)
    node._target_ = "???"
    with pytest.raises(MissingMandatoryValue):
        instantiate(node)


@pytest.mark.parametrize("target", ["os.sep", "os", 3])
def test_14_a_target_that_is_not_callable_is_an_error(target: Any) -> None:
    node = L(keep)(x=1)
    node._target_ = target
    with pytest.raises(
        InstantiateError, match=rf"must be callable or name a callable; {target!r} is of type \w+ \(at model"
    ):
        instantiate(config({"model": node}).model)


def test_14_an_exception_of_the_target_stays_the_same_object() -> None:
    error = OwnError("mine")

    def raises() -> None:
        raise error

    with pytest.raises(OwnError) as caught:
        instantiate(L(raises)())
    assert caught.value is error


def test_15_partial_and_args_are_ordinary_keywords() -> None:
    node = L(keep)(_partial_=True, _args_=[1])
    assert instantiate(node) == {"_partial_": True, "_args_": [1]}


def test_16_read_only_and_struct_configs_work() -> None:
    cfg = config({"model": L(keep)(items=[1], inner=L(keep)(x=1), pair=(1, L(keep)()))})
    OmegaConf.set_readonly(cfg, True)
    OmegaConf.set_struct(cfg, True)
    made = instantiate(cfg.model)
    assert made["inner"] == {"x": 1}
    made["items"].append(2)


def test_17_objects_pass_through() -> None:
    objects = {"function": lambda x: x, "part": functools.partial(int, base=2), "numbers": (n for n in ()), "type": int}
    assert {k: v is objects[k] for k, v in instantiate(L(keep)(**objects)).items()} == dict.fromkeys(objects, True)


def test_17_tensors_and_dtypes_pass_through() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.zeros(2)
    made = instantiate(L(keep)(dtype=torch.float16, tensor=tensor))
    assert made["dtype"] is torch.float16
    assert made["tensor"] is tensor


def test_better_calls_inside_tuples_are_made() -> None:
    made = instantiate(L(keep)(blocks=(1, L(Model)(depth=3), [(L(Model)(depth=4),)])))
    assert made["blocks"][1].depth == 3
    assert made["blocks"][2][0][0].depth == 4
    assert instantiate((1, L(Model)(depth=3)))[1].depth == 3
    assert type(made["blocks"]) is tuple


def test_35_a_failing_node_says_where_with_what_and_from_which_line() -> None:
    node = L(fail)(depth=50, text="x" * 500)
    cfg = config({"model": L(keep)(backbone=L(keep)(stages=[1, node]))})
    with pytest.raises(OwnError, match="it broke") as caught:
        instantiate(cfg.model)
    (note,) = caught.value.__notes__
    assert "at model.backbone.stages[1]" in note
    assert f"{HERE}.fail(depth=50, text='xxx" in note
    assert f"written at {__file__}:" in note
    assert len(note) < 400


def test_better_a_wrong_argument_suggests_the_right_one() -> None:
    node = L(Model)(depth=1)
    node.freze_at = 2
    with pytest.raises(TypeError, match="freze_at") as caught:
        instantiate(config({"model": node}).model)
    assert "Did you mean 'freeze_at'?" in caught.value.__notes__[0]


def test_better_the_note_shows_what_cannot_be_resolved_or_shown() -> None:
    class Unshowable:
        def __repr__(self) -> str:
            raise RuntimeError

    with pytest.raises(OwnError) as caught:
        instantiate(L(fail)(depth={"x": "${nowhere}", "y": "???"}, text=Unshowable()))
    (note,) = caught.value.__notes__
    assert "${nowhere}" in note
    assert "<Unshowable instance" in note


def test_better_a_broken_interpolation_says_where() -> None:
    with pytest.raises(InterpolationKeyError) as caught:
        instantiate(config({"model": L(keep)(x="${nowhere}")}).model)
    assert "at model.x" in caught.value.__notes__[0]


def test_better_a_node_that_contains_itself_is_an_error() -> None:
    cfg = config({"a": L(keep)(x="${b}"), "b": L(keep)(x="${a}")})
    with pytest.raises(InstantiateError, match=r"contains itself through an interpolation \(at a\.x\.x"):
        instantiate(cfg.a)


def test_better_plain_gives_plain_arguments() -> None:
    node = L(keep)(items=[1, [2]], table={"x": [3], "call": L(keep)()}, pair=(4, L(keep)(y=[5])))
    made = instantiate(node, plain=True)
    assert type(made["items"]) is list
    assert type(made["items"][1]) is list
    assert type(made["table"]) is dict
    assert type(made["table"]["x"]) is list
    assert made["table"]["call"] is node.table.call
    assert made["pair"] == (4, {"y": [5]})


def test_better_share_makes_one_object_of_a_shared_node() -> None:
    cfg = config({"stem": L(Model)(), "model": L(keep)(a="${stem}", b=L(keep)(c="${stem}"))})
    made = instantiate(cfg.model, share=True)
    assert made["a"] is made["b"]["c"]
    assert instantiate(cfg.model, share=True)["a"] is not made["a"]


def test_target_of_a_node() -> None:
    assert target_of(L(Model)()) is Model
    assert target_of(L("operator.add")()) is operator.add
    with pytest.raises(InstantiateError, match="no _target_ in this node; its keys are: a, b"):
        target_of({"a": 1, "b": 2})
    with pytest.raises(InstantiateError, match=r"'os\.sep' is not callable but of type str"):
        target_of({"_target_": "os.sep"})


def test_what_is_read_past_omegaconf_is_what_omegaconf_reads() -> None:
    anything = object()
    values = {
        "number": 1.5,
        "nothing": None,
        "raw": b"${x}",
        "path": Path("a/${x}"),
        "text": "no ??? here",
        "other": "${number}",
        "mixed": "at ${number}",
        "escaped": "\\${number}",
        "anything": anything,
        "function": len,
        "node": {"x": "${..number}"},
        "items": [1, "${number}", {"y": 2}],
        "pair": (1, "${number}"),
    }
    cfg = DictConfig(values, flags={"allow_objects": True})
    cfg.typed = OmegaConf.structured(Shape(channels=3))
    cfg.no_dict, cfg.no_list = DictConfig(None), ListConfig(None)
    cfg.same = "${node}"
    for container in (cfg, cfg.node, cfg["items"], cfg.pair, cfg.typed, {"a": 1}, [1, 2]):
        keys = range(len(container)) if not isinstance(container, (dict, DictConfig)) else list(container)
        for key in keys:
            assert peek(container, key) is container[key] or peek(container, key) == container[key]
            assert type(peek(container, key)) is type(container[key])
    assert peek(cfg, "anything") is anything
    assert peek(cfg, "node") is cfg.node
    cfg.missing = "???"
    with pytest.raises(MissingMandatoryValue):
        peek(cfg, "missing")


def test_better_a_chain_of_three_hundred_can_be_made() -> None:
    """In a thread, whose stack is empty; Python's limit is a thousand frames."""
    cfg = L(keep)(depth=0)
    for depth in range(1, 300):
        cfg = L(keep)(depth=depth, inner=cfg)
    made: list[Any] = []
    thread = threading.Thread(target=lambda: made.append(instantiate(cfg)))
    thread.start()
    thread.join()
    for depth in range(299, 0, -1):
        assert made[0]["depth"] == depth
        made = [made[0]["inner"]]
