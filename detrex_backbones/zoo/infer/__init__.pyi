from detrex_backbones.zoo.infer.from_file import infer_config as infer_config
from detrex_backbones.zoo.infer.inferred import Inferred as Inferred
from detrex_backbones.zoo.infer.inferred import InferredNetwork as InferredNetwork
from detrex_backbones.zoo.infer.inferred import InferredResNet as InferredResNet
