"""timm's networks as an exported program and a copy can hold them."""

from __future__ import annotations

from timm.layers import PatchEmbed
from torch import nn
from torchvision.models.feature_extraction import DualGraphModule

from detrex_backbones.backbones.traced import copyable

__all__ = ["WholePatchEmbed", "made_exportable"]


def made_exportable(net: nn.Module) -> nn.Module:
    """The network, changed in place: it computes the same, by operations that an exported program can be saved with.

    Traced networks are made so that they can be copied.
    """
    for name, part in list(net.named_children()):
        if isinstance(part, DualGraphModule):
            setattr(net, name, copyable(part))
    for part in net.modules():
        if type(part) is PatchEmbed and hasattr(part, "dynamic_feat_size"):
            part.__class__ = WholePatchEmbed
    return net


class WholePatchEmbed(PatchEmbed):  # type: ignore[misc]
    """timm's, whose grid is computed in whole numbers: `math.ceil` of an open size can't be saved."""

    def dynamic_feat_size(self, img_size: tuple[int, int]) -> tuple[int, int]:
        """(H, W) of the image -> (rows, columns) of patches, rounded up where the image is padded."""
        (height, width), (rows, columns) = img_size, self.patch_size
        if self.dynamic_img_pad:
            return (height + rows - 1) // rows, (width + columns - 1) // columns
        return height // rows, width // columns
