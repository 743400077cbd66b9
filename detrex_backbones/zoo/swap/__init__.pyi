from detrex_backbones.zoo.swap.change import Change as Change
from detrex_backbones.zoo.swap.plan import swap_backbone as swap_backbone
