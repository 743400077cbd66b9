"""Lambdas of a config file, as text and back: points 26, 27 and 36 of docs/reference/config.md."""

from __future__ import annotations

import copy
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

from detrex_backbones.config import LazyConfig, instantiate, lambda_of
from detrex_backbones.config.nodes import to_plain
from detrex_backbones.config.write_py import write_py
from detrex_backbones.errors import ConfigImportError, ConfigValueError, DetrexBackbonesError, InstantiateError
from tests.config.config_targets import Model

HERE = "tests.config.config_targets"
LAMBDA_OF = "detrex_backbones.config.lambda_of"
CONFIG = """
    import math
    from detrex_backbones.config import LazyCall as L
    from tests.config import config_targets
    from tests.config.config_targets import Model, keep
    RATE, NAMES, data = 0.5, ("bias", "norm"), dict(set=L(keep)(names="lvis", sizes=(1, 2)))
    from detrex_backbones.config.nodes import as_config
    read = as_config(data)
    optimizer = L(keep)(lr_factor_func=lambda module_name: 0.1 if "backbone" in module_name else 1)
    two = L(keep)(a=lambda x: x + 1, b=lambda x: x + 2, c=lambda x: x + 1.0, d=lambda x: x + True)
    defaults = L(keep)(f=lambda x, y=RATE, *, z=-3, norm=Model: (norm, x * y + z))
    nested = L(keep)(f=lambda n: 0.1 if "a" in n else RATE if n in NAMES or not n else 3 if 1 < len(n) <= 4
                     else -len(n[0:2]) if n else 7)
    called = L(keep)(norm=lambda c: Model(c, stem=config_targets.keep(x=math.sqrt(c))), late=lambda:
                     keep(names=read.set.names, kind=Model))
    items = L(keep)(many=[lambda i=i: [i, i ** 2, 7 % 4, 7 // 2] for i in range(3)],
                    inside=[(lambda k: lambda x: (x[k], x[:k], x[-1]))(k) for k in (1, 2)])
"""
CALLS = {  # where each function stands, and what it is called with
    "optimizer.lr_factor_func": [("backbone.0",), ("head",)],
    **{f"two.{key}": [(1,), (0.5,)] for key in "abcd"},
    "defaults.f": [(2,), (2, 3)],
    "nested.f": [("a",), ("bias",), ("",), ("xy",), ("xyzuv",)],
    "called.norm": [(4,)],
    "called.late": [()],
    **{f"items.many[{i}]": [(), (5,)] for i in range(3)},
    **{f"items.inside[{i}]": [("abc",)] for i in range(2)},
}


def found(cfg: Any, place: str) -> Any:
    node, _, rest = place.partition(".")
    key, _, index = rest.partition("[")
    made = instantiate(cfg[node])[key]
    return made[int(index[:-1])] if index else made


def given(function: Any, arguments: Any) -> Any:
    """What the function gives, types included: 1, 1.0 and True are three values."""
    made = function(*arguments)
    return repr(vars(made)) if isinstance(made, Model) else repr(made)


def named(text: Any) -> Any:
    return {"_target_": f"{HERE}.keep", "f": {"_target_": LAMBDA_OF, "_text_": text}}


def test_26_lambdas_are_saved_by_their_text(write: Any, tmp_path: Path) -> None:
    cfg = LazyConfig.load(write("a.py", CONFIG))
    LazyConfig.save(cfg, tmp_path / "a.yaml")
    loaded = LazyConfig.load(tmp_path / "a.yaml")
    LazyConfig.save(loaded, tmp_path / "b.yaml")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.py", "a.yaml", "b.yaml"]
    assert (tmp_path / "a.yaml").read_text() == (tmp_path / "b.yaml").read_text()
    assert "'lambda module_name: 0.1 if ''backbone'' in module_name else 1'" in (tmp_path / "a.yaml").read_text()
    assert LazyConfig.to_py(loaded) == LazyConfig.to_py(cfg)
    assert "= tests.config.config_targets.keep(lr_factor_func=lambda module_name: 0.1 if " in LazyConfig.to_py(cfg)
    write_py(loaded, tmp_path / "b.py")
    for other in (loaded, LazyConfig.load(tmp_path / "b.py")):
        for place, calls in CALLS.items():
            functions = [found(other, place)]
            functions += [copy.deepcopy(functions[0])] if other is loaded else []
            functions += [pickle.loads(pickle.dumps(functions[0]))] if other is loaded else []
            for arguments in calls:
                for function in functions:
                    assert given(function, arguments) == given(found(cfg, place), arguments), (place, arguments)
    assert list(cfg) == list(loaded)


def test_26_a_lambda_takes_its_arguments_as_python_has_them() -> None:
    function = lambda_of("lambda x, y=2, *, z=(1, -3): [x, y, z]")
    assert (function(1), function(y=1, x=0), function(1, z=None)) == ([1, 2, (1, -3)], [0, 1, (1, -3)], [1, 2, None])
    for args, keywords in (((), {}), ((1, 2, 3), {}), ((1,), {"u": 1})):
        with pytest.raises(TypeError):
            function(*args, **keywords)
    assert lambda_of("lambda a, b: a and b or a < b < 3 != 4")(0, 2) is True
    assert lambda_of("lambda x: x is not None and {x, 1} == {1} and x not in [2]")(1) is True
    with pytest.raises(ZeroDivisionError):
        lambda_of("lambda x: x > 0 and 1 / 0")(1)
    assert lambda_of("lambda x: x > 0 and 1 / 0")(0) is False


def test_29_a_lambda_is_changed_by_an_override(write: Any, tmp_path: Path) -> None:
    cfg = LazyConfig.load(write("a.py", CONFIG))
    LazyConfig.save(cfg, tmp_path / "a.yaml")
    for one in (cfg, LazyConfig.load(tmp_path / "a.yaml")):
        LazyConfig.apply_overrides(one, ["optimizer.lr_factor_func=lambda n: 0.5 if n in ['a'] else 2"])
        assert found(one, "optimizer.lr_factor_func")("a") == 0.5
        with pytest.raises(ConfigValueError, match="is not a lambda that a config can hold"):
            LazyConfig.apply_overrides(one, ["optimizer.lr_factor_func=lambda n: n.x"])


@pytest.mark.parametrize(
    "text",
    [
        "lambda x: x.real",
        "lambda x: [y for y in x]",
        "lambda *x: x",
        "lambda x: (y := x)",
        "lambda x: own(x)",
        "lambda: CHANGED",
        "lambda: f'{1}'",
        "lambda: (lambda: 1)",
        "lambda: '${a}'",
        "lambda x: unknown",
        "lambda x={}: x",
        "lambda x: x if " + "not " * 60 + "x else 1",
    ],
)
def test_27_lambdas_that_are_more_than_an_expression_stay_as_they_were(write: Any, tmp_path: Path, text: str) -> None:
    path = write("a.py", f"""
        from detrex_backbones.config import LazyCall as L
        CHANGED = []
        def own(x): return x
        model = L(dict)(f={text})
    """)  # fmt: skip
    cfg = LazyConfig.load(path)
    with pytest.warns(UserWarning, match=r"can't be loaded again: model\.f is "):
        LazyConfig.save(cfg, tmp_path / "a.yaml")
    assert (tmp_path / "a.yaml.pkl").is_file()
    with pytest.raises(ConfigValueError, match=r"model\.f is "):
        write_py(cfg, tmp_path / "b.py")


def test_27_a_lambda_is_only_written_from_the_source_that_it_was_made_of(write: Any, tmp_path: Path) -> None:
    text = "from detrex_backbones.config import LazyCall as L\nmodel = L(dict)(f=lambda x: {})"
    cfg = LazyConfig.load(write("a.py", text.format("x + 1")))
    write("a.py", text.format("x + 12"))
    with pytest.warns(UserWarning, match=r"can't be loaded again: model\.f is "):
        LazyConfig.save(cfg, tmp_path / "a.yaml")
    cfg = LazyConfig.load(write("a.py", text.format("x + 3")))
    plain = {"table": cfg.model.f}  # in a dict without a target, where `instantiate` makes nothing
    with pytest.warns(UserWarning, match=r"can't be loaded again: table is "):
        LazyConfig.save(plain, tmp_path / "a.yaml")


HOSTILE = {
    "dunder": ("lambda x: x.__class__", "x.__class__ is not an importable name"),
    "dunder of a name": ("lambda: os.__dict__", "os.__dict__ is not an importable name"),
    "import": ("lambda: __import__('os')", "__import__ is not an importable name"),
    "attribute of a call": ("lambda: dict().update", r"dict\(\).update is not an importable name"),
    "call of an argument": ("lambda f: f()", "it calls f, which"),
    "call of a call": ("lambda: f()()", r"it calls f\(\), which"),
    "stars": ("lambda x: dict(**x)", r"it calls with \*\*"),
    "star": ("lambda x: dict(*x)", "it has a Starred"),
    "comprehension": ("lambda: [x for x in y]", "it has a ListComp"),
    "lambda in it": ("lambda: lambda: 1", "it has a Lambda"),
    "shift": ("lambda: 1 << 10 ** 9", "it has a LShift"),
    "no lambda": ("__import__('os').getcwd()", "it isn't one lambda"),
    "statement": ("import os", "it can't be parsed"),
    "call in a default": ("lambda x=os.getcwd(): x", "it has a Call"),
    "power in a default": ("lambda x=9**9**9: x", "it has a BinOp"),
    "an argument twice": ("lambda x, x: x", "an argument twice"),
    "deep brackets": (f"lambda x: {'(' * 250}", "it can't be parsed"),
    "deep signs": (f"lambda x: {'-' * 900}x", "in one another|it can't be parsed"),
    "long": (f"lambda x: {'1+' * 1000}x", "at most 2,000 characters"),
    "zero byte": ("lambda: 1\x00", "it can't be parsed"),
    "no text": (3, "it is not a string"),
}


@pytest.mark.parametrize("allow", [None, (f"{HERE}.keep", "os.", "dict", "builtins.")])
@pytest.mark.parametrize("kind", HOSTILE)
def test_36_hostile_texts_are_refused(tmp_path: Path, kind: str, allow: Any) -> None:
    text, message = HOSTILE[kind]
    LazyConfig.save({"model": named(text)}, tmp_path / "a.yaml")
    cfg = LazyConfig.load(tmp_path / "a.yaml")
    with pytest.raises(ConfigValueError, match=message) as caught:
        instantiate(cfg.model, allow=allow)
    assert "model.f" in "".join(caught.value.__notes__)
    assert "lambda_of(_text_=" in "".join(LazyConfig.to_py(cfg).split())  # no lambda of Python's


@pytest.mark.parametrize(
    "body", ["9 ** 9 ** 9", "x ** 99999", "(x ** 9999) ** 9999", "'a' * 10 ** 9", "[0] * x", "'%999999999d' % x"]
)
def test_36_a_function_takes_no_end_of_time_or_memory(body: str) -> None:
    function = instantiate({"_target_": LAMBDA_OF, "_text_": f"lambda x: {body}"}, allow=())
    with pytest.raises(DetrexBackbonesError, match="A lambda of a config"):
        function(7)
    assert lambda_of("lambda n: 0.8 ** (12 - n) + 2 ** 10 * 2")(12) == 2049


def test_36_names_in_a_lambda_are_allowed_as_targets_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad_on_import.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    allow = (f"{HERE}.", f"{HERE}.keep")
    assert instantiate(named(f"lambda d: {HERE}.Model(depth=d)"), allow=allow)["f"](3).depth == 3
    assert instantiate(named("lambda d: d + 1"), allow=allow)["f"](3) == 4
    for name in ("os.getcwd", f"{HERE}.record", f"{HERE}.dataclasses.sys.exit", "bad_on_import.f", "getattr", "eval"):
        for text in (f"lambda: {name}(1)", f"lambda: {name}", f"lambda x={name}: x"):
            with pytest.raises(InstantiateError, match="not allowed"):
                instantiate(named(text), allow=allow)
    alias = {"_target_": "detrex_backbones.config.lambdas.lambda_of", "_text_": "lambda: bad_on_import.f()"}
    with pytest.raises(InstantiateError, match=r"bad_on_import\.f is not allowed"):
        instantiate(alias, allow=(alias["_target_"],))
    for name in ("nowhere.f", "unknown", "os.nothing"):
        with pytest.raises(ConfigImportError, match="Can't locate"):
            instantiate(named(f"lambda: {name}()"))
    assert "bad_on_import" not in sys.modules


def test_30_the_text_of_a_lambda_adds_nothing_but_the_lambda() -> None:
    node = {"_target_": "some.where", "b": 1, "a": {"_target_": LAMBDA_OF, "_text_": " lambda x:  x # )\n"}}
    assert LazyConfig.to_py({"m": node}).split() == ["cfg.m", "=", "some.where(a=lambda", "x:", "x,", "b=1)"]
    assert to_plain(node) == node
