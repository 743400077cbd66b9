"""ViT beside transformers' VitDet, MViT beside timm's; and what is their own."""

from functools import partial

import pytest
import torch
from timm.models.mvitv2 import MultiScaleVit, MultiScaleVitCfg
from torch import nn

from detrex_backbones import MViT, ViT, get_vit_lr_decay_rate, load_checkpoint
from detrex_backbones.backbones.attention import attend_decomposed, attend_maps
from detrex_backbones.backbones.windows import attend_in_windows
from detrex_backbones.errors import ArgumentError, CheckpointMatchError
from tests.backbones.test_swin import randomise
from tests.backbones.transformers_of_peers import rename
from tests.reference import assert_close, noise

NORM = partial(nn.LayerNorm, eps=1e-6)
SMALL = {"img_size": 112, "embed_dim": 32, "depth": 3, "num_heads": 4, "pretrain_img_size": 64}
WINDOWS = {"use_rel_pos": True, "window_size": 3, "window_block_indexes": [0, 2], "residual_block_indexes": [1]}


@pytest.fixture(scope="module")
def vits():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.VitDetConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=112,
        pretrain_image_size=64,
        use_relative_position_embeddings=True,
        window_size=3,
        window_block_indices=[0, 2],
        residual_block_indices=[1],
    )
    theirs = randomise(transformers.VitDetModel(config)).eval()
    ours = ViT(**SMALL, **WINDOWS, norm_layer=NORM).eval()
    ours.load_state_dict(rename(theirs.state_dict(), "transformers_vitdet"), strict=True)
    return ours, theirs


@pytest.mark.parametrize("size", [(112, 112), (64, 96), (161, 227), (33, 17)])
def test_the_map_is_that_of_transformers(vits, size):
    ours, theirs = vits
    image = noise(2, 3, *size)
    with torch.no_grad():
        assert_close(ours(image)["last_feat"], theirs(image).last_hidden_state)


def test_the_gradients_are_those_of_transformers(vits):
    ours, theirs = vits
    image = noise(2, 3, 80, 112)
    ours(image)["last_feat"].pow(3).sum().backward()
    theirs(image).last_hidden_state.pow(3).sum().backward()
    gradients = {name: value.grad for name, value in theirs.named_parameters()}
    for name, gradient in rename(gradients, "transformers_vitdet").items():
        assert_close(ours.get_parameter(name).grad, gradient, 1e-4)


@pytest.mark.parametrize("keys", [(4, 6), (2, 3), (7, 6)])
def test_decomposed_positions_are_a_bias(keys):
    q, (k, v) = noise(2, 3, 24, 8), noise(2, 2, 3, keys[0] * keys[1], 8, seed=1)
    rows, columns = noise(4, keys[0], 8, seed=2), noise(6, keys[1], 8, seed=3)
    grid = q.view(2, 3, 4, 6, 8)
    bias = torch.einsum("nhyxc,yic->nhyxi", grid, rows)[..., None]
    bias = bias + torch.einsum("nhyxc,xjc->nhyxj", grid, columns)[..., None, :]
    logits = 0.3 * q @ k.transpose(-2, -1) + bias.reshape(2, 3, 24, -1)
    assert_close(attend_decomposed(q, k, v, rows, columns, 0.3), logits.softmax(-1) @ v)


@pytest.mark.parametrize("size", [(6, 9), (7, 9), (6, 10), (8, 11), (2, 1)])
def test_queries_that_fill_windows_up_need_not_be_asked(size):
    """Windows of 3x3 queries and 2x2 keys: filled up with zeros, all of them attended to, and the filling cut off."""
    rows, columns = (-(-length // 3) for length in size)
    q, (k, v) = noise(2, *size, 8), noise(2, 2 * rows * columns, 2, 2, 8, seed=1)
    tables = noise(3, 2, 4, seed=2), noise(3, 2, 4, seed=3)
    attend = partial(attend_maps, num_heads=2, rows=tables[0], columns=tables[1])
    filled = torch.zeros(2, 3 * rows, 3 * columns, 8)
    filled[:, : size[0], : size[1]] = q
    wanted = torch.empty_like(filled)
    for index, (keys, values) in enumerate(zip(k, v, strict=True)):
        image, row, column = index // (rows * columns), index // columns % rows, index % columns
        area = image, slice(3 * row, 3 * row + 3), slice(3 * column, 3 * column + 3)
        wanted[area] = attend(filled[area][None], keys[None], values[None])[0]
    assert_close(attend_in_windows(q, k, v, 3, attend), wanted[:, : size[0], : size[1]])


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (96, 96)])
def test_mvits_maps_are_timms(size):
    """timm's has no windows, and the last block of a stage has the stride of the others."""
    cfg = MultiScaleVitCfg(
        depths=(2, 2),
        embed_dim=(32, 64),
        num_heads=(2, 4),
        stride_q=((1, 1), (2, 2)),
        stride_kv=((4, 4), (2, 2)),
        use_cls_token=False,
        use_abs_pos=False,
    )
    theirs = randomise(MultiScaleVit(cfg, img_size=size, num_classes=0)).eval()
    ours = MViT(
        *(size[0], (7, 7), (4, 4), (3, 3), 3, 32, 4, 2),
        last_block_indexes=(1, 3),
        adaptive_window_size=0,
        norm_layer=NORM,
        out_features=["scale3"],
    ).eval()
    for pool in (ours.blocks[3].attn.pool_k, ours.blocks[3].attn.pool_v):
        assert pool.stride == (4, 4)
        pool.stride = (2, 2)
    ours.load_state_dict(rename(theirs.state_dict(), "timm_mvit"), strict=True)
    image = noise(2, 3, *size)
    tokens = theirs.forward_features(image)
    side = size[0] // 8
    assert_close(ours(image)["scale3"], tokens.transpose(1, 2).reshape(2, 64, side, side))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ViT(embed_dim=32, num_heads=5), "num_heads=5 does not divide embed_dim=32"),
        (lambda: MViT(embed_dim=32, num_heads=5), "num_heads=5 does not divide embed_dim=32"),
        (lambda: MViT(depth=10), r"last_block_indexes=\[0, 2, 11, 15\] .* of depth=10: from 0 to 9"),
        (lambda: MViT(depth=3, last_block_indexes=[2, 0]), "one after the other"),
        (lambda: MViT(out_features=["scale6"]), "Did you mean 'scale"),
    ],
)
def test_what_does_not_fit_is_refused(build, message):
    with torch.device("meta"), pytest.raises(ArgumentError, match=message):
        build()


def test_a_table_that_is_no_square():
    net = ViT(**SMALL).eval()
    net.pretrain_use_cls_token = False
    with pytest.raises(ArgumentError, match=r"17 positions is no square\. With a class token"):
        net(noise(1, 3, 64, 64))


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("backbone.net.pos_embed", 0),
        ("backbone.net.patch_embed.proj.weight", 0),
        ("backbone.net.blocks.0.attn.qkv.weight", 1),
        ("backbone.net.blocks.11.mlp.fc1.bias", 12),
        ("backbone.net.blocks.3.residual.conv1.weight", 13),
        ("backbone.simfp_2.0.weight", 13),
        ("roi_heads.blocks.3.weight", 13),
    ],
)
def test_learning_rates_decay_with_depth(name, layer):
    assert get_vit_lr_decay_rate(name, 0.7, 12) == pytest.approx(0.7 ** (13 - layer))
    assert get_vit_lr_decay_rate(name) == 1


@pytest.mark.parametrize("kind", ["vit", "swin", "mvit"])
def test_a_detectors_file_fills_the_backbone(kind, tmp_path):
    from tests.backbones.test_contract import MVITS, SWINS, VITS

    build = {"vit": VITS["windows"], "swin": SWINS["two_stages"], "mvit": MVITS["three_stages"]}[kind]
    filled, net = randomise(build()), build()
    state = {f"backbone.{name}": value for name, value in filled.state_dict().items()}
    rest = {"proposal_generator.rpn_head.conv.weight": torch.zeros(4, 4, 3, 3)}
    torch.save({"model": state | rest}, tmp_path / "detector.pth")
    report = load_checkpoint(net, tmp_path / "detector.pth")
    assert report.coverage == 1
    assert not report.missing
    for name, value in filled.state_dict().items():
        assert torch.equal(net.state_dict()[name], value), name
    torch.save({"model": dict(list(state.items())[:-3]) | rest}, tmp_path / "cut.pth")
    with pytest.raises(CheckpointMatchError):
        load_checkpoint(build(), tmp_path / "cut.pth")
