"""Completion in the shell, by argcomplete: `eval "$(register-python-argcomplete detrex-backbones)"`."""

from __future__ import annotations

import argparse
import os
from typing import Any

__all__ = ["complete_config", "complete_override", "offer_completions"]

KEYS = ("backbone=", "model.", "train.device=", "train.init_checkpoint=")


def offer_completions(parser: argparse.ArgumentParser) -> None:
    """Answer the shell and end, if it is the shell that asks; otherwise argcomplete isn't even imported."""
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser)


def complete_config(prefix: str, **_: Any) -> list[str]:
    """Names of ready configs and of timm's models, and files."""
    import glob

    from detrex_backbones.zoo.listing import short_names
    from detrex_backbones.zoo.ready_configs import list_configs

    files = [f"{path}/" if os.path.isdir(path) else path for path in glob.glob(f"{glob.escape(prefix)}*")]  # noqa: PTH112, PTH207
    return [*list_configs(), *short_names(), *_timm(prefix), *files]


def complete_override(prefix: str, **_: Any) -> list[str]:
    """`backbone=NAME`, and the beginnings of other keys."""
    from detrex_backbones.zoo.listing import list_backbones

    if not prefix.startswith("backbone="):
        return list(KEYS)
    return [f"backbone={name}" for name in [*list_backbones(), *_timm(prefix.removeprefix("backbone="))]]


def _timm(prefix: str) -> list[str]:
    from detrex_backbones.zoo.listing import TIMM, timm_models

    return [TIMM + name for name in timm_models()] if prefix.startswith(TIMM) else []
