"""Which ResNet the names and shapes in a file are of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detrex_backbones.backbones.resnet.stages import NUM_BLOCKS
from detrex_backbones.checkpoint.fetch.catalog.weight import IMAGENET
from detrex_backbones.checkpoint.files import Checkpoint
from detrex_backbones.checkpoint.names.conventions import Convention, conventions
from detrex_backbones.checkpoint.names.readings import Reading, readings
from detrex_backbones.errors import CheckpointError
from detrex_backbones.text import shorten, visible
from detrex_backbones.zoo.infer.inferred import EPS, InferredResNet

__all__ = ["check_single", "infer_resnet", "resnet_readings"]

MARK = "res2.0.conv1.weight"

# What no name and no shape tells, what is taken then, and why it can't be told.
ASSUMED: dict[str, tuple[Any, str]] = {
    "stride_in_1x1": (False, "the weights have the same names and shapes either way"),
    "dilation": (1, "a dilated network (DC5) has the same weights"),
    "input_format": ("RGB", "the first convolution has the same shape for any order of its channels"),
    "pixel_mean": (list(IMAGENET.pixel_mean), "no tensor stores the preprocessing; this is ImageNet's"),
    "pixel_std": (list(IMAGENET.pixel_std), "no tensor stores the preprocessing; this is ImageNet's"),
    "norm_eps": (EPS, "no tensor stores eps"),
    "activation": ("ReLU", "activations have no weights, so neither they nor their slope can be told"),
}


def resnet_readings(checkpoint: Checkpoint, source: str | Convention | None, prefix: str | None) -> list[Reading]:
    """The ways to read weights that find a ResNet."""
    return [reading for reading in readings(checkpoint.tensors, source, prefix) if MARK in reading.named]


def check_single(path: str | Path, found: list[Reading]) -> None:
    """Refuse a file with several ResNets in it."""
    places = {
        (reading.prefix, tuple(sorted(entry.checkpoint_key for entry in reading.named.values()))) for reading in found
    }
    if len({prefix for prefix, _ in places}) > 1:
        names = [entry.checkpoint_key for entry in found[0].entries]
        raise CheckpointError(
            f"checkpoint {visible(path)!r} holds {len(places)} ResNets: say which by prefix=. It has: {shorten(names)}."
        )


def infer_resnet(path: str | Path, found: list[Reading], traits: Mapping[str, Any], known: str) -> InferredResNet:
    """Read off names and shapes which ResNet a file holds, if it is one: blocks of another kind aren't looked for.

    Args:
        path: of the file, for messages.
        found: the ways to read it, one at least, with one prefix.
        traits: what the file says of its network, or is known for.
        known: name of the weights, "" for none.

    Raises:
        CheckpointError: blocks that are none of `make_stage`'s.
    """
    reading = found[-1]  # by its convention where it has one, as stored otherwise
    shapes = dict(reading.shapes)
    if "stem.conv1.weight" not in shapes:
        raise CheckpointError(f"checkpoint {visible(path)!r} holds a ResNet without the first convolution of its stem.")
    channels = shapes["stem.conv1.weight"][1]
    if channels != 3:  # a first convolution of its own is no known one
        traits, known = {}, ""
    stages, assumed = _stages(shapes, reading), _assumed(channels, reading.source)
    if "conv3" not in "".join(name for name in shapes if name.startswith("res2.0.")):
        del assumed["stride_in_1x1"]
    preprocessing = {name: traits.get(name, assumed[name][0]) for name in ("pixel_mean", "pixel_std", "input_format")}
    for name in traits:
        assumed.pop(name, None)
    if traits.get("stride_in_1x1"):
        stages["stride_in_1x1"] = True
    return InferredResNet(
        source=reading.source,
        prefix=reading.prefix,
        stem=_stem(shapes),
        stages=stages,
        num_classes=shapes["linear.weight"][0] if "linear.weight" in shapes else None,
        known=known,
        preprocessing=preprocessing,
        norm_eps=traits.get("norm_eps", EPS),
        weight_standardization=bool(traits.get("weight_standardization")),
        assumed=assumed,
    )


def _assumed(channels: int, source: str) -> dict[str, tuple[Any, str]]:
    """`ASSUMED` for a first convolution of so many channels, in a file of this source."""
    if channels == 3:
        suggests = conventions()[source].suggests if source in conventions() else {}
        why = f"files in {source}'s names usually have it"
        usual = {name: value for name, (value, _) in ASSUMED.items()}
        return ASSUMED | {name: (value, why) for name, value in suggests.items() if usual.get(name, value) != value}
    why = f"no tensor stores the preprocessing; this is the average of ImageNet's for each of the {channels} channels"
    pixels = {name: ([round(sum(ASSUMED[name][0]) / 3, 3)] * channels, why) for name in ("pixel_mean", "pixel_std")}
    order = "RGB", f"the order of the {channels} channels is stored in no tensor; 'RGB' takes them as they are given"
    return ASSUMED | pixels | {"input_format": order}


def _stem(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, dict[str, Any]]:
    first = shapes["stem.conv1.weight"]
    if "stem.conv3.weight" not in shapes:
        return "BasicStem", {"in_channels": first[1], "out_channels": first[0]}
    out = shapes["stem.conv3.weight"][0]
    widths = [first[0], shapes["stem.conv2.weight"][0]]
    arguments: dict[str, Any] = {"in_channels": first[1], "out_channels": out}
    if widths != [out // 2, out // 2]:
        arguments["mid_channels"] = widths
    return "DeepStem", arguments


def _stages(shapes: Mapping[str, tuple[int, ...]], reading: Reading) -> dict[str, Any]:
    basic = "res2.0.conv3.weight" not in shapes
    counts = tuple(_count(shapes, f"res{stage}") for stage in range(2, 6))
    depths = [depth for depth, blocks in NUM_BLOCKS.items() if blocks == counts and (depth < 50) == basic]
    if not depths:
        kind = "basic" if basic else "bottleneck"
        raise CheckpointError(
            f"the network has {counts} {kind} blocks in res2 to res5, which is none of make_stage's depths "
            f"({', '.join(f'{depth}: {blocks}' for depth, blocks in NUM_BLOCKS.items())}). Use ResNet.make_stage."
        )
    arguments: dict[str, Any] = {"depth": depths[0]}
    stem_out = shapes["res2.0.conv1.weight"][1]
    if stem_out != 64:
        arguments["in_channels"] = stem_out
    arguments |= _shortcut(reading) | _squeeze(shapes)
    projection = shapes.get("res2.0.shortcut.weight", ())
    if basic and projection[:1] == projection[1:2] != ():
        arguments["project_res2"] = True
    return arguments if basic else arguments | _widths(shapes) | _deform(shapes)


def _widths(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    if "res2.0.conv2.weight" not in shapes:
        raise CheckpointError("res2 has blocks without a second convolution, which make_stage doesn't make.")
    width, per_group = shapes["res2.0.conv2.weight"][:2]
    groups = width // per_group
    found = {
        "num_groups": (groups, 1),
        "width_per_group": (width // groups, 64),
        "out_channels": (shapes["res2.0.conv3.weight"][0], 256),
        "reduce_first": (width // shapes["res2.0.conv1.weight"][0], 1),
    }
    return {name: value for name, (value, default) in found.items() if value != default}


def _shortcut(reading: Reading) -> dict[str, Any]:
    shortcut = reading.named.get("res3.0.shortcut.weight")
    if shortcut is None:
        return {}
    if shortcut.shape[-1] == 3:
        return {"shortcut": "conv3x3"}
    convention = conventions().get(reading.source)
    if convention is not None and convention.proves.get("shortcut") == "avg_pool":
        return {"shortcut": "avg_pool"}
    # A pool has no weights, but where it is the first of the shortcut's layers the convolution is numbered 1.
    if re.search(r"downsample\.1\.weight$", shortcut.checkpoint_key):
        return {"shortcut": "avg_pool"}
    return {}


def _squeeze(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    squeeze = shapes.get("res2.0.se.fc1.weight")
    return {"se_reduction": squeeze[1] // squeeze[0]} if squeeze else {}


def _deform(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    offsets = [shapes.get(f"res{stage}.0.conv2_offset.weight") for stage in range(2, 6)]
    given = next((offset for offset in offsets if offset), None)
    if given is None:
        return {}
    # 54 channels are those of two groups with factors or of three without; groups divide the channels that they move.
    numbers = {
        each: given[0] // each for each in (18, 27) if given[0] % each == 0 and not given[1] % (given[0] // each)
    }
    return {
        "deform_on_per_stage": [offset is not None for offset in offsets],
        "deform_modulated": 18 not in numbers,
        "deform_num_groups": numbers.get(18) or numbers.get(27, 1),
    }


def _count(shapes: Mapping[str, tuple[int, ...]], stage: str) -> int:
    return len({name.split(".")[1] for name in shapes if name.startswith(f"{stage}.")})
