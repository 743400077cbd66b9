"""Files in their authors' names into timm's networks: by `load_checkpoint` as by timm's own filter, behind any prefix.

Each file is written by rules from the authors' code: what their modules are called. What timm makes of it is timm's own
doing (`checkpoint_path=`), and the maps are compared with those of a network that was filled so.
"""

import re

import pytest
import timm
import torch
from torch import nn

from detrex_backbones import FeatureExtractor, ResNet, TimmBackbone, load_checkpoint
from detrex_backbones.backbones.resnet import BasicStem
from detrex_backbones.errors import ArgumentError, CheckpointMatchError

SIZES = [(64, 96), (76, 100)]


def swin(name: str) -> str:
    """Microsoft's: a stage ends with what makes it smaller, where timm's begins with it."""
    return re.sub(r"^layers\.(\d)\.downsample", lambda found: f"layers.{int(found[1]) - 1}.downsample", name)


def convnext(name: str) -> str:
    """Facebook's: the stem is the first of four `downsample_layers`, and its 1x1 convolutions are linear layers."""
    name = re.sub(r"^stem\.", "downsample_layers.0.", name)
    name = re.sub(r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1.", name)
    name = re.sub(r"^stages\.(\d)\.blocks\.", r"stages.\1.", name)
    name = name.replace("mlp.grn.weight", "grn.gamma").replace("mlp.grn.bias", "grn.beta")
    return name.replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv").replace("head.norm", "norm")


def focalnet(name: str) -> str:
    """Microsoft's: `patch_embed` and `layers` with the same shift of what makes a stage smaller."""
    name = re.sub(r"^layers\.(\d)\.downsample", lambda found: f"layers.{int(found[1]) - 1}.downsample", name)
    name = re.sub(r"^stem\.", "patch_embed.", name)
    return name.replace("head.norm", "norm")


CASES = {
    "swin_tiny_patch4_window7_224": (swin, {"depths": (1, 1, 2, 1), "embed_dim": 24}),
    "convnext_atto": (convnext, {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}),
    "convnextv2_atto": (convnext, {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}),
    "focalnet_tiny_srf": (focalnet, {}),
}


def authors_file(name: str, **more) -> dict[str, torch.Tensor]:
    """Random values under the authors' names, without the classifier."""
    rename, kwargs = CASES[name]
    torch.manual_seed(0)
    net = timm.create_model(name, num_classes=0, **{**kwargs, **more})
    state = {key: torch.randn_like(value) * 0.1 for key, value in net.state_dict().items()}
    flat = {key: value.reshape(1, 1, 1, -1) if "grn" in key else value for key, value in state.items()}
    return {rename(key): value for key, value in flat.items()}


def backbone(name: str, **more) -> TimmBackbone:
    return TimmBackbone(name, out_indices=(0, 1, 2, 3), **{**CASES[name][1], **more}).eval()


def saved(tmp_path, state) -> str:
    path = tmp_path / "file.pth"
    torch.save({"model": state}, path)
    return str(path)


@pytest.mark.few(1)
@pytest.mark.parametrize("prefix", ["", "backbone.", "backbone.0.", "model.backbone.bottom_up."])
@pytest.mark.parametrize("name", CASES)
def test_the_same_values_as_by_timms_own_filter(name, prefix, tmp_path):
    state = authors_file(name)
    expected = TimmBackbone(
        name, out_indices=(0, 1, 2, 3), checkpoint_path=saved(tmp_path, state), num_classes=0, **CASES[name][1]
    ).eval()
    state = {prefix + key: value for key, value in state.items()}
    model = backbone(name)
    report = load_checkpoint(model, saved(tmp_path, state))
    assert (report.source, report.prefix, report.coverage, report.file_coverage) == ("original", prefix, 1, 1)
    for size in SIZES:
        image = torch.randn(1, 3, *size)
        with torch.no_grad():
            ours, theirs = model(image), expected(image)
        for key in theirs:
            assert torch.equal(ours[key], theirs[key])


@pytest.mark.parametrize("container", ["model", "state_dict", ""])
def test_a_classifier_with_the_buffers_of_microsofts_and_old_timms_swin(tmp_path, container):
    name = "swin_tiny_patch4_window7_224"
    state = authors_file(name)
    extra = {"head.weight": torch.rand(10, 192), "head.bias": torch.rand(10)}
    for stage, depth in enumerate(CASES[name][1]["depths"]):
        for block in range(depth):
            place = f"layers.{stage}.blocks.{block}."
            extra[f"{place}attn.relative_position_index"] = torch.zeros(49, 49, dtype=torch.int64)
            extra[f"{place}attn_mask"] = torch.zeros(4, 49, 49)
    model = backbone(name)
    path = tmp_path / "file.pth"
    torch.save({container: state | extra} if container else state | extra, path)
    report = load_checkpoint(model, path)
    assert (report.source, report.coverage, report.file_coverage) == ("original", 1, 1)
    assert {report.left_over[key] for key in extra} == {"head", "computed by the model"}


def detector_file(name: str, prefix: str) -> dict[str, torch.Tensor]:
    """A detector's: a norm for each map, no norm before a classifier, and what stands beside the backbone."""
    state = {key: value for key, value in authors_file(name).items() if not key.startswith("norm.")}
    widths = [value for key, value in backbone(name)._out_feature_channels.items()]
    for number, width in enumerate(widths):
        state |= {f"norm{number}.weight": torch.rand(width), f"norm{number}.bias": torch.rand(width)}
    state = {prefix + key: value for key, value in state.items()}
    return {
        **state,
        "neck.convs.0.conv.weight": torch.rand(16, widths[1], 1, 1),
        "transformer.encoder.layers.0.norms.0.weight": torch.rand(16),
    }


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "convnext_atto"])
def test_the_norms_of_a_detectors_maps(name, tmp_path):
    state = detector_file(name, "backbone.")
    path = saved(tmp_path, state)
    model = FeatureExtractor(backbone(name, output_norms=True), [0.0] * 3, [1.0] * 3).eval()
    report = load_checkpoint(model, path)
    assert (report.scope, report.coverage, report.file_coverage) == ("backbone", 1, 1)
    plain = backbone(name)
    load_checkpoint(plain, path, allow_unused=["*norm[0-9].*"])
    image = torch.randn(1, 3, 76, 100)
    with torch.no_grad():
        maps, raw = model.backbone(image), plain(image)
    for number, key in enumerate(raw):
        weight, bias = (state[f"backbone.norm{number}.{kind}"] for kind in ("weight", "bias"))
        eps = 1e-6 if name.startswith("convnext") else 1e-5  # the authors'
        wanted = nn.functional.layer_norm(raw[key].permute(0, 2, 3, 1), weight.shape, weight, bias, eps)
        torch.testing.assert_close(maps[key], wanted.permute(0, 3, 1, 2))


def test_a_detectors_norms_without_a_place_name_the_argument(tmp_path):
    name = "swin_tiny_patch4_window7_224"
    path = saved(tmp_path, detector_file(name, "backbone."))
    with pytest.raises(CheckpointMatchError, match=r"norm0.weight.*output_norms=True"):
        load_checkpoint(backbone(name), path)
    # Of the maps that are not asked for, the norms need no place.
    model = TimmBackbone(name, out_indices=(1, 2, 3), output_norms=True, **CASES[name][1])
    report = load_checkpoint(model, path)
    assert {key: why for key, why in report.left_over.items() if "norm0" in key} == {
        "backbone.norm0.weight": "norm of a feature map that the model doesn't output",
        "backbone.norm0.bias": "norm of a feature map that the model doesn't output",
    }


def test_a_table_of_another_window_is_resized_by_the_rule_for_all_files(tmp_path):
    name = "swin_tiny_patch4_window7_224"
    state = authors_file(name, window_size=12, img_size=384)
    report = load_checkpoint(model := backbone(name), saved(tmp_path, state))
    resized = [entry for entry in report.loaded if entry.adapted]
    assert {entry.model_key.rpartition(".")[2] for entry in resized} == {"relative_position_bias_table"}
    assert all("23 x 23 -> 13 x 13" in entry.adapted for entry in resized)
    stored = state["layers.0.blocks.0.attn.relative_position_bias_table"]
    plane = stored.T.reshape(1, -1, 23, 23)
    wanted = nn.functional.interpolate(plane, size=(13, 13), mode="bicubic").reshape(-1, 169).T
    assert torch.equal(model.timm_model.layers_0.blocks[0].attn.relative_position_bias_table, wanted)
    with pytest.raises(CheckpointMatchError, match="relative_position_bias_table"):
        load_checkpoint(backbone(name), saved(tmp_path, state), resize_positions=False)


@pytest.mark.parametrize("name", [name for name, (_, kwargs) in CASES.items() if kwargs])
def test_another_variant_of_the_family_is_refused_and_changes_nothing(name, tmp_path):
    path = saved(tmp_path, authors_file(name))
    other = backbone(name, depths=(1, 1, 1, 1))
    before = {key: value.clone() for key, value in other.state_dict().items()}
    with pytest.raises(CheckpointMatchError):
        load_checkpoint(other, path)
    deeper = backbone(name, depths=(1, 1, 3, 1))
    with pytest.raises(CheckpointMatchError):
        load_checkpoint(deeper, path)
    assert all(torch.equal(before[key], value) for key, value in other.state_dict().items())


def test_source_original_asks_for_it(tmp_path):
    path = saved(tmp_path, authors_file("convnext_atto"))
    assert load_checkpoint(backbone("convnext_atto"), path, source="original").coverage == 1
    resnet = ResNet(BasicStem(3, 64, norm="BN"), ResNet.make_default_stages(18, norm="BN"), out_features=["res5"])
    with pytest.raises(ArgumentError, match="source='original': no network of the model reads its authors' files"):
        load_checkpoint(resnet, path, source="original")


def test_a_file_that_the_filter_cannot_take_is_refused_as_ever(tmp_path):
    path = saved(tmp_path, {f"downsample_layers.{n}.0.weight": torch.rand(3, 3) for n in range(40)})
    with pytest.raises(CheckpointMatchError, match="is not for this model"):
        load_checkpoint(backbone("convnext_atto"), path)


def test_the_order_of_a_files_tensors_is_no_name(tmp_path):
    name = "nextvit_small"  # whose reader takes its authors' tensors one by one, whatever they are called
    state = {f"features.{number}": value for number, value in enumerate(timm.create_model(name).state_dict().values())}
    path, model = saved(tmp_path, state), TimmBackbone(name)
    with pytest.raises(CheckpointMatchError, match="is not for this model"):
        load_checkpoint(model, path)
    assert load_checkpoint(model, path, source="original").coverage == 1
