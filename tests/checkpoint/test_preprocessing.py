"""What weights silently assume, compared with what the model does."""

import functools
import logging

import pytest
import timm
import torch
import torchvision

from detrex_backbones import (
    BasicStem,
    FeatureExtractor,
    LazyConfig,
    ResNet,
    TimmBackbone,
    TorchvisionBackbone,
    build_model,
    get_config,
    instantiate,
    load_checkpoint,
    make_stage,
)
from detrex_backbones.checkpoint.fetch import find_known
from detrex_backbones.checkpoint.match.published import parts_of, traits_of_weight
from detrex_backbones.checkpoint.match.traits import _torchvision_mends as torchvision_mends
from detrex_backbones.checkpoint.match.traits import compare_traits, traits_of
from detrex_backbones.checkpoint.names.conventions import conventions
from detrex_backbones.errors import ArgumentError, PreprocessingError
from tests.checkpoint.nets import empty, theirs, weights

RGB = {
    "pixel_mean": [123.675, 116.28, 103.53],
    "pixel_std": [58.395, 57.12, 57.375],
    "input_format": "RGB",
}
BGR = {"pixel_mean": [103.53, 116.28, 123.675], "pixel_std": [1.0, 1.0, 1.0], "input_format": "BGR"}


def extractor(preprocessing=RGB, depth=50, **stages):
    return FeatureExtractor(empty(depth, **stages), **preprocessing)


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """A file with the name that torchvision gives its ResNet-50 V2."""
    path = tmp_path_factory.mktemp("known") / "resnet50-11ad3fa6.pth"
    torch.save(weights("resnet50"), path)
    return path


def test_traits_are_read_off_the_modules():
    assert traits_of(extractor(), "backbone") == {
        **RGB,
        "stride_in_1x1": False,
        "norm_eps": 1e-5,
        "shortcut": "conv1x1",
        "padding": "symmetric",
        "weight_standardization": False,
    } | {
        "pixel_mean": pytest.approx(RGB["pixel_mean"]),
        "pixel_std": pytest.approx(RGB["pixel_std"]),
    }
    assert traits_of(empty(50, stride_in_1x1=True))["stride_in_1x1"] is True
    assert traits_of(empty(18)).keys() == {"norm_eps", "shortcut", "padding", "weight_standardization"}
    for style in ("detectron2", "torchvision"):
        assert traits_of(empty(50, res5_dilation=2, dilation_style=style))["dilation_style"] == style


def test_rounded_numbers_are_the_same_preprocessing_and_others_are_not():
    assert compare_traits(RGB, {**RGB, "pixel_mean": [123.7, 116.3, 103.5]}) == {}
    different = compare_traits(RGB, {**RGB, "pixel_std": [57.375, 57.12, 58.395]})
    assert different == {"pixel_std": (RGB["pixel_std"], [57.375, 57.12, 58.395])}
    assert compare_traits({}, BGR) == compare_traits(RGB, {}) == {}


def test_a_known_file_that_agrees_loads(known):
    assert load_checkpoint(extractor(), known).coverage == 1


def test_a_known_file_that_contradicts_is_an_error_with_the_overrides_that_mend_it(known):
    model = extractor(BGR, stride_in_1x1=True)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(PreprocessingError) as caught:
        load_checkpoint(model, known)
    text = str(caught.value)
    assert text.startswith(
        "torchvision://resnet50-v2 expects pixel_mean=[123.675,116.28,103.53] (the model has [103.53,"
    )
    overrides = text.partition("Fix it with:\n")[2].split()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    # The text is the override line: applied to the config, the file loads.
    cfg = get_config("resnet/resnet50.py")
    LazyConfig.apply_overrides(cfg, ["model.pixel_mean=[103.53,116.28,123.675]", "model.pixel_std=[1,1,1]"])
    LazyConfig.apply_overrides(cfg, ["model.input_format=BGR", "model.backbone.stages.stride_in_1x1=true"])
    LazyConfig.apply_overrides(cfg, ["train.device=cpu", f"train.init_checkpoint={known}"])
    with pytest.raises(PreprocessingError):
        build_model(cfg)
    built = build_model(LazyConfig.apply_overrides(cfg, overrides))
    assert torch.equal(built.backbone.stem.conv1.weight, theirs("resnet50").conv1.weight)


@pytest.mark.parametrize("eps", [1e-3, 1e-6, 1.1e-5])
def test_norms_of_another_eps_are_an_error(known, eps):
    model = extractor()
    for module in model.modules():
        if hasattr(module, "running_mean"):
            module.eps = eps
    with pytest.raises(PreprocessingError, match="norm_eps=1e-05"):
        load_checkpoint(model, known)


def test_the_override_names_the_place_of_the_backbone_within_an_fpn(known):
    detector = extractor(stride_in_1x1=True)
    pyramid = torch.nn.Module()
    pyramid.bottom_up, detector.backbone = detector.backbone, pyramid
    with pytest.raises(PreprocessingError, match=r"model\.backbone\.bottom_up\.stages\.stride_in_1x1=false"):
        load_checkpoint(detector, known)


def detector(*overrides):
    """torchvision's RetinaNet over our FPN, whose transform holds mean and deviation."""
    cfg = get_config("detectors/retinanet_resnet50_fpn.py")
    return instantiate(LazyConfig.apply_overrides(cfg, list(overrides)).model)


def test_torchvisions_detectors_are_held_to_it_too(known):
    load_checkpoint(detector(), known)
    wrong = ["model.image_mean=[0.5,0.5,0.5]", "model.image_std=[0.5,0.5,0.5]", "model.backbone.input_format=BGR"]
    with pytest.raises(PreprocessingError) as caught:
        load_checkpoint(detector(*wrong), known)
    mends = str(caught.value).partition("Fix it with:\n")[2].split()
    assert [mend.partition("=")[0] for mend in mends] == [wrong_one.partition("=")[0] for wrong_one in wrong]
    load_checkpoint(detector(*wrong, *mends), known)


def test_weights_for_bgr_turn_the_numbers_of_a_torchvision_detector():
    """The FPN turns the channels round after the transform, whose numbers stay in RGB."""
    model = detector("model.backbone.input_format=BGR", "model.image_mean=[0.1,0.2,0.3]")
    assert traits_of(model, "backbone.bottom_up")["pixel_mean"] == pytest.approx([76.5, 51, 25.5])
    mends = torchvision_mends({"pixel_mean": (BGR["pixel_mean"], []), "input_format": ("BGR", "RGB")}, RGB)
    assert mends["model.image_mean"] == pytest.approx([0.485, 0.456, 0.406])
    assert mends["model.backbone.input_format"] == "BGR"


def test_the_check_can_be_a_warning_or_off(known, caplog):
    with caplog.at_level(logging.WARNING):
        load_checkpoint(extractor(BGR), known, check_preprocessing="off")
        assert caplog.records == []
        load_checkpoint(extractor(BGR), known, check_preprocessing="warn")
    assert "Fix it with:\n    model.pixel_mean=" in caplog.text
    with pytest.raises(ArgumentError, match=r"check_preprocessing='of' is not known\. Allowed: error, warn, off\."):
        load_checkpoint(extractor(), known, check_preprocessing="of")


def test_a_convention_that_suggests_something_else_is_a_warning(tmp_path, caplog):
    path = tmp_path / "mine.pth"
    torch.save(weights(), path)
    with caplog.at_level(logging.WARNING):
        load_checkpoint(extractor(depth=18), path)
        assert caplog.records == []
        load_checkpoint(extractor(BGR, depth=18), path)
    assert "files in torchvision's names usually expect" in caplog.text
    assert "model.input_format=RGB" in caplog.text


def test_nothing_is_suggested_for_images_of_other_channels(tmp_path, caplog):
    torch.save(weights(), tmp_path / "mine.pth")
    net = empty(18)
    net.stem.conv1.weight = torch.nn.Parameter(torch.ones(64, 4, 7, 7))
    with caplog.at_level(logging.WARNING):
        load_checkpoint(FeatureExtractor(net, [1.0] * 4, [1.0] * 4), tmp_path / "mine.pth", stem_adapt="repeat")
    assert caplog.records == []


@functools.cache
def state_of_timms(name):
    return timm.create_model(name).state_dict()


def save_timm(name, path):
    torch.save(state_of_timms(name), path)
    return path


@pytest.mark.parametrize(
    ("name", "shortcut", "other"), [("resnet50d", "avg_pool", "conv1x1"), ("resnet50c", "conv1x1", "avg_pool")]
)
def test_names_that_prove_another_shortcut_are_an_error(tmp_path, name, shortcut, other):
    """In our names both kinds are the same; in timm's the convolution behind a pool is the second of its Sequential."""
    path = save_timm(name, tmp_path / "mine.pth")
    cfg = LazyConfig.apply_overrides(get_config("gluon/resnet50_v1c.py"), ["train.device=cpu"])
    cfg.train.init_checkpoint = str(path)
    cfg.model.backbone.stages.shortcut = other
    with pytest.raises(PreprocessingError, match=rf"expects? shortcut={shortcut} \(the model has {other}\)") as caught:
        build_model(cfg)
    override = str(caught.value).partition("Fix it with:\n")[2].strip()
    assert override == f"model.backbone.stages.shortcut={shortcut}"
    build_model(LazyConfig.apply_overrides(cfg, [override]))


TF, PLAIN = "tf_efficientnet_b0_aa-827b6e33.pth", "efficientnet_b0_ra-3dd342df.pth"


@pytest.mark.parametrize(
    ("network", "file", "wrong"),
    [("tf_efficientnet_b0", TF, "efficientnet_b0"), ("efficientnet_b0", PLAIN, "tf_efficientnet_b0")],
)
def test_padding_and_eps_of_timms_files_are_those_of_their_network(tmp_path, network, file, wrong):
    """Their names are the same: TensorFlow's EfficientNets pad otherwise, and have another eps."""
    path = save_timm(network, tmp_path / file)
    cfg = LazyConfig.apply_overrides(get_config("timm/resnet152d.py"), ["train.device=cpu"])
    cfg.train.init_checkpoint = str(path)
    cfg.model.backbone.model_name = wrong
    with pytest.raises(PreprocessingError, match=r"norm_eps=.*padding=(same|symmetric) \(the model has") as caught:
        build_model(cfg)
    overrides = str(caught.value).partition("Fix it with:\n")[2].split()
    assert overrides == [f"model.backbone.model_name={network}"]
    build_model(LazyConfig.apply_overrides(cfg, overrides))


def test_each_of_padding_and_eps_is_held_to(tmp_path):
    path = save_timm("tf_efficientnet_b0", tmp_path / TF)
    model = TimmBackbone("efficientnet_b0", bn_eps=1e-3)
    with pytest.raises(PreprocessingError, match=r"expects? padding=same") as caught:
        load_checkpoint(model, path)
    assert "norm_eps" not in str(caught.value)
    model = TimmBackbone("efficientnet_b0", pad_type="same")
    with pytest.raises(PreprocessingError, match=r"expects? norm_eps=0.001 \(the model has 1e-05\)") as caught:
        load_checkpoint(model, path)
    assert "padding" not in str(caught.value)


def test_an_unknown_file_in_efficientnets_names_says_what_they_can_not_tell(tmp_path):
    report = load_checkpoint(TimmBackbone("efficientnet_b0"), save_timm("tf_efficientnet_b0", tmp_path / "mine.pth"))
    assert "SAME padding and norm_eps 1e-3" in report.lookalikes
    assert "the key names don't tell: TensorFlow's weights" in " ".join(str(report).split())


def mobilenet(**kwargs):
    nodes = ["features.3", "features.6", "features.12", "features.16"]
    return TorchvisionBackbone("mobilenet_v3_large", return_nodes=nodes, **kwargs)


def test_a_mobilenet_of_torchvisions_detectors_has_another_eps(tmp_path):
    net = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_fpn(weights=None, weights_backbone=None)
    path = tmp_path / "fasterrcnn_mobilenet_v3_large_fpn-fb6a3cc7.pth"
    torch.save(net.state_dict(), path)
    with pytest.raises(
        PreprocessingError, match=r"expects? norm_eps=1e-05 \(the model has 0\.001\)\. Build the network with"
    ):
        load_checkpoint(mobilenet(), path)
    load_checkpoint(mobilenet(norm_layer=functools.partial(torch.nn.BatchNorm2d, eps=1e-5)), path)
    renamed = path.rename(tmp_path / "mine.pth")
    report = load_checkpoint(mobilenet(), renamed)
    assert report.coverage == 1 and "norm_eps 1e-5, its classifiers and SSDlite with 1e-3" in report.lookalikes


def test_a_classifiers_mobilenet_is_held_to_its_own_eps(tmp_path):
    path = tmp_path / "mobilenet_v3_large-8738ca79.pth"
    torch.save(torchvision.models.mobilenet_v3_large().state_dict(), path)
    load_checkpoint(mobilenet(), path)
    with pytest.raises(PreprocessingError, match=r"expects? norm_eps=0\.001"):
        load_checkpoint(mobilenet(norm_layer=torch.nn.BatchNorm2d), path)


def test_weights_that_are_standardised_as_they_run():
    weight = find_known("open-mmlab://jhu/resnet50_gn_ws")
    assert traits_of_weight(weight)["weight_standardization"] is True
    assert traits_of(empty(50))["weight_standardization"] is False
    assert compare_traits(traits_of_weight(weight), traits_of(empty(50))) == {"weight_standardization": (True, False)}
    assert "weight_standardization" not in find_known("open-mmlab://contrib/resnet50_gn").traits
    assert parts_of(timm.create_model("resnetv2_50x1_bit").modules())["weight_standardization"] is True


@pytest.mark.parametrize("source", ["torchvision", "detectron2"])
def test_trident_networks_are_named(source):
    assert "TridentNet (three branches of dilated convolutions)" in conventions()[source].lookalikes


@pytest.mark.parametrize("name", ["off", "allow_missing"])
def test_no_hint_switches_the_check_off(known, name):
    with pytest.raises(PreprocessingError) as caught:
        load_checkpoint(extractor(BGR), known)
    assert name not in str(caught.value)


def test_where_the_stride_is_is_read_off_networks_of_timm_and_torchvision_too(tmp_path):
    """detectron2's MSRA detectors, whose names fill these networks, have it in the 1x1 convolutions."""
    for net in (TimmBackbone("resnet50"), TorchvisionBackbone("resnet50")):
        assert traits_of(net, "timm_model" if isinstance(net, TimmBackbone) else "model")["stride_in_1x1"] is False
    path = tmp_path / "model_final_721ade.pkl"  # faster_rcnn_R_50_C4_1x of detectron2's zoo
    state = {f"backbone.{key}": value for key, value in empty(50, stride_in_1x1=True).state_dict().items()}
    torch.save({"model": state}, path)
    with pytest.raises(PreprocessingError, match=r"stride_in_1x1=true .*make_stage\(50, stride_in_1x1=True\)"):
        load_checkpoint(FeatureExtractor(TimmBackbone("resnet50"), **BGR), path)


def test_weights_that_are_standardised_name_the_argument():
    different = compare_traits({"weight_standardization": True}, traits_of(extractor(), "backbone"))
    assert different == {"weight_standardization": (True, False)}
    net = ResNet(BasicStem(norm="GN"), make_stage(18, norm="GN"), weight_standardization=True)
    assert traits_of(net)["weight_standardization"] is True
