"""Top-1 and top-5 of a config's classifier on a folder of images, cut and normalised as its weights want it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from detrex_backbones.backbones.base import Backbone
from detrex_backbones.backbones.images.extractor import FeatureExtractor
from detrex_backbones.checkpoint.fetch import Recipe, Weight, find_known
from detrex_backbones.config import LazyCall
from detrex_backbones.errors import ArgumentError, ConfigTypeError, DeviceError
from detrex_backbones.evaluation.image_folder import ImageFolder, open_folder
from detrex_backbones.layers import ShapeSpec
from detrex_backbones.zoo import build_for_maps

__all__ = ["Evaluation", "Prediction", "build_classifier", "evaluate", "override_recipe", "recipe_of"]

logger = logging.getLogger(__name__)

IMAGENET_CLASSES = 1000
TOP = 5


@dataclass(frozen=True)
class Prediction:
    """What the network says of one image.

    Args:
        path: of the image.
        label: index of its class.
        top: indices of the five classes with the highest scores, best first.
        scores: of all classes, before softmax.
    """

    path: str
    label: int
    top: tuple[int, ...]
    scores: Tensor


@dataclass
class Evaluation:
    """The counts of a run.

    Args:
        weight: what the catalogue knows of the weights; None for nothing.
        recipe: how images were cut.
        notes: what was set or decided on the way, a sentence each.
        images: how many were looked at.
        top1: how many had their class first.
        top5: how many had their class among the first five.
    """

    weight: Weight | None
    recipe: Recipe
    notes: list[str] = field(default_factory=list)
    images: int = 0
    top1: int = 0
    top5: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The result in types that JSON knows; accuracies in per cent."""
        return {
            "images": self.images,
            "top1": 100 * self.top1 / max(self.images, 1),
            "top5": 100 * self.top5 / max(self.images, 1),
            "published_top1": self.weight.top1 if self.weight else None,
            "published_top5": self.weight.top5 if self.weight else None,
            "weight": self.weight.name if self.weight else None,
            "recipe": str(self.recipe),
            "notes": self.notes,
        }


def evaluate(
    cfg: DictConfig,
    data: str | Path,
    *,
    batch_size: int = 64,
    workers: int | None = None,
    limit: int | None = None,
    classes: Sequence[str] | None = None,
    recipe: Recipe | None = None,
    keep: Sequence[str] = (),
    each: Callable[[Prediction], None] | None = None,
) -> Evaluation:
    """Classify every image of a folder.

    Args:
        cfg: with a `model` that is a FeatureExtractor over a ResNet or a TimmBackbone, and `train` as of `build_model`.
            Not changed.
        data: the folder: a folder of images for each class, see `open_folder`.
        batch_size: images at a time.
        workers: processes that read images; None for one a CPU, up to eight, 0 for none.
        limit: look at this many, spread evenly over the folder; None for all.
        classes: names of the folders in the order of the classifier's rows; None to decide by the names.
        recipe: how images are cut; None for the weight's own, or else 256 -> 224, bilinear.
        keep: config keys whose value stands even where the weight wants another: "model.pixel_mean".
        each: called with the prediction of every image, in the order of the folder.

    Raises:
        ArgumentError: a number that is too small, a model without a classifier.
        InputError: a folder or an image that can't be read, more classes than the classifier has.
        CheckpointError: weights that can't be read or don't fit, such as those without a classifier.
        DeviceError: not enough memory for the batch.
    """
    for name, value, least in (("batch_size", batch_size, 1), ("limit", limit, 1), ("workers", workers, 0)):
        if value is not None and value < least:
            raise ArgumentError(f"{name}={value} is too small: at least {least}.")
    weight = find_known(OmegaConf.select(cfg, "train.init_checkpoint", default="") or "")
    result = Evaluation(weight, recipe or recipe_of(weight))
    result.notes.append(f"images: {result.recipe}" + ("" if recipe else _whose(weight)))
    folder = open_folder(data, result.recipe, classes, limit)  # before the model, which takes longer
    result.notes.append(folder.note)
    model = build_classifier(cfg, weight, result.notes, keep)
    folder.check_classes(model.num_classes)
    for prediction in _predict(model, folder, batch_size, workers):
        result.images += 1
        result.top1 += prediction.label == prediction.top[0]
        result.top5 += prediction.label in prediction.top
        if each is not None:
            each(prediction)
    return result


def recipe_of(weight: Weight | None) -> Recipe:
    """How images are cut for a weight: its own recipe where it is known, otherwise 256 -> 224, bilinear."""
    return weight.recipe if weight is not None and weight.recipe is not None else Recipe()


def _whose(weight: Weight | None) -> str:
    return f" (as {weight.name})" if weight is not None and weight.recipe is not None else " (the usual one)"


class _Classifier(nn.Module):
    """A FeatureExtractor whose backbone gives class scores."""

    def __init__(self, extractor: FeatureExtractor, num_classes: int) -> None:
        super().__init__()
        self.extractor = extractor
        self.num_classes = num_classes

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W), RGB, 0-255 -> scores (N, classes)."""
        return self.extractor(images)["linear"]  # type: ignore[no-any-return]


class _TimmScores(Backbone):
    """A whole timm model, classifier included, in the place of a TimmBackbone."""

    def __init__(self, model_name: str, num_classes: int | None) -> None:
        super().__init__()
        import timm

        given = {} if num_classes is None else {"num_classes": num_classes}
        self.timm_model = timm.create_model(model_name, **given)

    def output_shape(self) -> dict[str, ShapeSpec]:
        """The scores, of any number of classes."""
        return {"linear": ShapeSpec()}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, C, H, W) -> {"linear": scores (N, classes)}."""
        return {"linear": self.timm_model(x)}


def build_classifier(
    cfg: DictConfig, weight: Weight | None = None, notes: list[str] | None = None, keep: Sequence[str] = ()
) -> _Classifier:
    """The model of a config with its classifier, loaded, in evaluation mode; see `evaluate`.

    Args:
        cfg: not changed.
        weight: whose preprocessing replaces the config's; None leaves the config's.
        notes: what was set is appended here.
        keep: config keys that are left alone.
    """
    notes = [] if notes is None else notes
    cfg = cfg.copy()
    backbone = cfg.get("model", {}).get("backbone", {})
    target = _name_of(backbone.get("_target_", "nothing"))
    classes = weight.classes if weight and weight.classes else None
    if weight is not None and weight.preprocessing is not None:
        for name in ("input_format", "pixel_mean", "pixel_std"):
            value = getattr(weight.preprocessing, name)
            if f"model.{name}" not in keep:
                _set(cfg, f"model.{name}", value if isinstance(value, str) else list(value), notes)
    if target == "TimmBackbone":
        notes.append(f"model.backbone: timm's whole {backbone.model_name}, with its classifier")
        cfg.model.backbone = LazyCall(_TimmScores)(model_name=backbone.model_name, num_classes=classes)
    elif target == "ResNet":
        if backbone.get("num_classes") is None:
            _set(cfg, "model.backbone.num_classes", classes or IMAGENET_CLASSES, notes)
        _set(cfg, "model.backbone.out_features", ["linear"], notes)
    else:
        raise ArgumentError(
            f"model.backbone is a {target}, which has no classifier. evaluate takes a FeatureExtractor "
            f"over a ResNet or a TimmBackbone."
        )
    model, _ = build_for_maps(cfg)
    if not isinstance(model, FeatureExtractor):
        raise ConfigTypeError(f"model is a {type(model).__name__}. evaluate takes a FeatureExtractor over a backbone.")
    scores: Any = model.backbone
    return _Classifier(model, int(getattr(scores, "timm_model", scores).num_classes)).eval()


def _name_of(target: Any) -> str:
    return target.rpartition(".")[2] if isinstance(target, str) else getattr(target, "__name__", str(target))


def _set(cfg: DictConfig, key: str, value: Any, notes: list[str]) -> None:
    old = OmegaConf.select(cfg, key)
    if (list(old) if isinstance(value, list) and old is not None else old) != value:
        OmegaConf.update(cfg, key, value, force_add=True)
        shown = f"[{','.join(map(str, value))}]" if isinstance(value, list) else value
        notes.append(f"set {key}={shown}")


def _predict(model: _Classifier, folder: ImageFolder, batch_size: int, workers: int | None) -> Iterator[Prediction]:
    from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore]

    top = min(TOP, model.num_classes)
    with tqdm(total=len(folder), unit=" images", disable=None) as bar:
        for indices, images in folder.batches(batch_size, _workers(workers, len(folder), batch_size)):
            try:
                with torch.inference_mode():
                    scores = model(images).float().cpu()
            except torch.OutOfMemoryError as error:
                raise DeviceError(f"not enough memory for {len(images)} images at once: lower --batch-size.") from error
            best = scores.topk(top).indices.tolist()
            for index, row, order in zip(indices, scores, best, strict=True):
                path, label = folder.samples[index]
                yield Prediction(path, label, tuple(order), row)
            bar.update(len(indices))


def _workers(workers: int | None, images: int, batch_size: int) -> int:
    if workers is None:
        workers = min(8, os.cpu_count() or 1)
        return 0 if images <= batch_size else workers
    return workers


def override_recipe(weight: Weight | None, **changes: Any) -> Recipe | None:
    """The weight's recipe with what is given replaced; None where nothing is given.

    Args:
        weight: known weights; None for ImageNet's usual recipe.
        changes: fields of a `Recipe`, such as `resize=256`; None leaves one as it is.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    return replace(recipe_of(weight), **given) if given else None
