"""Any torchvision classification network as a detection backbone."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import DualGraphModule, create_feature_extractor, get_graph_node_names

from detrex_backbones.backbones.base import Backbone, check_batch
from detrex_backbones.errors import ArgumentError, CheckpointFileError, closest
from detrex_backbones.layers.frozen_batch_norm import FrozenBatchNorm2d, is_frozen_norm

__all__ = ["TorchvisionBackbone"]

RESNET_NODES = {"layer1": "res2", "layer2": "res3", "layer3": "res4", "layer4": "res5"}

# Two image sizes tell which axes of a map are pixels, and how many pixels lie between two of its entries.
SIZES = ((512, 640), (1024, 1280))


class TorchvisionBackbone(Backbone):
    """Feature maps of a torchvision network, taken at nodes of its graph. Arguments are mostly detrex's.

    What is needed of the network is the child `torchvision_model`, under torchvision's own parameter names; layers
    behind the last node are left out. Training and evaluation have a graph each, as the network itself behaves.

    Args:
        model_name: as of `torchvision.models.get_model`, of those that classify images: "resnet50".
        weights: None for random ones; else torchvision's name for them, "IMAGENET1K_V2", "DEFAULT" or
            "ResNet50_Weights.IMAGENET1K_V2", or a member of its enum. Downloaded when they are not in torch's cache.
        return_nodes: {node: name of the map}, or nodes that also name their maps, in the order in which `forward`
            returns them. A node is a module ("layer2": its last operation) or an operation of
            `torchvision.models.feature_extraction.get_graph_node_names`.
        norm_layer: `FrozenBatchNorm2d` (this library's, torchvision's or detectron2's) or "FrozenBN" freezes every
            BatchNorm2d once the weights are in, with its eps. Anything else is handed to torchvision. None: the
            network's own norm.
        pretrained: detrex's way to ask for `weights="IMAGENET1K_V1"`.
        **kwargs: further arguments of the network: `replace_stride_with_dilation`, `stochastic_depth_prob`.

    Raises:
        ArgumentError: an unknown network, node or name of weights; an argument that the network doesn't take; a node
            that gives no map; a network that takes images of one size alone.
        CheckpointFileError: the weights can't be downloaded.
    """

    def __init__(
        self,
        model_name: str = "resnet50",
        weights: Any = None,
        return_nodes: Mapping[str, str] | Sequence[str] = RESNET_NODES,
        norm_layer: str | Callable[..., nn.Module] | None = None,
        pretrained: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.model_name = model_name
        _check_name(model_name)
        if pretrained and weights is not None:
            raise ArgumentError(f"pretrained=True and weights={weights!r} are two sources of weights. Keep one.")
        weights = "IMAGENET1K_V1" if pretrained else weights
        weights = _find_weights(model_name, weights)
        freeze = is_frozen_norm(norm_layer)
        if norm_layer is not None and not freeze:
            kwargs["norm_layer"] = norm_layer
        # Without memory first: what is wrong with the nodes shows before a download.
        with torch.device("meta"):
            skeleton = _create(model_name, **kwargs)
        nodes = _check_nodes(model_name, skeleton, return_nodes)
        self._whole = {name: tuple(value.shape) for name, value in skeleton.state_dict().items()}
        shapes = _map_shapes(model_name, _extractor(skeleton, nodes))
        self.torchvision_model: nn.Module = _extractor(_create(model_name, weights, **kwargs), nodes)
        if freeze:
            # Only now: tracing would go into a norm that isn't torch's own.
            self.torchvision_model = FrozenBatchNorm2d.convert_frozen_batchnorm(self.torchvision_model)
        self._channels_last = {name for name, (_, _, last) in shapes.items() if last}
        self._set_maps({name: shapes[name][:2] for name in nodes.values()})

    def whole_network(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of all that torchvision's network has, layers behind the last node included."""
        return dict(self._whole)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, C, H, W) -> {name: map (N, C', about H / stride, about W / stride)}."""
        check_batch(x)
        maps = self.torchvision_model(x)
        return {
            name: maps[name].permute(0, 3, 1, 2).contiguous() if name in self._channels_last else maps[name]
            for name in self._out_features
        }


class _Extractor(DualGraphModule):  # type: ignore[misc]
    """torchvision's pair of graphs, which forgets its mode when it is copied and one graph when it is pickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        root = nn.Module()
        for name in ("_modules", "_parameters", "_buffers"):
            root.__dict__[name] = dict(self.__dict__[name])
        modes = [module.training for module in self.modules()]
        # Copies of graphs don't refer to the module that they belong to.
        return _rebuild, (root, copy.deepcopy(self.train_graph), copy.deepcopy(self.eval_graph), modes)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Extractor:
        duplicate = _rebuild(*copy.deepcopy(self.__reduce__()[1], memo))
        memo[id(self)] = duplicate
        return duplicate


def _rebuild(root: nn.Module, train_graph: fx.Graph, eval_graph: fx.Graph, modes: Sequence[bool]) -> _Extractor:
    extractor = _Extractor(root, train_graph, eval_graph)
    extractor.train(modes[0])
    # Its parts may be in another mode: norms that a user holds in evaluation mode, for one.
    for module, mode in zip(extractor.modules(), modes, strict=True):
        module.training = mode
    return extractor


def _extractor(model: nn.Module, nodes: dict[str, str]) -> _Extractor:
    with _quiet():
        dual: Any = create_feature_extractor(model, return_nodes=nodes)
    return _Extractor(dual, dual.train_graph, dual.eval_graph)


def _check_name(model_name: str) -> None:
    names = torchvision.models.list_models(module=torchvision.models)
    if model_name not in names:
        raise ArgumentError(
            f"model_name={model_name!r} is not an image classifier of torchvision {torchvision.__version__}."
            f"{closest(model_name, names)} torchvision.models.list_models(module=torchvision.models) has all "
            f"{len(names)} names."
        )


def _find_weights(model_name: str, weights: Any) -> Any:
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


def _create(model_name: str, weights: Any = None, **kwargs: Any) -> nn.Module:
    try:
        with _quiet():
            return _build(model_name, weights=weights, **kwargs)
    except OSError as error:
        path = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
        raise CheckpointFileError(
            f"can't download {weights} ({error}). Without a network: put {weights.url} at {path}."
        ) from error
    except Exception as error:
        given = "".join(f", {name}={value!r}" for name, value in {"weights": weights, **kwargs}.items())
        raise ArgumentError(f"torchvision can't make {model_name!r}{given}: {type(error).__name__}: {error}") from error


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


def _check_nodes(model_name: str, model: nn.Module, return_nodes: Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    if isinstance(return_nodes, str):
        raise ArgumentError(f"return_nodes={return_nodes!r} is a string. It takes [{return_nodes!r}] or a dict.")
    nodes = {**return_nodes} if isinstance(return_nodes, Mapping) else {name: name for name in return_nodes}
    if not nodes or len(nodes) != len(return_nodes) or len(set(nodes.values())) != len(nodes):
        raise ArgumentError(f"return_nodes={return_nodes!r}: at least one node, no node and no name twice.")
    with _quiet():
        train, evaluation = get_graph_node_names(model)
    # A module stands for its last operation, and so does every module around it.
    allowed = dict.fromkeys(
        ".".join(parts[:count])
        for name in train
        if name in evaluation
        for parts in [name.split(".")]
        for count in range(1, len(parts) + 1)
    )
    for node in nodes:
        if node not in allowed:
            top = [name for name in allowed if "." not in name]
            raise ArgumentError(
                f"return_nodes={return_nodes!r}: torchvision's {model_name} has no node {node!r}."
                f"{closest(node, allowed)} The outermost: {', '.join(top)}."
            )
    return nodes


def _map_shapes(model_name: str, extractor: nn.Module) -> dict[str, tuple[int, int, bool]]:
    """Channels, stride and whether the channels come last, of every map. `extractor` is on the meta device."""
    try:
        # Not through `__call__`, which prints the code of a graph that fails.
        forward: Any = extractor.eval().forward
        small, large = (forward(torch.empty(1, 3, *size, device="meta")) for size in SIZES)
    except Exception as error:
        raise ArgumentError(
            f"torchvision's {model_name} can't be a backbone, which is given images of any size: "
            f"{type(error).__name__}: {error}"
        ) from error
    shapes = {}
    for name, value in small.items():
        sizes = list(zip(value.shape, large[name].shape, strict=True)) if isinstance(value, Tensor) else []
        pixels = [axis for axis, (first, second) in enumerate(sizes) if first != second]
        if len(sizes) != 4 or pixels not in ([2, 3], [1, 2]):
            given = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise ArgumentError(f"{name!r} of torchvision's {model_name} is no feature map: it gives {given}.")
        first, second = sizes[pixels[0]]
        last = pixels == [1, 2]
        shapes[name] = (sizes[3 if last else 1][0], (SIZES[1][0] - SIZES[0][0]) // (second - first), last)
    return shapes


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torchvision's remarks on graphs that differ and on initial values, which nobody here can act on."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="NOTE: The nodes obtained by tracing", category=UserWarning)
        warnings.filterwarnings("ignore", message="The default weight initialization of", category=FutureWarning)
        yield
