"""The trainer's old name: it moved to `examples/train_detector`, where scripts that ask here are led."""

import importlib
import importlib.util
import pkgutil
import sys
import warnings
from pathlib import Path

from detrex_backbones.errors import ConfigImportError

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_detector"  # beside an editable install
if importlib.util.find_spec("train_detector") is None and (EXAMPLE / "train_detector" / "coco.py").is_file():
    sys.path.append(str(EXAMPLE))
try:
    moved = importlib.import_module("train_detector")
except ModuleNotFoundError as error:
    if error.name != "train_detector":
        raise
    raise ConfigImportError(
        f"{__name__} is no longer a part of the library: it is the package train_detector, in the folder\n"
        f"examples/train_detector of the source code. Put that folder on PYTHONPATH, and import train_detector\n"
        f"instead (in a config: _target_: train_detector.coco.CocoDetection)."
    ) from error
warnings.warn(f"{__name__} is now train_detector, in examples/train_detector: import that", DeprecationWarning, 2)
# The very same modules: a class that is loaded twice is no instance of itself.
for module in pkgutil.iter_modules(moved.__path__):
    sys.modules[f"{__name__}.{module.name}"] = importlib.import_module(f"train_detector.{module.name}")
sys.modules[__name__] = moved
