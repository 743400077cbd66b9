"""Which network a file holds: its lazy config, and the overrides that take it."""

from detrex_backbones.lazy_exports import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__)
