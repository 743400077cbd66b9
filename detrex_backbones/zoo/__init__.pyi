from detrex_backbones.zoo.backbone_names import get_backbone as get_backbone
from detrex_backbones.zoo.backbone_names import list_backbones as list_backbones
from detrex_backbones.zoo.build import build_and_load as build_and_load
from detrex_backbones.zoo.build import build_model as build_model
from detrex_backbones.zoo.build import build_model_with_report as build_model_with_report
from detrex_backbones.zoo.build import find_device as find_device
from detrex_backbones.zoo.build import load_options as load_options
from detrex_backbones.zoo.config_from_file import Inferred as Inferred
from detrex_backbones.zoo.config_from_file import infer_config as infer_config
from detrex_backbones.zoo.meta_build import build_on_meta as build_on_meta
from detrex_backbones.zoo.meta_build import shapes_of as shapes_of
from detrex_backbones.zoo.ready_configs import config_file as config_file
from detrex_backbones.zoo.ready_configs import get_config as get_config
from detrex_backbones.zoo.ready_configs import list_configs as list_configs
from detrex_backbones.zoo.swap import *
