"""Pictures and pages, for the command line, notebooks and documents; the only package that imports matplotlib."""

from detrex_backbones.lazy_exports import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__)
