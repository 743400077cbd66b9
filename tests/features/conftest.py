"""A folder of small images of three sizes, a config with a checkpoint, and what a plain loop gives for them."""

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from detrex_backbones import read_image
from detrex_backbones.zoo import build_model
from detrex_backbones.zoo.whole_config import read_config

SIZES = [(64, 96), (70, 101), (96, 64)]
COUNT = 10


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """cats/0.png ... and dogs/0.png ..., so that names without folders would collide."""
    root = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for index in range(COUNT):
        path = root / ("cats" if index % 2 else "dogs") / f"{index // 2}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 256, (*SIZES[index % 3], 3), dtype=np.uint8)).save(path)
    return root


@pytest.fixture(scope="session")
def config(tmp_path_factory):
    """A config of ResNet-18 with weights of a file, on the CPU."""
    path = tmp_path_factory.mktemp("weights") / "r18.pth"
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18().state_dict(), path)
    return read_config("resnet/resnet18", [f"train.init_checkpoint={path}", "train.device=cpu"])


@pytest.fixture(scope="session")
def reference(photos, config):
    """name -> maps (C, h, w), by the model's own forward of one image at a time."""
    model = build_model(config).eval()
    names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    with torch.inference_mode():
        return {name: {key: value[0] for key, value in model([read_image(photos / name)]).items()} for name in names}
