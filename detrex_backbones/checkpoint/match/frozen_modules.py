"""Which parts of a model are frozen at values that nobody loaded."""

from __future__ import annotations

from torch import nn

from detrex_backbones.checkpoint.entry import BATCH_COUNTER
from detrex_backbones.checkpoint.report import LoadReport

__all__ = ["frozen_but_not_loaded"]


def frozen_but_not_loaded(model: nn.Module, report: LoadReport | None) -> list[str]:
    """Modules with weights that neither a checkpoint nor training will ever set.

    Args:
        model: after loading.
        report: of the load; None where nothing was loaded.

    Returns:
        Paths of modules whose parameters are frozen, or that are a frozen norm, and that got no value from the file.
    """
    loaded = {item.model_key for item in report.loaded} if report else set()
    found: dict[str, None] = {}
    for path, module in model.named_modules():
        is_frozen_norm = type(module).__name__.startswith("FrozenBatchNorm")
        own = [(name, not value.requires_grad) for name, value in module.named_parameters(recurse=False)]
        own += [(name, is_frozen_norm) for name, _ in module.named_buffers(recurse=False)]
        for name, frozen in own:
            persistent = name not in module._non_persistent_buffers_set
            key = f"{path}.{name}" if path else name
            if frozen and persistent and name != BATCH_COUNTER and key not in loaded:
                found[path] = None
    return list(found)
