"""Point 25 of docs/reference/config.md: configs and nodes of detectron2 and ours work with each other."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from detrex_backbones.config import LazyCall, LazyConfig, instantiate
from tests.config.config_targets import Model, Shape, keep

theirs = pytest.importorskip("detectron2.config", reason="detectron2 is not importable", exc_type=ImportError)

OURS, THEIRS = "detrex_backbones.config", "detectron2.config"


@pytest.mark.parametrize("outer", [OURS, THEIRS])
@pytest.mark.parametrize("inner", [OURS, THEIRS])
@pytest.mark.parametrize("loader", [LazyConfig, theirs.LazyConfig])
def test_25_a_config_may_import_one_of_the_other_kind(write: Any, outer: str, inner: str, loader: Any) -> None:
    write("common/base.py", f"""
        from {inner} import LazyCall as L
        from tests.config.config_targets import Model, keep
        backbone = L(Model)(depth=18, stem=L(keep)(x=1))
        train = dict(lr=0.1)
    """)  # fmt: skip
    path = write("a.py", f"""
        from {outer} import LazyCall as L, LazyConfig
        from tests.config.config_targets import keep
        from .common.base import backbone, train
        again = LazyConfig.load_rel("common/base.py", "backbone")
        again.depth = 34
        backbone.depth = 50
        train.lr = "${{model.scale}}"
        model = L(keep)(backbone=backbone, again=again, scale=2)
    """)  # fmt: skip
    for _ in range(2):
        cfg = loader.load(str(path))
        for make in (instantiate, theirs.instantiate):
            made = make(cfg.model)
            assert (made["backbone"].depth, made["again"].depth) == (50, 34)
            assert made["backbone"].stem == {"x": 1}
        assert cfg.train.lr == 2
        cfg.backbone.depth = 7


@pytest.mark.parametrize("loader", [LazyConfig, theirs.LazyConfig])
@pytest.mark.parametrize("nested", [OURS, THEIRS])
def test_25_each_loader_may_be_the_outer_one(write: Any, loader: Any, nested: str) -> None:
    write("base.py", "cfg = dict(x=1)")
    write("inner.py", "from .base import cfg")
    path = write("a.py", f"""
        from {nested} import LazyConfig
        from .base import cfg as before
        loaded = LazyConfig.load_rel("inner.py")
        from .base import cfg as after
    """)  # fmt: skip
    assert loader.load(str(path)) == {"before": {"x": 1}, "loaded": {"cfg": {"x": 1}}, "after": {"x": 1}}


@pytest.mark.parametrize("lazy_call", [LazyCall, theirs.LazyCall])
@pytest.mark.parametrize("make", [instantiate, theirs.instantiate])
def test_25_nodes_are_the_same(lazy_call: Any, make: Any) -> None:
    node = lazy_call(keep)(
        model=lazy_call(Model)(depth="${..x}", stages=[lazy_call(keep)(y=1)]),
        shape=Shape(channels=3),
        named=lazy_call(Shape)(channels=4),
        x=5,
    )
    made = make(node)
    assert made["model"].depth == 5
    assert made["model"].stages[0] == {"y": 1}
    assert (made["shape"], made["named"]) == (Shape(channels=3), Shape(channels=4))


def test_25_nodes_compare_equal() -> None:
    assert LazyCall(Model)(depth=1, stem=LazyCall(keep)()) == theirs.LazyCall(Model)(
        depth=1, stem=theirs.LazyCall(keep)()
    )


def test_25_saved_files_are_the_same_to_both(tmp_path: Any) -> None:
    cfg = LazyCall(keep)(model=LazyCall(Model)(depth="${x}"), x=1, shape=Shape(channels=2))
    LazyConfig.save(cfg, tmp_path / "ours.yaml")
    loaded = theirs.LazyConfig.load(str(tmp_path / "ours.yaml"))
    assert theirs.instantiate(loaded)["model"].depth == 1
    cfg.pop("shape")
    theirs.LazyConfig.save(cfg, str(tmp_path / "theirs.yaml"))
    assert instantiate(LazyConfig.load(tmp_path / "theirs.yaml"))["model"].depth == 1


@pytest.mark.parametrize(
    "override",
    ["x=123", "x=1e-4", "x=.1", "x=true", "x=null", 'x="123"', "x='123'", "x=word", "x=a/b.c", "x=[1,2,{x: 3}]",
     "x={x: 1}", "x=${y}", "x=", "z={b: 2}", "z.c=3", "new=1", "+x=1", "z.new.er=1", "x=-1", "x=1_000",
     "x='a b'", "x=a:b", "x=[a b, 'c']", "x=inf", "x=[]", "x={}", "x=1.", "x=007", "x=1.2.3", "x=a b", "x=TRUE"],
)  # fmt: skip
def test_29_overrides_mean_what_they_mean_there(override: str) -> None:
    pytest.importorskip("hydra", reason="hydra is not installed, which detectron2 parses overrides with")
    made = []
    for facade in (LazyConfig, theirs.LazyConfig):
        cfg = LazyCall(keep)(x=0, y=5, z={"a": 1})
        made.append(facade.apply_overrides(cfg, [override]))
    assert made[0] == made[1]
    assert type(made[0].x) is type(made[1].x)


def test_30_text_is_the_same() -> None:
    pytest.importorskip("black", reason="black is not installed, which detectron2 needs for to_py")
    content = {"b": {"z": [1, "x"], "a": 0.5}, "model": {"_target_": Model, "x": {"b": 1, "a": None}}, "t": True}
    cfg = OmegaConf.create(content, flags={"allow_objects": True})
    assert LazyConfig.to_py(cfg) == theirs.LazyConfig.to_py(cfg)
