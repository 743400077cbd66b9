"""detrex's own detectors: the names that all tables of the DETR family lead to.

Read off detrex's projects. Its published conversions of the originals lack what the originals lack.
"""

from detrex_backbones.checkpoint.conventions._convention import Convention
from detrex_backbones.checkpoint.conventions._detr import BATCH_COUNTERS, KEPT

CONVENTION = Convention(
    name="detrex",
    anchors=(("transformer.decoder.layers.0.ffns.0.layers.0.0.weight", "transformer.encoder.layers.0.norms.0.weight"),),
    left_out=BATCH_COUNTERS,
    kept=KEPT,
)
