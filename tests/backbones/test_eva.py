"""EVA and EVA-02 against timm's nearest networks with the same weights, and what their arguments do."""

import pytest
import torch
from timm.models.eva import Eva
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import nn

from detrex_backbones import EVA02_ViT, EVAViT, LastLevelMaxPool, SimpleFeaturePyramid
from detrex_backbones.errors import ArgumentError
from tests.reference import assert_close, noise, randomise_parameters, renamed

SMALL = {"img_size": 64, "embed_dim": 48, "depth": 3, "num_heads": 3}


def last_block(net, images):
    kept = []
    handle = net.blocks[-1].register_forward_hook(lambda module, args, output: kept.append(output))
    net(images)
    handle.remove()
    return kept[0]


def test_evas_windows_and_positions_are_those_of_timms_segment_anything():
    theirs = randomise_parameters(
        VisionTransformerSAM(**SMALL, use_rel_pos=True, window_size=3, global_attn_indexes=(1,), neck_chans=0)
    ).eval()
    ours = EVAViT(
        **SMALL,
        use_rel_pos=True,
        window_size=3,
        window_block_indexes=[0, 2],
        beit_like_qkv_bias=False,
        pretrain_img_size=64,
        pretrain_use_cls_token=False,
        norm_layer=lambda channels: nn.LayerNorm(channels, eps=1e-6),
    ).eval()
    weights = {k: v for k, v in theirs.state_dict().items() if not k.startswith(("neck", "head"))}
    weights["pos_embed"] = weights["pos_embed"].flatten(1, 2)
    ours.load_state_dict(weights, strict=True)
    images = noise(2, 3, 64, 64)
    with torch.no_grad():
        wanted = last_block(theirs, images)
        assert_close(ours(images)["last_feat"], wanted.permute(0, 3, 1, 2))


FROM_TIMM = [
    (r"\.(q|v)_proj\.bias$", r".\1_bias"),
    (r"\.fc1_g\.", ".w1."),
    (r"\.fc1_x\.", ".w2."),
    (r"\.mlp\.norm\.", ".mlp.ffn_ln."),
    (r"\.fc2\.", ".w3."),
]


def eva02_pair(size, **kwargs):
    theirs = Eva(
        **{**SMALL, "img_size": size},
        mlp_ratio=8 / 3,
        qkv_fused=False,
        swiglu_mlp=True,
        scale_mlp=True,
        class_token=False,
        use_rot_pos_emb=True,
        ref_feat_shape=(16, 16),
        norm_layer=lambda channels, **_: nn.LayerNorm(channels, eps=1e-6),
    )
    randomise_parameters(theirs).eval()
    ours = EVA02_ViT(**SMALL, pretrain_use_cls_token=False, **kwargs).eval()
    weights = renamed(theirs.state_dict(), FROM_TIMM)
    left = ours.load_state_dict(
        {k: v for k, v in weights.items() if not k.startswith(("head", "fc_norm", "norm."))}, strict=False
    )
    assert not left.unexpected_keys and all("freqs" in key for key in left.missing_keys)
    return ours, theirs


def test_eva02_is_timms():
    ours, theirs = eva02_pair(64, pretrain_img_size=64)
    images = noise(2, 3, 64, 64)
    with torch.no_grad():
        wanted = last_block(theirs, images).transpose(1, 2).reshape(2, 48, 4, 4)
        assert_close(ours(images)["last_feat"], wanted)


def test_eva02_in_windows_is_what_it_is_on_each_window_alone():
    kwargs = {"pretrain_img_size": 64, "use_abs_pos": False, "pt_hw_seq_len": 4}
    alone = randomise_parameters(EVA02_ViT(**{**SMALL, "img_size": 32}, **kwargs)).eval()
    within = EVA02_ViT(**SMALL, window_size=2, window_block_indexes=[0, 1, 2], **kwargs).eval()
    within.load_state_dict(
        {key: value for key, value in alone.state_dict().items() if "freqs" not in key}, strict=False
    )
    image = noise(1, 3, 64, 64)
    with torch.no_grad():
        whole = within(image)["last_feat"]
        for row in (0, 1):
            for column in (0, 1):
                part = image[..., 32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
                wanted = alone(part)["last_feat"]
                assert_close(whole[..., 2 * row : 2 * row + 2, 2 * column : 2 * column + 2], wanted)


def test_rotary_positions_depend_on_distances_alone():
    """An image larger than `img_size` goes on in the same steps: what is equal around is equal."""
    net = randomise_parameters(EVA02_ViT(**SMALL, use_abs_pos=False)).eval()
    rope = net.rope_glb
    tokens = noise(1, 1, 1, 3, 16)
    larger, table, part = (rope(tokens.expand(1, *size, 3, 16)) for size in ((5, 7), (4, 4), (2, 3)))
    torch.testing.assert_close(larger[:, :4, :4], table)
    torch.testing.assert_close(part, table[:, :2, :3])
    with torch.no_grad():
        assert net(noise(1, 3, 90, 113))["last_feat"].shape == (1, 48, 5, 7)


def test_rotary_positions_are_the_same_without_complex_numbers(monkeypatch):
    rope = EVA02_ViT(**SMALL).rope_glb
    tokens = noise(2, 4, 4, 3, 16)
    wanted = rope(tokens)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(rope(tokens), wanted)


@pytest.mark.parametrize("kind", [EVAViT, EVA02_ViT])
def test_computing_blocks_again_changes_no_gradient(kind):
    kwargs = {**SMALL, "window_size": 3, "window_block_indexes": [0], "residual_block_indexes": [1]}
    nets = [kind(**kwargs, use_act_checkpoint=again) for again in (False, True)]
    nets[1].load_state_dict(randomise_parameters(nets[0]).state_dict())
    for net in nets:
        net(noise(1, 3, 64, 64))["last_feat"].square().mean().backward()
    for (name, one), (_, other) in zip(*(net.named_parameters() for net in nets), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)


@pytest.mark.parametrize("kind", [EVAViT, EVA02_ViT])
def test_a_pyramid_takes_its_map(kind):
    net = kind(**SMALL, out_feature="map")
    pyramid = SimpleFeaturePyramid(net, "map", 16, (4.0, 2.0, 1.0, 0.5), top_block=LastLevelMaxPool(), square_pad=64)
    assert list(pyramid(noise(1, 3, 64, 64))) == ["p2", "p3", "p4", "p5", "p6"]
    assert pyramid.padding_constraints["square_size"] == 64


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (EVAViT, {"num_heads": 5}, "num_heads=5 does not divide embed_dim=48"),
        (EVA02_ViT, {"num_heads": 24}, "num_heads=24 does not divide embed_dim=48 into multiples of 4"),
        (EVAViT, {"interp_type": "linear"}, "interp_type='linear'.*'vitdet', 'beit'"),
        (EVAViT, {"drop_path_rate": -1}, "drop_path_rate"),
    ],
)
def test_what_they_cannot_be_made_of(kind, arguments, message):
    with pytest.raises(ArgumentError, match=message):
        kind(**{**SMALL, **arguments})


def test_a_table_too_short_for_a_spline_is_refused():
    net = EVAViT(**{**SMALL, "img_size": 32}, use_rel_pos=True, interp_type="beit")
    with pytest.raises(ArgumentError, match="at least 5 relative positions, not of 3"):
        net(noise(1, 3, 64, 64))
