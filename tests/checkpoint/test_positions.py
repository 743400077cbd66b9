"""Tables of positions for another size: resized as timm's functions and detectron2's do it, said, or refused."""

import re

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed, resize_rel_pos_bias_table
from timm.layers.pos_embed_rel import resize_rel_pos_bias_table_simple
from torch import nn

from detrex_backbones import LazyConfig, TimmBackbone, build_model, load_checkpoint
from detrex_backbones.checkpoint.match.positions import resize_distances, resize_grid
from detrex_backbones.cli import main
from detrex_backbones.errors import ArgumentError, CheckpointMatchError
from tests.reference import assert_close, noise

VIT = ("vit_tiny_patch16_224", {"embed_dim": 24, "depth": 1, "num_heads": 2})
BEIT = ("beit_base_patch16_224", {"embed_dim": 24, "depth": 1, "num_heads": 2})
SWIN = ("swin_tiny_patch4_window7_224", {"embed_dim": 12, "depths": (1, 1), "num_heads": (1, 2)})


def filled(name, **kwargs):
    """timm's own network, its tables filled with noise."""
    torch.manual_seed(0)
    net = timm.create_model(name, pretrained=False, num_classes=0, **kwargs)
    for key, value in net.named_parameters():
        if "pos" in key:
            value.data.copy_(noise(*value.shape))
    return net


def file_of(net, path):
    torch.save(net.state_dict(), path)
    return path


def loaded(name, path, indices=(0,), options=None, **kwargs):
    """Our backbone with the file, its tables by their last names, and the report."""
    backbone = TimmBackbone(name, out_indices=indices, **kwargs)
    report = load_checkpoint(backbone, path, **(options or {}))
    return {
        key.removeprefix("timm_model.").removeprefix("model."): v for key, v in backbone.state_dict().items()
    }, report


@pytest.mark.parametrize(
    ("size", "grid"), [(320, (20, 20)), (96, (6, 6)), ((160, 288), (10, 18)), ((48, 400), (3, 25))]
)
def test_absolute_positions_keep_the_class_token(tmp_path, size, grid):
    name, small = VIT
    net = filled(name, **small)
    state, report = loaded(name, file_of(net, tmp_path / "vit.pth"), img_size=size, **small)
    expected = resample_abs_pos_embed(net.pos_embed, grid, (14, 14), num_prefix_tokens=1, antialias=False)
    assert_close(state["pos_embed"], expected, 1e-6)
    assert torch.equal(state["pos_embed"][:, 0], net.pos_embed[:, 0])
    assert f"positions: 14 x 14 -> {grid[0]} x {grid[1]}, bicubic" in " ".join(str(report).split())
    assert report.coverage == 1


def test_registers_are_tokens_too(tmp_path):
    name, small = VIT
    small = {**small, "reg_tokens": 4}
    net = filled(name, **small)
    state, _ = loaded(name, file_of(net, tmp_path / "vit.pth"), img_size=128, **small)
    expected = resample_abs_pos_embed(net.pos_embed, (8, 8), num_prefix_tokens=5, antialias=False)
    assert_close(state["pos_embed"], expected, 1e-6)


def test_a_table_without_rows_for_tokens(tmp_path):
    name, small = VIT
    small = {**small, "no_embed_class": True}
    net = filled(name, **small)
    state, _ = loaded(name, file_of(net, tmp_path / "vit.pth"), img_size=128, **small)
    assert_close(
        state["pos_embed"], resample_abs_pos_embed(net.pos_embed, (8, 8), num_prefix_tokens=0, antialias=False), 1e-6
    )


def test_what_the_model_says_of_its_grid_tells_rows_of_tokens_from_patches(tmp_path):
    """Without the rows of five tokens 3 x 3 patches are 9 rows, which with them would be 2 x 2."""
    name, small = VIT
    small = {**small, "no_embed_class": True, "reg_tokens": 4}
    net = filled(name, img_size=48, **small)
    state, report = loaded(name, file_of(net, tmp_path / "vit.pth"), img_size=64, **small)
    expected = resample_abs_pos_embed(net.pos_embed, (4, 4), num_prefix_tokens=0, antialias=False)
    assert_close(state["pos_embed"], expected, 1e-6)
    assert "positions: 3 x 3 -> 4 x 4, bicubic" in " ".join(str(report).split())


class Named(nn.Module):
    """A module with some parameters, and nothing that says which grid they have."""

    def __init__(self, **shapes):
        super().__init__()
        self.body = nn.Module()
        self.body.proj = nn.Linear(3, 3)
        for name, shape in shapes.items():
            self.body.register_parameter(name, nn.Parameter(noise(*shape)))


def of_shapes(tmp_path, old, new, **options):
    """The state of a module with tables of the new shapes, loaded from one of the old; and the old state."""
    theirs, ours = Named(**old), Named(**new)
    report = load_checkpoint(ours, file_of(theirs, tmp_path / "file.pth"), **options)
    return ours.state_dict(), theirs.state_dict(), report


def test_a_grid_that_nobody_states_is_square(tmp_path):
    tables = [{"pos_embed": (1, 1 + side * side, 6), "cls_token": (1, 1, 6)} for side in (4, 7)]
    ours, theirs, _ = of_shapes(tmp_path, *tables)
    expected = resample_abs_pos_embed(theirs["body.pos_embed"], (7, 7), num_prefix_tokens=1, antialias=False)
    assert_close(ours["body.pos_embed"], expected, 1e-6)


def test_registers_without_a_row_of_their_own(tmp_path):
    """As DINOv2 has them: the table has a row for the class token alone."""
    tokens = {"cls_token": (1, 1, 6), "reg_token": (1, 4, 6)}
    tables = [{"pos_embed": (1, 1 + side * side, 6), **tokens} for side in (4, 7)]
    ours, theirs, _ = of_shapes(tmp_path, *tables)
    expected = resample_abs_pos_embed(theirs["body.pos_embed"], (7, 7), num_prefix_tokens=1, antialias=False)
    assert_close(ours["body.pos_embed"], expected, 1e-6)


def test_positions_of_swin_have_no_token(tmp_path):
    ours, theirs, _ = of_shapes(tmp_path, {"absolute_pos_embed": (1, 49, 6)}, {"absolute_pos_embed": (1, 100, 6)})
    expected = resample_abs_pos_embed(theirs["body.absolute_pos_embed"], (10, 10), num_prefix_tokens=0, antialias=False)
    assert_close(ours["body.absolute_pos_embed"], expected, 1e-6)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"pos_embed": (1, 6, 6)}, {"pos_embed": (1, 16, 6)}),  # no square
        ({"pos_embed": (1, 16, 6)}, {"pos_embed": (1, 17, 6)}),  # no square
        ({"pos_embed": (1, 16, 6)}, {"pos_embed": (1, 25, 12)}),  # other channels
        ({"pos_embed": (2, 16, 6)}, {"pos_embed": (2, 25, 6)}),  # two of them
        ({"pos_embed": (1, 4, 4, 6)}, {"pos_embed": (1, 7, 7, 3)}),
        ({"pos_embed": (1, 6, 4, 8)}, {"pos_embed": (1, 6, 4, 16)}),
        ({"rel_pos_h": (27, 6)}, {"rel_pos_h": (13, 12)}),
        ({"relative_position_bias_table": (170, 3)}, {"relative_position_bias_table": (225, 3)}),
        ({"relative_position_bias_table": (169, 3)}, {"relative_position_bias_table": (225, 4)}),
        ({"position_bias": (169, 3)}, {"position_bias": (225, 3)}),  # not a name of theirs
    ],
)
def test_what_is_no_table_of_another_size_is_refused(tmp_path, old, new):
    with pytest.raises(CheckpointMatchError, match=r"ha(s|ve) another shape"):
        of_shapes(tmp_path, old, new)


def test_planes_of_positions(tmp_path):
    ours, theirs, _ = of_shapes(tmp_path, {"pos_embed": (1, 8, 8, 6)}, {"pos_embed": (1, 5, 13, 6)})
    flat = resample_abs_pos_embed(
        theirs["body.pos_embed"].reshape(1, 64, 6), (5, 13), (8, 8), num_prefix_tokens=0, antialias=False
    )
    assert_close(ours["body.pos_embed"].reshape(1, 65, 6), flat, 1e-6)


@pytest.mark.parametrize(("old", "new"), [(27, 127), (127, 27)])
def test_distances_are_resized_linearly(tmp_path, old, new):
    ours, theirs, report = of_shapes(tmp_path, {"rel_pos_h": (old, 6)}, {"rel_pos_h": (new, 6)})
    # timm's SAM does it with every image: the table for one query against all keys is the resized one.
    from timm.models.vision_transformer_sam import get_rel_pos

    side = (new + 1) // 2
    looked_up = get_rel_pos(side, side, theirs["body.rel_pos_h"])
    rows = torch.arange(side)
    assert_close(ours["body.rel_pos_h"][rows[:, None] - rows[None] + side - 1], looked_up, 1e-6)
    assert f"relative positions: {old} -> {new}, linear" in " ".join(str(report).split())


def test_distances_are_detectron2s():
    utils = pytest.importorskip("detectron2.modeling.backbone.utils", reason="detectron2 is not installed")
    table = noise(27, 6)
    rows = torch.arange(64)
    expected = utils.get_rel_pos(64, 64, table)
    assert_close(resize_distances(table, 127)[rows[:, None] - rows[None] + 63], expected, 1e-6)


@pytest.mark.parametrize("window", [8, 5, (5, 9)])
def test_biases_of_swin_are_resized_as_planes(tmp_path, window):
    name, small = SWIN
    net = filled(name, **small)
    size = 320 if isinstance(window, int) else (160, 288)
    state, report = loaded(name, file_of(net, tmp_path / "swin.pth"), img_size=size, window_size=window, **small)
    pair = (window, window) if isinstance(window, int) else window
    key = "blocks.0.attn.relative_position_bias_table"
    stored = net.state_dict()[f"layers.0.{key}"]
    shape = ((2 * pair[0] - 1) * (2 * pair[1] - 1), 1)
    assert_close(state[f"layers_0.{key}"], resize_rel_pos_bias_table_simple(stored, pair, shape), 1e-6)
    assert "biases of positions: 13 x 13" in " ".join(str(report).split())


@pytest.mark.parametrize("size", [320, 96, (160, 288)])
def test_biases_of_beit_keep_the_rows_of_the_class_token(tmp_path, size):
    name, small = BEIT
    net = filled(name, **small)
    state, _ = loaded(name, file_of(net, tmp_path / "beit.pth"), img_size=size, **small)
    key = "blocks.0.attn.relative_position_bias_table"
    grid = tuple(side // 16 for side in (size if isinstance(size, tuple) else (size, size)))
    stored = net.state_dict()[key]
    assert_close(state[key], resize_rel_pos_bias_table(stored, grid, tuple(state[key].shape)), 1e-5)
    assert torch.equal(state[key][-3:], stored[-3:])


def test_distances_further_than_steps_can_grow_have_the_last_ones_bias():
    """Five distances for 27: in steps that grow by half they would reach 3 of 13 patches."""
    table = noise(5 * 5 + 3, 2)
    expected = resize_rel_pos_bias_table(table, (14, 14), (27 * 27 + 3, 2))
    theirs = {"body.relative_position_bias_table": table}
    ours = Named(relative_position_bias_table=(27 * 27 + 3, 2))
    load_checkpoint(ours, {**ours.state_dict(), **theirs})
    assert_close(ours.body.relative_position_bias_table, expected, 1e-5)


def test_biases_of_maxvit_are_planes(tmp_path):
    old, new = ({"relative_position_bias_table": (2, side, side)} for side in (13, 15))
    ours, theirs, _ = of_shapes(tmp_path, old, new)
    key = "body.relative_position_bias_table"
    rows = theirs[key].reshape(2, -1).t()  # a row a distance: older releases of timm turn planes wrongly
    assert_close(ours[key], resize_rel_pos_bias_table(rows, (8, 8), (225, 2)).t().reshape(2, 15, 15), 1e-5)


def test_maps_are_those_of_timms_own_loader(tmp_path):
    """The whole way: the same maps as timm's network with the resized table, whichever way the file came in."""
    name, small = VIT
    net = filled(name, **small)
    path = file_of(net, tmp_path / "vit.pth")
    backbone = TimmBackbone(name, out_indices=(0,), img_size=128, **small).eval()
    load_checkpoint(backbone, path)
    theirs = timm.create_model(name, pretrained=False, num_classes=0, img_size=128, **small).eval()
    table = resample_abs_pos_embed(net.pos_embed, (8, 8), num_prefix_tokens=1, antialias=False)
    theirs.load_state_dict({**net.state_dict(), "pos_embed": table})
    images = noise(1, 3, 128, 128)
    with torch.no_grad():
        expected = theirs.forward_intermediates(images, indices=[0], intermediates_only=True)[0]
        assert_close(backbone(images)["p0"], expected)


def test_they_stay_half_precision(tmp_path):
    theirs = Named(pos_embed=(1, 16, 6)).half()
    ours = Named(pos_embed=(1, 25, 6)).half()
    load_checkpoint(ours, file_of(theirs, tmp_path / "file.pth"))
    assert resize_grid(theirs.body.pos_embed, (4, 4), (5, 5)).dtype == torch.float16
    assert resize_distances(torch.zeros(27, 6).half(), 13).dtype == torch.float16
    assert ours.body.pos_embed.dtype == torch.float16 and torch.isfinite(ours.body.pos_embed).all()


def test_whole_numbers_are_no_positions(tmp_path):
    theirs, ours = Named(), Named()
    for net, side in ((theirs, 4), (ours, 5)):
        net.body.register_buffer("pos_embed", torch.arange(side * side * 6).reshape(1, -1, 6))
    with pytest.raises(CheckpointMatchError, match=r"ha(s|ve) another shape"):
        load_checkpoint(ours, file_of(theirs, tmp_path / "file.pth"))


def test_false_refuses_and_changes_nothing(tmp_path):
    old, new = {"pos_embed": (1, 16, 6)}, {"pos_embed": (1, 25, 6)}
    ours = Named(**new)
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    path = file_of(Named(**old), tmp_path / "file.pth")
    with pytest.raises(CheckpointMatchError, match=r"ha(s|ve) another shape: .*pos_embed"):
        load_checkpoint(ours, path, resize_positions=False)
    assert all(torch.equal(value, before[key]) for key, value in ours.state_dict().items())
    with pytest.raises(ArgumentError, match=r"resize_positions='no' is of type str.*Write resize_positions=False\."):
        load_checkpoint(ours, path, resize_positions="no")


@pytest.fixture
def config(tmp_path):
    """A config of a network of 128 pixels, and a file of one of 224."""
    name, small = VIT
    file = file_of(filled(name, **small), tmp_path / "vit.pth")
    text = (
        "from detrex_backbones import TimmBackbone\nfrom detrex_backbones.config import LazyCall as L\n"
        f"model = L(TimmBackbone)(model_name={name!r}, out_indices=(0,), img_size=128, **{small})\n"
        f"train = dict(init_checkpoint={str(file)!r}, load_options=dict(), device='cpu')\n"
    )
    path = tmp_path / "config.py"
    path.write_text(text)
    return path, file


def test_it_is_an_option_of_configs(config):
    cfg = LazyConfig.load(config[0])
    assert build_model(cfg).timm_model.model.pos_embed.shape == (1, 65, 24)
    cfg.train.load_options = {"resize_positions": False}
    with pytest.raises(CheckpointMatchError, match=r"ha(s|ve) another shape"):
        build_model(cfg)


def test_and_of_the_command_line(config, capsys):
    path, file = map(str, config)
    assert main(["match", path, file]) == 0
    assert "positions: 14 x 14 -> 8 x 8, bicubic" in " ".join(capsys.readouterr().out.split())
    assert main(["match", path, file, "train.load_options.resize_positions=False"]) == 1
    assert "another shape" in capsys.readouterr().err


def in_microsofts_names(state):
    """Swin as its authors store it: each stage's merging at the end of the one before."""
    return {
        re.sub(r"layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", k): v
        for k, v in state.items()
    }


def test_what_a_familys_reader_has_resized_is_resized_as_all_else(tmp_path):
    """timm's filter, which reads the authors' names, resizes in another way, and whether one wants it or not."""
    try:
        resize_rel_pos_bias_table(torch.empty(169, 1, device="meta"), (8, 8), (225, 1))
    except (NotImplementedError, RuntimeError):
        pytest.skip("this timm's filter needs values to resize, so that such a file is refused")
    name, small = SWIN
    net = filled(name, **small)
    path = tmp_path / "authors.pth"
    torch.save({"model": in_microsofts_names(net.state_dict())}, path)
    kwargs = {"img_size": 256, "window_size": 8, **small}
    state, report = loaded(name, path, indices=(0, 1), **kwargs)
    assert report.source == "original" and report.coverage == 1
    key = "blocks.0.attn.relative_position_bias_table"
    expected = resize_rel_pos_bias_table_simple(net.state_dict()[f"layers.0.{key}"], (8, 8), (225, 1))
    assert_close(state[f"layers_0.{key}"], expected, 1e-6)
    with pytest.raises(CheckpointMatchError, match=r"ha(s|ve) another shape"):
        loaded(name, path, indices=(0, 1), options={"resize_positions": False}, **kwargs)
