"""Another backbone for a config, and what follows it rewired."""

from detrex_backbones.swap.change import Change
from detrex_backbones.swap.swap import swap_backbone

__all__ = ["Change", "swap_backbone"]
