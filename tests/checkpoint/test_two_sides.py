"""A load is complete from both sides, its scope is a whole part of the model, and what stays random is named."""

import re

import pytest
import timm
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from detrex_backbones import FPN, FeatureExtractor, SimpleFeaturePyramid, TimmBackbone, load_checkpoint
from detrex_backbones.backbones.timm.build import timm_network
from detrex_backbones.checkpoint.match.globs import fewest_globs, is_allowed
from detrex_backbones.checkpoint.match.leftovers import explain_leftovers
from detrex_backbones.checkpoint.match.refusals import check_random_maps
from detrex_backbones.checkpoint.match.suffixes import find_scopes
from detrex_backbones.checkpoint.names.conventions import conventions
from detrex_backbones.checkpoint.names.readings import readings
from detrex_backbones.checkpoint.names.wrappers import clean_names
from detrex_backbones.cli import main
from detrex_backbones.errors import CheckpointMatchError
from tests.checkpoint.cut_files import shapes_of, try_load
from tests.checkpoint.nets import empty, refused, save

VIT = {"embed_dim": 64, "depth": 4, "num_heads": 2, "img_size": 64}
NAME = "vit_tiny_patch16_224"


def vit(**kwargs):
    return timm.create_model(NAME, **{**VIT, **kwargs}).state_dict()


def our_vit(**kwargs):
    return TimmBackbone(NAME, out_indices=(1, 3), **{**VIT, **kwargs})


def pyramid():
    return SimpleFeaturePyramid(TimmBackbone(NAME, out_indices=(3,), **VIT), "p3", 16, [2.0, 1.0])


# The scope is a whole part


@pytest.fixture(scope="module")
def darknet(tmp_path_factory):
    """OpenMMLab counts CSPNeXt's stages from 1, timm from 0."""
    state = timm.create_model("cspdarknet53").state_dict()
    names = {key: re.sub(r"^stages\.(\d)", lambda at: f"backbone.stage{int(at[1]) + 1}", key) for key in state}
    file = save(tmp_path_factory.mktemp("darknet"), {name: state[key] for key, name in names.items()})
    return TimmBackbone("cspdarknet53"), file


@pytest.mark.parametrize("options", [{}, {"prefix": "backbone.stage3"}])
def test_stages_under_other_names_are_not_loaded_as_the_last_one(darknet, options):
    error = refused(*darknet, **options)
    stage = re.search(r"of '(timm_model\.stages_\d)', which is a piece of a network: images go into", str(error))
    assert f"To load only this part: scope={stage[1]!r}." in str(error)


def test_a_piece_is_loaded_where_it_is_meant(tmp_path):
    file = save(tmp_path, empty().res5.state_dict())
    assert "'res5', which is a piece of a network: images go into 'stem.conv1.weight'" in str(refused(empty(), file))
    assert load_checkpoint(empty(), file, scope="res5").coverage == 1


def test_a_part_that_takes_no_image_is_whole_where_nothing_in_the_model_does(tmp_path):
    model = nn.ModuleDict({"neck": nn.Linear(3, 4), "head": nn.Linear(4, 5)})
    report = load_checkpoint(model, save(tmp_path, nn.Linear(3, 4).state_dict()))
    assert report.scope == "neck"


def test_scopes_are_ranked_by_shapes_before_names():
    a, b, other = (3, 4), (5,), (7, 7)
    model = {"x.one": other, "x.two": other, "x.three": a, "y.one": a, "y.two": b}
    assert find_scopes(model, {"one": a, "two": b, "three": a})[0] == ["y."]


def test_less_than_half_is_no_fit(tmp_path):
    names = [f"part{index}.weight" for index in range(20)]
    model = nn.Module()
    for name in names:
        model.add_module(name.partition(".")[0], nn.Linear(2, 2, bias=False))
    few = {name: torch.ones(2, 2) for name in names[:9]} | {f"other.{at}.weight": torch.ones(2, 2) for at in range(11)}
    assert "is not for this model: 9 of its 20 tensors fit" in str(refused(model, save(tmp_path, few)))
    half = {name: torch.ones(2, 2) for name in names[:10]} | {f"other.{at}.x.weight": torch.ones(2) for at in range(10)}
    assert "leaves parameters of the model without a value. 10 are not in" in str(refused(model, save(tmp_path, half)))


def tree(*names):
    """A module with a tensor of two numbers under each of these names."""
    root = nn.Module()
    for name in names:
        *path, leaf = name.split(".")
        module = root
        for part in path:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        module.register_parameter(leaf, nn.Parameter(torch.zeros(2)))
    return root


def stored(*names):
    return dict.fromkeys(names, torch.ones(2))


def test_a_few_names_that_a_small_part_shares_are_no_fit(tmp_path):
    model = tree("tiny.weight", "tiny.bias", *(f"body.{at}.x.weight" for at in range(30)))
    file = save(tmp_path, stored("weight", "bias", *(f"other.{at}.y.weight" for at in range(19))))
    assert "is not for this model: 2 of its 21 tensors fit" in str(refused(model, file))


def test_a_piece_is_not_offered_where_it_fits_several_times(tmp_path):
    model = nn.ModuleDict({"stem": nn.Conv2d(3, 4, 3), "one": nn.Linear(3, 4), "two": nn.Linear(3, 4)})
    assert "is a piece of a network" in str(refused(model, save(tmp_path, nn.Linear(3, 4).state_dict())))


# All of the file, behind the prefix, has a place


def fpn():
    return FPN(TimmBackbone("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 16, 24, 32)), out_channels=8)


def with_head():
    model = FeatureExtractor(pyramid(), [0.0] * 3, [1.0] * 3)
    model.head = nn.Linear(16, 4)
    return model


@pytest.mark.few(2)
@pytest.mark.parametrize("holder", ["", "backbone.", "detector.backbone."])
@pytest.mark.parametrize("build", [pyramid, fpn])
def test_a_pyramid_around_the_network_is_filled_with_it(tmp_path, build, holder):
    """A ViTDet's file: `backbone.net.*` and `backbone.simfp_*`; the network's names are timm's in the file alone."""
    state = {key: torch.randn_like(value) for key, value in build().state_dict().items()}
    plain = {key: re.sub(r"timm_model\.(stages_)?", lambda at: "stages." if at[1] else "", key) for key in state}
    beside = {"rpn.conv.weight": torch.ones(2, 2, 1, 1)} if holder else {}
    file = save(tmp_path, {**{holder + plain[key]: value for key, value in state.items()}, **beside})
    for model, place in ((build(), ""), (FeatureExtractor(build(), [0.0] * 3, [1.0] * 3), "backbone.")):
        report = load_checkpoint(model, file)
        assert report.coverage == report.file_coverage == 1 and report.scope == place.rstrip(".")
        assert not beside or report.left_over["rpn.conv.weight"] == f"outside {holder.rstrip('.')!r}"
        values = model.state_dict()
        assert all(torch.equal(values[place + key], value) for key, value in state.items())


def test_a_name_that_stands_inside_and_outside_the_prefix_is_not_taken_for_the_other(tmp_path):
    """The file's `head.weight` is the detector's, its `net.head.weight` the backbone's."""
    file = save(tmp_path, stored("net.stem.weight", "net.head.weight") | {"head.weight": torch.full((2,), 5.0)})
    refused(tree("body.stem.weight", "body.head.weight", "head.weight"), file)
    model = tree("body.stem.weight", "body.head.weight", "head.weight")
    load_checkpoint(model, file, rename={"^net": "body"})
    assert model.body.head.weight.tolist() == [1, 1] and model.head.weight.tolist() == [5, 5]


def test_a_prefix_that_is_given_is_all_that_is_read(tmp_path):
    state = {f"backbone.{key.replace('timm_model.', '')}": value for key, value in pyramid().state_dict().items()}
    report = load_checkpoint(pyramid(), save(tmp_path, state), prefix="backbone.net")
    assert (report.prefix, report.scope, report.coverage) == ("backbone.net.", "net.timm_model", 1)
    assert len(report.before_maps) == sum("simfp" in key for key in state)


@pytest.mark.parametrize("other", ["second", "head.first"])
def test_two_networks_are_told_apart_by_prefix_though_the_first_fills_the_model(tmp_path, other):
    state = {key: torch.randn_like(value) for key, value in nn.Conv2d(3, 4, 3).state_dict().items()}
    file = save(tmp_path, state | {f"{other}.{key}": value + 1 for key, value in state.items()})
    error = str(refused(nn.Conv2d(3, 4, 3), file))
    assert f"it holds 2 networks that fit: '', '{other}'. Say which: prefix='...'." in error
    load_checkpoint(model := nn.Conv2d(3, 4, 3), file, prefix=other)
    assert torch.equal(model.weight, state["weight"] + 1)


def test_a_detector_around_a_network_of_timm_is_filled_with_it(tmp_path):
    state = {key: torch.randn_like(value) for key, value in with_head().state_dict().items() if "pixel" not in key}
    file = save(tmp_path, {key.replace("timm_model.", ""): value for key, value in state.items()})
    report = load_checkpoint(model := with_head(), file)
    assert report.coverage == 1 and all(torch.equal(model.state_dict()[key], value) for key, value in state.items())


@pytest.mark.few(2)
@pytest.mark.parametrize("fault", ["lost", "renamed", "of another shape", "one more"])
@pytest.mark.parametrize("build", [pyramid, fpn])
def test_half_a_pyramid_is_not_left_out(tmp_path, build, fault):
    state = {f"backbone.{key.replace('timm_model.', '')}": value for key, value in build().state_dict().items()}
    key = next(key for key in state if re.search(r"simfp_\d\.\d\.weight|fpn_output", key))
    value = state[key] if fault == "one more" else state.pop(key)
    if fault != "lost":
        new = {
            "renamed": f"{key}_of_another",
            "of another shape": key,
            "one more": re.sub(r"_(\w*?)\d", r"_\g<1>9", key),
        }
        state[new[fault]] = value[:3] if fault == "of another shape" else value
    refused(build(), save(tmp_path, state))


@pytest.mark.few(1)
@pytest.mark.parametrize(
    "kwargs",
    [{"init_values": 0.3}, {"qk_norm": True}, {"depth": 5}, {"proj_bias": True, "scale_mlp_norm": True}],
    ids=str,
)
def test_parts_of_blocks_that_the_model_lacks_are_no_leftovers(tmp_path, kwargs):
    more = vit(**kwargs)
    error = refused(our_vit(), save(tmp_path, more))
    assert "of another architecture: the model has no place for" in str(error)
    assert set(error.report.unplaced) >= {key for key in more if key not in vit()}
    first, *others = error.report.unplaced
    assert f"no place for 1 tensor of the network that the file holds: {first}." in str(
        refused(our_vit(), save(tmp_path, more), allow_unused=others)
    )
    report = load_checkpoint(our_vit(), save(tmp_path, more), allow_unused=error.report.unplaced)
    assert report.coverage == 1 > report.file_coverage


def test_no_hint_allows_another_architecture(tmp_path):
    renamed = {key.replace("norm1", "norm9"): value for key, value in vit().items()}
    error = refused(our_vit(), save(tmp_path, renamed))
    assert len(error.report.unplaced) == len(error.report.missing) == 8 and "allow_missing" not in str(error)


@pytest.mark.parametrize(
    ("own", "more", "unplaced"),
    [
        (("layer1.fc.weight", "layer2.fc.weight"), "layer3.fc.weight", True),  # one more of a row
        (("stem.conv.weight", "body.conv.weight"), "stem.more.conv.weight", True),  # more in a module
        (("blocks.0.norm.weight", "blocks.1.norm.weight"), "blocks.2.norm.weight", True),  # a deeper ViT
        (("stages.0.0.conv.weight", "stages.1.0.conv.weight"), "stages.2.0.conv.weight", False),  # a cut ResNet
        (("stages.0.0.conv.weight", "stages.1.0.conv.weight"), "stages.1.1.conv.weight", True),  # a deeper one
        (("stages.0.blocks.0.conv.weight", "stages.1.blocks.0.conv.weight"), "stages.2.blocks.0.conv.weight", False),
        (("stages.0.blocks.0.conv.weight", "stages.1.blocks.0.conv.weight"), "stages.1.blocks.1.conv.weight", True),
        (("stem.conv.weight", "body.conv.weight"), "head.more.conv.weight", False),  # another network
    ],
)
def test_what_is_of_the_network_and_what_is_beside_it(tmp_path, own, more, unplaced):
    file = save(tmp_path, stored(*own, more))
    if unplaced:
        assert refused(tree(*own), file).report.unplaced == [more]
    else:
        assert load_checkpoint(tree(*own), file).file_coverage == 1


def test_register_tokens_are_no_leftover(tmp_path):
    error = refused(our_vit(), save(tmp_path, vit() | {"reg_token": torch.ones(1, 4, 64)}))
    assert error.report.unplaced == ["reg_token"]


@pytest.mark.parametrize("part", ["qkv.lora_A", "q_bias", "se.fc1.weight"])
def test_adapters_and_biases_in_the_file_are_no_leftovers(tmp_path, part):
    file = save(tmp_path, vit() | {f"blocks.{at}.attn.{part}": torch.ones(4, 64) for at in range(4)})
    assert len(refused(our_vit(), file).report.unplaced) == 4


def test_integers_and_what_the_model_computes_need_no_place(tmp_path):
    more = {"blocks.0.attn.relative_position_index": torch.zeros(4, 4), "blocks.0.attn.table": torch.tensor([3])}
    assert load_checkpoint(our_vit(), save(tmp_path, vit() | more)).file_coverage == 1


def test_a_network_that_is_cut_on_purpose_takes_the_whole_file(tmp_path):
    net = TimmBackbone(NAME, out_indices=(0,), **VIT)
    report = load_checkpoint(net, save(tmp_path, vit()))
    behind = [key for key, why in report.left_over.items() if why == "after the last feature map of the model"]
    assert {key.split(".")[1] for key in behind} == {"1", "2", "3"}
    deeper = save(tmp_path, vit(depth=5))
    assert all(key.startswith("blocks.4.") for key in refused(net, deeper).report.unplaced)


@pytest.mark.parametrize("name", ["convnext_atto", "regnetx_002", "resnet10t", "mobilenetv3_small_050"])
def test_so_does_one_of_timms_own_that_can_not_say_what_it_was_cut_from(name):
    """Its stages are `stages.N.blocks.M`, `sN.bM`, `layerN.M`, `blocks.N.M`."""
    with torch.device("meta"):
        cut, whole = timm_network(name, features_only=True, out_indices=(0, 1)), timm_network(name)
    assert try_load(cut, shapes_of(whole)).file_coverage == 1


def test_another_network_beside_it_has_a_reason(tmp_path):
    file = {f"backbone.{key}": value for key, value in empty().state_dict().items()}
    report = load_checkpoint(empty(), save(tmp_path, file | {"head.tower.0.weight": torch.ones(3)}))
    assert report.left_over["head.tower.0.weight"] == "outside 'backbone'"


@pytest.mark.parametrize("chunks", [1, 2])
def test_blocks_in_chunks_are_numbered_through(tmp_path, chunks):
    """DINOv2's trainer: `backbone.blocks.0.1`; in two chunks the last two blocks are `blocks.1.2` and `blocks.1.3`."""
    state = vit(depth=4)

    def place(found):
        return f"blocks.{int(found[1]) * chunks // 4}.{found[1]}."

    file = save(
        tmp_path, {"teacher": {"backbone." + re.sub(r"^blocks\.(\d)\.", place, k): v for k, v in state.items()}}
    )
    model = our_vit()
    report = load_checkpoint(model, file)
    assert (report.coverage, report.scope, report.prefix) == (1, "timm_model.model", "backbone.")
    loaded = model.timm_model.model.state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in loaded)


def test_blocks_of_blocks_that_the_model_has_are_no_chunks():
    assert clean_names(["blocks.0.1.w"], {"blocks.0.1.w", "blocks.1.w"})[0] == {"blocks.0.1.w": "blocks.0.1.w"}


# What stays random


def test_what_stays_random_is_named(tmp_path):
    model = nn.ModuleDict({"backbone": empty(), "neck": nn.Conv2d(8, 4, 1), "head": nn.Linear(2, 2)})
    report = load_checkpoint(model, save(tmp_path, empty().state_dict()))
    text = " ".join(str(report).split())
    assert "loaded 100 of 100 of model.backbone; 4 of 104 of the model keep random values: neck (2), head (2)" in text
    assert "WARNING" not in text and report.before_maps == []
    assert report.to_dict()["outside"] == ["neck.weight", "neck.bias", "head.weight", "head.bias"]


def test_a_random_pyramid_is_a_warning(tmp_path, caplog):
    model = nn.ModuleDict({"backbone": pyramid(), "head": nn.Linear(2, 2)})
    report = load_checkpoint(model, save(tmp_path, vit()))
    assert report.before_maps and all(key.startswith("backbone.simfp_") for key in report.before_maps)
    assert {key.partition(".")[0] for key in report.random} == {"backbone", "head"}
    assert "keep random values: the maps are noise" in " ".join(str(report).split())
    assert "between the backbone and its maps, backbone.simfp_3" in caplog.text


@pytest.mark.slow
def test_features_of_a_random_pyramid_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save(tmp_path, timm.create_model("test_vit").state_dict(), "vit.pth")
    command = ["features", "resnet/resnet50.py", "backbone=timm/test_vit", "train.init_checkpoint=vit.pth"]
    assert main(command) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert (
        "these maps would be noise. The network's own map, without a pyramid: backbone.pyramid=false. Or allow it:"
        in error
    )
    assert not list(tmp_path.glob("output/*"))
    assert main(["export", *command[1:2], "vit.onnx", *command[2:]]) == 1
    assert main([*command, "backbone.pyramid=false"]) == 0
    assert "p5" in capsys.readouterr().out


def test_a_random_pyramid_can_be_allowed(tmp_path):
    report = load_checkpoint(FeatureExtractor(pyramid(), [0.0] * 3, [1.0] * 3), save(tmp_path, vit()))
    with pytest.raises(CheckpointMatchError, match=r"these maps would be noise\. Or allow it") as caught:
        check_random_maps(report)
    globs = re.findall(r"'(\S*?)'", str(caught.value).partition("allow_missing=")[2])
    check_random_maps(report, globs)
    with pytest.raises(CheckpointMatchError, match=r"no weights for backbone\.simfp_\d \(\d+\) of the model"):
        check_random_maps(report, globs[1:])


# Names that the model has


def test_names_of_the_models_own_are_not_set_aside(tmp_path):
    model = AveragedModel(empty())
    model.n_averaged.fill_(3)
    file = save(tmp_path, model.state_dict())
    resumed = AveragedModel(empty())
    report = load_checkpoint(resumed, file)
    assert int(resumed.n_averaged) == 3 and report.left_over == {} and report.scope == ""
    assert load_checkpoint(empty(), file).left_over["n_averaged"] == "bookkeeping"


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("name", ["queue", "steps", "student.weight", "encoder_k.weight", "head.weight_momentum"])
def test_a_name_is_set_aside_only_if_the_model_lacks_it(prefix, name):
    keys = [f"{prefix}{name}", f"{prefix}teacher.weight"]
    assert clean_names(keys)[1].keys() == {keys[0]}
    own = {name, keys[0], "weight"} if name.endswith("_momentum") else {name, "weight"}
    assert clean_names(keys, own)[1] == {}


# Hints


def test_a_hint_allows_nothing_but_what_is_missing(tmp_path):
    state = vit()
    gone = [key for key in state if "blocks.2." in key or key.endswith("attn.proj.bias")]
    file = save(tmp_path, {key: value for key, value in state.items() if key not in gone})
    error = refused(our_vit(), file)
    globs = re.findall(r"'([^']+)'", re.search(r"allow_missing=\[(.*?)\]\.", str(error))[1])
    assert globs == ["timm_model.model.blocks.*.attn.proj.bias", "timm_model.model.blocks.2.*"]
    assert len(load_checkpoint(our_vit(), file, allow_missing=globs).missing) == len(gone)
    less = save(tmp_path, {key: value for key, value in state.items() if key not in [*gone, "blocks.3.norm1.weight"]})
    assert "1 is not in the file: timm_model.model.blocks.3.norm1.weight" in str(
        refused(our_vit(), less, allow_missing=globs)
    )


@pytest.mark.parametrize(
    ("keys", "others", "globs"),
    [
        (["a.x", "a.y"], ["b.x"], ["a.*"]),
        (["a.x", "a.y"], ["a.z"], ["a.x", "a.y"]),
        (["a.0.x", "a.1.x"], ["a.0.y"], ["a.*.x"]),
        (["a.0.x", "a.1.x"], ["a.2.x"], ["a.0.x", "a.1.x"]),
        (["a.0.x", "a.1.x"], ["a.0.b.x"], ["a.0.x", "a.1.x"]),
        (["a.0.x", "a.1.x"], ["b", "a.2.x"], ["a.0.x", "a.1.x"]),
        (["a.x"], [], ["a.x"]),
        (["a[0].x"], ["a0.x"], ["a[[]0].x"]),
        ([f"{letter}.x" for letter in "abcdefghi"], ["z"], []),
    ],
)
def test_the_fewest_globs(keys, others, globs):
    found = fewest_globs(keys, others)
    assert found == globs
    assert not any(is_allowed(other, found) for other in others)
    assert not found or all(is_allowed(key, found) for key in keys)


def test_the_question_which_network_is_whole_is_asked_only_if_need_be():
    def asked():
        raise AssertionError

    (reading, *_) = readings({"a.weight": torch.ones(2), "head.weight": torch.ones(2)})
    for entry in reading.entries:
        entry.model_key = entry.ours if entry.ours == "a.weight" else ""
        if entry.model_key:
            entry.set(type(entry.status).LOADED)
    explain_leftovers(reading, asked)


def test_shapes_alone_are_enough():
    model = our_vit()
    assert try_load(model, shapes_of(timm.create_model(NAME, **VIT))).coverage == 1
    with pytest.raises(CheckpointMatchError):
        try_load(model, shapes_of(timm.create_model(NAME, **{**VIT, "depth": 3})))


@pytest.mark.parametrize("name", ["swin", "convnext", "focalnet"])
def test_a_norm_in_a_block_is_no_norm_of_a_map(name):
    """A detector's `norm1` starts anew; the `norm1` of a block must be in the file."""
    kept = conventions()[name].why_kept
    assert kept("norm1.weight") and kept("backbone.norm1.weight")
    assert not kept("layers.2.blocks.3.norm1.weight") and not kept("timm_model.layers_2.blocks.3.norm1.weight")
