"""Any timm model as a detection backbone."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from detrex_backbones.backbones.base import Backbone, check_batch, first_channels
from detrex_backbones.backbones.recompute import check_stages
from detrex_backbones.backbones.staged import freeze_parameters
from detrex_backbones.backbones.timm import build, sizes
from detrex_backbones.backbones.timm.arguments import DEFAULT_INDICES, chosen_maps, weights_from
from detrex_backbones.backbones.timm.exportable import made_exportable
from detrex_backbones.backbones.timm.freeze import check_freeze_at, freeze_norms
from detrex_backbones.backbones.timm.reach import reach_of_all, read_reach
from detrex_backbones.backbones.timm.recompute import recompute_between
from detrex_backbones.backbones.timm.res2net import without_stride1_pool
from detrex_backbones.backbones.timm.swin import pad_then_roll
from detrex_backbones.backbones.timm.unused import leave_out_unused
from detrex_backbones.errors import ArgumentError, InputError, reason
from detrex_backbones.kinds import check_probabilities, check_whole, plain_containers
from detrex_backbones.layers.frozen_batch_norm import is_frozen_norm

__all__ = ["TimmBackbone"]


class TimmBackbone(Backbone):
    """Feature maps of a timm model, named "p0", "p1" and so on after their index. The first seven arguments
    are detrex's.

    The model is the child `timm_model`, under timm's own parameter names. Its maps come out as (N, C, H, W) whatever
    layout the model works in, and images of any size go in wherever timm has a way for it: Swin and its relatives are
    made with `strict_img_size=False`, plain vision transformers with `dynamic_img_size=True`. Networks that stay bound
    to their size take another one with `img_size=(H, W)`. `size_divisibility` and `padding_constraints` say which
    padding is needed.

    The maps of a few networks are smaller than H / stride by W / stride, because they convolve without padding
    (Inception, NASNet, PNASNet, legacy Xception, PiT); they come as timm gives them, and a warning says so when
    `size_divisibility` is asked for. Don't build a feature pyramid on them.

    Swin and Swin V2 pad their maps to whole windows and roll them then, as detectors and torchvision do it. timm rolls
    first, which gives other maps wherever one is no multiple of the window. A map of a single window isn't shifted, as
    in classifiers; with `always_partition=True` it is, as in detectors.
    What no map depends on that is asked for, such as the stages behind the last one, is left out, or gets no gradients
    where that can't be: it would never learn, and stop DistributedDataParallel.

    Args:
        model_name: as of `timm.create_model`, with or without the tag of its weights: "resnet152d.gluon_in1k".
        features_only: must be True: the classifier's scores are no feature maps.
        pretrained: load timm's weights for this name, from its cache or the hub.
        checkpoint_path: load a file in timm's names or its original release's instead, classifier included or not; ""
            for none.
        in_channels: channels of the image.
        out_indices: which of the model's maps, from 0 (the largest), in the order in which `forward` returns them;
            -1 is the last one, and called "p-1". None: those that timm chooses for the model.
        norm_layer: `FrozenBatchNorm2d` (this library's, torchvision's or detectron2's) or "FrozenBN" freezes every
            batch norm once the weights are in, with its eps and, where it has one, its activation. Anything else is
            handed to timm. None: the model's own norm.
        out_features: the same choice by names, ("p1", "p3"), in the place of `out_indices`.
        freeze_at: how much of the beginning to freeze: 0 nothing, 1 what comes before the first stage, 2 what the map
            of the first stage depends on, and so on. Stages are those that timm takes maps from (its `feature_info`),
            without a stem: layer1 ... layer4, stages.0 ... stages.3, the blocks of a transformer. What is frozen gets
            no gradients, and its batch norms are frozen too.
        output_norms: give each map p0, p1 ... a layer norm of its own, `norm0`, `norm1` ..., as the detectors' Swin,
            ConvNeXt and FocalNet have (detectron2, detrex, OpenMMLab), with the eps of the network's own.
        stride1_pool: False for OpenMMLab's Res2Nets: the first block of the first stage, whose stride is 1, doesn't
            average its last split over 3 x 3 pixels, as the authors' code and timm do it.
        checkpoint_stages: what is not kept for the backward pass but computed again in it (Chen et al. 2016): True for
            all; or maps, ["p2", "p3"], for what lies between each and the map before it. Less memory, more time.
        use_act_checkpoint: detectron2's way to ask for `checkpoint_stages=True`.
        **kwargs: further arguments of `timm.create_model`: `drop_path_rate`, `img_size`, `output_stride` and so on.

    Raises:
        ArgumentError: an unknown model, maps that it doesn't have, a norm or another argument that it doesn't take.
        CheckpointError: a `checkpoint_path` that is missing or doesn't fit.
        CheckpointFileError: `pretrained=True` without a way to the weights.
    """

    def __init__(
        self,
        model_name: str,
        features_only: bool = True,
        pretrained: Any = False,
        checkpoint_path: str = "",
        in_channels: int = 3,
        out_indices: Sequence[int] | None = DEFAULT_INDICES,
        norm_layer: str | Callable[..., nn.Module] | None = None,
        out_features: Sequence[str] | None = None,
        freeze_at: int = 0,
        output_norms: bool = False,
        stride1_pool: bool = True,
        checkpoint_stages: bool | Sequence[str] = False,
        use_act_checkpoint: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.model_name = model_name
        build.check_name(model_name)
        _check_arguments(features_only, kwargs)
        check_whole("in_channels", in_channels, 1)
        pretrained = weights_from(pretrained, checkpoint_path)
        freeze = is_frozen_norm(norm_layer)
        if norm_layer is not None and not freeze:
            kwargs["norm_layer"] = norm_layer
        kwargs = {"in_chans": in_channels, **build.TRAINED_WITH.get(model_name.partition(".")[0], {}), **kwargs}
        kwargs = {name: plain_containers(value) for name, value in kwargs.items()}
        check_probabilities(kwargs)
        kwargs |= sizes.any_size_kwargs(model_name, kwargs)
        named = chosen_maps(model_name, out_indices, out_features, kwargs)
        # timm gives the maps in the order of the network, whatever the order asked for.
        in_order = None if named is None else sorted(named.values())
        if checkpoint_path:
            net = build.create_with_file(model_name, in_order, kwargs, checkpoint_path)
        else:
            net = build.create(model_name, in_order, {**kwargs, "pretrained": pretrained})
        self.timm_model = pad_then_roll(made_exportable(net))
        if not stride1_pool:
            without_stride1_pool(self.timm_model, model_name)
        self._in_channels = in_channels
        self._convolves_image = first_channels(net, None) == in_channels
        self._describe(named)
        self._add_output_norms(output_norms)
        self._made_of = (model_name, self._indices, kwargs)
        try:
            self._shape_learning(freeze_at, use_act_checkpoint or checkpoint_stages)
        except (RuntimeError, AssertionError, ValueError, IndexError, ArithmeticError) as error:
            raise build.cannot_run(error, model_name, kwargs) from error
        if freeze:
            self.timm_model = freeze_norms(self.timm_model)
        self._measured: sizes.Sizes | None = None

    def _describe(self, named: dict[str, int] | None) -> None:
        info: Any = self.timm_model.feature_info
        self._indices = [index % len(info.info) for index in info.out_indices]
        named = {f"p{index}": index for index in self._indices} if named is None else named
        names = {index: name for name, index in named.items()}
        self._timm_order = [names[index] for index in self._indices]
        self._out_features = list(named)
        self._out_feature_channels = dict(zip(self._timm_order, info.channels(), strict=True))
        self._out_feature_strides = dict(zip(self._timm_order, info.reduction(), strict=True))
        self._channels_last = str(getattr(self.timm_model, "output_fmt", "NCHW")) in ("NHWC", "Format.NHWC")

    def _add_output_norms(self, wanted: bool) -> None:
        self._normed = wanted
        own = next((part.eps for part in self.timm_model.modules() if isinstance(part, nn.LayerNorm)), 1e-5)
        for name in self._timm_order if wanted else ():
            self.add_module(f"norm{name[1:]}", nn.LayerNorm(self._out_feature_channels[name], eps=own))

    def whole_network(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of all that timm's network has, classifier and the blocks behind the last map included."""
        name, _, kwargs = self._made_of
        return build.whole_shapes(name, kwargs)

    def from_original(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of a file of the network's authors, with this module's own names and shapes for them.

        By the filter that timm has for the network's family, and uses for the files of its own releases. What the
        module has no name for keeps timm's.

        Args:
            tensors: name in the authors' file -> tensor, of any device.

        Raises:
            KeyError, RuntimeError, ...: whatever timm's filter does with names of another network.
        """
        name, _, kwargs = self._made_of
        own: dict[str, str] = {}
        for key in self.state_dict():
            plain = key.removeprefix("timm_model.")
            own |= {plain.removeprefix(head): key for head in ("graph_module.", "body.", "model.", "")}
        norms = {key: value for key, value in tensors.items() if own.get(key) == key}  # output norms, which timm lacks
        made = build.filtered(name, kwargs, {key: value for key, value in tensors.items() if key not in norms})
        return norms | {own.get(key) or own.get(key.replace(".", "_", 1), key): value for key, value in made.items()}

    def _shape_learning(self, freeze_at: Any, checkpoint_stages: Any) -> None:
        """Leave out what no map depends on, freeze the beginning, recompute what is asked for."""
        name, indices, kwargs = self._made_of
        chosen = check_stages(checkpoint_stages, self._timm_order)
        whole = None
        if chosen or isinstance(freeze_at, bool) or freeze_at != 0:
            whole = reach_of_all(name, kwargs, self._in_channels)
            check_freeze_at(whole, name, freeze_at)
        image = (self._in_channels, *sizes.made_size(name, kwargs))
        reach = whole
        if reach is None or len(indices) < len(reach.maps):
            reach = read_reach(name, indices, kwargs, self._in_channels)
        leave_out_unused(self.timm_model, reach, image)
        if whole is not None and freeze_at:
            freeze_parameters(self.timm_model, whole.up_to(freeze_at - 1), freeze_norms)
        if whole is not None and chosen:
            maps = {self._indices[self._timm_order.index(key)] for key in chosen}
            recompute_between(self.timm_model, whole, self._indices, maps)

    @property
    def size_divisibility(self) -> int:
        """What H and W must be multiples of for the model to run with maps of H / stride by W / stride; 0 for any size.

        Measured when first asked for, by running the model without weights on the meta device. For a network that is
        bound to the size that it was made for: what that size's H and W are both multiples of.

        Warns where the maps of such images are smaller all the same.
        """
        return self._sizes().step

    @property
    def padding_constraints(self) -> dict[str, int]:
        """`square_size` of a network that is bound to a square, and its `size_divisibility`; {} for the others."""
        only = self._sizes().only
        return {"size_divisibility": only[0], "square_size": only[0]} if only and only[0] == only[1] else {}

    def _example_size(self) -> tuple[int, int]:
        return self._sizes().only or super()._example_size()

    def _sizes(self) -> sizes.Sizes:
        if self._measured is None:
            name, indices, kwargs = self._made_of
            if torch.compiler.is_compiling():
                raise InputError(
                    f"which sizes timm's {name} runs is measured when it is first asked for, which can't be while the "
                    f"model is traced. Run an image before, or ask for backbone.size_divisibility."
                )
            strides = [self._out_feature_strides[key] for key in self._timm_order]
            net = sizes.meta_network(name, indices, kwargs)
            own = sizes.made_size(name, kwargs)
            self._measured = sizes.find_sizes(net, self._in_channels, strides, self._channels_last, own)
            if not self._measured.exact:
                warnings.warn(
                    f"the maps of timm's {name} are not H / stride by W / stride, whatever the size: they don't lie on "
                    f"each other as a feature pyramid expects it.",
                    UserWarning,
                    stacklevel=3,
                )
        return self._measured

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, C, H, W) -> {"p{index}": map (N, C', about H / stride, about W / stride)}."""
        check_batch(x)
        try:
            maps = sizes.as_maps(self.timm_model(x), self._channels_last)
        except (RuntimeError, AssertionError, ValueError, IndexError) as error:
            # Only now: the first convolution may have been replaced by one for other channels.
            channels = self._in_channels
            check_batch(x, first_channels(self.timm_model, channels) if self._convolves_image else channels)
            self._check_size(x, error)
            raise
        named = dict(zip(self._timm_order, maps, strict=True))
        if self._normed:
            norms = {name: self.get_submodule(f"norm{name[1:]}") for name in named}
            named = {name: norms[name](x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) for name, x in named.items()}
        return {name: named[name] for name in self._out_features}

    def _check_size(self, x: Tensor, error: Exception) -> None:
        """Say so where it is the size that the model can't run: then it can't without weights either."""
        if isinstance(error, torch.OutOfMemoryError):
            return
        if x.is_meta and "meta tensors" in str(error):
            raise InputError(
                f"timm's {self._made_of[0]} looks at values while it runs, and tensors on the meta device have none. "
                f"Run it on the CPU or on a GPU."
            ) from error
        net = sizes.meta_network(*self._made_of)
        height, width = x.shape[-2:]
        # Tables that are too small for an image show in values, which a network without weights doesn't have.
        if not isinstance(error, IndexError) and sizes.run_shapes(net, self._in_channels, height, width) is not None:
            return
        cure = self._cure(height, width)
        raise InputError(
            f"timm's {self._made_of[0]} can't run images of (H, W) = ({height}, {width}) ({reason(error)}). {cure}"
        ) from error

    def _cure(self, height: int, width: int) -> str:
        found = self._sizes()
        if found.only:
            size = sizes.size_that_fits(*self._made_of, self._in_channels, height, width)
            bound = f"It is bound to the size that it was made for: resize and pad the images to {found.only}"
            return f"{bound}, or make it with img_size={size} and pad them to that." if size else f"{bound}."
        step = max(found.step, 1)
        padded = (-(-height // step) * step, -(-width // step) * step)
        if padded != (height, width):
            return f"H and W must be multiples of {step}, its size_divisibility: pad to {padded}."
        return "It may be too small for the network: resize the images to more pixels."


def _check_arguments(features_only: Any, kwargs: dict[str, Any]) -> None:
    if not features_only:
        raise ArgumentError("features_only=False gives class scores, which are no feature maps. Leave it True.")
    if "in_chans" in kwargs:
        raise ArgumentError(f"in_chans={kwargs['in_chans']!r}: it is called in_channels here.")
