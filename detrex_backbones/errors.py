"""Every error that this library raises on purpose.

    DetrexBackbonesError
    ├── ArgumentError (ValueError)            an argument of a layer, backbone or function is not one of those allowed
    ├── InputError (ValueError)               an image or a tensor that can't be run
    ├── DeviceError (RuntimeError)            a device that isn't there
    ├── ExportError (RuntimeError)            a model that can't be written as .onnx or .pt2
    ├── RemoteError (OSError)                 a file of remote storage that can't be read or written
    ├── ConfigError
    │   ├── ConfigTypeError (TypeError)       not something that a config can be made of
    │   ├── ConfigValueError (ValueError)     a file name, a target or a value that a config can't hold
    │   ├── ConfigKeyError (KeyError)         a key that the config doesn't have
    │   ├── ConfigImportError (ImportError)   a config file that is missing, broken, or imports itself
    │   ├── OverrideError (KeyError)          a command-line override that doesn't fit the config
    │   └── InstantiateError (TypeError)      a node that can't be called
    └── CheckpointError
        ├── CheckpointFileError (OSError)     a file that is missing, cut, or no checkpoint
        ├── PreprocessingError (ValueError)   a model that contradicts what known weights were trained with
        ├── RankError (RuntimeError)          processes of one load that disagree or lost each other
        └── CheckpointMatchError (ValueError) a checkpoint that doesn't fit the model; carries the report

Each also is the builtin exception that people expect there, so that `except KeyError` keeps working.
A message says what was given, what is allowed, where it stands and what to do.
"""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable
from typing import Any

from detrex_backbones.text import visible_lines

__all__ = [
    "SAME",
    "ArgumentError",
    "CheckpointError",
    "CheckpointFileError",
    "CheckpointMatchError",
    "ConfigError",
    "ConfigImportError",
    "ConfigKeyError",
    "ConfigTypeError",
    "ConfigValueError",
    "DetrexBackbonesError",
    "DeviceError",
    "ExportError",
    "InputError",
    "InstantiateError",
    "OverrideError",
    "PreprocessingError",
    "RankError",
    "RemoteError",
    "closest",
    "reason",
]


class DetrexBackbonesError(Exception):
    """Base of every error that this library raises on purpose."""

    def __str__(self) -> str:
        # KeyError would show the repr of its message: quotes around it, newlines escaped. What a terminal would obey
        # is escaped all the same: names of strangers' files may be in it.
        return visible_lines(self.args[0]) if self.args else ""


class ArgumentError(DetrexBackbonesError, ValueError):
    """An argument that is not one of those allowed."""


class InputError(DetrexBackbonesError, ValueError):
    """An image or a tensor that can't be run through a backbone."""


class DeviceError(DetrexBackbonesError, RuntimeError):
    """A device that was asked for and isn't there."""


class ExportError(DetrexBackbonesError, RuntimeError):
    """A model that an exporter can't follow, or whose file would compute something else."""


class RemoteError(DetrexBackbonesError, OSError):
    """A file of remote storage that can't be read or written; `strerror` is the reason alone."""

    offline = False  # whether it is that there is no network


class ConfigError(DetrexBackbonesError):
    """Base of the errors of the config layer."""


class ConfigTypeError(ConfigError, TypeError):
    """Something that a config can't be made of."""


class ConfigValueError(ConfigError, ValueError):
    """A file name, a target or a value that a config can't hold."""


class ConfigKeyError(ConfigError, KeyError):
    """A key that the config doesn't have."""


class ConfigImportError(ConfigError, ImportError):
    """A config file that is missing, isn't Python, raises, or imports itself."""


class OverrideError(ConfigError, KeyError):
    """An override that doesn't fit the config."""


class InstantiateError(ConfigError, TypeError):
    """A config node that can't be called."""


class CheckpointError(DetrexBackbonesError):
    """Base of the errors about checkpoints."""


class CheckpointFileError(CheckpointError, OSError):
    """A checkpoint file that is missing, cut, or no checkpoint."""


class PreprocessingError(CheckpointError, ValueError):
    """A model that contradicts what known weights were trained with: mean, channel order, place of the stride ..."""


class RankError(CheckpointError, RuntimeError):
    """The processes of a distributed load or save disagree, or one of them died, failed or didn't come."""


class CheckpointMatchError(CheckpointError, ValueError):
    """A checkpoint that doesn't fit the model.

    Args:
        message: what doesn't fit and what to do.
        report: the `LoadReport` of the attempt, with every key, where matching got that far.
    """

    def __init__(self, message: str, report: Any = None) -> None:
        super().__init__(message)
        self.report = report


# What projects call the same thing.
SAME = (
    ("checkpoint_stages", "use_act_checkpoint", "use_checkpoint", "with_cp"),
    ("in_channels", "in_chans"),
    ("drop_path_rate", "stochastic_depth_prob"),
)

SUGGESTION = " Did you mean "  # as Python begins its own, since 3.13


def closest(name: object, allowed: Iterable[str], count: int = 3) -> str:
    """The part of a message that suggests names: `" Did you mean 'res4'?"`, or "" where none is near.

    Another project's name for the same thing is the nearest of all.

    Args:
        name: what was given.
        allowed: the names that would have been right.
        count: how many to suggest at the most.
    """
    options = [str(option) for option in allowed]
    near = [option for names in SAME if name in names for option in options if option in names]
    near = near or difflib.get_close_matches(str(name), options, n=count, cutoff=0.6)
    return f"{SUGGESTION}{' or '.join(repr(option) for option in near)}?" if near else ""


def reason(error: BaseException) -> str:
    """An error in a message: its kind and what it says; where it says nothing, the line of code that raised it."""
    kind, said = type(error).__name__, str(error).strip()
    if said:
        return f"{kind}: {said}"
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at `{frames[-1].line}`, line {frames[-1].lineno} of {frames[-1].filename}" if frames else ""
    return f"{kind}{where}"
