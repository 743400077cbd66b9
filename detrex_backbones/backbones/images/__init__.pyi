from detrex_backbones.backbones.images.extractor import FeatureExtractor as FeatureExtractor
from detrex_backbones.backbones.images.image_file import open_image as open_image
from detrex_backbones.backbones.images.tensors import image_to_tensor as image_to_tensor
from detrex_backbones.backbones.images.tensors import read_image as read_image
