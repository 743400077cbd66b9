"""Entry points of `torch.hub`: every ready config by a name that is a Python identifier, without weights or with them.

torch.hub.load("path/of/this/folder", "gluon_resnet50_v1d", source="local", pretrained=False)
"""

from collections.abc import Callable as _Callable
from typing import Any as _Any

from detrex_backbones.zoo import get_backbone as _get_backbone
from detrex_backbones.zoo.listing import hub_names as _hub_names

# What importing the package and building a backbone takes, by the names of their modules.
dependencies = ["torch", "torchvision", "timm", "fvcore", "omegaconf", "yaml", "cloudpickle", "safetensors", "filelock"]
dependencies += ["huggingface_hub", "requests", "tqdm", "numpy"]


def _entry_point(name: str, config: str) -> _Callable[..., _Any]:
    def build(pretrained: bool | str = False, **arguments: _Any) -> _Any:
        return _get_backbone(config, pretrained=pretrained, **arguments)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"""The backbone of the ready config {config}.

    Args:
        pretrained: load the weights that are known for it; or a path, a URL or a name of weights.
        **arguments: of the backbone, its stages or its stem; see `detrex_backbones.get_backbone`.
    """
    return build


globals().update({_name: _entry_point(_name, _config) for _name, _config in _hub_names().items()})
