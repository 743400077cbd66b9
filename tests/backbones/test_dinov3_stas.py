"""DEIMv2's backbone, against timm's ViT and torch's operators given the weights of a file in its authors' names."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from timm.models.eva import Eva

from detrex_backbones import DINOv3STAs, load_checkpoint
from detrex_backbones.errors import ArgumentError, CheckpointMatchError, InputError
from tests.reference import assert_close, noise

DIM, HEADS, INPLANE, HIDDEN = 24, 2, 4, 16
SMALL = {"embed_dim": DIM, "num_heads": HEADS, "conv_inplane": INPLANE, "hidden_dim": HIDDEN}
KINDS = ["vit_tiny", "dinov3_vits16", "dinov3_vits16plus"]
BLOCKS = {"vit_tiny": (3, 7, 11), "dinov3_vits16": (5, 8, 11), "dinov3_vits16plus": (5, 8, 11)}
# From the authors' names of a ViT to timm's.
TO_TIMM = {
    "storage_tokens": "reg_token",
    "ls1.gamma": "gamma_1",
    "ls2.gamma": "gamma_2",
    "mlp.w1.": "mlp.fc1_g.",
    "mlp.w2.": "mlp.fc1_x.",
    "mlp.w3.": "mlp.fc2.",
}


def vit_shapes(kind):
    """Names and shapes of the ViT alone, as DEIMv2's checkpoints have them."""
    shapes = {"cls_token": (1, 1, DIM), "rope_embed.periods": (DIM // HEADS // 4,)}
    layers = {"attn.qkv": (3 * DIM, DIM), "attn.proj": (DIM, DIM)}
    layers |= (
        dict.fromkeys(("mlp.w1", "mlp.w2"), (4 * DIM, DIM)) | {"mlp.w3": (DIM, 4 * DIM)}
        if kind.endswith("plus")
        else {"mlp.fc1": (4 * DIM, DIM), "mlp.fc2": (DIM, 4 * DIM)}
    )
    vectors = ["norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"]
    if kind != "vit_tiny":
        shapes |= {"storage_tokens": (1, 4, DIM), "mask_token": (1, DIM), "norm.weight": (DIM,), "norm.bias": (DIM,)}
        vectors += ["ls1.gamma", "ls2.gamma"]
    for at in range(12):
        shapes |= {f"blocks.{at}.{name}": (DIM,) for name in vectors}
        shapes |= {f"blocks.{at}.{name}.weight": shape for name, shape in layers.items()}
        shapes |= {f"blocks.{at}.{name}.bias": shape[:1] for name, shape in layers.items()}
        if kind != "vit_tiny":
            shapes[f"blocks.{at}.attn.qkv.bias_mask"] = (3 * DIM,)
    return shapes | {"patch_embed.proj.weight": (DIM, 3, 16, 16), "patch_embed.proj.bias": (DIM,)}


def fusion_shapes(use_sta):
    """Of the convolutions."""
    widths = [3, INPLANE, 2 * INPLANE, 4 * INPLANE, 4 * INPLANE]
    convs = {"stem.0": "stem.1", "conv2.0": "conv2.1", "conv3.1": "conv3.2", "conv4.1": "conv4.2"}
    shapes = {}
    for at, conv in enumerate(convs if use_sta else ()):
        shapes[f"sta.{conv}.weight"] = (widths[at + 1], widths[at], 3, 3)
        shapes |= norm_shapes(f"sta.{convs[conv]}", widths[at + 1])
    for at, detail in enumerate(widths[2:]):
        shapes[f"convs.{at}.weight"] = (HIDDEN, DIM + detail * use_sta, 1, 1)
        shapes |= norm_shapes(f"norms.{at}", HIDDEN)
    return shapes


def norm_shapes(name, width):
    leaves = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{leaf}": (width,) for leaf in leaves} | {f"{name}.num_batches_tracked": ()}


def weights(kind, use_sta=True):
    """Name -> value of the whole backbone, in the authors' names."""
    before = "dinov3._model." if kind == "vit_tiny" else "dinov3."
    shapes = {before + name: shape for name, shape in vit_shapes(kind).items()} | fusion_shapes(use_sta)
    state = {}
    for seed, (name, shape) in enumerate(shapes.items()):
        if not shape:
            state[name] = torch.tensor(7)
            continue
        state[name] = noise(*shape, seed=seed) * (0.2 if len(shape) < 3 or "token" in name else 0.1)
        if name.endswith(("running_var", "norm1.weight", "norm2.weight", "gamma")):
            state[name] = state[name].abs() + 0.5
        elif name.endswith("bias_mask"):
            state[name] = torch.tensor([1.0, 0.0, 1.0]).repeat_interleave(DIM)
        elif name.endswith("periods"):
            state[name] = 100 ** (torch.arange(shape[0]) / shape[0])
    return state


@pytest.fixture
def file(tmp_path):
    """Writes a checkpoint as DEIMv2's training does."""

    def write(state):
        whole = {f"backbone.{name}": value for name, value in state.items()}
        whole |= {"encoder.input_proj.0.conv.weight": torch.ones(8, 8, 1, 1), "decoder.anchors": torch.ones(1, 9, 4)}
        untrained = {name: torch.zeros_like(value) for name, value in whole.items()}
        content = {"model": untrained, "ema": {"module": whole, "updates": 9}, "last_epoch": 1}
        torch.save(content, tmp_path / "deimv2.pth")
        return tmp_path / "deimv2.pth"

    return write


def timms(kind, state):
    """timm's ViT with the weights of the file."""
    dinov3 = {"init_values": 1e-5, "num_reg_tokens": 4, "swiglu_mlp": kind.endswith("plus"), "swiglu_align_to": 8}
    net = Eva(
        embed_dim=DIM,
        num_heads=HEADS,
        num_classes=0,
        use_abs_pos_emb=False,
        use_rot_pos_emb=True,
        rope_type="dinov3",
        rope_temperature=100.0,
        rope_rotate_half=True,
        dynamic_img_size=True,
        use_fc_norm=False,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6 if kind == "vit_tiny" else 1e-5),
        **({} if kind == "vit_tiny" else dinov3),
    ).eval()
    named = {}
    for name, value in state.items():
        if not name.startswith("dinov3.") or name.endswith(("periods", "bias_mask", "mask_token")):
            continue
        name = name.removeprefix("dinov3.").removeprefix("_model.")
        for old, new in TO_TIMM.items():
            name = name.replace(old, new)
        named[name] = value
    for at, block in enumerate(net.blocks):
        q, k, v = named.pop(f"blocks.{at}.attn.qkv.bias").chunk(3)
        named |= {f"blocks.{at}.attn.q_bias": q, f"blocks.{at}.attn.v_bias": v}
        if kind == "vit_tiny":  # DINOv3's keys have none
            block.attn.k_bias.copy_(k)
    missing, unexpected = net.load_state_dict(named, strict=False)
    assert unexpected == [] and [name for name in missing if not name.startswith(("norm.", "fc_norm."))] == []
    return net


def details(state, x):
    """The maps of the convolutions."""

    def layer(x, conv, norm):
        return norm_of(state, norm, F.conv2d(x, state[f"sta.{conv}.weight"], stride=2, padding=1))

    x = F.max_pool2d(F.gelu(layer(x, "stem.0", "sta.stem.1")), 3, 2, 1)
    second = layer(x, "conv2.0", "sta.conv2.1")
    third = layer(F.gelu(second), "conv3.1", "sta.conv3.2")
    return second, third, layer(F.gelu(third), "conv4.1", "sta.conv4.2")


def norm_of(state, name, x):
    leaves = (state[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *leaves)


@torch.no_grad()
def expected(kind, state, blocks, x, use_sta=True):
    """The maps, by timm's ViT and torch's operators."""
    state = {name: value.to(x.dtype) for name, value in state.items()}
    net, with_norm = timms(kind, state).to(x.dtype), kind != "vit_tiny"
    x_vit = x[..., : x.shape[2] // 16 * 16, : x.shape[3] // 16 * 16]
    found = net.forward_intermediates(x_vit, indices=list(blocks), norm=with_norm, intermediates_only=True)
    made = []
    for at, value in enumerate(found * (3 // len(found))):
        size = [int(side * 2.0 ** (1 - at)) for side in value.shape[2:]]
        value = F.interpolate(value, size, mode="bilinear")
        value = torch.cat([value, details(state, x)[at]], 1) if use_sta else value
        made.append(norm_of(state, f"norms.{at}", F.conv2d(value, state[f"convs.{at}.weight"])))
    return made


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 96), (160, 64)])
@pytest.mark.parametrize("kind", KINDS)
def test_the_authors_file_fills_it_with_timms_and_torchs_maps(kind, size, file):
    state = weights(kind)
    net = DINOv3STAs(kind, BLOCKS[kind], **SMALL).eval()
    report = load_checkpoint(net, file(state))
    assert (report.coverage, report.file_coverage, report.prefix) == (1, 1, "backbone.")
    images = noise(2, 3, *size).double()  # an eps of 1e-5 in the place of 1e-6 is no rounding then
    maps = net.double()(images)
    assert [spec.stride for spec in net.output_shape().values()] == [8, 16, 32] and list(maps) == ["p3", "p4", "p5"]
    for ours, theirs in zip(maps.values(), expected(kind, state, BLOCKS[kind], images), strict=True):
        assert_close(ours, theirs, 1e-6)


@torch.no_grad()
@pytest.mark.parametrize(("kind", "blocks"), [("vit_tiny", (0, 2, 6)), ("dinov3_vits16", (6,))])
def test_without_convolutions_it_runs_any_size_and_blocks_behind_the_last_map_have_no_place(kind, blocks, file):
    state = weights(kind, use_sta=False)
    net = DINOv3STAs(kind, blocks, use_sta=False, **SMALL).eval()
    report = load_checkpoint(net, file(state))
    assert (report.coverage, report.file_coverage) == (1, 1)
    images = noise(1, 3, 67, 101)
    for ours, theirs in zip(net(images).values(), expected(kind, state, blocks, images, use_sta=False), strict=True):
        assert_close(ours, theirs)
    assert net.size_divisibility == 0
    with pytest.raises(InputError, match="32 pixels at least, not 31 and 64"):
        net(noise(1, 3, 31, 64))


@pytest.mark.parametrize(("kind", "other"), [("vit_tiny", "dinov3_vits16"), ("dinov3_vits16", "dinov3_vits16plus")])
def test_the_file_of_another_size_is_refused(kind, other, file):
    with pytest.raises(CheckpointMatchError):
        load_checkpoint(DINOv3STAs(other, **SMALL), file(weights(kind)))


def test_a_file_of_dinov3_alone_fills_the_vit(tmp_path):
    state = {name.removeprefix("dinov3."): value for name, value in weights("dinov3_vits16").items() if "dino" in name}
    torch.save(state, tmp_path / "dinov3_vits16.pth")
    net = DINOv3STAs("dinov3_vits16", **SMALL)
    report = load_checkpoint(net.dinov3, tmp_path / "dinov3_vits16.pth")
    assert (report.coverage, report.file_coverage) == (1, 1)
    assert torch.equal(net.dinov3.rope_embed.periods, state["rope_embed.periods"])


def test_recomputed_blocks_have_the_same_gradients():
    torch.manual_seed(0)
    plain = DINOv3STAs(interaction_indexes=(0, 1, 2), **SMALL).train()
    again = DINOv3STAs(interaction_indexes=(0, 1, 2), checkpoint_stages=["0", "2"], **SMALL).train()
    again.load_state_dict(plain.state_dict())
    for net in (plain, again):
        sum(value.square().mean() for value in net(noise(2, 3, 64, 64)).values()).backward()
    for (name, one), other in zip(plain.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad), name


@torch.no_grad()
def test_dinov3s_positions_are_stretched_by_chance_in_training_alone():
    def same(kind, training):
        net = DINOv3STAs(kind, (0, 1, 2), norm="FrozenBN", **SMALL).train(training)
        for block in net.dinov3.blocks if kind != "vit_tiny" else ():
            block.ls1.gamma.fill_(1)
        one, other = net(noise(1, 3, 64, 64)), net(noise(1, 3, 64, 64))
        return torch.equal(one["p4"], other["p4"])

    assert [same("dinov3_vits16", True), same("dinov3_vits16", False), same("vit_tiny", True)] == [False, True, True]


def test_a_vit_that_is_not_to_learn_has_no_gradients():
    net = DINOv3STAs(interaction_indexes=(0,), finetune=False, **SMALL)
    assert {name.partition(".")[0] for name, value in net.named_parameters() if value.requires_grad} == {
        "sta",
        "convs",
        "norms",
    }


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: DINOv3STAs("dinov3_vits"), r"name='dinov3_vits' is not known\. .*'dinov3_vits16'"),
        (lambda: DINOv3STAs(interaction_indexes=(7, 3, 11)), r"interaction_indexes=\(7, 3, 11\)"),
        (lambda: DINOv3STAs(interaction_indexes=(3, 12)), "from 0 to 11 in rising order"),
        (lambda: DINOv3STAs(interaction_indexes=()), "three numbers of blocks, or one"),
        (lambda: DINOv3STAs(num_heads=5), "num_heads=5 does not divide embed_dim=192 into multiples of 4"),
        (lambda: DINOv3STAs(checkpoint_stages=["12"]), "checkpoint_stages"),
    ],
)
def test_wrong_arguments(made, said):
    with pytest.raises(ArgumentError, match=said):
        made()


def test_sizes_that_it_cannot_run():
    net = DINOv3STAs(interaction_indexes=(0,), **SMALL)
    assert net.size_divisibility == 32
    with pytest.raises(InputError, match="multiples of 32, not 48 and 64: pad to 64 and 64"):
        net(noise(1, 3, 48, 64))
    with pytest.raises(InputError, match="in_channels=3"):
        net(noise(1, 4, 64, 64))
