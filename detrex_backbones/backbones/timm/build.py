"""timm's feature networks: made, filled with weights, and every refusal of timm's turned into one of our errors."""

from __future__ import annotations

import inspect
import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detrex_backbones.backbones.shapes_only import NoFirstValues
from detrex_backbones.errors import (
    ArgumentError,
    CheckpointError,
    CheckpointFileError,
    DetrexBackbonesError,
    closest,
    reason,
)

__all__ = [
    "TRAINED_WITH",
    "all_indices",
    "cannot_run",
    "check_file",
    "check_name",
    "create",
    "create_with_file",
    "filtered",
    "parameters_of",
    "timm_network",
    "whole_shapes",
]

# timm gives a model what its weights were trained with only where it loads them itself; here they may come later.
TRAINED_WITH = {"fbnetc_100": {"bn_eps": 1e-3}}
FOR_WRAPPERS = ("feature_cls", "flatten_sequential", "output_fmt")
UNKNOWN_KWARG = re.compile(r"unexpected keyword argument '(\w+)'")
NO_FEATURES = re.compile(r"features_only|forward_intermediates|feature_info|feature extraction", re.IGNORECASE)
MISSING = re.compile(r"Missing key\(s\) in state_dict: (.*)")
MISMATCH = re.compile(r"size mismatch for ([\w.]+):")
# Libraries whose errors mean that a download failed, whatever they derive from.
NETWORK = ("huggingface_hub", "httpx", "httpcore", "requests", "urllib3", "urllib")


def check_name(model_name: str) -> None:
    """Refuse a name that timm doesn't have."""
    if not isinstance(model_name, str) or not timm.is_model(model_name):
        names = timm.list_models()
        architecture = str(model_name).partition(".")[0]
        raise ArgumentError(
            f"model_name={model_name!r} is not a model of timm {timm.__version__}.{closest(architecture, names)} "
            f"timm.list_models() has all {len(names)} names."
        )


def check_file(checkpoint_path: str) -> None:
    """Refuse a checkpoint that isn't there."""
    path = Path(checkpoint_path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise CheckpointFileError(f"checkpoint_path={str(path)!r} {what}. Give a file in timm's names, or '' for none.")


def all_indices(model_name: str, kwargs: Mapping[str, Any] | None = None) -> list[int]:
    """Every index that `out_indices` may have."""
    own = {name: value for name, value in (kwargs or {}).items() if not name.startswith("pretrained")}
    with torch.device("meta"):
        try:
            net: Any = timm_network(model_name, features_only=True, out_indices=[0], **own)
            if len(net.feature_info.info) == 1:  # EfficientViM forgets the maps that aren't asked for
                net = timm_network(model_name, features_only=True, **own)
        except Exception:  # of other arguments, which is said where the network is made
            net = create(model_name, None, {name: value for name, value in own.items() if name == "feature_cls"})
    info: Any = net.feature_info
    return [index for index, one in enumerate(info.info) if one.get("module") != ""]  # TResNet's stem is no module


def create(model_name: str, out_indices: list[int] | None, kwargs: Mapping[str, Any]) -> nn.Module:
    """timm's feature network; `out_indices` are in the order of the network, None for the network's own choice.

    Raises:
        ArgumentError: timm can't make it of these arguments.
        CheckpointFileError: `pretrained=True`, and the weights can't be had.
    """
    chosen = {} if out_indices is None else {"out_indices": out_indices}
    try:
        net = timm_network(model_name, features_only=True, **chosen, **kwargs)
    except Exception as error:
        raise _explained(error, model_name, out_indices, kwargs) from error
    return net


def whole_shapes(model_name: str, kwargs: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of what the network has without a feature wrapper; {} where it can't be made without weights."""
    try:
        net = _whole_network(model_name, kwargs)
    except Exception:
        return {}  # then nothing is known of what the wrapper left out
    return {name: tuple(value.shape) for name, value in net.state_dict().items()}


def filtered(model_name: str, kwargs: Mapping[str, Any], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A file of the network's authors in timm's names, by the filter of its family; the same where there is none."""
    net = _whole_network(model_name, kwargs)
    change = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
    made = dict(tensors) if change is None else dict(change(tensors, net))
    table, own = made.get("pos_embed"), getattr(net, "pos_embed", None)
    if isinstance(table, Tensor) and isinstance(own, Tensor) and (table.dim(), own.dim()) == (3, 4):
        made["pos_embed"] = _position_grid(table, own.shape[1], own.shape[2])
    return made


def _position_grid(table: Tensor, height: int, width: int) -> Tensor:
    """Positions of a plain vision transformer as a grid, as timm's SAM has them; sizes as detectron2's ViTDet does it.

    Args:
        table: (1, positions of a square, C), with or without one for a class token in front.
        height: rows of the grid.
        width: its columns.
    """
    side = math.isqrt(table.shape[1])
    square = table[:, table.shape[1] - side * side :].reshape(table.shape[0], side, side, -1)
    if (side, side) == (height, width):
        return square
    resized = F.interpolate(square.permute(0, 3, 1, 2), size=(height, width), mode="bicubic", align_corners=False)
    return resized.permute(0, 2, 3, 1)


def _whole_network(model_name: str, kwargs: Mapping[str, Any]) -> nn.Module:
    own = {name: value for name, value in kwargs.items() if name not in FOR_WRAPPERS}
    with torch.device("meta"):
        return timm_network(model_name, **own)


def timm_network(model_name: str, **arguments: Any) -> nn.Module:
    """`timm.create_model`, on the meta device also what reads numbers while it's made: RegNet in older releases."""
    try:
        with NoFirstValues():
            return timm.create_model(model_name, **arguments)  # type: ignore[no-any-return]
    except NotImplementedError:  # of torch, which has no numbers there
        if not torch.empty(0).is_meta:
            raise
        with torch.device("cpu"):
            return timm.create_model(model_name, **arguments).to("meta")  # type: ignore[no-any-return]


def create_with_file(
    model_name: str, out_indices: list[int] | None, kwargs: Mapping[str, Any], checkpoint_path: str
) -> nn.Module:
    """timm's feature network with the weights of a file, through the family's own filter.

    timm loads the file into the whole model before it cuts the classifier off. (Its own `checkpoint_path` comes after
    the cut, and fails on the classifier's keys.) For features it does so without being strict, so that anything would
    pass: here the classifier alone may stay without weights.
    """
    overlay = {**kwargs.get("pretrained_cfg_overlay", {}), "file": str(checkpoint_path)}
    if Path(checkpoint_path).suffix != ".npz":  # of JAX, for which older releases take every file of a ViT of theirs
        overlay["custom_load"] = False
    kwargs = {**kwargs, "pretrained": True, "pretrained_cfg_overlay": overlay}
    # Without the name of a classifier there is nothing to be lenient about.
    strict = {**kwargs, "pretrained_cfg_overlay": {**overlay, "classifier": None}}
    try:
        chosen = {} if out_indices is None else {"out_indices": out_indices}
        try:
            net: nn.Module = timm.create_model(model_name, features_only=True, **chosen, **strict)
            return net
        except RuntimeError as error:
            missing = _without_weights(str(error))
            if not missing:
                raise
            net = timm.create_model(model_name, features_only=True, **chosen, **kwargs)
            _check_missing(net, missing)
            return net
    except Exception as error:
        # Built without the weights, it fails alike where the arguments are to blame.
        with torch.device("meta"):
            create(model_name, out_indices, {**kwargs, "pretrained": False})
        raise CheckpointError(
            f"timm's {model_name} can't take the weights of checkpoint_path={str(checkpoint_path)!r}: {reason(error)}"
        ) from error


def parameters_of(model_name: str) -> dict[str, inspect.Parameter]:
    """What the model's class takes, or {} where that can't be told."""
    made: Any = inspect.signature(timm.model_entrypoint(model_name)).return_annotation
    if not (isinstance(made, type) and issubclass(made, nn.Module)):
        try:
            with torch.device("meta"):
                made = type(timm_network(model_name))
        except Exception:
            # Whatever is wrong with the model is said where it is made for use.
            return {}
    return dict(inspect.signature(made.__init__).parameters)


def _without_weights(message: str) -> set[str]:
    """The names that a strict load said it has nothing for, or something of another shape."""
    missing = {name for line in MISSING.findall(message) for name in re.findall(r'"([^"]+)"', line)}
    return missing | set(MISMATCH.findall(message))


def _check_missing(net: nn.Module, missing: set[str]) -> None:
    own = {name.removeprefix("model.").removeprefix("body.") for name in net.state_dict()}
    own |= {name.removeprefix("graph_module.") for name in own}
    wanted = sorted(name for name in missing if name in own or name.replace(".", "_", 1) in own)
    if wanted:
        shown = ", ".join(wanted[:5]) + (", ..." if len(wanted) > 5 else "")
        raise RuntimeError(f"it has no weights for {len(wanted)} of {len(own)} names of the feature network: {shown}")


def _explained(
    error: Exception, model_name: str, out_indices: list[int] | None, kwargs: Mapping[str, Any]
) -> ArgumentError | CheckpointFileError:
    if isinstance(error, ArgumentError | CheckpointFileError):
        return error
    if kwargs.get("pretrained") and _is_network_error(error):
        return _no_weights(error, model_name)
    unknown = UNKNOWN_KWARG.search(str(error))
    if unknown and unknown[1] in kwargs and unknown[1] != "norm_layer":
        takes = [name for name in parameters_of(model_name) if name not in ("self", "args", "kwargs")]
        has = f" It takes: {', '.join(takes)}." if takes else ""
        return ArgumentError(
            f"timm's {model_name} does not take {unknown[1]}={kwargs[unknown[1]]!r}.{closest(unknown[1], takes)}{has}"
        )
    if isinstance(error, IndexError | AssertionError) and out_indices:
        allowed = all_indices(model_name, kwargs)
        if not set(out_indices) <= set(allowed):
            return ArgumentError(f"out_indices={out_indices!r}: {model_name} has the maps {allowed}.")
    if kwargs.get("norm_layer") is not None:
        return ArgumentError(
            f"timm's {model_name} does not take norm_layer={kwargs['norm_layer']!r} ({reason(error)}). Allowed for "
            f"every model: None (its own norm) and FrozenBatchNorm2d or 'FrozenBN' (its batch norms, frozen)."
        )
    if isinstance(error, RuntimeError | AttributeError | NotImplementedError) and NO_FEATURES.search(str(error)):
        return ArgumentError(f"timm gives no feature maps of {model_name!r}: {error}. Choose another model.")
    given = {"out_indices": out_indices, **kwargs}
    return ArgumentError(f"timm can't make {model_name!r} with {_shown(given)}: {reason(error)}")


def cannot_run(error: Exception, model_name: str, kwargs: Mapping[str, Any]) -> DetrexBackbonesError:
    """What is raised where timm makes a network of arguments with which it can't run; one of our errors stays."""
    if isinstance(error, DetrexBackbonesError):
        return error
    return ArgumentError(
        f"timm makes {model_name!r} with {_shown(kwargs)}, but what it makes runs no image: {reason(error)}"
    )


def _shown(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{_our_name(name)}={value!r}" for name, value in arguments.items())


def _our_name(keyword: str) -> str:
    return "in_channels" if keyword == "in_chans" else keyword


def _is_network_error(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in NETWORK:
            return True
        error = error.__cause__ or error.__context__
    return False


def _no_weights(error: Exception, model_name: str) -> CheckpointFileError:
    cfg: Any = timm.get_pretrained_cfg(model_name)
    # The registry may leave the hub's name to the reader: timm/<architecture>.<tag>.
    hub, url = getattr(cfg, "hf_hub_id", None), getattr(cfg, "url", None)
    where = f"{hub!r} of the Hugging Face hub (its model.safetensors)" if hub else repr(url or model_name)
    return CheckpointFileError(
        f"pretrained=True: timm's {model_name} needs {where}, which is not in the cache and can't be fetched "
        f"({type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no reason given'}). "
        f"Go online once, or get the file by other means and give it as checkpoint_path=, or set pretrained=False."
    )
