"""Weights that are given as they are: a mapping, a file for `get_backbone`; and what a notebook shows of a report."""

import pytest
import torch
import torchvision

from detrex_backbones import get_backbone, load_checkpoint
from detrex_backbones.errors import CheckpointFileError, CheckpointMatchError


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    return torchvision.models.resnet18().state_dict()


@pytest.mark.parametrize("container", ["", "state_dict"])
def test_a_mapping_is_loaded_as_its_file_is(theirs, tmp_path, container):
    content = {container: theirs, "epoch": 3} if container else theirs
    torch.save(content, tmp_path / "file.pth")
    from_file, given = get_backbone("resnet18"), get_backbone("resnet18")
    load_checkpoint(from_file, tmp_path / "file.pth")
    report = load_checkpoint(given, content)
    assert (report.source, report.container, report.coverage) == ("torchvision", container, 1.0)
    for key, value in from_file.state_dict().items():
        assert torch.equal(given.state_dict()[key], value)
    theirs["conv1.weight"].add_(0)  # its own memory: nothing is shared
    before = given.stem.conv1.weight.detach().clone()
    with torch.no_grad():
        theirs["conv1.weight"].add_(1)
    assert torch.equal(given.stem.conv1.weight, before)
    with torch.no_grad():
        theirs["conv1.weight"].sub_(1)


def test_a_mapping_that_does_not_fit_changes_nothing(theirs):
    model = get_backbone("resnet34")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointMatchError, match="a mapping"):
        load_checkpoint(model, theirs)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
    with pytest.raises(CheckpointFileError, match="the mapping holds no tensors"):
        load_checkpoint(model, {"epoch": 3})


def test_get_backbone_takes_a_file(theirs, tmp_path):
    torch.save(theirs, tmp_path / "file.pth")
    backbone = get_backbone("resnet18", pretrained=tmp_path / "file.pth")
    assert torch.equal(backbone.stem.conv1.weight, theirs["conv1.weight"])
    with pytest.raises(CheckpointFileError, match="does not exist"):
        get_backbone("resnet18", pretrained=str(tmp_path / "none.pth"))


def test_a_report_is_one_line_in_a_notebook(theirs):
    report = load_checkpoint(get_backbone("resnet18"), theirs)
    assert repr(report) == "<LoadReport of 'a mapping' (torchvision): 100 of 100 tensors (100.0%) into ''>"
