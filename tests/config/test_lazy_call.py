"""LazyCall: points 1 to 4 of docs/reference/config.md, and what is better."""

from __future__ import annotations

import collections
import copy
import dataclasses
import gc
import itertools
import pickle
import sys
import warnings
from collections.abc import Callable
from typing import Any

import cloudpickle
import pytest
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ReadonlyConfigError

from detrex_backbones.config import LazyCall as L
from detrex_backbones.config import LazyConfig, instantiate
from detrex_backbones.config.nodes import clone, made_at
from detrex_backbones.errors import ConfigTypeError
from tests.config.config_targets import Model, Shape, keep


def test_01_takes_a_callable_a_name_or_a_node() -> None:
    assert instantiate(L(keep)(a=1)) == {"a": 1}
    assert instantiate(L("tests.config.config_targets.keep")(a=1)) == {"a": 1}
    inner = {"_target_": "operator.attrgetter"}
    assert L(inner)(x=1)._target_._target_ == "operator.attrgetter"


@pytest.mark.parametrize("target", [3, None, [keep]])
def test_01_anything_else_is_a_type_error(target: Any) -> None:
    with pytest.raises(
        TypeError, match=r"takes a callable, a dotted name or a config node, not .*" + type(target).__name__
    ):
        L(target)


def test_01_arguments_need_names() -> None:
    with pytest.raises(
        ConfigTypeError, match=r"keyword arguments only; 2 came without a name\. Write each as name=value"
    ):
        L(keep)(1, 2)


def test_02_gives_a_dict_config_that_holds_the_object_itself() -> None:
    node = L(Model)(depth=50)
    assert type(node) is DictConfig
    assert node._target_ is Model
    assert node._get_flag("allow_objects") is True
    anything = object()
    node.stem = anything
    assert node.stem is anything


def test_02_a_dataclass_is_kept_as_its_name() -> None:
    node = L(Shape)(channels=3)
    assert node._target_ == "tests.config.config_targets.Shape"
    assert instantiate(node) == Shape(channels=3)


def test_02_a_dataclass_without_a_name_still_works() -> None:
    @dataclasses.dataclass
    class Local:
        x: int = 0

        def __call__(self, y: int) -> int:
            return self.x + y

    assert instantiate(L(Local)(x=3)) == Local(3)
    assert instantiate(L(Local(3))(y=4)) == 7


@pytest.mark.parametrize("target", [dict, collections.OrderedDict, list, set])
def test_02_builtin_containers_are_targets_too(target: Any) -> None:
    assert instantiate(L(target)()) == target()


def test_02_an_argument_that_omegaconf_cannot_hold_is_an_error_of_ours() -> None:
    for argument in (dict, "${broken"):
        with pytest.raises(
            ConfigTypeError, match=r"An argument of LazyCall\(tests\.config\.config_targets\.keep\) fits no"
        ):
            L(keep)(x=argument)


def test_03_a_target_among_the_arguments_is_overwritten() -> None:
    assert L(keep)(_target_="os.getcwd", a=1)._target_ is keep


def test_04_a_node_put_inside_another_is_copied() -> None:
    inner = L(Model)(depth=1, stages=[L(keep)(x=1)])
    outer = L(Model)(stem=inner, stages=[inner, {"deep": (inner,)}])
    inner.depth = 2
    inner.stages[0].x = 2
    for copied in (outer.stem, outer.stages[0], outer.stages[1].deep[0]):
        assert copied is not inner
        assert copied.depth == 1
        assert copied.stages[0].x == 1
    outer.stem.depth = 5
    assert inner.depth == 2
    assert outer.stages[0].depth == 1


def test_04_also_where_the_node_comes_by_a_mapping_or_list_that_is_kept() -> None:
    arguments = {"stem": L(Model)(depth=1), "stages": [L(keep)(x=1)]}
    outer = L(Model)(**arguments)
    arguments["stem"].depth = 2
    arguments["stages"][0].x = 2
    assert (outer.stem.depth, outer.stages[0].x) == (1, 1)
    nodes = [L(keep)(x=1)]
    outer = L(Model)(stages=nodes)
    nodes[0].x = 2
    assert outer.stages[0].x == 1
    call = L(Model).__call__
    inner = L(keep)(x=1)
    outer = call(stem=inner)
    inner.x = 2
    assert outer.stem.x == 1


def test_04_a_node_that_somebody_else_keeps_is_copied() -> None:
    kept = []

    def make() -> DictConfig:
        kept.append(L(keep)(x=1))
        return kept[0]

    outer = L(Model)(stem=make())
    kept[0].x = 2
    assert outer.stem.x == 1


def test_04_a_copy_that_nobody_has_looked_at_yet_is_none_the_less_one() -> None:
    """Copies are put off until they are read; what they are of may change meanwhile, at any depth."""
    inner = L(keep)(x=1, deeper=[L(keep)(x=1)])
    deeper = inner.deeper[0]
    middle = L(keep)(inner=inner)
    outer = L(keep)(middle=middle, again=middle)
    inner.x = deeper.x = 2
    inner.new = 2
    middle.inner.x = 3
    middle.inner.deeper[0].x = 3
    for copied in (outer.middle.inner, outer.again.inner):
        assert (dict(copied), copied.deeper[0].x) == ({"_target_": keep, "x": 1, "deeper": copied.deeper}, 1)
        assert "new" not in copied
    outer.middle.inner.x = 4
    assert (inner.x, middle.inner.x, outer.again.inner.x) == (2, 3, 1)


def _unread() -> DictConfig:
    inner = L(keep)(x="${..y}", items=[L(keep)(z=1)])
    middle = L(keep)(inner=inner, y=5)
    return L(keep)(middle=middle)


@pytest.mark.parametrize(
    "use",
    [
        copy.copy,
        copy.deepcopy,
        clone,
        lambda cfg: pickle.loads(pickle.dumps(cfg)),
        lambda cfg: cloudpickle.loads(cloudpickle.dumps(cfg)),
        lambda cfg: OmegaConf.merge(cfg, {"more": 1}),
        lambda cfg: L(keep)(cfg=cfg).cfg,
        lambda cfg: DictConfig({"cfg": cfg}, flags={"allow_objects": True}).cfg,
        lambda cfg: LazyConfig.apply_overrides(cfg, ["middle.inner.items.0.z=1"]),
    ],
)
def test_04_a_copy_not_looked_at_yet_can_be_used_as_any_node(use: Callable[[DictConfig], DictConfig]) -> None:
    cfg = use(_unread())
    assert cfg.middle.inner._get_parent() is cfg.middle
    assert cfg.middle.inner._get_full_key("x").endswith("middle.inner.x")
    assert cfg.middle.inner.x == 5
    assert instantiate(cfg)["middle"] == {"inner": {"x": 5, "items": [{"z": 1}]}, "y": 5}
    assert type(vars(pickle.loads(pickle.dumps(_unread())).middle)) is dict


def test_04_flags_reach_into_a_copy_not_looked_at_yet() -> None:
    cfg = _unread()
    OmegaConf.set_readonly(cfg, True)
    with pytest.raises(ReadonlyConfigError):
        cfg.middle.inner.x = 1
    assert OmegaConf.to_container(_unread().middle.inner, resolve=False)["x"] == "${..y}"
    assert len(_unread().middle) == 3
    assert _unread() == _unread()


def test_04_a_copy_shares_the_objects_it_holds() -> None:
    """A model, a generator: copying one would be slow, wrong or impossible."""
    anything, numbers = object(), (n for n in range(3))
    inner = L(keep)(anything=anything, numbers=numbers, read_only=OmegaConf.create({"x": 1}))
    outer = L(keep)(inner=inner)
    assert outer.inner.anything is anything
    assert list(outer.inner.numbers) == [0, 1, 2]


def test_04_interpolations_of_nested_nodes_see_the_new_parent() -> None:
    cfg = L(keep)(width=8, inner=L(keep)(x="${..width}", deeper=[L(keep)(y="${width}")]))
    assert cfg.inner.x == 8
    assert cfg.inner.deeper[0].y == 8
    cfg.width = 9
    assert instantiate(cfg)["inner"]["deeper"][0] == {"y": 9}


def test_04_flags_reach_nested_nodes() -> None:
    cfg = L(keep)(inner=L(keep)(deeper=L(keep)(x=1)))
    assert cfg.inner.deeper.x == 1
    OmegaConf.set_readonly(cfg, True)
    assert OmegaConf.is_readonly(cfg.inner.deeper)
    with pytest.raises(Exception, match="read-only"):
        cfg.inner.deeper.x = 2


def test_better_a_keyword_that_the_target_does_not_take_warns_where_it_is_written() -> None:
    with pytest.warns(UserWarning, match=r"Model takes no argument 'freze_at'\. Did you mean 'freeze_at'\?") as caught:
        L(Model)(freze_at=2)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        L(keep)(anything_goes=1)
        L(itertools.count)(start=1)
        L("no.such.module")(x=1)


def test_better_a_named_target_is_checked_if_it_is_imported() -> None:
    with pytest.warns(UserWarning, match="'freeze_at'"):
        L("tests.config.config_targets.Model")(freze_at=2)


def test_better_a_node_knows_the_line_where_it_was_written() -> None:
    node = L(Model)(depth=1)
    line = sys._getframe().f_lineno - 1
    place = f"{__file__}:{line}"
    outer = L(keep)(inner=node)
    copies = [node, outer.inner, copy.deepcopy(node), pickle.loads(pickle.dumps(node)), clone(node)]
    assert [made_at(one) for one in copies] == [place] * 5
    assert made_at(OmegaConf.merge(node, {"depth": 2})) == place
    assert list(node) == ["_target_", "depth"]
    assert node == DictConfig({"_target_": Model, "depth": 1}, flags={"allow_objects": True})
    assert "test_lazy_call" not in OmegaConf.to_yaml(L("x.y")(depth=1))


def _chain(depth: int) -> DictConfig:
    return L(keep)(child=_chain(depth - 1)) if depth else L(keep)(x=1)


def _chain_in_lists(depth: int) -> DictConfig:
    return L(keep)(children=[L(keep)(y=1), (_chain_in_lists(depth - 1),)]) if depth else L(keep)(x=1)


def _calls_to_build(chain: Callable[[int], DictConfig], depth: int) -> int:
    count = 0

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call"

    gc.collect()
    sys.setprofile(profile)
    try:
        chain(depth)
    finally:
        sys.setprofile(None)
    return count


def _chain_in_a_loop(depth: int) -> DictConfig:
    node = L(keep)(x=1)
    for _ in range(depth):
        node = L(keep)(child=node)
    return node


def _chain_of_omegaconf(depth: int) -> DictConfig:
    node = DictConfig({"_target_": keep, "x": 1}, flags={"allow_objects": True})
    for _ in range(depth):
        node = DictConfig({"_target_": keep, "child": node}, flags={"allow_objects": True})
    return node


@pytest.mark.parametrize("chain", [_chain, _chain_in_a_loop])
def test_better_nested_calls_cost_a_fraction_of_what_omegaconf_copies(chain: Callable[[int], DictConfig]) -> None:
    chain(3)
    assert _calls_to_build(chain, 12) < _calls_to_build(_chain_of_omegaconf, 12)
    assert _calls_to_build(chain, 60) < _calls_to_build(_chain_of_omegaconf, 60) / 4


@pytest.mark.parametrize("chain", [_chain, _chain_in_a_loop])
def test_better_a_deep_chain_is_whole(chain: Callable[[int], DictConfig]) -> None:
    cfg = chain(100)
    for _ in range(100):
        assert cfg.child._get_parent() is cfg
        cfg = cfg.child
    assert cfg.x == 1
