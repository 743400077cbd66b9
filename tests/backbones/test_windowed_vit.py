"""The transformers of RF-DETR and LW-DETR: what a window sees, and against timm's where there is one window."""

import pytest
import timm
import torch

from detrex_backbones import LWDETRViT, WindowedDINOv2, load_checkpoint
from detrex_backbones.errors import ArgumentError, CheckpointMatchError, InputError
from tests.reference import assert_close, noise, randomise_parameters

DINOV2 = {"img_size": 56, "embed_dim": 48, "depth": 3, "num_heads": 2}
LW_DETR = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_windows": 2, "pretrain_img_size": 32}


@pytest.fixture(scope="module")
def dinov2():
    net = timm.create_model("vit_small_patch14_dinov2", num_classes=0, dynamic_img_size=True, **DINOV2)
    return randomise_parameters(net).eval()


@torch.no_grad()
@pytest.mark.parametrize("size", [(56, 56), (42, 98)])
def test_with_one_window_it_is_dinov2_and_takes_its_authors_file(dinov2, size, tmp_path):
    ours = WindowedDINOv2(num_windows=1, out_indices=(2, 3), **DINOV2).eval()
    torch.save(dinov2.state_dict(), tmp_path / "dinov2.pth")
    report = load_checkpoint(ours, tmp_path / "dinov2.pth")
    assert (report.coverage, report.file_coverage) == (1, 1)
    images = noise(2, 3, *size)
    wanted = dinov2.forward_intermediates(images, indices=[1, 2], norm=True, intermediates_only=True)
    maps = ours(images)
    assert list(maps) == ["p2", "p3"]
    for value, other in zip(maps.values(), wanted, strict=True):
        assert_close(value, other)


@torch.no_grad()
@pytest.mark.parametrize("make", [WindowedDINOv2, LWDETRViT])
def test_a_window_is_a_rectangle_that_sees_nothing_of_the_others(make):
    if make is LWDETRViT:
        net, step = LWDETRViT(**LW_DETR, window_block_indexes=(0, 1), out_feature_indexes=(0, 1)), 8
    else:
        net, step = WindowedDINOv2(num_windows=2, out_indices=(1, 3), window_block_indexes=(0, 1), **DINOV2), 14
    net = randomise_parameters(net).eval()
    images = noise(1, 3, 4 * step, 6 * step)
    changed = images.clone()
    changed[..., : 2 * step, 3 * step :] += noise(1, 3, 2 * step, 3 * step, seed=1)  # the window at the top right
    maps, others = net(images), net(changed)
    for index, name in enumerate(maps):
        differs = (maps[name] - others[name]).abs().amax((0, 1)) > 1e-6
        expected = torch.zeros(4, 6, dtype=torch.bool)
        expected[:2, 3:] = True
        # DINOv2's third block here looks at everything.
        expected |= index == 1 and make is WindowedDINOv2
        assert torch.equal(differs, expected), name


def test_blocks_behind_the_last_map_have_no_place_and_are_no_other_network(tmp_path):
    whole = randomise_parameters(LWDETRViT(**LW_DETR))
    torch.save(whole.state_dict(), tmp_path / "lw.pth")
    first = LWDETRViT(**LW_DETR, out_feature_indexes=(0,))
    assert load_checkpoint(first, tmp_path / "lw.pth").coverage == 1
    assert len(first.blocks) == 1 and torch.equal(first.blocks[0].gamma_1, whole.blocks[0].gamma_1)
    deeper = LWDETRViT(**{**LW_DETR, "depth": 3})
    with pytest.raises(CheckpointMatchError, match=r"blocks\.2"):
        load_checkpoint(deeper, tmp_path / "lw.pth")


def test_sizes_that_windows_do_not_divide_are_refused():
    net = WindowedDINOv2(num_windows=2, out_indices=(3,), **DINOV2)
    assert net.size_divisibility == 28
    with pytest.raises(InputError, match=r"multiples of 28 .*not 56 and 70: pad to 56 and 84"):
        net(noise(1, 3, 56, 70))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: WindowedDINOv2(out_indices=(13,)), "at least one of 1 to depth=12"),
        (lambda: LWDETRViT(**LW_DETR, out_feature_indexes=()), "out_indices"),
        (lambda: LWDETRViT(**{**LW_DETR, "num_windows": 0}), "num_windows=0 must be a whole number from 1"),
        (lambda: LWDETRViT(**{**LW_DETR, "num_heads": 5}), "num_heads=5 does not divide"),
    ],
)
def test_wrong_arguments(made, said):
    with pytest.raises(ArgumentError, match=said):
        made()
