"""Hugging Face's ResNet, written by its own library, into ours."""

import pytest
import torch

from tests.checkpoint.conventions.files import assert_same, load, prefixed, write_torch
from tests.checkpoint.conventions.nets import IMAGE, maps_of, our_resnet
from tests.reference import randomise_norms, torchvision_net

transformers = pytest.importorskip("transformers")


def hf_net(kind="ResNetForImageClassification", **kwargs):
    torch.manual_seed(0)
    layers = {"layer_type": "basic", "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2], **kwargs}
    return randomise_norms(getattr(transformers, kind)(transformers.ResNetConfig(**layers))).eval()


@torch.no_grad()
def hf_maps(net):
    return list(net(IMAGE, output_hidden_states=True).hidden_states[1:])


@pytest.mark.parametrize(
    ("kind", "prefix"), [("ResNetForImageClassification", "resnet."), ("ResNetModel", "")], ids=["classifier", "bare"]
)
def test_huggingface(kind, prefix, tmp_path):
    net = hf_net(kind)
    net.save_pretrained(tmp_path)
    model = our_resnet()
    report = load(model, tmp_path / "model.safetensors")
    assert (report.source, report.prefix, report.format) == ("huggingface", prefix, "safetensors")
    assert_same(list(maps_of(model).values()), hf_maps(net))


def test_huggingface_classifier(tmp_path):
    net = hf_net(num_labels=7)
    net.save_pretrained(tmp_path)
    model = our_resnet(classes=7)
    load(model, tmp_path / "model.safetensors")
    with torch.no_grad():
        assert_same([model(IMAGE)["linear"]], [net(IMAGE).logits])


def test_huggingface_bottleneck(tmp_path):
    net = hf_net(layer_type="bottleneck", hidden_sizes=[256, 512, 1024, 2048])
    model = our_resnet(26)
    report = load(model, write_torch(tmp_path / "pytorch_model.bin", net.state_dict()), source="transformers")
    assert "downsample_in_bottleneck" in report.lookalikes
    assert_same(list(maps_of(model).values()), hf_maps(net))


@pytest.mark.few(1)
@pytest.mark.parametrize("place", ["model.backbone.conv_encoder.model.", "model.backbone.model."])
@pytest.mark.parametrize("own", [True, False], ids=["huggingface", "timm"])
def test_backbone_of_a_detr(own, place, tmp_path):
    net = hf_net("ResNetModel") if own else torchvision_net("resnet18")
    state = {key: value for key, value in net.state_dict().items() if not key.startswith("fc.")}
    queries = {
        "model.encoder.layers.0.self_attn.q_proj.weight": torch.ones(4, 4),
        "bbox_predictor.layers.0.bias": torch.ones(4),
    }
    model = our_resnet()
    report = load(model, write_torch(tmp_path / "pytorch_model.bin", {**prefixed(state, place), **queries}))
    assert (report.source, report.prefix) == ("huggingface" if own else "torchvision", place)
    assert_same(list(maps_of(model).values()), hf_maps(net) if own else list(maps_of(net).values())[-5:-1])
