"""What importing the package costs, what it makes public, and which part may know which."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import detrex_backbones

PACKAGE = Path(detrex_backbones.__file__).parent
NAME = "detrex_backbones"

PUBLIC = [
    "Backbone",
    "BasicBlock",
    "BasicStem",
    "BottleneckBlock",
    "CNNBlockBase",
    "CSPDarknet",
    "CSPResNet",
    "ChannelMapper",
    "Conv2d",
    "ConvNeXt",
    "DINOv3STAs",
    "Darknet53",
    "DeepStem",
    "DeformBottleneckBlock",
    "DetectionCheckpointer",
    "EVA02_ViT",
    "EVAViT",
    "FPN",
    "FeatureExtractor",
    "FocalNet",
    "FrozenBatchNorm2d",
    "InternImage",
    "LWDETRViT",
    "LastLevelMaxPool",
    "LastLevelP6P7",
    "LazyCall",
    "LazyConfig",
    "LoadReport",
    "MViT",
    "NaiveSyncBatchNorm",
    "PyramidVisionTransformer",
    "RegNet",
    "ResBottleneckBlock",
    "ResNet",
    "ResNetBlockBase",
    "SSDVGG",
    "ShapeSpec",
    "SimpleFeaturePyramid",
    "SimpleStem",
    "SqueezeExcitation",
    "SwinTransformer",
    "TimmBackbone",
    "TorchvisionBackbone",
    "TorchvisionFPN",
    "TorchvisionResNet",
    "ViT",
    "WindowedDINOv2",
    "build_model",
    "convert_checkpoint",
    "evaluate",
    "export_model",
    "fuse_norms",
    "get_backbone",
    "get_config",
    "get_norm",
    "get_vit_lr_decay_rate",
    "infer_config",
    "instantiate",
    "layer_decay_groups",
    "list_backbones",
    "list_configs",
    "load_checkpoint",
    "load_checkpoint_distributed",
    "make_stage",
    "read_checkpoint",
    "read_image",
    "swap_backbone",
]

# Part of the package -> the parts that it may import besides itself. Every package has its names from `lazy_exports`.
ALLOWED = {
    "errors": {"text"},
    "glob_match": set(),
    "atomic_write": set(),
    "lazy_exports": set(),
    "cache": {"errors", "text", "atomic_write"},
    "remote": {"errors", "text", "cache"},
    "text": set(),
    "kinds": {"errors"},
    "layers": {"errors", "kinds", "text"},
    "backbones": {"errors", "kinds", "text", "layers", "interop"},
    "interop": {"backbones"},
    "config": {"errors", "kinds", "atomic_write", "text", "remote"},
    "checkpoint": {"errors", "kinds", "glob_match", "atomic_write", "text", "cache", "remote"},
    "zoo": {"errors", "kinds", "glob_match", "layers", "backbones", "config", "checkpoint", "text", "remote"},
    "export": {"errors", "kinds", "text", "atomic_write", "backbones", "remote"},
    "features": {
        *("errors", "kinds", "text", "atomic_write", "cache", "remote", "layers", "backbones", "config", "checkpoint"),
        "zoo",
    },
    "evaluation": {"errors", "kinds", "text", "layers", "backbones", "config", "checkpoint", "zoo"},
    "training": {"errors"},
    "view": {"errors", "kinds", "text", "layers", "backbones", "config", "checkpoint", "atomic_write"},
    "cli": {
        *("errors", "kinds", "glob_match", "text", "atomic_write", "layers", "backbones", "config", "checkpoint"),
        *("zoo", "export", "features", "evaluation", "view", "remote"),
    },
    "__main__": {"cli"},
}

# The list of a load's options, which the overrides of a config know as well. It imports nothing but errors.
OF_ALL = "checkpoint.options."

# The packages whose names are in a stub, and are imported when they are first asked for.
FRONT_DOORS = sorted(path.parent.relative_to(PACKAGE.parent).as_posix() for path in PACKAGE.rglob("__init__.pyi"))


def modules() -> dict[str, Path]:
    """Dotted name inside the package -> file."""
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    del names[""]  # the list of public names
    return {name: path for name, path in names.items() if not name.startswith("configs")}


MODULES = modules()


def imported(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it, by its full name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports here are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def inside(path: Path) -> set[str]:
    """The part of every import from the package itself, without the package's name."""
    return {name.removeprefix(f"{NAME}.") for name in imported(path) if name.startswith(f"{NAME}.")}


def test_every_part_is_known():
    assert {name.partition(".")[0] for name in MODULES} <= set(ALLOWED)


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_what_its_part_may_know(module):
    part = module.partition(".")[0]
    used = {name.partition(".")[0] for name in inside(MODULES[module]) if not name.startswith(OF_ALL)}
    assert used <= ALLOWED[part] | {part, "lazy_exports"}


def test_the_config_layer_never_imports_torch():
    for module, path in MODULES.items():
        if module.startswith("config"):
            assert not any(name.split(".")[0] in ("torch", "torchvision", "timm") for name in imported(path)), module


def test_interop_knows_the_base_class_alone():
    assert inside(MODULES["interop"]) == {"backbones.base.Backbone"}


def test_only_the_package_of_backbones_asks_interop():
    asking = {module for module, path in MODULES.items() if any(name.startswith("interop") for name in inside(path))}
    assert asking == {"backbones"}


def test_matplotlib_is_imported_only_where_pictures_are_drawn():
    using = {
        module for module, path in MODULES.items() if any(name.split(".")[0] == "matplotlib" for name in imported(path))
    }
    assert using and {module.partition(".")[0] for module in using} == {"view"}


def test_the_library_and_its_configs_know_no_example():
    """But for the old name of one, which leads there."""
    for path in [
        *(path for name, path in MODULES.items() if name != "training"),
        *(PACKAGE.parent / "configs").rglob("*.py"),
    ]:
        assert not re.search(r"\b(train_detector|examples\.)\b", path.read_text(encoding="utf-8")), path


def test_nothing_imports_detectron2():
    for module, path in MODULES.items():
        assert not any(name.split(".")[0] == "detectron2" for name in imported(path)), module


def loaded_by(code: str) -> set[str]:
    """Top-level packages that a fresh Python has loaded after `code`."""
    code += "\nimport sys\nprint(*{name.partition('.')[0] for name in sys.modules})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import detrex_backbones", {"timm", "torchvision", "matplotlib", "fvcore", "detectron2"}),
        (
            "from detrex_backbones import BasicStem, ResNet, make_stage",
            {"timm", "torchvision", "matplotlib", "fvcore", "detectron2"},
        ),
        ("from detrex_backbones.config import LazyCall, LazyConfig, instantiate", {"torch", "matplotlib", "black"}),
        ("import detrex_backbones.view", {"matplotlib", "timm", "torchvision"}),
    ],
)
def test_loads_nothing_heavy(code, heavy):
    assert not loaded_by(code) & heavy


@pytest.mark.slow
def test_every_module_can_be_imported_before_all_others():
    names = [f"{NAME}.{module}" for module in MODULES if module != "__main__"]
    loaded_by(
        "import importlib, sys\n"
        f"for name in {names}:\n"
        f"    for loaded in [loaded for loaded in sys.modules if loaded.partition('.')[0] == {NAME!r}]:\n"
        "        del sys.modules[loaded]\n"
        "    importlib.import_module(name)"
    )


def test_the_public_names_are_these():
    assert sorted(detrex_backbones.__all__) == PUBLIC
    assert set(PUBLIC) <= set(dir(detrex_backbones))


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_is_there(name):
    value = getattr(detrex_backbones, name)
    assert value is getattr(detrex_backbones, name)
    assert value.__doc__


@pytest.mark.parametrize("package", sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")))
def test_what_a_package_exports_is_no_module(package):
    module = importlib.import_module(f"{NAME}.{package}")
    assert [name for name in getattr(module, "__all__", []) if inspect.ismodule(getattr(module, name))] == []


@pytest.mark.parametrize("package", FRONT_DOORS)
def test_every_name_of_a_front_door_is_there_and_its_stub_is_its_own(package):
    module = importlib.import_module(package.replace("/", "."))
    assert module.__all__ and all(getattr(module, name).__doc__ for name in module.__all__)
    assert set(module.__all__) <= set(dir(module))
    stub = (PACKAGE.parent / package / "__init__.pyi").read_text(encoding="utf-8")
    exported = [line.split()[1] for line in stub.splitlines() if line.startswith("from ")]
    assert len(exported) == len(stub.splitlines()) - (2 if package == NAME else 0)
    assert all(name.startswith(f"{module.__name__}.") for name in exported)


@pytest.mark.parametrize("package", [package for package in FRONT_DOORS if package.count("/") == 2])
def test_the_names_of_a_package_within_a_package_are_its_too(package):
    inner = importlib.import_module(package.replace("/", "."))
    assert set(inner.__all__) <= set(importlib.import_module(inner.__name__.rpartition(".")[0]).__all__)


@pytest.mark.parametrize(
    ("package", "names"),
    [
        ("backbones", {"Backbone", "ResNet", "BasicStem", "make_stage", "TimmBackbone", "FPN", "read_image"}),
        ("backbones.resnet", {"ResNet", "make_stage"}),
        ("checkpoint", {"load_checkpoint", "read_checkpoint", "convert_checkpoint", "LoadOptions", "Checkpoint"}),
        ("layers", {"Conv2d", "FrozenBatchNorm2d", "get_norm"}),
        ("zoo", {"build_model", "get_config", "get_backbone", "swap_backbone", "infer_config"}),
    ],
)
def test_a_package_exports_its_names(package, names):
    assert names <= set(importlib.import_module(f"{NAME}.{package}").__all__)


def test_importing_the_library_or_its_packages_alone_does_not_import_torch():
    packages = [package.replace("/", ".") for package in FRONT_DOORS]
    assert "torch" not in loaded_by("\n".join(f"import {package}" for package in packages))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"no attribute 'Resnet'"):
        detrex_backbones.Resnet  # noqa: B018
    with pytest.raises(ImportError):
        importlib.import_module(f"{NAME}.nothing")
