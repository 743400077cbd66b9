"""`pretrained`, `checkpoint_path` and the loader of `train.init_checkpoint` reach the same weights."""

import functools

import huggingface_hub
import pytest
import safetensors.torch
import timm
import torch

from benchmarks.timm_check import plain_weights
from detrex_backbones import TimmBackbone
from detrex_backbones.checkpoint.load import load_checkpoint
from detrex_backbones.errors import ArgumentError, CheckpointError, CheckpointFileError
from tests.old_libraries import skip_without_file
from tests.reference import assert_same_maps, noise

FAMILIES = [
    "resnet14t",
    "convnext_atto",
    "swin_tiny_patch4_window7_224",
    "vit_tiny_patch16_224",
    "mobilenetv2_035",
    "fbnetc_100",  # with an eps that timm sets only where it loads the weights itself
]


@functools.lru_cache(maxsize=1)
def weights(name: str) -> dict[str, torch.Tensor]:
    return plain_weights(name)


def save(name: str, path, without: tuple[str, ...] = ()):
    kept = {key: value.contiguous() for key, value in weights(name).items() if not key.startswith(without or ("!",))}
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(kept, path)
    else:
        torch.save(kept, path)
    return path


@pytest.mark.few(1)
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_three_ways_lead_to_the_same_weights(name, suffix, tmp_path):
    skip_without_file(name)
    path = save(name, tmp_path / f"plain{suffix}")
    by_path = TimmBackbone(name, checkpoint_path=path, out_indices=None).eval()
    hub = TimmBackbone(name, pretrained=True, pretrained_cfg_overlay={"file": str(path)}, out_indices=None)
    loaded = TimmBackbone(name, out_indices=None).eval()
    load_checkpoint(loaded, path)
    expected = by_path.state_dict()
    for other in (hub.state_dict(), loaded.state_dict()):
        assert list(other) == list(expected)
        assert all(torch.equal(other[key], value) for key, value in expected.items())
    plain = {key.replace(".", "_"): value for key, value in weights(name).items()}
    own = {key.removeprefix("timm_model.").removeprefix("model.").replace(".", "_"): key for key in expected}
    assert all(torch.equal(expected[key], plain[flat]) for flat, key in own.items())
    images = noise(1, 3, 64, 96)
    with torch.no_grad():
        assert_same_maps(loaded(images), by_path(images), 0)


@pytest.mark.parametrize(
    ("name", "head"), [("resnet14t", "fc."), ("convnext_atto", "head."), ("vit_tiny_patch16_224", "head.")]
)
def test_a_file_without_the_classifier_will_do(name, head, tmp_path):
    ours = TimmBackbone(name, checkpoint_path=save(name, tmp_path / "headless.pth", without=(head,)), out_indices=(1,))
    key = next(iter(dict(ours.timm_model.named_parameters())))
    plain = {key.replace(".", "_"): value for key, value in weights(name).items()}
    assert torch.equal(ours.timm_model.state_dict()[key], plain[key.removeprefix("model.").replace(".", "_")])


@pytest.mark.parametrize("keep", ["fc.", "layer4."])
def test_one_with_little_else_will_not(keep, tmp_path):
    rest = tuple(key for key in weights("resnet14t") if not key.startswith(keep))
    path = save("resnet14t", tmp_path / "part.pth", without=rest)
    with pytest.raises(CheckpointError, match=r"no weights for \d+ of \d+ names of the feature network: .*conv1"):
        TimmBackbone("resnet14t", checkpoint_path=path)


def test_one_that_lacks_a_single_tensor_will_not_either(tmp_path):
    path = save("convnext_atto", tmp_path / "part.pth", without=("stages.1.blocks.0.conv_dw.bias",))
    with pytest.raises(CheckpointError, match=r"for 1 of \d+ .*stages.1.blocks.0.conv_dw.bias"):
        TimmBackbone("convnext_atto", checkpoint_path=path)


def test_of_another_family_is_an_error(tmp_path, capsys):
    path = save("resnet14t", tmp_path / "resnet.pth")
    with pytest.raises(
        CheckpointError, match=r"convnext_atto can't take the weights of checkpoint_path='.*resnet\.pth"
    ):
        TimmBackbone("convnext_atto", checkpoint_path=path)
    assert capsys.readouterr() == ("", "")


def test_a_wrong_argument_beside_a_file_is_still_called_one(tmp_path):
    path = save("resnet14t", tmp_path / "resnet.pth")
    with pytest.raises(ArgumentError, match=r"does not take drop_path_rat=0\.1"):
        TimmBackbone("resnet14t", checkpoint_path=path, drop_path_rat=0.1)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("no route to host"),
        huggingface_hub.utils.LocalEntryNotFoundError("not in the cache"),
        OSError("read-only file system"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_offline_weights_are_an_error_that_names_them(error, monkeypatch):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(timm.models._builder, "load_state_dict_from_hf", fail)
    with pytest.raises(
        CheckpointFileError, match=r"'timm/resnet18\.a1_in1k' of the Hugging Face hub.*checkpoint_path="
    ):
        TimmBackbone("resnet18.a1_in1k", pretrained=True)
