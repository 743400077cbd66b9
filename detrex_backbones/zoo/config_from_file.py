"""From a checkpoint alone to the lazy config of the backbone inside it."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detrex_backbones.backbones.resnet.stages import NUM_BLOCKS
from detrex_backbones.checkpoint.fetch import find_known
from detrex_backbones.checkpoint.fetch.catalog.weight import IMAGENET
from detrex_backbones.checkpoint.files import Checkpoint, load_values, only, open_checkpoint
from detrex_backbones.checkpoint.names.conventions import Convention, conventions
from detrex_backbones.checkpoint.names.readings import Reading, readings
from detrex_backbones.checkpoint.stated import stated_traits
from detrex_backbones.config.values import escaped, quoted
from detrex_backbones.errors import CheckpointError, ConfigValueError
from detrex_backbones.text import shorten, visible, visible_in_comment

__all__ = ["Inferred", "infer_config"]

MARK = "res2.0.conv1.weight"

# What no name and no shape tells, what is taken then, and why it can't be told.
ASSUMED: dict[str, tuple[Any, str]] = {
    "stride_in_1x1": (False, "the weights have the same names and shapes either way"),
    "dilation": (1, "a dilated network (DC5) has the same weights"),
    "input_format": ("RGB", "the first convolution has the same shape for any order of its channels"),
    "pixel_mean": (list(IMAGENET.pixel_mean), "preprocessing is in no tensor; this is ImageNet's"),
    "pixel_std": (list(IMAGENET.pixel_std), "preprocessing is in no tensor; this is ImageNet's"),
    "norm_eps": (1e-5, "eps is in no tensor"),
    "activation": ("ReLU", "activations have no weights, so neither they nor their slope can be told"),
}


@dataclass
class Inferred:
    """A backbone as far as a file tells.

    Args:
        source: the naming convention of the file.
        prefix: what stands before the network's names in it.
        stem: class name and arguments.
        stages: arguments of `make_stage`.
        num_classes: number of classes of the classifier, None without one.
        known: name of the weights, where the file is a known one; "" otherwise.
        preprocessing: `pixel_mean`, `pixel_std` and `input_format`: of a known file its own, otherwise assumed.
        norm_eps: of the norms; 1e-5 where nothing else is known.
        assumed: what can't be told from names and shapes -> (value, why). Empty where the file is known.
    """

    source: str
    prefix: str
    stem: tuple[str, dict[str, Any]]
    stages: dict[str, Any]
    num_classes: int | None
    known: str = ""
    preprocessing: dict[str, Any] = field(default_factory=dict)
    norm_eps: float = 1e-5
    assumed: dict[str, tuple[Any, str]] = field(default_factory=dict)

    def to_py(self, checkpoint: str) -> str:
        """The lazy config, ready to be loaded; what is assumed is marked, with the reason.

        Args:
            checkpoint: the file that it names as `train.init_checkpoint`.
        """
        behind = f", behind {self.prefix!r}" if self.prefix else ""
        title = visible_in_comment(f"Inferred from {Path(checkpoint).name}: {self.known or self.source} names{behind}.")
        notes = [f"{name}={value!r} is assumed: {why}" for name, (value, why) in self.assumed.items()]
        path = escaped(checkpoint)
        text = self._written(title, [f"# {visible_in_comment(note)}" for note in notes], quoted(path))
        # Read again, it is what stands there for a file without a name, with the two words of a stranger put in.
        meant: Any = ast.parse(self._written("title", [], '"path"'))
        meant.body[0].value = ast.Constant(title)
        meant.body[-1].value.keywords[0].value = ast.Constant(path)
        if ast.dump(ast.parse(text)) != ast.dump(meant):
            raise ConfigValueError(f"the config of {visible(checkpoint)!r} can't be written as Python that means it.")
        return text

    def _written(self, title: str, notes: list[str], path: str) -> str:
        """The text, from words that are already Python."""
        stem, arguments = self.stem
        classes = [f"        num_classes={self.num_classes},"] if self.num_classes else []
        usual = self.norm_eps == ASSUMED["norm_eps"][0]
        norm = '"FrozenBN"' if usual else f"partial(FrozenBatchNorm2d, eps={self.norm_eps!r})"
        names = sorted(["FeatureExtractor", "ResNet", "make_stage", stem, *([] if usual else ["FrozenBatchNorm2d"])])
        lines = [
            f'"""{title}"""',
            "",
            *([] if usual else ["from functools import partial", ""]),
            f"from detrex_backbones import {', '.join(names)}",
            "from detrex_backbones.config import LazyCall as L",
            "",
            *notes,
            "model = L(FeatureExtractor)(",
            "    backbone=L(ResNet)(",
            f"        stem=L({stem})({_arguments(arguments)}, norm={norm}),",
            f"        stages=L(make_stage)({_arguments(self.stages)}, norm={norm}),",
            *classes,
            '        out_features=["res2", "res3", "res4", "res5"],',
            "        freeze_at=1,",
            "    ),",
            *(f"    {name}={value!r}," for name, value in self.preprocessing.items()),
            ")",
            f"train = dict(init_checkpoint={path})",
        ]
        return "\n".join(lines) + "\n"


def infer_config(
    path: str | Path, source: str | Convention | None = None, prefix: str | None = None, container: str | None = None
) -> Inferred:
    """Read off names and shapes which ResNet a file holds.

    Args:
        path: path of the checkpoint, or the name of known weights.
        source: as of `load_checkpoint`.
        prefix: as of `load_checkpoint`.
        container: as of `load_checkpoint`; None for the weights that are a ResNet's.

    Raises:
        CheckpointFileError: the file can't be read.
        CheckpointError: no ResNet is in it, several are, or one that `make_stage` can't make.
    """
    with open_checkpoint(path, container) as opened:
        checkpoint = only(opened, lambda each: _resnets(each, source, prefix))
        load_values(checkpoint, checkpoint.tensors, owned=False)  # no config for a damaged file: checksums are compared
    found = _resnets(checkpoint, source, prefix)
    places = {
        (reading.prefix, tuple(sorted(entry.checkpoint_key for entry in reading.named.values()))) for reading in found
    }
    if len({prefix for prefix, _ in places}) != 1:
        what = f"{len(places)} ResNets: say which by prefix=" if places else "no ResNet that is known by its names"
        raise CheckpointError(f"checkpoint {visible(path)!r} holds {what}. It has: {shorten(checkpoint.tensors)}.")
    reading = found[-1]  # by its convention where it has one, as stored otherwise
    shapes = dict(reading.shapes)
    channels = shapes["stem.conv1.weight"][1]
    stages, assumed = _stages(shapes, reading), _assumed(channels, reading.source)
    if "conv3" not in "".join(name for name in shapes if name.startswith("res2.0.")):
        del assumed["stride_in_1x1"]
    weight = find_known(checkpoint.path) if channels == 3 else None  # a first convolution of its own is no known one
    traits = (stated_traits(checkpoint) if channels == 3 else {}) | (weight.traits if weight else {})
    preprocessing = {name: traits.get(name, assumed[name][0]) for name in ("pixel_mean", "pixel_std", "input_format")}
    for name in traits:
        assumed.pop(name, None)
    if traits.get("stride_in_1x1"):
        stages["stride_in_1x1"] = True
    return Inferred(
        source=reading.source,
        prefix=reading.prefix,
        stem=_stem(shapes),
        stages=stages,
        num_classes=shapes["linear.weight"][0] if "linear.weight" in shapes else None,
        known=weight.name if weight else "",
        preprocessing=preprocessing,
        norm_eps=traits.get("norm_eps", ASSUMED["norm_eps"][0]),
        assumed=assumed,
    )


def _resnets(checkpoint: Checkpoint, source: str | Convention | None, prefix: str | None) -> list[Reading]:
    """The ways to read weights that find a ResNet."""
    return [reading for reading in readings(checkpoint.tensors, source, prefix) if MARK in reading.named]


def _assumed(channels: int, source: str) -> dict[str, tuple[Any, str]]:
    """`ASSUMED` for a first convolution of so many channels, in a file of this source."""
    if channels == 3:
        suggests = conventions()[source].suggests if source in conventions() else {}
        why = f"files in {source}'s names have it as a rule"
        usual = {name: value for name, (value, _) in ASSUMED.items()}
        return ASSUMED | {name: (value, why) for name, value in suggests.items() if usual.get(name, value) != value}
    why = f"preprocessing is in no tensor; this is the average of ImageNet's for each of the {channels} channels"
    pixels = {name: ([round(sum(ASSUMED[name][0]) / 3, 3)] * channels, why) for name in ("pixel_mean", "pixel_std")}
    order = "RGB", f"the order of the {channels} channels is in no tensor; 'RGB' takes them as they are given"
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


def _arguments(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())
