"""Published weights by name: where they are, how to check them, what they assume."""

from detrex_backbones.checkpoint.catalog.lookup import find_known, find_weight, list_weights
from detrex_backbones.checkpoint.catalog.resolve import resolve
from detrex_backbones.checkpoint.catalog.weight import Preprocessing, Recipe, Weight

__all__ = ["Preprocessing", "Recipe", "Weight", "find_known", "find_weight", "list_weights", "resolve"]
