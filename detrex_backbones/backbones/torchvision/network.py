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

from detrex_backbones.errors import ArgumentError, CheckpointFileError, closest, reason
from detrex_backbones.kinds import check_flag

__all__ = ["check_name", "create", "find_weights", "quiet", "weights_from"]


def check_name(model_name: str) -> None:
    names = torchvision.models.list_models(module=torchvision.models)
    if model_name not in names:
        raise ArgumentError(
            f"model_name={model_name!r} is not an image classifier of torchvision {torchvision.__version__}."
            f"{closest(model_name, names)} torchvision.models.list_models(module=torchvision.models) has all "
            f"{len(names)} names."
        )


def weights_from(pretrained: Any, weights: Any) -> Any:
    """The weights that are asked for by either of two names.

    Raises:
        ArgumentError: two sources; a `pretrained` that is neither True nor False.
    """
    given = pretrained is not None and pretrained is not False
    if given and weights is not None:
        raise ArgumentError(f"pretrained={pretrained!r} and weights={weights!r} are two sources of weights. Keep one.")
    if isinstance(pretrained, str | os.PathLike):
        raise ArgumentError(
            f"pretrained={os.fspath(pretrained)!r} is neither True (the published weights) nor False. A file or "
            f"another source is for load_checkpoint(model, source), and for train.init_checkpoint of a config."
        )
    check_flag("pretrained", pretrained is not None and pretrained)
    return "IMAGENET1K_V1" if pretrained else weights


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
        if not torch.empty(0).is_meta:
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
