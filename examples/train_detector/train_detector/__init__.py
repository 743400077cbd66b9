"""Training a detector on the public names of detrex_backbones. What it needs besides is the extra `train`."""

from train_detector.train import TrainingError, train

__all__ = ["TrainingError", "train"]
