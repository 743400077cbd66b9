from detrex_backbones.evaluation.accuracy import Evaluation as Evaluation
from detrex_backbones.evaluation.accuracy import Prediction as Prediction
from detrex_backbones.evaluation.accuracy import evaluate as evaluate
from detrex_backbones.evaluation.accuracy import override_recipe as override_recipe
from detrex_backbones.evaluation.accuracy import recipe_of as recipe_of
