"""Tests of what the oldest libraries that setup.py allows can't do skip there, and say so."""

import re
from importlib.metadata import version

import pytest


def skip_before(library: str, first: str, why: str) -> None:
    """Skip the running test where the installed library is older than the first version that can do it."""
    installed = version(library)
    if _numbers(installed) < _numbers(first):
        pytest.skip(f"{library} {installed} is older than {first}: {why}")


def skip_without_maps(name: str) -> None:
    """Skip the running test where the installed timm is too old to give feature maps of a network."""
    if name in ("cspnext_tiny", "coat_tiny"):
        skip_before("timm", "1.0.31", f"it gives no maps of {name}")


def skip_without_network(name: str) -> None:
    """Skip the running test where the installed timm is too old to have a network."""
    if name in ("efficientvim_m1", "gemma4_vit_167m"):
        skip_before("timm", "1.0.31", f"it has no {name}")


def skip_without_file(name: str) -> None:
    """Skip the running test where the installed timm can't be given the file of a network's pretrained weights."""
    if name == "vit_tiny_patch16_224":
        skip_before("timm", "1.0.31", f"it takes the file of {name} for numpy's .npz, whatever it is")


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text.partition("+")[0])]
