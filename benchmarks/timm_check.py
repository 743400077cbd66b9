"""One timm model as a backbone, against timm itself: the checks behind every row of the sweep."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from detrex_backbones import TimmBackbone
from detrex_backbones.backbones.timm.swin import pad_then_roll
from detrex_backbones.checkpoint.load import load_checkpoint
from detrex_backbones.errors import DetrexBackbonesError, InputError

__all__ = ["Row", "check_model", "plain_weights", "row_of"]

Size = tuple[int, int]
SIZES: tuple[Size, ...] = ((161, 227), (290, 99))
# What timm offers a model that has one size, and the paddings that it may want.
OFFERS: tuple[dict[str, bool], ...] = (
    {},
    {"strict_img_size": False},
    {"dynamic_img_size": True},
    {"dynamic_img_pad": True},
    {"dynamic_img_size": True, "dynamic_img_pad": True},
    {"strict_img_size": False, "dynamic_img_pad": True},
)
PADDINGS = (1, 4, 14, 16, 32, 64, 128)


@dataclass
class Row:
    """What came of one family's smallest model."""

    module: str
    family: str = ""
    model: str = ""
    millions: float = 0.0
    wrapper: str = ""
    layout: str = ""
    maps: str = ""
    strides: str = ""
    divisibility: int | None = None
    sizes: list[str] = field(default_factory=list)
    # How far timm itself gets: the same sizes, or what else.
    timm: str = ""
    # "any" size, "made" for a size, "fails".
    reach: str = "fails"
    smaller: bool = False
    result: str = ""

    @property
    def works(self) -> bool:
        return self.reach != "fails"


def row_of(module: str, family: str, model: str, parameters: int) -> Row:
    """The row of one model: as it comes, and if that can't run the sizes, made for another size."""
    row = Row(module, family, model, round(parameters / 1e6, 1))
    try:
        try:
            check_model(model, row)
            if "differs" in row.result:  # some networks with random weights magnify what float32 rounds
                check_model(model, row, dtype=torch.float64)
        except InputError as error:
            row.timm = timms_reach(model)
            cause = f"{type(error.__cause__).__name__}: {error.__cause__}"
            _made_for_a_size(row, cause)
    except DetrexBackbonesError as error:
        row.result = f"{type(error).__name__}: {error}"
    except Exception as error:  # one model's failure is a row of the table, not the end of it
        row.result = f"{type(error).__name__} (not ours): {error}"
    return row


def check_model(name: str, row: Row, dtype: torch.dtype = torch.float32, **kwargs: Any) -> None:
    """Fill a row with what comes of a model: built, frozen, loaded from a plain checkpoint, run, compared with timm."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plain.pth"
        torch.save(plain_weights(name, **kwargs), path)
        ours = TimmBackbone(name, out_indices=None, norm_layer="FrozenBN", **kwargs).eval()
        load_checkpoint(ours.to(dtype), path)
        images = _describe(ours, row, [kwargs["img_size"]] if "img_size" in kwargs else SIZES)
        images = [image.to(dtype) for image in images]
        with torch.no_grad():
            maps = [ours(image) for image in images]
        theirs = _timms_maps(name, path, images, kwargs)
    row.timm = "the same maps"
    for image, mine, other in zip(images, maps, theirs, strict=True):
        for key, reference in zip(mine, other, strict=True):
            error = (mine[key] - reference).norm() / reference.norm().clamp_min(1e-12)
            if not error < 1e-4:
                row.result = f"{key} differs from timm's by a relative {error:.1e}"
                return
        if wrong := _wrong_shape(ours, image, mine):
            row.result = wrong
            row.smaller = _all_smaller(ours, image, mine)
            if not row.smaller:
                return
    row.reach = "made" if "img_size" in kwargs else "any"
    row.result = "maps smaller than size / stride: " + row.result if row.smaller else "works"


def plain_weights(name: str, **kwargs: Any) -> dict[str, Tensor]:
    """A plain model's weights: random, statistics included."""
    torch.manual_seed(0)
    kwargs.pop("feature_cls", None)
    net = timm.create_model(name, **kwargs)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.state_dict()


def padded(size: Size, step: int) -> Size:
    height, width = (-(-side // max(step, 1)) * max(step, 1) for side in size)
    return height, width


def timms_reach(name: str) -> str:
    """What padding lets timm's own feature network run both sizes, with any of its offers; tried with real weights."""
    own = timm.get_pretrained_cfg(name).input_size[-1]
    for step in sorted({*PADDINGS, own}):
        sizes = [padded(size, step) for size in SIZES] if step != own else [(own, 2 * own), (2 * own, own)]
        offer = _offer(name, sizes, {})
        if offer is None:
            continue
        net = timm.create_model(name, features_only=True, **offer).eval()
        try:
            with torch.no_grad():
                for size in sizes:
                    net(torch.randn(1, 3, *size))
        except Exception:  # shapes alone let it pass, values don't: so timm can't
            continue
        return f"multiples of {step}"
    return f"{own}x{own} alone"


def _describe(net: TimmBackbone, row: Row, sizes: Sequence[Size]) -> list[Tensor]:
    """Fill in what the backbone says of itself; images of these sizes, padded as it asks for."""
    shapes = net.output_shape()
    row.wrapper = type(net.timm_model).__name__
    row.layout = "NHWC" if net._channels_last else "NCHW"
    row.maps = "/".join(str(spec.channels) for spec in shapes.values())
    row.strides = "/".join(str(spec.stride) for spec in shapes.values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of smaller maps, which have a column
        row.divisibility = net.size_divisibility
    step = 1 if len(sizes) == 1 else row.divisibility
    images = [torch.randn(1, 3, *padded(size, step)) for size in sizes]
    row.sizes = [f"{image.shape[2]}x{image.shape[3]}" for image in images]
    return images


@torch.no_grad()
def _timms_maps(name: str, path: Path, images: Sequence[Tensor], kwargs: Mapping[str, Any]) -> list[list[Tensor]]:
    """The maps of timm's own feature network, which timm itself has filled from the file."""
    sizes = [tuple(image.shape[2:]) for image in images]
    offer = _offer(name, sizes, kwargs)
    if offer is None:  # some networks need values to run at all
        offer = _offer(name, sizes, kwargs, device="cpu")
    if offer is None:
        raise RuntimeError("timm's own feature network runs none of these sizes")
    net = timm.create_model(
        name, features_only=True, pretrained=True, pretrained_cfg_overlay={"file": str(path)}, **kwargs, **offer
    )
    # Swin's windows are meant to differ: those are proved against torchvision's in tests/backbones/test_timm_swin.py.
    net = pad_then_roll(net).to(images[0].dtype).eval()
    channels = net.feature_info.channels()
    found = []
    for image in images:
        outputs = net(image)
        values = list(outputs.values()) if isinstance(outputs, Mapping) else list(outputs)
        pairs = zip(values, channels, strict=True)
        found.append([value if value.shape[1] == width else value.permute(0, 3, 1, 2) for value, width in pairs])
    return found


def _offer(name: str, sizes: Sequence[Any], kwargs: Mapping[str, Any], device: str = "meta") -> dict[str, bool] | None:
    """The first of timm's offers with which its network runs these sizes: on the meta device, as far as shapes show."""
    for offer in OFFERS:
        try:
            with torch.device(device), torch.no_grad():
                net = timm.create_model(name, features_only=True, **kwargs, **offer).eval()
                for size in sizes:
                    net(torch.empty(1, 3, *size))
        except Exception:  # the model doesn't take the offer, or not the sizes
            continue
        return offer
    return None


def _full(net: TimmBackbone, image: Tensor) -> dict[str, tuple[int, ...]]:
    return {
        key: (1, spec.channels, *(-(-side // spec.stride) for side in image.shape[2:]))
        for key, spec in net.output_shape().items()
    }


def _wrong_shape(net: TimmBackbone, image: Tensor, maps: Mapping[str, Tensor]) -> str:
    for key, shape in _full(net, image).items():
        if tuple(maps[key].shape) != shape:
            return f"{key} of {tuple(image.shape[2:])} is {tuple(maps[key].shape)}, not {shape}"
    return ""


def _all_smaller(net: TimmBackbone, image: Tensor, maps: Mapping[str, Tensor]) -> bool:
    pairs = [(maps[key].shape, full) for key, full in _full(net, image).items()]
    return all(own[1] == full[1] and own[2] <= full[2] and own[3] <= full[3] for own, full in pairs)


def _made_for_a_size(row: Row, cause: str) -> None:
    """Where a model is bound to its size: which other is it, when made with `img_size=`?"""
    own = timm.get_pretrained_cfg(row.model).input_size[-1]
    tries = {
        "any img_size=(H, W)": (192, 256),
        "a square img_size=": (192, 192),
        "any img_size=(H, W) of multiples of its own": (2 * own, own),
        "its own size alone": (own, own),
    }
    for label, size in tries.items():
        again = Row(row.module, row.family, row.model, row.millions, timm=row.timm)
        try:
            check_model(row.model, again, img_size=size)
        except Exception as error:  # a size that it isn't made for; the reason is told if there is no other
            again.result = f"{type(error).__name__} with img_size={size}: {error}"
        if again.works:
            again.timm = row.timm
            vars(row).update(vars(again))
            row.result = f"made for {label}" + (f"; {again.result}" if again.smaller else "") + f" ({cause})"
            return
        row.sizes, row.result = again.sizes, again.result
