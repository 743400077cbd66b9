"""Things that the configs of these tests call."""

from __future__ import annotations

import dataclasses
from typing import Any

from detrex_backbones.config import instantiate
from detrex_backbones.config.instantiation import target_of

calls: list[str] = []


@dataclasses.dataclass
class Shape:
    channels: int | None = None
    height: int | None = None


class Model:
    """Keeps what it is given."""

    def __init__(self, depth: Any = 1, freeze_at: Any = 0, stem: Any = None, stages: Any = None) -> None:
        self.depth, self.freeze_at, self.stem, self.stages = depth, freeze_at, stem, stages

    @staticmethod
    def build(width: Any = 1) -> Any:
        return ("built", width)


def keep(**kwargs: Any) -> dict[str, Any]:
    return kwargs


def record(name: str = "", child: Any = None) -> str:
    calls.append(name)
    return name


class OwnError(Exception):
    pass


def fail(depth: Any = 1, text: Any = None) -> None:
    raise OwnError("it broke")


class _Hidden:
    pass


class Outer:
    class Inner:
        pass


class NestsPlain:
    """A target that makes the model of a plain mapping, which nobody has searched, itself."""

    def __init__(self, cfg: Any = None, allow: Any = None, by_target: bool = False) -> None:
        self.made = target_of(cfg["model"]) if by_target else instantiate(cfg["model"], allow=allow)


@dataclasses.dataclass
class Frame:
    shape: Shape = dataclasses.field(default_factory=Shape)
