"""A backbone as far as a file tells, and its lazy config as Python."""

from __future__ import annotations

import ast
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from detrex_backbones.config import LazyCall
from detrex_backbones.config.nodes import ALLOW_OBJECTS
from detrex_backbones.config.values import escaped, quoted
from detrex_backbones.config.write_py import python_file
from detrex_backbones.errors import ConfigValueError
from detrex_backbones.kinds import kinds_checked
from detrex_backbones.text import visible, visible_in_comment

__all__ = ["EPS", "Inferred", "InferredNetwork", "InferredResNet"]

EPS = 1e-5  # of norms, where nothing else is known
LONG = 100  # characters


@dataclass(kw_only=True)
class Inferred(ABC):
    """What a file tells of the backbone inside it.

    Args:
        source: the naming convention of the file.
        prefix: what stands before the network's names in it.
        known: name of the weights, where the file is a known one; "" otherwise.
        preprocessing: `pixel_mean`, `pixel_std` and `input_format`: what the file says or is known for, otherwise
            assumed.
        assumed: what can't be told from names and shapes -> (value, why). Empty where the file is known.
    """

    source: str
    prefix: str
    known: str = ""
    preprocessing: dict[str, Any] = field(default_factory=dict)
    assumed: dict[str, tuple[Any, str]] = field(default_factory=dict)

    def to_py(self, checkpoint: str) -> str:
        """The lazy config, ready to be loaded; what is assumed is marked, with the reason.

        Args:
            checkpoint: the file that it names as `train.init_checkpoint`.

        Raises:
            ConfigValueError: no Python text means it.
        """
        behind = f", behind {self.prefix!r}" if self.prefix else ""
        title = visible_in_comment(f"Inferred from {Path(checkpoint).name}: {self.known or self.source} names{behind}.")
        notes = [f"# {visible_in_comment(note)}" for note in self._notes()]
        path = escaped(checkpoint)
        text = self._written(title, notes, quoted(path))
        # Read again, it is what stands there for a file without a name, with the two words of a stranger put in.
        meant: Any = ast.parse(self._written("title", [], '"path"'))
        meant.body[0].value = ast.Constant(title)
        meant.body[-1].value.keywords[0].value = ast.Constant(path)
        if ast.dump(ast.parse(text)) != ast.dump(meant):
            raise ConfigValueError(
                f"the config of {visible(checkpoint)!r} can't be written as Python with the same meaning."
            )
        return text

    def to_dict(self) -> dict[str, Any]:
        """Everything, in types that JSON knows."""
        assumed = {name: {"value": value, "why": why} for name, (value, why) in self.assumed.items()}
        first = {"source": self.source, "prefix": self.prefix, "known": self.known}
        return first | self._network() | {"preprocessing": self.preprocessing, "assumed": assumed}

    @abstractmethod
    def _network(self) -> dict[str, Any]:
        """What the file's network is, for JSON."""

    def _notes(self) -> list[str]:
        """What is assumed, and why: a line for each reason, or for each value where these are long."""
        reasons: dict[str, list[str]] = {}
        for name, (value, why) in self.assumed.items():
            reasons.setdefault(why, []).append(f"{name}={value!r}")
        notes = []
        for why, what in reasons.items():
            together = ", ".join(what)
            if what[1:] and len(together) <= LONG:
                notes.append(f"{together} are assumed: {why}")
            else:
                notes += [f"{each} is assumed: {why}" for each in what]
        return notes

    def _written(self, title: str, notes: Sequence[str], path: str) -> str:
        """The text, from words that are already Python."""
        imports, model = self._parts()
        lines = [f'"""{title}"""', "", *imports, "", *notes, *model, f"train = dict(init_checkpoint={path})"]
        return "\n".join(lines) + "\n"

    @abstractmethod
    def _parts(self) -> tuple[list[str], list[str]]:
        """The lines of the imports and those of the model."""


@kinds_checked
@dataclass(kw_only=True)
class InferredResNet(Inferred):
    """A ResNet that `make_stage` makes.

    Args:
        stem: class name and arguments.
        stages: arguments of `make_stage`.
        num_classes: number of classes of the classifier, None without one.
        norm: of stem and stages.
        norm_eps: of the norms; 1e-5 where nothing else is known.
        weight_standardization: whether the convolutions standardise their weights.
    """

    stem: tuple[str, dict[str, Any]]
    stages: dict[str, Any]
    num_classes: int | None = None
    norm: str = "FrozenBN"
    norm_eps: float = EPS
    weight_standardization: bool = False

    def node(self) -> DictConfig:
        """The node of the network, without norms of another eps, which no load asks for."""
        from detrex_backbones import backbones

        stem, arguments = self.stem
        first = LazyCall(getattr(backbones, stem))(**arguments, norm=self.norm)
        stages = LazyCall(backbones.make_stage)(**self.stages, norm=self.norm)
        node: DictConfig = LazyCall(backbones.ResNet)(stem=first, stages=stages, **self._of_resnet())
        return node

    def _of_resnet(self) -> dict[str, Any]:
        given = {"num_classes": self.num_classes, "weight_standardization": self.weight_standardization}
        return {name: value for name, value in given.items() if value}

    def _network(self) -> dict[str, Any]:
        stem, arguments = self.stem
        return {
            "stem": {"class": stem, **arguments},
            "stages": self.stages,
            "num_classes": self.num_classes,
            "norm": self.norm,
        }

    def _parts(self) -> tuple[list[str], list[str]]:
        stem, arguments = self.stem
        usual = self.norm_eps == EPS or self.norm != "FrozenBN"
        norm = f'"{self.norm}"' if usual else f"partial(FrozenBatchNorm2d, eps={self.norm_eps!r})"
        names = sorted(["FeatureExtractor", "ResNet", "make_stage", stem, *([] if usual else ["FrozenBatchNorm2d"])])
        imports = [
            *([] if usual else ["from functools import partial", ""]),
            f"from detrex_backbones import {', '.join(names)}",
            "from detrex_backbones.config import LazyCall as L",
        ]
        model = [
            "model = L(FeatureExtractor)(",
            "    backbone=L(ResNet)(",
            f"        stem=L({stem})({_arguments(arguments)}, norm={norm}),",
            f"        stages=L(make_stage)({_arguments(self.stages)}, norm={norm}),",
            *(f"        {name}={value!r}," for name, value in self._of_resnet().items()),
            '        out_features=["res2", "res3", "res4", "res5"],',
            "        freeze_at=1,",
            "    ),",
            *(f"    {name}={value!r}," for name, value in self.preprocessing.items()),
            ")",
        ]
        return imports, model


@dataclass(kw_only=True)
class InferredNetwork(Inferred):
    """A network that has a name: a ready config's or one of timm's.

    Args:
        config: "swin/tiny" or "timm/convnext_tiny", as `backbone=` takes it.
        also: other names whose networks take the file as well.
        model: the node of the model, with the preprocessing.
    """

    config: str
    model: DictConfig
    also: tuple[str, ...] = ()

    def _network(self) -> dict[str, Any]:
        return {"config": self.config, "also": list(self.also)}

    def _notes(self) -> list[str]:
        more = f" {', '.join(self.also)} {'take' if self.also[1:] else 'takes'} the file, too." if self.also else ""
        return [f"The network is that of {self.config}.{more}", *super()._notes()]

    def _parts(self) -> tuple[list[str], list[str]]:
        lines = python_file(DictConfig({"model": self.model}, flags=dict(ALLOW_OBJECTS))).strip().splitlines()
        start = next(number for number, line in enumerate(lines) if line.startswith("model = "))
        return lines[: start - 1], lines[start:]


def _arguments(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())
