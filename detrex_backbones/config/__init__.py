"""Lazy configs: describe a call now, edit it, make it later.

The behaviour is that of detectron2's lazy configs, so that a config written for one works with the other, with what
their users reported as defects mended.
"""

from detrex_backbones.config.by_name import object_named
from detrex_backbones.config.call import LazyCall
from detrex_backbones.config.instantiation import instantiate
from detrex_backbones.config.lambdas import lambda_of
from detrex_backbones.config.lazy_config import LazyConfig

__all__ = ["LazyCall", "LazyConfig", "instantiate", "lambda_of", "object_named"]
