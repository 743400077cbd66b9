"""What a network's weights silently assume, compared with what the model does.

Mean, standard deviation, channel order, the place of the stride, the kind of DC5, the norms' eps, the convolutions'
padding and what becomes of their weights are in no tensor: weights load all the same, and the results are worse. Traits
are a plain dict with any of the keys of `TRAITS`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from detrex_backbones.checkpoint.match.published import parts_of, traits_of_weight
from detrex_backbones.checkpoint.names.conventions import Convention, conventions
from detrex_backbones.checkpoint.report import LoadReport
from detrex_backbones.errors import PreprocessingError

__all__ = ["TRAITS", "check_traits", "compare_traits", "traits_of"]

logger = logging.getLogger(__name__)

# Trait -> the override that sets it, for a model that is called `model` in its config.
TRAITS = {
    "pixel_mean": "model.pixel_mean",
    "pixel_std": "model.pixel_std",
    "input_format": "model.input_format",
    "stride_in_1x1": "model.backbone.stages.stride_in_1x1",
    "shortcut": "model.backbone.stages.shortcut",
    "dilation_style": "model.backbone.stages.dilation_style",
    # No overrides: what has another of these is another network, or takes a norm as a callable.
    "norm_eps": "",
    "padding": "",  # "same" as in TensorFlow, or "symmetric"
    "weight_standardization": "model.backbone.weight_standardization",  # of ResNet
    "stride1_pool": "model.backbone.stride1_pool",  # of Res2Net
}
BUILT_WITH = {
    "norm_eps": "this eps (norm=functools.partial(BatchNorm2d, eps=...); bn_eps=... for timm's mobile networks)",
    "padding": "this padding (pad_type='same' for timm's mobile networks)",
    "weight_standardization": "convolutions with weight standardisation",
    "stride_in_1x1": "this stride: ResNet(BasicStem(), make_stage(50, stride_in_1x1=True))",
}
PIXELS = ("pixel_mean", "pixel_std", "input_format")


def check_traits(
    actual: Mapping[str, Any], report: LoadReport, mode: str, source: str | Convention | None = None
) -> None:
    """Compare the model with what the weights were trained with, as far as that is known.

    A file that is known by its name or hash and contradicts the model is an error, and so are names that prove
    something else; a naming convention that only suggests it is a warning.

    Args:
        actual: what the model does, see `traits_of`.
        report: of the load.
        mode: "error", "warn" or "off".
        source: as of `load_checkpoint`; a convention of the user's own is asked instead of a known one.

    Raises:
        PreprocessingError: with the overrides that mend it.
    """
    if mode == "off":
        return
    from detrex_backbones.checkpoint.fetch import find_known

    weight = find_known(report.path)
    convention = source if isinstance(source, Convention) else conventions().get(report.source)
    proved, published = convention.proves if convention else {}, traits_of_weight(weight) if weight else {}
    certain = {**proved, **report.stated, **published}
    different = compare_traits(certain, actual)
    if different:
        who = weight.name if weight else f"the weights of {report.path!r}"
        text = _sentence(who, different, report.scope, actual, weight.model if weight else "")
        if mode == "error":
            raise PreprocessingError(text)
        logger.warning(text)
    suggested = convention.suggests if convention and not weight else {}
    likely = compare_traits({name: value for name, value in suggested.items() if name not in certain}, actual)
    if len(likely.get("pixel_mean", ((), ()))[0]) != len(likely.get("pixel_mean", ((), ()))[1]):
        likely = {}  # of images with other channels than the source's
    if likely:
        logger.warning(_sentence(f"files in {report.source}'s names usually", likely, report.scope, actual))


def traits_of(model: nn.Module, scope: str = "") -> dict[str, Any]:
    """What a model does, as far as it can be read off its modules by their names.

    Args:
        model: a feature extractor, a detector or a backbone.
        scope: path of the backbone in it.
    """
    traits = _pixels_of(model)
    modules = dict(model.get_submodule(scope).named_modules())
    for block in ("res3.0", "layer2.0"):  # of ours, and of torchvision's and timm's
        first, second = (getattr(modules.get(f"{block}.conv{index}"), "stride", None) for index in (1, 2))
        if f"{block}.conv3" in modules and first != second:
            traits["stride_in_1x1"] = first == (2, 2)
    shortcut = modules.get("res3.0.shortcut")
    if getattr(shortcut, "kernel_size", None) == (1, 1):
        traits["shortcut"] = "avg_pool" if hasattr(shortcut, "pool_stride") else "conv1x1"
    dilations = [getattr(modules.get(f"res5.{block}.conv2"), "dilation", (1, 1)) for block in (0, 1)]
    if dilations[1] == (2, 2):
        traits["dilation_style"] = "detectron2" if dilations[0] == (2, 2) else "torchvision"
    pool = getattr(modules.get("layer1.0"), "pool", None)
    if hasattr(modules.get("layer1.0"), "convs"):
        traits["stride1_pool"] = getattr(pool, "stride", None) == 1
    built, place = _built_by_name(model, scope)
    if built:
        traits |= {"model_name": built, "place": place}
    return traits | parts_of(modules.values())


def _built_by_name(model: nn.Module, scope: str) -> tuple[str, str]:
    """The `model_name` that a wrapper in or around the scope was made with, and its place; "" twice for none."""
    steps = scope.split(".") if scope else []
    for count in range(len(steps), -1, -1):
        place = ".".join(steps[:count])
        name = getattr(model.get_submodule(place), "model_name", None)
        if isinstance(name, str):
            return name, place
    return "", ""


def _pixels_of(model: nn.Module) -> dict[str, Any]:
    """Mean, deviation and channel order; where torchvision's detectors have them, `image_mean` too, as it stands."""
    mean, std = (getattr(getattr(model, "transform", None), name, None) for name in ("image_mean", "image_std"))
    if isinstance(mean, Sequence) and isinstance(std, Sequence):
        # They normalise RGB of 0 to 1; a TorchvisionFPN turns the channels round afterwards.
        input_format = getattr(getattr(model, "backbone", None), "input_format", "RGB")
        turn = -1 if input_format == "BGR" else 1
        scaled = {"pixel_mean": [255 * v for v in mean][::turn], "pixel_std": [255 * v for v in std][::turn]}
        return {**scaled, "input_format": input_format, "image_mean": list(mean)}
    traits: dict[str, Any] = {}
    for name in ("pixel_mean", "pixel_std"):
        value = getattr(model, name, None)
        if isinstance(value, Tensor) and not value.is_meta:
            traits[name] = [float(number) for number in value.flatten()]
    if isinstance(getattr(model, "input_format", None), str):
        traits["input_format"] = model.input_format
    return traits


def compare_traits(expected: Mapping[str, Any], actual: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What differs: trait -> (what the weights want, what the model does). Traits that either lacks don't count."""
    different = {}
    for name in TRAITS:
        if name in expected and name in actual and not _equal(name, expected[name], actual[name]):
            different[name] = (expected[name], actual[name])
    return different


def _sentence(
    who: str, different: Mapping[str, tuple[Any, Any]], scope: str, actual: Mapping[str, Any], network: str = ""
) -> str:
    wants = ", ".join(
        f"{name}={_as_override(wanted)} (the model has {_as_override(given)})"
        for name, (wanted, given) in different.items()
    )
    mends = _torchvision_mends(different, actual) if "image_mean" in actual else {}
    # The backbone may stand deeper, as within an FPN: model.backbone.bottom_up.
    place = f"model.{actual.get('place', scope) or 'backbone'}."
    # torchvision's and timm's networks have their strides by name.
    fixed = ("stride_in_1x1", "weight_standardization") if actual.get("model_name") else ()
    unmended = [name for name in different if name in fixed or not TRAITS[name]]
    if unmended and network and actual.get("model_name") not in (None, network) and _is_timms(who):
        mends[f"{place}model_name"], unmended = network, []
    for name, (wanted, _) in different.items():
        if TRAITS[name] and name not in fixed and not (name in PIXELS and "image_mean" in actual):
            mends[TRAITS[name].replace("model.backbone.", place)] = wanted
    texts = [f"{key}={_as_override(value)}" for key, value in mends.items()]
    text = f"{who} {'expect' if ' ' in who else 'expects'} {wants}."
    if unmended:
        text += f" Build the network with {' and '.join(BUILT_WITH[name] for name in unmended)}."
    return text + (f" Fix it with:\n    {' '.join(texts)}" if texts else "")


def _is_timms(who: str) -> bool:
    return who.startswith("timm://")


def _torchvision_mends(different: Mapping[str, tuple[Any, Any]], actual: Mapping[str, Any]) -> dict[str, Any]:
    """The overrides of a torchvision detector, which are in RGB and of 0 to 1 whatever the weights want."""
    wanted = {name: pair[0] for name, pair in different.items()}
    order = wanted.get("input_format", actual["input_format"])
    turn = -1 if order == "BGR" else 1
    mends = {
        f"model.{name.replace('pixel', 'image')}": [value / 255 for value in wanted[name]][::turn]
        for name in ("pixel_mean", "pixel_std")
        if name in wanted
    }
    return mends | ({"model.backbone.input_format": order} if "input_format" in wanted else {})


def _equal(name: str, wanted: Any, given: Any) -> bool:
    if name == "norm_eps":
        return bool(abs(wanted - given) <= 1e-3 * wanted)
    if not name.startswith("pixel_"):
        return bool(wanted == given)
    # Configs round: 58.395 and 58.4 are the same preprocessing, 58.395 and 57.375 are not.
    return len(wanted) == len(given) and all(abs(one - other) < 0.1 for one, other in zip(wanted, given, strict=True))


def _as_override(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ",".join(f"{number:g}" for number in value) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)
