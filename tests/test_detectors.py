"""The ready detectors build, take every kind of backbone, and learn."""

import re
from pathlib import Path

import pytest
import torch
import torchvision

from detrex_backbones import (
    LazyConfig,
    build_model,
    get_config,
    instantiate,
    list_backbones,
    list_configs,
    swap_backbone,
)
from detrex_backbones.config import LazyCall as L
from detrex_backbones.errors import ArgumentError, ConfigError
from detrex_backbones.zoo import build_on_meta
from tests.reference import noise

DETECTORS = [name for name in list_configs() if name.startswith("detectors/")]
BACKBONES = [
    "resnet18",
    "resnet50-dc5-torchvision",
    "gluon/resnet50_v1d",
    "timm/convnext_atto",
    "timm/swin_tiny_patch4_window7_224",
    "timm/efficientnet_b0",
]


def batch():
    """Two images of one box each."""
    images = [torch.zeros(3, 64, 64), torch.ones(3, 64, 64)]
    images[0][:, 10:40, 10:40] = 1
    images[1][:, 20:60, 20:50] = 0
    boxes = ([[10.0, 10, 40, 40]], [[20.0, 20, 50, 60]])
    return images, [
        {"boxes": torch.tensor(box), "labels": torch.tensor([label])} for label, box in enumerate(boxes, start=1)
    ]


@pytest.mark.parametrize("name", DETECTORS)
def test_every_ready_detector(name):
    cfg = get_config(name)
    model = build_on_meta(cfg.model)
    assert type(model).__module__.startswith("torchvision.models.detection")
    assert model.backbone.out_channels == (256 if name.endswith("_coco.py") else 128)
    anchors = getattr(model, "anchor_generator", None) or model.rpn.anchor_generator
    assert len(anchors.sizes) == len(model.backbone.output_shape())


def test_anchors_are_those_of_the_documented_override():
    page = (Path(__file__).parent.parent / "docs" / "training.md").read_text(encoding="utf-8")
    (override,) = re.findall(r"'(model\.rpn_anchor_generator\.sizes=.*)'", page)
    two = "model.anchor_generator.sizes=[[8, 12],[16, 24],[32, 48],[64, 96],[128, 192]]"
    for name, text, meant in (
        ("faster_rcnn_resnet18_fpn", override, ((32,), (64,), (128,), (256,), (512,))),
        ("retinanet_resnet18_fpn", two, ((8, 12), (16, 24), (32, 48), (64, 96), (128, 192))),
    ):
        cfg = LazyConfig.apply_overrides(get_config(f"detectors/{name}"), [text])
        model = build_on_meta(cfg.model)
        generator = getattr(model, "anchor_generator", None) or model.rpn.anchor_generator
        assert generator.sizes == meant
        assert [len(cells) for cells in generator.cell_anchors] == [3 * len(sizes) for sizes in meant]


def test_detectors_are_no_backbones():
    assert len(DETECTORS) == 8
    assert not any("fpn" in name for name in list_backbones())
    with pytest.raises(ArgumentError):
        swap_backbone(get_config(DETECTORS[0]), "faster_rcnn_resnet18_fpn")


@pytest.mark.few(1)
@pytest.mark.parametrize("name", BACKBONES)
def test_another_backbone_learns(name):
    cfg = get_config("detectors/retinanet_resnet18_fpn")
    changes = swap_backbone(cfg, name, pretrained=False)
    assert name == "resnet18" or changes[0].path == "model.backbone.bottom_up"
    cfg.model.min_size = cfg.model.max_size = 64
    cfg.model.backbone.out_channels = 32
    torch.manual_seed(0)
    model = instantiate(cfg.model)
    images, targets = batch()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(4):
        loss = sum(model(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("name", ["detectors/faster_rcnn_resnet18_fpn.py"])
def test_a_vit_comes_with_its_pyramid_and_its_own_mean(name):
    cfg = get_config(name)
    swap_backbone(cfg, "timm/vit_tiny_patch16_224")
    assert list(cfg.model.image_mean) == [0.5] * 3 and list(cfg.model.image_std) == [0.5] * 3
    cfg.model.min_size = cfg.model.max_size = 64
    model = instantiate(cfg.model)
    images, targets = batch()
    assert all(torch.isfinite(value) for value in model(images, targets).values())
    assert cfg.train.init_checkpoint.startswith("timm://vit_tiny_patch16_224")


def test_preprocessing_travels_with_the_weights():
    """What reaches the network under torchvision's transform is what our FeatureExtractor gives it."""
    cfg = get_config("detectors/faster_rcnn_resnet18_fpn")
    swap_backbone(cfg, "regnet/regnetx_400mf")  # pycls: BGR
    assert cfg.model.backbone.input_format == "BGR"
    detector = instantiate(cfg.model).eval()
    extractor = instantiate(get_config("regnet/regnetx_400mf").model).eval()
    seen = []
    detector.backbone.bottom_up.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    image = noise(3, 128, 128).mul(60).add(120).clamp(0, 255).round()
    with torch.no_grad():
        detector([image / 255])
    torch.testing.assert_close(seen[0], extractor.preprocess([image]), atol=1e-4, rtol=1e-4)
    swap_backbone(cfg, "resnet18")
    assert cfg.model.backbone.input_format == "RGB"
    assert list(cfg.model.image_mean) == pytest.approx([0.485, 0.456, 0.406])


def test_there_and_back_is_as_before():
    cfg, before = get_config("detectors/retinanet_resnet18_fpn"), get_config("detectors/retinanet_resnet18_fpn")
    for name in ("timm/convnext_atto", "resnet50-dc5", "timm/efficientnet_b0", "resnet18"):
        swap_backbone(cfg, name, pretrained=False)
    assert cfg.model.backbone.bottom_up == before.model.backbone.bottom_up
    assert list(cfg.model.backbone.in_features) == ["res3", "res4", "res5"]
    assert cfg.model.backbone.top_block == before.model.backbone.top_block


def test_bgr_weights_without_a_place_for_it_change_nothing(tmp_path):
    path = tmp_path / "vit.py"
    path.write_text(
        "from detrex_backbones import FeatureExtractor, TimmBackbone\n"
        "from detrex_backbones.config import LazyCall as L\n"
        "model = L(FeatureExtractor)(\n"
        "    backbone=L(TimmBackbone)(model_name='vit_tiny_patch16_224', out_indices=(11,)),\n"
        "    pixel_mean=[1.0, 2.0, 3.0], pixel_std=[1.0, 1.0, 1.0], input_format='BGR')\n"
    )
    cfg = get_config("detectors/retinanet_resnet18_fpn")
    with pytest.raises(ArgumentError, match="BGR"):
        swap_backbone(cfg, path)
    assert cfg == get_config("detectors/retinanet_resnet18_fpn")


def test_weights_are_loaded_into_the_backbone_alone(tmp_path):
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(weights=None)
    torch.save(theirs.state_dict(), tmp_path / "r18.pth")
    cfg = get_config("detectors/retinanet_resnet18_fpn")
    cfg.train.device, cfg.train.init_checkpoint = "cpu", str(tmp_path / "r18.pth")
    model = build_model(cfg)
    assert torch.equal(model.backbone.bottom_up.res5[1].conv2.weight, theirs.layer4[1].conv2.weight)
    assert float(model.head.classification_head.cls_logits.bias.detach().mean()) == pytest.approx(-4.595, abs=1e-3)


def test_a_detector_that_cannot_be_swapped():
    cfg = get_config("detectors/retinanet_resnet18_fpn")
    cfg.model = L(torch.nn.Conv2d)(in_channels=3, out_channels=3, kernel_size=1)
    with pytest.raises(ConfigError):
        swap_backbone(cfg, "resnet18")
