"""torchvision's detectors on COCO: their files fill the ready detectors whole, and the boxes are torchvision's."""

import re

import pytest
import torch
from torchvision.models import detection

from detrex_backbones import get_config, instantiate, load_checkpoint
from detrex_backbones.checkpoint.fetch import find_weight
from detrex_backbones.errors import CheckpointMatchError, PreprocessingError
from tests.reference import noise, randomise_norms

# torchvision's name, the ready config, and the eps of the norms in the network.
DETECTORS = [
    ("fasterrcnn_resnet50_fpn", "faster_rcnn_resnet50_fpn_coco", 0.0),
    ("fasterrcnn_resnet50_fpn_v2", "faster_rcnn_resnet50_fpn_v2_coco", 1e-5),
    ("retinanet_resnet50_fpn", "retinanet_resnet50_fpn_coco", 0.0),
    ("retinanet_resnet50_fpn_v2", "retinanet_resnet50_fpn_v2_coco", 1e-5),
]
SMALL = {"min_size": 96, "max_size": 160}


def theirs(name, eps):
    """torchvision's detector with random weights, of which some find something."""
    torch.manual_seed(0)
    model = randomise_norms(getattr(detection, name)(weights=None, weights_backbone=None, **SMALL)).eval()
    for path, module in model.named_modules():
        if path.startswith("backbone.body") and hasattr(module, "eps"):
            module.eps = eps
        if name == "fasterrcnn_resnet50_fpn_v2" and path.startswith("roi_heads.box_predictor."):
            torch.nn.init.normal_(module.weight, std=2e-4)  # the norms before it leave activations of some 100
        elif path.endswith(("cls_score", "cls_logits")):
            torch.nn.init.normal_(module.weight, std=0.02)
            torch.nn.init.zeros_(module.bias)
    return model


def before_0_13(state):
    """The names of torchvision's files of before version 0.13, of the detectors that were there."""
    rules = [
        (r"(inner_blocks|layer_blocks)\.(\d)\.0\.", r"\1.\2."),
        (r"^(rpn\.head\.conv)\.0\.0\.", r"\1."),
        (r"^(head\.\w+\.conv)\.(\d)\.0\.", lambda found: f"{found[1]}.{2 * int(found[2])}."),
    ]
    renamed = {}
    for key, value in state.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    assert "backbone.fpn.inner_blocks.0.weight" in renamed
    assert {"rpn.head.conv.weight", "head.classification_head.conv.6.weight"} & renamed.keys()
    return renamed


def ours(config):
    cfg = get_config(f"detectors/{config}.py")
    cfg.model.min_size, cfg.model.max_size = SMALL["min_size"], SMALL["max_size"]
    return instantiate(cfg.model).eval()


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("name", "config", "eps", "old"),
    [(*row, False) for row in DETECTORS] + [(*row, True) for row in DETECTORS if "v2" not in row[0]],
)
def test_whole_detector_gives_the_same_boxes(tmp_path, name, config, eps, old):
    peer = theirs(name, eps)
    state = peer.state_dict()
    torch.save(before_0_13(state) if old else state, tmp_path / "detector.pth")
    model = ours(config)
    report = load_checkpoint(model, tmp_path / "detector.pth")
    counters = [key for key in state if key.endswith("num_batches_tracked")]
    assert not report.missing and not report.unplaced and not report.outside
    assert len(report.loaded) >= len(state) - len(counters)
    for detector in (peer, model) if "faster" in config else ():
        detector.roi_heads.score_thresh = 0.005
    images = [noise(3, 91, 131).sigmoid(), noise(3, 120, 77, seed=1).sigmoid()]
    with torch.no_grad():
        for found, expected in zip(model(images), peer(images), strict=True):
            assert len(expected["boxes"]) > 5
            for key in ("boxes", "scores"):
                torch.testing.assert_close(found[key], expected[key], atol=1e-3 if key == "boxes" else 1e-5, rtol=1e-4)
            assert found["labels"].equal(expected["labels"])


@pytest.mark.few(1)
@pytest.mark.parametrize(("name", "config", "eps"), DETECTORS)
def test_config_is_the_published_files(name, config, eps):
    cfg = get_config(f"detectors/{config}.py")
    weight = find_weight(cfg.train.init_checkpoint)
    assert weight == find_weight(f"torchvision://{name}")
    (member,) = detection.__dict__[next(key for key in vars(detection) if key.lower() == f"{name}_weights".lower())]
    assert weight.url == member.url
    assert weight.hash == "sha256:" + re.search(r"-([0-9a-f]{8})\.pth", member.url)[1]
    assert weight.config == f"detectors/{config}.py"
    assert weight.norm_eps == eps
    # What a config doesn't show: torchvision's own values for what isn't written into it.
    peer, own = getattr(detection, name)(weights=None, weights_backbone=None), instantiate(cfg.model)
    assert (own.transform.min_size, own.transform.max_size) == (peer.transform.min_size, peer.transform.max_size)
    assert (own.transform.image_mean, own.transform.image_std) == (peer.transform.image_mean, peer.transform.image_std)


def test_published_name_is_held_to_its_eps(tmp_path):
    """torchvision takes eps out of the norms when it loads this file: a network with one gives other boxes."""
    name, config, _ = DETECTORS[0]
    path = tmp_path / find_weight(f"torchvision://{name}").file
    torch.save(before_0_13(theirs(name, 0.0).state_dict()), path)
    load_checkpoint(ours(config), path)
    cfg = get_config(f"detectors/{config}.py")
    cfg.model.backbone.bottom_up.stem.norm = cfg.model.backbone.bottom_up.stages.norm = "FrozenBN"
    with pytest.raises(PreprocessingError, match="norm_eps=0"):
        load_checkpoint(instantiate(cfg.model), path)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "config", "eps"), DETECTORS[::2])
def test_head_of_other_classes_or_cut_file_is_refused(tmp_path, name, config, eps):
    state = before_0_13(theirs(name, eps).state_dict())
    torch.save(state, tmp_path / "whole.pth")
    cfg = get_config(f"detectors/{config}.py")
    cfg.model.num_classes = 5
    with pytest.raises(CheckpointMatchError, match="shape"):
        load_checkpoint(instantiate(cfg.model), tmp_path / "whole.pth")
    state.pop("backbone.fpn.layer_blocks.1.weight")
    torch.save(state, tmp_path / "cut.pth")
    with pytest.raises(CheckpointMatchError, match=r"backbone\.fpn\.layer_blocks\.1\.0\.weight"):
        load_checkpoint(ours(config), tmp_path / "cut.pth")
