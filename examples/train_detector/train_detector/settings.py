"""The `train` part of a detector's config, checked before anything is built."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from omegaconf import DictConfig, OmegaConf

from detrex_backbones.errors import ArgumentError, ConfigKeyError, closest

__all__ = ["Settings"]

PARTS = ("model", "data", "optimizer", "schedule", "train")
DATA = ("prepare", "train", "test", "total_batch_size", "workers", "folder")
AMP = ("", "bf16", "fp16")
PARALLEL = ("ddp", "fsdp2")


@dataclass(frozen=True)
class Settings:
    """How a run goes; recipe.py says what each is."""

    output: str
    steps: int
    device: str = ""
    init_checkpoint: str = ""
    load_options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    amp: str = ""
    clip: float = 0.0
    ema: float = 0.0
    log_every: int = 10
    checkpoint_every: int = 100
    evaluate_every: int = 0
    parallel: str = "ddp"
    find_unused_parameters: bool = False

    @classmethod
    def of(cls, cfg: DictConfig) -> Settings:
        """Those of a config.

        Raises:
            ConfigKeyError: a part of the config is missing, `train` has a key that nothing reads, or a key beside the
                parts or in `data` looks like one of theirs with a typo.
            ArgumentError: a value of the wrong kind, or out of its range.
        """
        missing = [part for part in PARTS if not isinstance(cfg.get(part), DictConfig)]
        if missing:
            raise ConfigKeyError(
                f"the config has no {' and no '.join(missing)}: training takes {', '.join(PARTS)}, as `load_config` "
                f"makes them of the configs of detectors/."
            )
        _check_spelling(cfg, PARTS, "")
        _check_spelling(cfg.data, DATA, "data.")
        known = {one.name for one in fields(cls)}
        values: Any = OmegaConf.to_container(cfg.train, resolve=True)
        for name in values:
            if name not in known:
                raise ConfigKeyError(f"train.{name} is nothing that training reads.{closest(name, known)}")
        absent = {"output", "steps"} - set(values)
        if absent:
            raise ConfigKeyError(f"the config doesn't say train.{' and train.'.join(sorted(absent))}.")
        given: dict[str, Any] = {name: "" if value is None else value for name, value in values.items()}
        return cls(**given)

    def __post_init__(self) -> None:
        for one in fields(self):
            self._check_kind(one.name, str(one.type))
        if not self.output:
            raise ArgumentError("train.output is empty: give a folder for checkpoints and curves.")
        for name, least in (("steps", 1), ("seed", 0), ("log_every", 1), ("checkpoint_every", 1)):
            self._at_least(name, least)
        for name in ("clip", "evaluate_every", "ema"):
            self._at_least(name, 0)
        if self.ema >= 1:
            raise ArgumentError(f"train.ema={self.ema} is the share that stays at each step: below 1, such as 0.999.")
        for name, allowed in (("amp", AMP), ("parallel", PARALLEL)):
            value = getattr(self, name)
            if value not in allowed:
                raise ArgumentError(
                    f"train.{name}={value!r} is not known. Allowed: {', '.join(map(repr, allowed))}."
                    f"{closest(value, allowed)}"
                )

    def _check_kind(self, name: str, kind: str) -> None:
        value = getattr(self, name)
        kinds: dict[str, Any] = {"str": str, "int": int, "float": (int, float), "bool": bool, "dict[str, Any]": dict}
        if not isinstance(value, kinds[kind]) or (isinstance(value, bool) and kind != "bool"):
            raise ArgumentError(f"train.{name}={value!r} is a {type(value).__name__}, not {kind.partition('[')[0]}.")

    def _at_least(self, name: str, least: int) -> None:
        if not getattr(self, name) >= least:
            raise ArgumentError(f"train.{name}={getattr(self, name)} must be at least {least}.")


def _check_spelling(cfg: DictConfig, read: tuple[str, ...], place: str) -> None:
    # A config may have keys of its own, for interpolations; an override with a typo makes one, too.
    for key in map(str, cfg):
        hint = closest(key, read)
        if key not in read and hint:
            raise ConfigKeyError(f"{place}{key} is nothing that training reads.{hint} Rename it, if it is meant.")
