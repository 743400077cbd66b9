"""Pictures and pages, for the command line, notebooks and documents; the only package that imports matplotlib."""

from detrex_backbones.view.features import draw_features, extract_maps, sample_photo
from detrex_backbones.view.receptive_field import receptive_fields
from detrex_backbones.view.report import report_page
from detrex_backbones.view.stages import draw_stages

__all__ = ["draw_features", "draw_stages", "extract_maps", "receptive_fields", "report_page", "sample_photo"]
