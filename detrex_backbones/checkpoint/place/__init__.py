"""Values into a model: all of them or none; in one process or in many."""

from detrex_backbones.checkpoint.place.dense import place_values, targets_of

__all__ = ["place_values", "targets_of"]
