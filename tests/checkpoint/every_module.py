"""Every class of torch's modules, made and given values: found by looking, so that a new one is among them."""

import importlib
import inspect
import itertools
import warnings

import torch
from torch import nn

PACKAGES = (
    "torch.nn",
    "torch.nn.utils.parametrize",
    "torch.ao.nn.qat",
    "torch.ao.nn.qat.dynamic",
    "torch.ao.nn.quantizable",
    "torch.ao.nn.intrinsic",
    "torch.ao.nn.intrinsic.qat",
    "torch.ao.quantization",
    "torch.optim.swa_utils",
    "torchvision.ops",
)
ARGUMENTS = ((), (4,), (4, 4), (4, 4, 1), (2, 4, 4), (8, 2), (8, 2, 4), (2, 2, 2))


def module_classes():
    """Name -> class, of all that can be built from a few sizes."""
    found = {}
    for package in PACKAGES:
        for name, kind in vars(importlib.import_module(package)).items():
            if inspect.isclass(kind) and issubclass(kind, nn.Module) and not name.startswith("_"):
                found.setdefault(f"{kind.__module__}.{kind.__qualname__}", kind)
    return found


def special(kind):
    """What a class needs that no sizes are."""
    from torch.ao.quantization import default_qat_qconfig

    layer = nn.Linear(4, 4)
    yield (nn.BatchNorm2d(4),), {}
    yield (nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)), {}
    yield ([layer, nn.ReLU()],), {}
    yield ({"a": nn.Parameter(torch.zeros(3))},), {}
    yield (8, [2, 4]), {}
    yield ([8, 2],), {}
    yield ([4, 8], 4), {}
    yield (nn.TransformerEncoderLayer(8, 2, 4), 2), {}
    yield (nn.TransformerDecoderLayer(8, 2, 4), 2), {}
    for sizes in ARGUMENTS:
        yield sizes, {"qconfig": default_qat_qconfig}


def built(kind):
    """A module of a class; None where nobody can without knowing more of it."""
    for sizes, named in itertools.chain(((sizes, {}) for sizes in ARGUMENTS), special(kind)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return kind(*sizes, **named)
        except Exception:  # whatever a class does with arguments that it doesn't take
            continue
    return None


def used(module):
    """A module that has seen data, as far as it takes any: lazy ones have their shapes then, observers their ranges."""
    for shape in ((2, 4), (2, 4, 8), (2, 4, 8, 8), (2, 4, 8, 8, 8)):
        try:
            module(torch.randn(shape))
            break
        except Exception:  # data of another shape
            continue
    with torch.no_grad():
        for value in module.state_dict().values():
            if isinstance(value, torch.Tensor) and not nn.parameter.is_lazy(value):
                value.copy_(torch.rand_like(value) if value.is_floating_point() else value + 1)
    return module
