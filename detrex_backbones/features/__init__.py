"""Feature maps of many images, into files that another program reads mapped."""

from detrex_backbones.lazy_exports import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__)
