"""Entries of a report, made by hand."""

from detrex_backbones.checkpoint.entry import Entry, Status


def loaded(model_key, checkpoint_key, shape, rule="", cast="", adapted=""):
    """A tensor that found its place."""
    found = {"rule": rule, "cast": cast, "adapted": adapted, "status": Status.LOADED}
    return Entry(checkpoint_key, shape=shape, model_key=model_key, **found)


def mismatched(model_key, checkpoint_key, model_shape, shape):
    """A tensor whose place has another shape."""
    found = {"model_shape": model_shape, "status": Status.OTHER_SHAPE}
    return Entry(checkpoint_key, shape=shape, model_key=model_key, **found)


def left_over(reasons, status=Status.NOT_OF_NETWORK):
    """Tensors that were not used, with the reason of each."""
    return [Entry(key, status=status, why=why) for key, why in reasons.items()]
