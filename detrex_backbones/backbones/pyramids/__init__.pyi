from detrex_backbones.backbones.pyramids.fpn import FPN as FPN
from detrex_backbones.backbones.pyramids.fpn import LastLevelP6P7 as LastLevelP6P7
from detrex_backbones.backbones.pyramids.simple import LastLevelMaxPool as LastLevelMaxPool
from detrex_backbones.backbones.pyramids.simple import SimpleFeaturePyramid as SimpleFeaturePyramid
