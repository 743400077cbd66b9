from detrex_backbones.backbones.swin.network import SwinTransformer as SwinTransformer
