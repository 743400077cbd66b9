"""Training a detector: what `examples/train_detector.py` is made of. Its needs are the extra `train`."""
