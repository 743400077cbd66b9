from detrex_backbones.view.features import draw_features as draw_features
from detrex_backbones.view.features import draw_sheet as draw_sheet
from detrex_backbones.view.features import extract_maps as extract_maps
from detrex_backbones.view.features import sample_photo as sample_photo
from detrex_backbones.view.receptive_field import receptive_fields as receptive_fields
from detrex_backbones.view.report import report_page as report_page
from detrex_backbones.view.speed import draw_speed as draw_speed
from detrex_backbones.view.stages import draw_stages as draw_stages
