"""LazyConfig.load and load_rel: points 18 to 24, 33 and 34 of docs/reference/config.md, and what is better."""

from __future__ import annotations

import builtins
import contextlib
import dataclasses
import importlib
import pickle
import sys
import threading
import typing
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from omegaconf import DictConfig, ListConfig

from detrex_backbones.config import LazyConfig, defined_in_a_config_file, instantiate
from detrex_backbones.config.instantiation import target_of
from detrex_backbones.config.nodes import made_at, to_plain
from detrex_backbones.errors import ConfigError, ConfigImportError, ConfigKeyError, ConfigValueError, OverrideError
from tests.config.config_targets import Model

TRAIN = """
    from detrex_backbones.config import LazyCall as L
    train = dict(lr=0.1, steps=[1, 2])
    from tests.config.config_targets import Model
    model = L(Model)(depth=50)
    names = ["a"]
    _private = dict(x=1)
    number = 3
    from omegaconf import ListConfig
    items = ListConfig([1])
"""


@pytest.mark.parametrize("name", ["a.yaml", "a.yml"])
def test_18_yaml(write: Any, name: str) -> None:
    cfg = LazyConfig.load(write(name, "a: {b: 1e-4, c: [1, x]}"))
    assert cfg == {"a": {"b": 0.0001, "c": [1, "x"]}}
    cfg.a.anything = object()
    assert LazyConfig.load(write(name, "a: {b: 2}"), "a") == {"b": 2}


@pytest.mark.parametrize("name", ["a.json", "a", "a.pkl"])
def test_18_anything_else_is_a_value_error(write: Any, name: str) -> None:
    with pytest.raises(ValueError, match=rf"ends in \.py, \.yaml or \.yml; .*{name} doesn't"):
        LazyConfig.load(write(name, ""))


def test_18_a_missing_file_is_an_import_error(write: Any) -> None:
    path = write("resnet50.py", "")
    for name in ("resnet5.py", "resnet5.yaml"):
        with pytest.raises(ConfigImportError, match=rf"{name} does not exist"):
            LazyConfig.load(path.with_name(name))
    with pytest.raises(ConfigImportError, match=r"Did you mean 'resnet50\.py'\?"):
        LazyConfig.load(path.with_name("resnet5.py"))


def test_19_without_keys_all_config_values(write: Any) -> None:
    cfg = LazyConfig.load(str(write("train.py", TRAIN)))
    assert type(cfg) is DictConfig
    assert sorted(cfg) == ["items", "model", "train"]
    assert type(cfg.train) is DictConfig
    assert type(cfg["items"]) is ListConfig
    assert cfg.model._target_ is Model
    cfg.train.anything = object()


def test_19_objects_in_a_config_are_not_copied(write: Any) -> None:
    """A model or a generator; copying one would be slow, wrong or impossible."""
    path = write(
        "held.py",
        "from detrex_backbones.config import LazyCall as L\n"
        "numbers = (n for n in range(3))\na = L(dict)(numbers=numbers)\nb = L(dict)(a=a, numbers=numbers)\n",
    )
    cfg = LazyConfig.load(path)
    assert cfg.a.numbers is cfg.b.numbers is cfg.b.a.numbers
    cfg.a.numbers = 3
    assert list(cfg.b.a.numbers) == [0, 1, 2]


def test_20_keys(write: Any) -> None:
    path = write("train.py", TRAIN)
    train = LazyConfig.load(path, "train")
    assert type(train) is DictConfig
    train.anything = object()
    model, number, names = LazyConfig.load(path, ("model", "number", "names"))
    assert (model.depth, number, names) == (50, 3, ["a"])


@pytest.mark.parametrize("name", ["train.py", "train.yaml"])
def test_20_a_key_that_is_not_there_lists_those_that_are(write: Any, name: str) -> None:
    path = write(name, TRAIN if name.endswith("py") else "train: 1\nmodel: 2")
    with pytest.raises(KeyError, match=r"has no key 'modle'\. Did you mean 'model'\? It has: .*train") as caught:
        LazyConfig.load(path, ("train", "modle"))
    assert isinstance(caught.value, ConfigKeyError)
    assert str(path) in str(caught.value)
    assert "ListConfig" not in str(caught.value)


def test_21_each_relative_import_is_fresh(write: Any) -> None:
    write("base.py", "cfg = dict(x=1, inner=dict(y=1))")
    write("one.py", "from .base import cfg\ncfg.x = 2\ncfg.inner.y = 2")
    path = write(
        "both.py", "from .one import cfg as a\nfrom .base import cfg as b\nfrom .base import cfg as c\nb.x = 3"
    )
    for _ in range(2):
        loaded = LazyConfig.load(path)
        assert (loaded.a.x, loaded.b.x, loaded.c.x) == (2, 3, 1)
        loaded.a.inner.y = 9
        assert loaded.c.inner.y == 1
        loaded.c.x = 7


def test_22_folders_need_no_init(write: Any) -> None:
    write("common/train.py", "train = dict(lr=1)\nother = 2")
    write("common/deep/x.py", "from ...common.train import train, other\nx = 5")
    path = write(
        "models/a.py", "from ..common.train import train as t\nfrom ..common.deep.x import x, other\nt.x = x + other"
    )
    assert LazyConfig.load(path) == {"t": {"lr": 1, "x": 7}}
    assert LazyConfig.load(path, "x") == 5


def test_22_also_from_a_relative_path(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write("common/train.py", "train = dict(lr=1)")
    path = write("models/a.py", "from ..common.train import train")
    monkeypatch.chdir(path.parent)
    assert LazyConfig.load("a.py").train.lr == 1
    assert LazyConfig.load("./../models/a.py").train.lr == 1


@pytest.mark.parametrize("statement", ["from . import x", "from .folder import x", "from .. import folder"])
def test_23_importing_a_folder(write: Any, statement: str) -> None:
    write("folder/x.py", "")
    path = write("a.py", f"\n{statement}")
    with pytest.raises(ImportError, match="relative import") as caught:
        LazyConfig.load(path)
    assert f"{path}:2" in str(caught.value)
    assert "'from .file import name'" in str(caught.value)


def test_23_a_missing_file(write: Any) -> None:
    write("resnet50.py", "")
    path = write("a.py", "from .resnet5 import x")
    with pytest.raises(ImportError, match="not exist") as caught:
        LazyConfig.load(path)
    assert str(path) in str(caught.value)
    assert "Did you mean 'resnet50.py'?" in str(caught.value)


def test_24_load_rel_starts_at_the_calling_file(write: Any) -> None:
    write("common/with-dash.py", "x = dict(a=1)")
    path = write("models/a.py", """
        from detrex_backbones.config import LazyConfig
        cfg = LazyConfig.load_rel("../common/with-dash.py")
        one = LazyConfig.load_rel("../common/with-dash.py", "x")
    """)  # fmt: skip
    assert LazyConfig.load(path) == {"cfg": {"x": {"a": 1}}, "one": {"a": 1}}
    with pytest.raises(ConfigImportError, match="does not exist"):
        LazyConfig.load_rel("nowhere.py")


def test_24_load_rel_needs_a_calling_file() -> None:
    with pytest.raises(ConfigValueError, match=r"called from <string>, which is no file\. Use load"):
        exec("LazyConfig.load_rel('a.py')", {"LazyConfig": LazyConfig})


@contextlib.contextmanager
def _interpreter_unchanged() -> Any:
    before = (builtins.__import__, dict(vars(builtins)), set(sys.modules), list(sys.path))
    yield
    assert (builtins.__import__, dict(vars(builtins)), set(sys.modules), list(sys.path)) == before


@pytest.mark.parametrize("text", ["x = dict()", "1 / 0", "from .b import x", "from .nowhere import x", "x = ("])
def test_34_no_load_leaves_a_trace(write: Any, text: str) -> None:
    write("b.py", "raise RuntimeError")
    path = write("a.py", text)
    with _interpreter_unchanged(), contextlib.suppress(ConfigError):
        LazyConfig.load(path)


def test_better_import_is_never_patched(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Absolute imports go to whatever import is at the time, so that somebody else's hook keeps working."""
    seen = []
    original = builtins.__import__

    def hook(name: str, *args: Any, **kwargs: Any) -> Any:
        seen.append(name)
        return original(name, *args, **kwargs)

    write("b.py", "x = dict()")
    path = write("a.py", "import builtins, json\nhook = [builtins.__import__]\nfrom .b import x")
    monkeypatch.setattr(builtins, "__import__", hook)
    assert LazyConfig.load(path, "hook") == [hook]
    assert "json" in seen
    assert builtins.__import__ is hook


def test_34_two_threads_load_at_once(write: Any) -> None:
    """Both are inside their relative import at the same moment, then each goes on with its own files."""
    barrier = threading.Barrier(2, timeout=20)
    sys.modules["barrier_of_this_test"] = barrier  # type: ignore[assignment]
    paths = []
    for name in ("one", "two"):
        write(f"{name}/base.py", f"import sys\nsys.modules['barrier_of_this_test'].wait()\ncfg = dict(name='{name}')")
        write(f"{name}/last.py", f"last = dict(name='{name}')")
        paths.append(write(f"{name}/a.py", "from .base import cfg\nfrom .last import last"))
    results: dict[Path, Any] = {}

    def load(path: Path) -> None:
        results[path] = LazyConfig.load(path)

    threads = [threading.Thread(target=load, args=(path,)) for path in paths]
    try:
        with contextlib.ExitStack() as stack:
            for thread in threads:
                thread.start()
                stack.callback(thread.join)
    finally:
        del sys.modules["barrier_of_this_test"]
    assert [results[path] for path in paths] == [{"cfg": {"name": n}, "last": {"name": n}} for n in ("one", "two")]


def test_better_import_star_names_both_files(write: Any) -> None:
    base, path = write("base.py", "x = dict()"), write("a.py", "from .base import *")
    with pytest.raises(ImportError, match="Name what you need of it") as caught:
        LazyConfig.load(path)
    assert str(base) in str(caught.value)
    assert f"{path}:1" in str(caught.value)


def test_better_a_missing_name_names_both_files(write: Any) -> None:
    base, path = write("base.py", "model = dict()"), write("a.py", "from .base import modle")
    with pytest.raises(ImportError, match=r"has no 'modle'\. Did you mean 'model'\? It has: model\.") as caught:
        LazyConfig.load(path)
    assert str(base) in str(caught.value)
    assert f"{path}:1" in str(caught.value)


def test_better_an_import_cycle_names_its_files(write: Any) -> None:
    a, b = write("a.py", "from .b import x"), write("b.py", "from .c import x")
    c = write("c.py", "from .b import x")
    with pytest.raises(ImportError, match=r"import each other in a circle: .*b\.py -> .*c\.py -> .*b\.py\.") as caught:
        LazyConfig.load(a)
    assert str(b) in str(caught.value)
    assert str(c) in str(caught.value)
    loop = write("loop.py", "from detrex_backbones.config import LazyConfig\nx = LazyConfig.load_rel('loop.py')")
    with pytest.raises(ImportError, match=r"circle: .*loop\.py -> .*loop\.py"):
        LazyConfig.load(loop)


def test_better_a_config_that_raises_says_where_and_why(write: Any) -> None:
    broken = write("b.py", "\n\nx = [][3]")
    path = write("a.py", "from .b import x")
    with pytest.raises(ConfigImportError) as caught:
        LazyConfig.load(path)
    assert str(caught.value) == (
        f"{broken}:3 raised IndexError: list index out of range. It is imported from {path}."
    )  # fmt: skip
    assert isinstance(caught.value.__cause__, IndexError)


def test_better_a_config_that_is_not_python_says_where(write: Any) -> None:
    broken = write("b.py", "x = 1\ny = (\n")
    path = write("a.py", "from .b import x")
    with pytest.raises(ConfigImportError, match=r"b\.py:2 isn't Python: .*It is imported from .*a\.py") as caught:
        LazyConfig.load(path)
    assert isinstance(caught.value.__cause__, SyntaxError)
    assert str(broken) in str(caught.value)
    with pytest.raises(ConfigImportError, match=r"bytes\.py"):
        LazyConfig.load(write("bytes.py", "x = '\0'"))


def test_better_an_error_of_ours_in_a_config_keeps_its_type(write: Any) -> None:
    path = write("a.py", """
        from detrex_backbones.config import LazyConfig
        cfg = LazyConfig.apply_overrides(LazyConfig.load_rel("b.yaml"), ["a.b=1"])
    """)  # fmt: skip
    write("b.yaml", "a: 1")
    with pytest.raises(KeyError, match=r"'a\.b=1'") as caught:
        LazyConfig.load(path)
    assert caught.value.__notes__ == [f"while loading the config file {path}"]


def test_better_a_path_is_accepted_wherever_a_path_is(write: Any, tmp_path: Path) -> None:
    path = write("a.py", "cfg = dict(x=1)")
    assert LazyConfig.load(path) == LazyConfig.load(str(path))
    LazyConfig.save(LazyConfig.load(path), tmp_path / "a.yaml")
    assert LazyConfig.load(tmp_path / "a.yaml") == LazyConfig.load(str(tmp_path / "a.yaml"))
    beside = write("b.py", """
        from pathlib import Path
        from detrex_backbones.config import LazyConfig
        cfg = LazyConfig.load_rel(Path("a.py"), "cfg")
    """)  # fmt: skip
    assert LazyConfig.load(beside).cfg.x == 1


def test_better_ordinary_code_beside_a_config(write: Any) -> None:
    write("code.py", """
        from __future__ import annotations
        import dataclasses
        from .more import double

        @dataclasses.dataclass
        class Thing:
            x: int = 1

        def make(width):
            from .more import double
            return double(width)
    """)  # fmt: skip
    write("more.py", "def double(x):\n    return 2 * x")
    path = write("a.py", """
        from .code import Thing, make
        from detrex_backbones.config import LazyCall as L
        made, thing = L(make)(width=4), L(Thing)(x=3)
    """)  # fmt: skip
    cfg = LazyConfig.load(path)
    assert instantiate(cfg.made) == 8
    assert instantiate(cfg.thing).x == 3
    assert made_at(cfg.made) == f"{path}:4"


def test_better_functions_of_a_config_are_pickled_by_value(write: Any) -> None:
    path = write("a.py", "def double(x):\n    return 2 * x\nfunctions = [double]")
    (double,) = LazyConfig.load(path, "functions")
    assert pickle.loads(cloudpickle.dumps(double))(4) == 8
    with pytest.raises((pickle.PicklingError, AttributeError), match="double"):
        pickle.dumps(double)


def test_better_a_config_inside_an_installed_package(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    init = write("some_project/__init__.py", "")
    write("some_project/y.py", "y = dict(a=1)")
    path = write("some_project/configs/x.py", "from ..y import y\nfrom some_project.y import y as real\nreal['b'] = 2")
    monkeypatch.syspath_prepend(init.parent.parent)
    cfg = LazyConfig.load(path)
    assert (cfg.y, cfg.real) == ({"a": 1}, {"a": 1, "b": 2})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: !!python/object/apply:os.getcwd []", r"a\.yaml:1 doesn't hold plain data: .*tag.*without Python tags"),
        ("x: 1\nf: !!python/name:os.getcwd", r"a\.yaml:2 doesn't hold plain data: .*a\.yaml\.pkl"),
        ("a: 1\na: 2", "duplicate key a"),
    ],
)
def test_better_yaml_is_read_by_the_safe_loader(write: Any, text: str, problem: str) -> None:
    with pytest.raises(ConfigValueError, match=problem):
        LazyConfig.load(write("a.yaml", text))


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "\x00"])
def test_better_broken_yaml_is_named(write: Any, text: str) -> None:
    with pytest.raises(ConfigImportError, match=r"a\.yaml (isn't YAML|can't be read)"):
        LazyConfig.load(write("a.yaml", text))


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(
            f"{name}: &{name} [{', '.join([inner] * 10)}]"
            for name, inner in zip("abcd", ("x", "*a", "*b", "*c"), strict=True)
        ),
        "a: &a [*a]",
        "a: &a {b: 1, <<: *a}",
    ],
)
def test_yaml_aliases_that_multiply_are_refused(write, text):
    """Whatever omegaconf's version: before 2.4 it has no limit of its own."""
    with pytest.raises(ConfigValueError, match=r"bomb.yaml uses aliases .* 10,000"):
        LazyConfig.load(write("bomb.yaml", text))


def test_yaml_aliases_are_values_of_their_own(write):
    cfg = LazyConfig.load(write("few.yaml", "a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}"))
    cfg.a.x = 5
    assert cfg == {"a": {"x": 5}, "b": {"x": 1}, "c": {"x": 1, "y": 2}}


FUTURE = """
    from __future__ import annotations
    import dataclasses
    import enum
    from typing import ClassVar, NamedTuple, Optional
    from detrex_backbones.config import LazyCall as L
    from tests.config.config_targets import keep

    class Colour(enum.Enum):
        RED = 1

    @dataclasses.dataclass
    class Inner:
        width: Optional[int] = None
        colour: Colour = Colour.RED

    @dataclasses.dataclass
    class Shape:
        registry: ClassVar[dict[str, int]] = {}
        channels: int | None = None
        inner: Inner = dataclasses.field(default_factory=Inner)

    class Pair(NamedTuple):
        one: Optional[int]
        later: Later

    class Later:
        pass

    def make(shape: Shape, colour: Optional[Colour] = None) -> Later:
        return Later()

    model = L(keep)(shape=Shape(channels=3))
    code = [Shape, Pair, make, Later, Colour]
"""


def test_33_annotations_that_are_text_work_as_in_a_module(write: Any) -> None:
    path = write("future.py", FUTURE)
    shape_type, pair, make, later, colour = LazyConfig.load(path, "code")
    hints = typing.get_type_hints(shape_type)
    assert (hints["channels"], hints["registry"]) == (int | None, typing.ClassVar[dict[str, int]])
    assert [field.name for field in dataclasses.fields(shape_type)] == ["channels", "inner"]
    assert typing.get_type_hints(make) == {"shape": shape_type, "colour": colour | None, "return": later}
    assert pair.__annotations__["one"] == int | None
    made = instantiate(LazyConfig.load(path).model)["shape"]
    assert (type(made).__name__, made.channels, made.inner.width, made.inner.colour.name) == ("Shape", 3, None, "RED")
    with pytest.raises(OverrideError, match="doesn't fit"):
        LazyConfig.apply_overrides(LazyConfig.load(path), ["model.shape.channels=many"])


def test_33_so_do_annotations_that_name_their_own_class_or_a_later_one(write: Any) -> None:
    path = write("later.py", """
        from __future__ import annotations
        import dataclasses
        import typing
        from omegaconf import OmegaConf

        @dataclasses.dataclass(slots=True)
        class Tree:
            size: int = 1
            left: Tree | None = None

        hints = [typing.get_type_hints(Tree)["size"]]
        tree = OmegaConf.structured(Tree(size=2))

        class Outer:
            class Inner:
                up: Outer
            first: Outer.Inner
            other: Later

        class Later:
            back: Outer

        at_the_end = typing.get_type_hints(Outer)
        code = [Tree, Outer, Later]
    """)  # fmt: skip
    tree, outer, later = LazyConfig.load(path, "code")
    assert typing.get_type_hints(tree) == {"size": int, "left": tree | None}
    assert typing.get_type_hints(outer.Inner) == {"up": outer}
    assert typing.get_type_hints(outer) == {"first": outer.Inner, "other": later}
    assert LazyConfig.load(path, "tree") == {"size": 2, "left": None}
    (hints,) = (LazyConfig.load(path, "at_the_end"),)
    assert hints["first"].__name__ == "Inner" and hints["other"].__name__ == "Later"


@pytest.mark.parametrize("what", ["double", "Thing", "Thing.method"])
def test_33_pickle_says_why_it_refuses_what_a_config_defines(write: Any, what: str) -> None:
    text = "def double(x):\n    return x\nclass Thing:\n    def method(self):\n        pass\n"
    (found,) = LazyConfig.load(write("a.py", f"{text}code = [{what}]"), "code")
    with pytest.raises((pickle.PicklingError, AttributeError), match="defined_in_a_config_file"):
        ForkingPickler.dumps(found)  # how a spawned process is given its work
    with pytest.raises(AttributeError, match=r"Thing is defined in a config file.* Move it to a module"):
        _ = defined_in_a_config_file.Thing
    assert cloudpickle.loads(cloudpickle.dumps(found)).__name__ == found.__name__


def test_21_a_relative_import_of_a_packages_code_is_the_packages_own(
    write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    init = write("own_project/__init__.py", "")
    write("own_project/modeling/__init__.py", "from . import layers")
    write("own_project/modeling/layers.py", "class Conv:\n    pass")
    write("own_project/modeling/net.py", """
        from . import layers
        from .layers import *

        class Net:
            layer = Conv

        def build():
            return Net()
    """)  # fmt: skip
    write("own_project/modeling/settings.py", "def scale(x):\n    return x\n\ndefaults = dict(depth=1)")
    path = write("own_project/configs/a.py", """
        from detrex_backbones.config import LazyCall as L
        from ..modeling.net import Net, build
        from ..modeling.net import Net as Again
        from ..modeling.settings import scale, defaults
        defaults.depth, scaled = 2, L(scale)(x=1)
        model, other, built = L(Net)(), L(Again)(), L(build)()
    """)  # fmt: skip
    monkeypatch.syspath_prepend(init.parent.parent)
    cfg = LazyConfig.load(path)
    net = importlib.import_module("own_project.modeling.net")
    assert cfg.model._target_ is cfg.other._target_ is net.Net
    assert isinstance(instantiate(cfg.built), net.Net)
    assert pickle.loads(pickle.dumps(instantiate(cfg.model))).layer is net.layers.Conv
    settings = importlib.import_module("own_project.modeling.settings")
    assert (cfg.defaults.depth, settings.defaults) == (2, {"depth": 1})
    assert cfg.scaled._target_ is settings.scale
    LazyConfig.save(cfg, path.with_suffix(".yaml"))
    assert LazyConfig.load(path.with_suffix(".yaml")).model._target_ == "own_project.modeling.net.Net"
    folder = write("own_project/configs/b.py", "from ..modeling import net")
    with pytest.raises(ConfigImportError, match=r"relative import of a folder.*'import own_project\.modeling'"):
        LazyConfig.load(folder)
    write("own_project/broken.py", "def f(): pass\n1 / 0")
    with pytest.raises(ConfigImportError, match=r"c\.py:1: importing own_project\.broken raised ZeroDivisionError"):
        LazyConfig.load(write("own_project/configs/c.py", "from ..broken import f"))


def test_21_a_package_that_cannot_be_imported_is_read_by_location(write: Any) -> None:
    write("lonely_project/__init__.py", "raise RuntimeError")
    write("lonely_project/code.py", "def f():\n    return 3")
    path = write(
        "lonely_project/a.py", "from detrex_backbones.config import LazyCall as L\nfrom .code import f\nm = L(f)()"
    )
    assert instantiate(LazyConfig.load(path).m) == 3


def test_21_another_package_of_the_same_name_is_not_taken_for_it(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, number in (("installed", 1), ("checkout", 2)):
        write(f"{place}/same_name/__init__.py", "")
        code = write(f"{place}/same_name/code.py", f"def f():\n    return {number}")
    monkeypatch.syspath_prepend(code.parents[2] / "installed")
    path = write("checkout/same_name/a.py", "from .code import f\nm = dict(_target_=f)")
    assert instantiate(LazyConfig.load(path).m) == 2


def test_better_an_assert_without_a_message_shows_its_line(write: Any) -> None:
    with pytest.raises(ConfigImportError, match=r"a\.py:2 raised AssertionError: assert x == 2\."):
        LazyConfig.load(write("a.py", "x = 1\nassert x == 2"))


def test_better_words_of_a_strangers_file_are_shown_harmlessly(write: Any) -> None:
    words = '"a\\e[2Jb": 1\nmodel: {"x\\n1 of 1 loaded": {_target_: os.getcwd, "k\\e[1m": 2}, t: {"y\\e": 1}}'
    path = write("a.yaml", words)
    problems: list[BaseException] = []
    for act in (
        lambda: LazyConfig.load(path, "nothing"),
        lambda: target_of(LazyConfig.load(path).model),
        lambda: instantiate([LazyConfig.load(path).model["x\n1 of 1 loaded"]]),
        lambda: LazyConfig.apply_overrides(LazyConfig.load(path), ["~model.t.z"]),
        lambda: LazyConfig.apply_overrides(LazyConfig.load(path), ["model.t[y\x1b].z=1"]),
        lambda: LazyConfig.load(write("b.yaml", '? "\x1b[2J\\n"\n: [a: 1: 2')),
        lambda: LazyConfig.load(write("c.yaml", "a: !<x\x1b> 1")),
    ):
        with pytest.raises(Exception) as caught:
            act()
        problems.append(caught.value)
    for problem in problems:
        for text in (str(problem) if isinstance(problem, ConfigError) else "", *getattr(problem, "__notes__", [])):
            assert all(line.isprintable() for line in text.split("\n  ")), text


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/tuple {b: 1}",
        "a: !!python/tuple 5",
        "? !!python/tuple [1]\n: 2",
        "? !!python/tuple [[1]]\n: 2",
        "a: !!python/object/apply:pathlib.Path {b: 1}",
        "a: !!python/object/apply:pathlib.Path x",
        "a: !!python/object/apply:pathlib.PurePath [x]",
        "a: 1e5\n---\nb: 2",
        "a: !!int x",
        "a: !!float x",
        "a: !!bool x",
        "a: !!timestamp x",
        "a: !!set [1]",
        "a: !!int " + "9" * 5000,
        "5",
        "&a [*a]",
        "a: &a !!python/tuple [*a]",
    ],
)
def test_better_tuples_and_paths_are_read_and_nothing_else(write: Any, text: str) -> None:
    words = "a: !!python/tuple [1, !!python/tuple [2e3]]\np: !!python/object/apply:pathlib.Path [x, y]"
    good = LazyConfig.load(write("good.yaml", words))
    assert (to_plain(good.a), good.p) == ((1, (2000.0,)), Path("x/y"))
    with pytest.raises(ConfigError, match=r"a\.yaml"):
        LazyConfig.load(write("a.yaml", text), "nothing" if text == "5" else None)
