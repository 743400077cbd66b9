"""The weights that detectors start from, by the very lines of the peers' configs: into our class and timm's network.

Small files with the names, containers and shapes of those that their authors publish. What timm makes of them is timm's
own filter's doing, compared value by value.
"""

import re

import pytest
import torch

from detrex_backbones import EVA02_ViT, EVAViT, MViT, TimmBackbone, ViT, load_checkpoint
from detrex_backbones.checkpoint.fetch import cache_path, find_weight

SIZE = {"embed_dim": 24, "depth": 2, "num_heads": 2}
MVIT = {"embed_dim": 96, "depth": 10, "num_heads": 1, "last_block_indexes": (0, 2, 7, 9), "residual_pooling": True}
TOKENS = {"cls_token": torch.rand(1, 1, 24), "norm.weight": torch.rand(24), "norm.bias": torch.rand(24)}
DECODER = {
    "mask_token": torch.rand(1, 1, 8),
    "decoder_embed.weight": torch.rand(8, 24),
    "decoder_embed.bias": torch.rand(8),
    "decoder_pos_embed": torch.rand(1, 197, 8),
    "decoder_blocks.0.norm1.weight": torch.rand(8),
    "decoder_norm.weight": torch.rand(8),
    "decoder_pred.weight": torch.rand(768, 8),
}


def randomised(net):
    torch.manual_seed(0)
    state = net.state_dict().items()
    return {key: torch.randn_like(value) * 0.1 if value.is_floating_point() else value for key, value in state}


def mae():
    return {"model": {**randomised(ViT(img_size=224, **SIZE)), **TOKENS}}


def retfound():
    return {"model": mae()["model"] | DECODER, "epoch": 1}


def eva02():
    state = randomised(EVA02_ViT(img_size=224, patch_size=16, **SIZE))
    state = {key: value for key, value in state.items() if "rope" not in key}
    for place in ("rope", "blocks.0.attn.rope", "blocks.1.attn.rope"):  # one module, saved wherever it is used
        state |= {f"{place}.freqs_cos": torch.rand(196, 12), f"{place}.freqs_sin": torch.rand(196, 12)}
    more = {"mask_token": torch.rand(1, 1, 24), "lm_head.weight": torch.rand(8, 24), "lm_head.bias": torch.rand(8)}
    return {"module": state | TOKENS | more}


def eva_clip():
    state = randomised(EVAViT(img_size=224, patch_size=16, use_rel_pos=False, **SIZE)) | TOKENS
    return {f"visual.{key}": value for key, value in state.items()} | {"logit_scale": torch.rand(())}


def mvit():
    state = randomised(MViT(img_size=224, **MVIT))
    state = {key: value for key, value in state.items() if not re.match(r"scale\d_norm", key)}
    norm = {"norm.weight": torch.rand(768), "norm.bias": torch.rand(768)}
    return {"model_state": state | norm | {"head.projection.weight": torch.rand(9, 768)}, "epoch": 1}


MAE = "detectron2://ImageNetPretrained/MAE/mae_pretrain_vit_{}.pth?matching_heuristics=True"
LAST = {"out_indices": (1,), **SIZE}

# Line -> the file, our class, timm's network.
CASES = {
    **{
        MAE.format(size): (mae, lambda: ViT(img_size=64, use_rel_pos=True, **SIZE), (net, {"patch_size": 16, **LAST}))
        for size, net in (
            ("base", "vit_base_patch16_224"),
            ("large", "vit_large_patch16_224"),
            ("huge_p14to16", "vit_huge_patch14_224"),
        )
    },
    "RETFound_cfp_weights.pth": (retfound, lambda: ViT(img_size=64, **SIZE), ("vit_large_patch16_224", LAST)),
    "eva02_B_pt_in21k_p14to16.pt": (
        eva02,
        lambda: EVA02_ViT(img_size=64, window_size=2, window_block_indexes=[0], **SIZE),
        ("eva02_base_patch14_224", {"patch_size": 16, **LAST}),
    ),
    "EVA01_CLIP_g_14_psz14_s11B.pt": (
        eva_clip,
        lambda: EVAViT(img_size=64, patch_size=16, **SIZE),
        ("eva_giant_patch14_224", {"patch_size": 16, "mlp_ratio": 4, **LAST}),
    ),
    "detectron2://ImageNetPretrained/mvitv2/MViTv2_T_in1k.pyth": (
        mvit,
        lambda: MViT(img_size=224, **MVIT),
        ("mvitv2_tiny", {}),
    ),
}


@pytest.fixture
def line(request, tmp_path, monkeypatch):
    """What `train.init_checkpoint` is given; the file lies in the cache or in the folder."""
    monkeypatch.setenv("DETREX_BACKBONES_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    name = request.param
    path = cache_path(find_weight(name).url) if "://" in name else tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(CASES[name][0](), path)
    return name, path


@pytest.mark.parametrize("line", CASES, indirect=True)
def test_into_our_class(line):
    name, path = line
    net = CASES[name][1]()
    report = load_checkpoint(net, name)
    assert (report.coverage, report.file_coverage, report.missing) == (1, 1, [])
    assert all("rel_pos" in key or "rope" in key or "_norm." in key for key in report.kept), report.kept
    content = torch.load(path)
    state = next((value for value in content.values() if isinstance(value, dict)), content)
    state = {key.removeprefix("visual."): value for key, value in state.items()}
    for key, value in net.state_dict().items():
        if key not in report.kept and "pos" not in key:
            assert torch.equal(value, state[key]), key


@pytest.mark.few(1)
@pytest.mark.parametrize("line", CASES, indirect=True)
def test_into_timms_network(line):
    name, path = line
    model, arguments = CASES[name][2]
    net = TimmBackbone(model, **arguments).eval()
    report = load_checkpoint(net, name)
    assert (report.coverage, report.file_coverage, report.missing) == (1, 1, [])
    theirs = TimmBackbone(model, checkpoint_path=str(path), **arguments).eval()
    for key, value in theirs.state_dict().items():
        assert torch.equal(net.state_dict()[key], value), key
