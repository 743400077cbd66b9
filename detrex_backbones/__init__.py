"""Lazy-config detection backbones, and a checkpoint loader that proves what it loaded."""

from typing import Any

from detrex_backbones.lazy_exports import lazy_exports

_get_public_name, __dir__, __all__ = lazy_exports(__name__)


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext detrex_backbones`: configs, shapes and the arguments of lazy calls in IPython and Jupyter."""
    from detrex_backbones.view.notebook import load_extension

    load_extension(shell)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("detrex-backbones")
    return _get_public_name(name)
