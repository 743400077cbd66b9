"""Accuracy of a config's weights on a folder of images."""
