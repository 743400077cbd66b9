"""What is known of a published weight: where it is, how to check it, and what it assumes of the network around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["CAFFE2", "DETECTRON", "IMAGENET", "MSRA", "RESNEST", "SSD", "YOLO", "Preprocessing", "Recipe", "Weight"]


@dataclass(frozen=True)
class Preprocessing:
    """What images are turned into, on the 0-255 scale.

    Args:
        name: a short one.
        pixel_mean: one number a channel, in the order of `input_format`; subtracted.
        pixel_std: one number a channel, in the order of `input_format`; divided by.
        input_format: "RGB" or "BGR".
    """

    name: str
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    input_format: str = "RGB"


IMAGENET = Preprocessing("imagenet", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
MSRA = Preprocessing("msra", (103.53, 116.28, 123.675), (1.0, 1.0, 1.0), "BGR")
DETECTRON = Preprocessing("detectron", (102.9801, 115.9465, 122.7717), (1.0, 1.0, 1.0), "BGR")
CAFFE2 = Preprocessing("caffe2", (103.53, 116.28, 123.675), (57.375, 57.12, 58.395), "BGR")
RESNEST = Preprocessing("resnest", (123.68, 116.779, 103.939), (58.393, 57.12, 57.375))
SSD = Preprocessing("ssd", (123.675, 116.28, 103.53), (1.0, 1.0, 1.0))
YOLO = Preprocessing("yolo", (0.0, 0.0, 0.0), (255.0, 255.0, 255.0))


@dataclass(frozen=True)
class Recipe:
    """How images are cut for the published accuracy.

    Args:
        resize: pixels of the shorter side before the crop.
        crop: side of the square that is cut from the middle, pixels.
        interpolation: "bilinear" or "bicubic", both with antialiasing as Pillow does it.
        mode: "center" keeps the aspect; "squash" gives both sides `resize` pixels.
    """

    resize: int = 256
    crop: int = 224
    interpolation: str = "bilinear"
    mode: str = "center"

    def __str__(self) -> str:
        return f"{self.mode} {self.resize} -> {self.crop}, {self.interpolation}"


@dataclass(frozen=True)
class Weight:
    """One file of weights that somebody published.

    Args:
        name: what `train.init_checkpoint` takes: "torchvision://resnet50-v2".
        url: where it is; "" for a file that only a hub's client can fetch.
        hash: "sha256:11ad3fa6": algorithm and the beginning of the hexadecimal digest; "" where nobody published one.
        preprocessing: what images must be turned into; None where unknown.
        model: the network.
        config: the ready config that loads it, "" for none.
        overrides: what must be changed in that config beside the preprocessing.
        stride_in_1x1: where bottleneck blocks have their stride; None where unknown or without a meaning.
        dilation_style: whose DC5 it was trained with; None for a network that isn't dilated.
        norm_eps: of the batch norms; None where unknown.
        weight_standardization: whether convolutions standardise their weights as they run; None where unknown.
        uncertain: names among `traits` that sources disagree about: these are left out of it.
        top1: ImageNet accuracy in per cent, as published; None where unknown.
        top5: the same with the class among the first five.
        parameters: of the whole network, classifier included; None where unknown.
        classes: rows of the classifier; 0 for none, None where unknown.
        recipe: of the published accuracy; None where unknown.
        licence: of the weights, where one is stated; "" otherwise.
        hub: "org/name" on the Hugging Face hub, "" for none.
    """

    name: str
    url: str = ""
    hash: str = ""
    preprocessing: Preprocessing | None = None
    model: str = ""
    config: str = ""
    overrides: tuple[str, ...] = ()
    stride_in_1x1: bool | None = None
    dilation_style: str | None = None
    norm_eps: float | None = None
    weight_standardization: bool | None = None
    uncertain: tuple[str, ...] = ()
    top1: float | None = None
    top5: float | None = None
    parameters: int | None = None
    classes: int | None = None
    recipe: Recipe | None = None
    licence: str = ""
    hub: str = ""

    @property
    def file(self) -> str:
        """The name that the file has where it was published."""
        return self.url.rpartition("/")[2]

    @property
    def traits(self) -> dict[str, Any]:
        """What no tensor tells and the model must have right; keys that are unknown or uncertain are absent."""
        traits: dict[str, Any] = {
            "stride_in_1x1": self.stride_in_1x1,
            "dilation_style": self.dilation_style,
            "norm_eps": self.norm_eps,
            "weight_standardization": self.weight_standardization,
        }
        if self.preprocessing is not None:
            traits["pixel_mean"] = list(self.preprocessing.pixel_mean)
            traits["pixel_std"] = list(self.preprocessing.pixel_std)
            traits["input_format"] = self.preprocessing.input_format
        return {name: value for name, value in traits.items() if value is not None and name not in self.uncertain}
