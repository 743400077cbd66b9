"""Arguments that are truth values or numbers: of everything public, and the other kinds that they refuse."""

import importlib
import inspect
import re

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from detrex_backbones import ConvNeXt, FrozenBatchNorm2d, SwinTransformer, make_stage
from detrex_backbones.errors import ArgumentError
from detrex_backbones.kinds import kinds_checked
from tests.test_imports import FRONT_DOORS

WRONG = {
    "bool": ["no", "False", 0, 1.0, [False]],
    "int": [True, "3", 2.5, 2.0],
    "float": [False, "0.1", b"1"],
    "Sequence[int]": [True, [True], (2, "3"), [2.5]],
    "int | Sequence[int]": ["3", 2.5, (2, "3")],
    "Sequence[float]": ["0.1", [0.5, "0.1"]],
}
STARRED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def arguments():
    """What is public and its argument, for each that is annotated as one of these kinds; numbers of backbones alone."""
    found = {}
    for package in FRONT_DOORS:
        module = importlib.import_module(package.replace("/", "."))
        for one in (getattr(module, name) for name in module.__all__):
            if not callable(one) or getattr(one, "_is_protocol", False):
                continue
            has_numbers = inspect.isclass(one) and issubclass(one, nn.Module)
            for argument, parameter in inspect.signature(one).parameters.items():
                kind = _kind(parameter)
                if kind == "bool" or (has_numbers and kind in WRONG):
                    found[f"{one.__name__}-{argument}"] = (one, argument, kind)
    return found


def _kind(parameter):
    return str(getattr(parameter.annotation, "__name__", parameter.annotation)).removesuffix(" | None")


ARGUMENTS = arguments()


def test_there_are_many_in_functions_and_classes():
    assert len(ARGUMENTS) > 250
    assert {"make_stage-project_res2", "ViT-use_rel_pos", "SwinTransformer-qk_scale", "FPN-square_pad"} < {*ARGUMENTS}
    assert {"swap_backbone-pyramid", "instantiate-share", "LoadOptions-swap_channels"} < {*ARGUMENTS}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_value_of_another_kind_is_refused_before_anything_else(name):
    one, argument, kind = ARGUMENTS[name]
    parameters = inspect.signature(one).parameters.values()
    needed = [other for other in parameters if other.default is other.empty and other.kind not in STARRED]
    given = {
        other.name: {"int": 1, "float": 1.5, "Sequence[int]": [1], "Sequence[float]": [1]}.get(_kind(other), True)
        for other in needed
    }
    for value in WRONG[kind]:
        with pytest.raises(ArgumentError, match=rf"{argument}(\[\d\])?=.* is of type"):
            one(**given | {argument: value})


def test_numbers_of_numpy_torch_and_omegaconf_are_taken():
    config = OmegaConf.create({"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8], "rate": 1})
    assert len(ConvNeXt(depths=config.depths, dims=config.dims, drop_path_rate=config.rate).stages) == 4
    assert len(ConvNeXt(depths=np.array([1, 1, 1, 1]), dims=(np.int64(8),) * 4, drop_path_rate=np.float32(0.1)).stages)
    assert len(make_stage(np.int32(50), num_groups=torch.tensor(1))) == 4
    assert FrozenBatchNorm2d(4, eps=1).eps == 1
    assert SwinTransformer(qk_scale=None, depths=range(1, 2), num_heads=[1], out_indices=(0,), embed_dim=8)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"depths": [3, "3", 9, 3]}, "depths[1]='3' is of type str. Allowed: whole numbers. Write depths[1]=3."),
        ({"drop_path_rate": "0.1"}, "drop_path_rate='0.1' is of type str. Allowed: numbers. Write drop_path_rate=0.1."),
        ({"dims": [8.0]}, "dims[0]=8.0 is of type float. Allowed: whole numbers. Write dims[0]=8."),
        ({"drop_path_rate": True}, "drop_path_rate=True is of type bool. Allowed: numbers."),
    ],
)
def test_the_message_says_what_to_write(kwargs, message):
    with pytest.raises(ArgumentError, match=f"^{re.escape(message)}$"):
        ConvNeXt(**kwargs)


def test_what_is_not_annotated_is_let_through():
    assert kinds_checked(lambda flag, number=1: (flag, number))("no", number="3") == ("no", "3")
