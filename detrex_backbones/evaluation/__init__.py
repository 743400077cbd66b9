"""Accuracy of a config's weights on a folder of images."""

from detrex_backbones.evaluation.accuracy import Evaluation, Prediction, evaluate, override_recipe, recipe_of

__all__ = ["Evaluation", "Prediction", "evaluate", "override_recipe", "recipe_of"]
