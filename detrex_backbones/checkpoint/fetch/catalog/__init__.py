"""Published weights by name: where they are, how to check them, what they assume."""

from detrex_backbones.checkpoint.fetch.catalog.lookup import SOURCES, find_known, find_weight, list_weights
from detrex_backbones.checkpoint.fetch.catalog.weight import Preprocessing, Recipe, Weight

__all__ = ["SOURCES", "Preprocessing", "Recipe", "Weight", "find_known", "find_weight", "list_weights"]
