"""A detector's file fills a network whose parameter names are the detector's: what stands around it is left alone."""

from functools import partial

import pytest
import torch
from torch import nn

from detrex_backbones import (
    ConvNeXt,
    EVA02_ViT,
    EVAViT,
    FocalNet,
    InternImage,
    RegNet,
    ResBottleneckBlock,
    SimpleFeaturePyramid,
    SimpleStem,
    TimmBackbone,
    ViT,
    load_checkpoint,
)
from detrex_backbones.errors import CheckpointMatchError
from tests.reference import assert_close, randomise_parameters

REGNET = {"stem_class": SimpleStem, "stem_width": 8, "block_class": ResBottleneckBlock, "norm": "FrozenBN"}
VIT = {"img_size": 64, "embed_dim": 24, "depth": 2, "num_heads": 2, "window_size": 2, "window_block_indexes": [0]}
NETS = {
    "convnext": lambda: ConvNeXt(depths=(1, 1, 2, 1), dims=(8, 16, 24, 32), out_indices=(1, 2, 3)),
    "focalnet": lambda: FocalNet(embed_dim=16, depths=(1, 1, 2, 1), use_layerscale=True, out_indices=(1, 2, 3)),
    "internimage": lambda: InternImage(channels=16, depths=(1, 1, 2, 1), groups=(1, 2, 4, 8), post_norm=True),
    "regnet": lambda: RegNet(**REGNET, depth=5, w_a=12.0, w_0=16, w_m=2.2, group_width=8, se_ratio=0.25),
    "eva": lambda: EVAViT(**VIT, use_rel_pos=True),
    "eva02": lambda: EVA02_ViT(**VIT),
}


class Detector(nn.Module):
    """What stands around a backbone in detrex: names that end as some of a backbone's do."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = nn.ModuleDict({"convs": nn.ModuleList([nn.Conv2d(8, 8, 1)])})
        self.transformer = nn.Module()
        self.transformer.norm = nn.LayerNorm(8)
        self.transformer.layers = nn.ModuleList([nn.Linear(8, 8)])


def trained(build):
    return randomise_parameters(Detector(build()))


def write(detector, path):
    torch.save({"model": detector.state_dict(), "iteration": 7}, path)
    return path


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("whole", [True, False], ids=["detector", "backbone alone"])
def test_a_detectors_file_fills_it(name, whole, tmp_path):
    torch.manual_seed(0)
    source = trained(NETS[name])
    path = write(source, tmp_path / "detector.pth")
    model = Detector(NETS[name]()) if whole else NETS[name]()
    report = load_checkpoint(model, path)
    net = model.backbone if whole else model
    wanted = source.backbone.state_dict()
    assert report.coverage == 1
    assert all(torch.equal(value, wanted[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("name", ["eva", "eva02"])
def test_a_pyramids_file_fills_the_pyramid_and_the_network_in_it(name, tmp_path):
    def build():
        return SimpleFeaturePyramid(NETS[name](), "last_feat", 16, (2.0, 1.0, 0.5))

    source = trained(build)
    path = write(source, tmp_path / "detector.pth")
    pyramid, net = build(), NETS[name]()
    assert load_checkpoint(pyramid, path).coverage == load_checkpoint(net, path).coverage == 1
    wanted = source.backbone.state_dict()
    assert all(torch.equal(value, wanted[key]) for key, value in pyramid.state_dict().items())
    assert all(torch.equal(value, wanted[f"net.{key}"]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("size", [64, 96])
def test_a_vitdets_file_fills_a_pyramid_over_timms_network(size, tmp_path):
    """The same maps from timm's ViT as from detectron2's, in float64."""
    window = {**VIT, "norm_layer": partial(nn.LayerNorm, eps=1e-6), "use_rel_pos": True}
    source = trained(lambda: SimpleFeaturePyramid(ViT(**window), "last_feat", 16, (2.0, 1.0, 0.5)))
    path = write(source, tmp_path / "detector.pth")
    small = {"embed_dim": 24, "depth": 2, "num_heads": 2, "window_size": 2, "global_attn_indexes": (1,)}
    net = TimmBackbone("samvit_base_patch16", img_size=size, out_indices=(1,), **small)
    pyramid = SimpleFeaturePyramid(net, *net.output_shape(), 16, (2.0, 1.0, 0.5))
    report = load_checkpoint(pyramid, path)
    assert (report.coverage, report.file_coverage) == (1, 1)
    image = torch.randn(1, 3, size, size, dtype=torch.float64)
    with torch.no_grad():
        theirs, ours = (net.double().eval()(image).values() for net in (source.backbone, pyramid))
    for one, other in zip(theirs, ours, strict=True):
        assert_close(other, one)


@pytest.mark.parametrize("kind", ["cut", "renamed", "of another width"])
@pytest.mark.parametrize("name", NETS)
def test_a_file_that_does_not_fit_changes_nothing(name, kind, tmp_path):
    model, source = NETS[name](), trained(NETS[name])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    weights = source.state_dict()
    last = "backbone." + [key for key, _ in model.named_parameters()][-1]
    value = weights.pop(last)
    if kind != "cut":
        weights[last if kind == "of another width" else f"{last}_of_another"] = torch.cat([value, value])
    torch.save({"model": weights}, tmp_path / "detector.pth")
    with pytest.raises(CheckpointMatchError, match=last.removeprefix("backbone.")):
        load_checkpoint(model, tmp_path / "detector.pth")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
