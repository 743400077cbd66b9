from detrex_backbones.backbones.base import Backbone as Backbone
from detrex_backbones.backbones.cost import Measures as Measures
from detrex_backbones.backbones.cost import measure as measure
from detrex_backbones.backbones.darknet import Darknet53 as Darknet53
from detrex_backbones.backbones.images import *
from detrex_backbones.backbones.pyramids import *
from detrex_backbones.backbones.resnet import *
from detrex_backbones.backbones.timm import *
from detrex_backbones.backbones.torchvision import *
from detrex_backbones.backbones.vgg import SSDVGG as SSDVGG
