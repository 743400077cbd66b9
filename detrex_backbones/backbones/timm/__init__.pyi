from detrex_backbones.backbones.timm.backbone import TimmBackbone as TimmBackbone
