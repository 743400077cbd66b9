"""torchvision's classification networks: made, filled with weights, and every refusal turned into one of our errors."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn

from detrex_backbones.errors import ArgumentError, CheckpointError, CheckpointFileError, closest, reason
from detrex_backbones.layers.kinds import check_flag

__all__ = ["check_name", "create", "find_weights", "load_file", "quiet", "weights_from"]


def check_name(model_name: str) -> None:
    names = torchvision.models.list_models(module=torchvision.models)
    if model_name not in names:
        raise ArgumentError(
            f"model_name={model_name!r} is not an image classifier of torchvision {torchvision.__version__}."
            f"{closest(model_name, names)} torchvision.models.list_models(module=torchvision.models) has all "
            f"{len(names)} names."
        )


def weights_from(pretrained: Any, weights: Any) -> tuple[Any, str]:
    """The weights that are asked for by either of two names, and the file that they are in: "" for none.

    Raises:
        ArgumentError: two sources; a `pretrained` that is no file, nor True or False.
    """
    given = pretrained is not None and pretrained is not False
    if given and weights is not None:
        raise ArgumentError(f"pretrained={pretrained!r} and weights={weights!r} are two sources of weights. Keep one.")
    if isinstance(pretrained, str | os.PathLike):
        if Path(pretrained).is_file():
            return None, os.fspath(pretrained)
        raise ArgumentError(
            f"pretrained={os.fspath(pretrained)!r} is no file that is there. Allowed: True (the published weights), "
            f"False, or the path of a file in torchvision's names. Other sources are for load_checkpoint(model, "
            f"source) and for train.init_checkpoint of a config."
        )
    check_flag("pretrained", pretrained is not None and pretrained)
    return ("IMAGENET1K_V1" if pretrained else weights), ""


def load_file(model: nn.Module, path: str) -> None:
    """Load a file in torchvision's names into the whole network, classifier included.

    Raises:
        CheckpointFileError: the file can't be read.
        CheckpointError: it doesn't fit.
    """
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file sets off
        raise CheckpointFileError(f"pretrained={path!r} can't be read as a file of weights: {reason(error)}") from error
    for key in ("state_dict", "model"):
        state = state[key] if isinstance(state, dict) and isinstance(state.get(key), dict) else state
    try:
        if not isinstance(state, dict):
            raise TypeError(f"it holds a {type(state).__name__}, no names with tensors")
        model.load_state_dict(state)
    except Exception as error:
        raise CheckpointError(
            f"pretrained={path!r} doesn't fit torchvision's {type(model).__name__}: {reason(error)}. Files in other "
            f"names are for load_checkpoint(model, source)."
        ) from error


def find_weights(model_name: str, weights: Any) -> Any:
    if weights is None:
        return None
    known: Any = torchvision.models.get_model_weights(model_name)
    if isinstance(weights, known):
        return weights
    name = str(weights).removeprefix(f"{known.__name__}.")
    if not isinstance(weights, str) or name not in known.__members__:
        allowed = list(known.__members__)
        raise ArgumentError(
            f"weights={weights!r} are none of {model_name}'s. Allowed: None, {', '.join(map(repr, allowed))}."
            f"{closest(name, allowed)}"
        )
    return known[name]


def create(model_name: str, weights: Any = None, **kwargs: Any) -> nn.Module:
    try:
        with quiet():
            return _build(model_name, weights=weights, **kwargs)
    except OSError as error:
        path = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
        raise CheckpointFileError(
            f"can't download {weights} ({error}). Without a network: put {weights.url} at {path}."
        ) from error
    except Exception as error:
        given = "".join(f", {name}={value!r}" for name, value in {"weights": weights, **kwargs}.items())
        raise ArgumentError(f"torchvision can't make {model_name!r}{given}: {reason(error)}") from error


def _build(model_name: str, **kwargs: Any) -> nn.Module:
    build: Callable[..., nn.Module] = torchvision.models.get_model
    try:
        return build(model_name, **kwargs)
    except NotImplementedError:
        # RegNet computes its widths with tensors, and so needs a little memory for them.
        if torch.get_default_device().type != "meta":
            raise
        with torch.device("cpu"):
            return build(model_name, **kwargs).to("meta")


@contextmanager
def quiet() -> Iterator[None]:
    """Without torchvision's remarks on graphs that differ and on initial values, which nobody here can act on."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="NOTE: The nodes obtained by tracing", category=UserWarning)
        warnings.filterwarnings("ignore", message="The default weight initialization of", category=FutureWarning)
        yield
