"""Checkpoints: read, matched, loaded, reported."""
