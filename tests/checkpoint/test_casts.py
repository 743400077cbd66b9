"""Values of another dtype: cast and said where their meaning stays, refused where it would be lost."""

import pytest
import torch
from torch import nn

from detrex_backbones import load_checkpoint
from detrex_backbones.errors import CheckpointMatchError


class Counting(nn.Module):
    """A weight, and a buffer of another kind."""

    def __init__(self, dtype):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.register_buffer("buffer", torch.ones(2).to(dtype))


def saved(path, **values):
    torch.save({"weight": torch.arange(3.0), "buffer": torch.tensor([2.87, -1.0])} | values, path)
    return path


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool])
@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16])
def test_a_float_is_no_integer(tmp_path, dtype, stored):
    """2.87 would become 2, and a mask of probabilities all true."""
    model = Counting(dtype)
    path = saved(tmp_path / "net.pth", buffer=torch.tensor([2.87, -1.0]).to(stored))
    with pytest.raises(CheckpointMatchError, match=f"has {stored} where the model has {dtype}, and their fractions"):
        load_checkpoint(model, path)
    assert torch.equal(model.weight, torch.zeros(3))
    assert torch.equal(model.buffer, torch.ones(2).to(dtype))


def test_a_whole_number_as_a_float_is_refused_too(tmp_path):
    """It isn't looked at the values: the next file of this network has others."""
    with pytest.raises(CheckpointMatchError, match="their fractions would be lost: buffer"):
        load_checkpoint(Counting(torch.int64), saved(tmp_path / "net.pth", buffer=torch.tensor([2.0, 3.0])))


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_a_complex_number_is_no_real_one(tmp_path, dtype):
    with pytest.raises(CheckpointMatchError, match="their imaginary parts would be lost: weight"):
        load_checkpoint(Counting(torch.float32), saved(tmp_path / "net.pth", weight=torch.tensor([1j, 0, 2]).to(dtype)))


@pytest.mark.parametrize("stored", [torch.float64, torch.float16, torch.bfloat16])
def test_one_float_becomes_another_and_is_said(tmp_path, stored):
    model = Counting(torch.float32)
    values = torch.tensor([0.5, -2.0, 3.0])  # exact in every one of them
    report = load_checkpoint(model, saved(tmp_path / "net.pth", weight=values.to(stored)))
    assert torch.equal(model.weight.detach(), values)
    assert f"1 {str(stored).removeprefix('torch.')} -> float32" in str(report)
