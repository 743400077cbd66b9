"""hubconf.py through `torch.hub` itself: from a folder, and from the place where it keeps a repository."""

from pathlib import Path

import pytest
import torch

from detrex_backbones import ResNet, get_backbone, list_configs
from detrex_backbones.checkpoint.fetch.catalog import gluon
from detrex_backbones.errors import ArgumentError
from detrex_backbones.zoo.listing import hub_names

ROOT = Path(__file__).parents[1]


def load(name, **arguments):
    with torch.device("meta"):
        return torch.hub.load(str(ROOT), name, source="local", **arguments)


@pytest.fixture
def kept(tmp_path):
    """The repository where torch.hub keeps those of GitHub, so that it fetches nothing."""
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path))
    (tmp_path / "IDEA_backbones_main").symlink_to(ROOT, target_is_directory=True)
    yield "IDEA/backbones:main", {"trust_repo": True, "skip_validation": True}
    torch.hub.set_dir(before)


def test_the_list_has_gluons_names_and_every_ready_config(kept):
    repository, options = kept
    names = torch.hub.list(repository, verbose=False, **options)
    assert set(names) == set(hub_names())
    assert {f"gluon_{row[0]}" for row in gluon.TABLE} <= set(names)
    assert {"resnet50", "resnet101_dc5_torchvision", "swin_large_384", "vitdet_base", "regnetx_400mf"} <= set(names)
    assert len(names) == len([name for name in list_configs() if not name.startswith("detectors/")])
    assert "ready config gluon/resnet50_v1d" in torch.hub.help(repository, "gluon_resnet50_v1d", **options)


@pytest.mark.few(4)
@pytest.mark.parametrize("name", [f"gluon_{row[0]}" for row in gluon.TABLE])
def test_gluons_networks_have_the_size_of_the_table(name):
    config = hub_names()[name]
    net = load(name, pretrained=False, num_classes=1000, out_features=["linear"], freeze_at=0, norm="BN")
    assert isinstance(net, ResNet)
    assert sum(value.numel() for value in net.parameters()) == gluon.WEIGHTS[config.partition("/")[2]].parameters


@pytest.mark.parametrize(
    ("name", "channels"),
    [("swin_large_384", [192, 384, 768, 1536]), ("vitdet_base", [256] * 4), ("convnext_tiny_384", [192, 384, 768])],
)
def test_other_configs_load(name, channels):
    assert [shape.channels for shape in load(name).output_shape().values()] == channels


def test_weights_of_a_file(tmp_path):
    net = get_backbone("gluon_resnet18_v1b")
    torch.save(net.state_dict(), tmp_path / "mine.pth")
    other = torch.hub.load(str(ROOT), "gluon_resnet18_v1b", source="local", pretrained=str(tmp_path / "mine.pth"))
    assert torch.equal(other.res5[1].conv2.weight, net.res5[1].conv2.weight)


def test_a_name_that_is_no_entry_point():
    with pytest.raises(RuntimeError, match="gluon_resnet50_v9"):
        load("gluon_resnet50_v9")
    with pytest.raises(ArgumentError, match="'gluon_resnet50_v1d'"):
        get_backbone("gluon_resnet50_v1dd")
