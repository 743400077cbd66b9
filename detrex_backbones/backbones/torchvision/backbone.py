"""Any torchvision classification network as a detection backbone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from detrex_backbones.backbones.base import Backbone, check_batch, first_channels
from detrex_backbones.backbones.recompute import check_stages
from detrex_backbones.backbones.staged import freeze_parameters
from detrex_backbones.backbones.torchvision import network
from detrex_backbones.backbones.torchvision.nodes import SIZES, both_modes, extractor, map_shapes
from detrex_backbones.backbones.torchvision.stages import check_freeze_at, last_of_each_stride, parameters_before
from detrex_backbones.backbones.traced import TracedPair
from detrex_backbones.kinds import check_probabilities, plain_containers
from detrex_backbones.layers.frozen_batch_norm import FrozenBatchNorm2d, is_frozen_norm

__all__ = ["TorchvisionBackbone"]


class TorchvisionBackbone(Backbone):
    """Feature maps of a torchvision network, taken at nodes of its graph. Arguments and parameter names are detrex's.

    What is needed of the network is the child `model`, under torchvision's own parameter names; layers behind the last
    node are left out. Training and evaluation have a graph each, as the network itself behaves. A map is the value of
    its node, whatever changes that in place behind it.

    detrex's state dicts have every parameter twice, as `model.*` and as `feature_extractor.*`; they load into this.

    Args:
        model_name: as of `torchvision.models.get_model`, of those that classify images: "resnet50".
        pretrained: True for `weights="IMAGENET1K_V1"`. Files are loaded by `load_checkpoint`.
        return_nodes: {node: name of the map}, or nodes that also name their maps, in the order in which `forward`
            returns them. A node is a module ("layer2": its last operation) or an operation of
            `torchvision.models.feature_extraction.get_graph_node_names`. None: the last node of each stride from 4 on,
            "res2" for stride 4, "res3" for 8 and so on: what goes into the block that makes the map coarser, and at
            the end what the classifier takes, a Swin's last norm included. For a ResNet these are layer1 to layer4.
        train_return_nodes: in the place of `return_nodes`, for the graph in training.
        eval_return_nodes: the same for the graph in evaluation: given together, with the same maps.
        tracer_kwargs: as of `torchvision.models.feature_extraction.create_feature_extractor`.
        suppress_diff_warnings: detrex's; that the graphs of both modes differ is never warned of here.
        weights: None for random ones; else torchvision's name for them, "IMAGENET1K_V2", "DEFAULT" or
            "ResNet50_Weights.IMAGENET1K_V2", or a member of its enum. Downloaded when they are not in torch's cache.
        norm_layer: `FrozenBatchNorm2d` (this library's, torchvision's or detectron2's) or "FrozenBN" freezes every
            BatchNorm2d once the weights are in, with its eps. Anything else is handed to torchvision. None: the
            network's own norm.
        checkpoint_stages: what is not kept for the backward pass but computed again in it (Chen et al. 2016): True for
            all; or names of maps, for what lies between each and the map before it.
        freeze_at: how much of the beginning gets no gradients and frozen batch norms: 0 nothing, 1 what the last node
            of stride 2 depends on (a ResNet's stem), 2 what that of stride 4 does, and so on.
        use_act_checkpoint: detectron2's way to ask for `checkpoint_stages=True`.
        **kwargs: further arguments of the network: `replace_stride_with_dilation`, `stochastic_depth_prob`.

    Raises:
        ArgumentError: an unknown network, node or name of weights; an argument that the network doesn't take; a node
            that gives no map; a network that takes images of one size alone.
        CheckpointError: the weights can't be downloaded, or a file of them can't be read or doesn't fit.
    """

    def __init__(
        self,
        model_name: str = "resnet50",
        pretrained: Any = False,
        return_nodes: Mapping[str, str] | Sequence[str] | None = None,
        train_return_nodes: Mapping[str, str] | Sequence[str] | None = None,
        eval_return_nodes: Mapping[str, str] | Sequence[str] | None = None,
        tracer_kwargs: dict[str, Any] | None = None,
        suppress_diff_warnings: bool = False,
        weights: Any = None,
        norm_layer: str | Callable[..., nn.Module] | None = None,
        checkpoint_stages: bool | Sequence[str] = False,
        use_act_checkpoint: bool = False,
        freeze_at: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.model_name = model_name
        network.check_name(model_name)
        weights = network.weights_from(pretrained, weights)
        weights = network.find_weights(model_name, weights)
        freeze = is_frozen_norm(norm_layer)
        if norm_layer is not None and not freeze:
            kwargs["norm_layer"] = norm_layer
        kwargs = {name: plain_containers(value) for name, value in kwargs.items()}
        check_probabilities(kwargs)
        tracer_kwargs = plain_containers(tracer_kwargs)
        # Without memory first: what is wrong with the nodes shows before a download.
        with torch.device("meta"):
            skeleton = network.create(model_name, **kwargs)
        self._whole = {name: tuple(value.shape) for name, value in skeleton.state_dict().items()}
        by_stride: dict[str, str] = {}
        if (
            return_nodes is train_return_nodes is eval_return_nodes is None
            or isinstance(freeze_at, bool)
            or freeze_at != 0
        ):
            by_stride = last_of_each_stride(model_name, skeleton, tracer_kwargs)
            check_freeze_at(model_name, freeze_at, by_stride.values())
        if return_nodes is train_return_nodes is eval_return_nodes is None:
            return_nodes = {node: name for node, name in by_stride.items() if name != "res1"}
        nodes = both_modes(model_name, skeleton, return_nodes, train_return_nodes, eval_return_nodes, tracer_kwargs)
        traced = extractor(skeleton, nodes, tracer_kwargs)
        shapes = map_shapes(model_name, traced)
        net = network.create(model_name, weights, **kwargs)
        self.model: TracedPair = extractor(net, nodes, tracer_kwargs)
        self.model.keep_values(traced.overwritten(torch.empty(1, 3, *SIZES[0], device="meta")))
        if freeze:
            # Only now: tracing would go into a norm that isn't torch's own.
            self.model = FrozenBatchNorm2d.convert_frozen_batchnorm(self.model)  # type: ignore[assignment]
        if freeze_at:
            node = next(node for node, name in by_stride.items() if name == f"res{freeze_at}")
            before = parameters_before(skeleton, node, tracer_kwargs)
            freeze_parameters(self.model, before, FrozenBatchNorm2d.convert_frozen_batchnorm)
        self._channels_last = {name for name, (_, _, last) in shapes.items() if last}
        self._set_maps({name: shapes[name][:2] for name in nodes[1].values()})
        stages = use_act_checkpoint or checkpoint_stages
        self.checkpoint_stages = check_stages(stages, self._out_features)

    @property
    def torchvision_model(self) -> nn.Module:
        """What `model` was called before it had detrex's name."""
        return self.model

    def whole_network(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of all that torchvision's network has, layers behind the last node included."""
        return dict(self._whole)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, C, H, W) -> {name: map (N, C', about H / stride, about W / stride)}."""
        check_batch(x, first_channels(self.model, None))
        if self.checkpoint_stages and torch.is_grad_enabled():
            maps = self.model.run_recomputed(x, self.checkpoint_stages)
        else:
            maps = self.model(x)
        return {
            name: maps[name].permute(0, 3, 1, 2).contiguous() if name in self._channels_last else maps[name]
            for name in self._out_features
        }

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # detrex's has every parameter twice, and the whole network under one of its names.
        twice = f"{prefix}feature_extractor."
        own = {f"{prefix}model.{key.removeprefix(twice)}" for key in state_dict if key.startswith(twice)}
        for key in list(state_dict) if own else ():
            if key.startswith((twice, f"{prefix}model.")) and key not in own:
                del state_dict[key]
        super()._load_from_state_dict(state_dict, prefix, *args)
