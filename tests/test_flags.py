"""Arguments that are True or False: of everything public, and what they refuse."""

import importlib
import inspect
import re

import pytest

from detrex_backbones.errors import ArgumentError
from tests.test_imports import FRONT_DOORS

STARRED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def flags():
    """(object, argument) for each argument of something public that is annotated as a truth value."""
    found = {}
    for package in FRONT_DOORS:
        module = importlib.import_module(package.replace("/", "."))
        for name in module.__all__:
            one = getattr(module, name)
            if not callable(one) or getattr(one, "_is_protocol", False):
                continue
            for argument, parameter in inspect.signature(one).parameters.items():
                if re.fullmatch(
                    r"bool( \| None)?", str(getattr(parameter.annotation, "__name__", parameter.annotation))
                ):
                    found[f"{name}-{argument}"] = (one, argument)
    return found


FLAGS = flags()


def test_there_are_many_in_functions_and_classes():
    assert len(FLAGS) > 60
    assert {"make_stage-project_res2", "ChannelMapper-bias", "ViT-use_rel_pos", "LoadOptions-swap_channels"} <= set(
        FLAGS
    )
    assert {"swap_backbone-pyramid", "instantiate-share", "load_checkpoint-swap_channels"} <= set(FLAGS)


@pytest.mark.parametrize("value", ["no", "False", 0, 1.0, [False]])
@pytest.mark.parametrize("flag", FLAGS)
def test_a_value_of_another_kind_is_refused_before_anything_else(flag, value):
    one, argument = FLAGS[flag]
    parameters = inspect.signature(one).parameters.values()
    needed = {other.name: True for other in parameters if other.default is other.empty and other.kind not in STARRED}
    with pytest.raises(ArgumentError, match=re.escape(f"{argument}={value!r} is of type")):
        one(**needed | {argument: value})
