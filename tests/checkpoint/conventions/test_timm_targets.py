"""RegNet, Darknet-53, VGG-16, ResNeSt and Res2Net under everybody's names, into timm's networks."""

import pytest
import torch
import torchvision

from detrex_backbones.errors import CheckpointMatchError, PreprocessingError
from tests.checkpoint.conventions.files import assert_same, load, prefixed, write_mmengine, write_torch
from tests.checkpoint.conventions.nets import (
    IMAGE,
    MMDET_REGNET,
    MMDET_STEM,
    MMPRETRAIN_STEM,
    NO_FIRST_POOL,
    PYCLS,
    TORCHVISION_TO_PYCLS,
    maps_of,
    our_resnet,
    our_timm,
    rename,
    shift,
    timm_maps,
    timm_plain,
)
from tests.reference import noise, randomise_norms, torchvision_net

MAPS = {"out_indices": (1, 2, 3, 4)}


def check(name, plain, path, image=IMAGE, **kwargs):
    """Load a file into timm's network, and compare its maps with those of the plain one."""
    indices = {"out_indices": kwargs.pop("out_indices", (1, 2, 3, 4))}
    model = our_timm(name, **indices)
    report = load(model, path, **kwargs)
    assert_same(list(maps_of(model, image).values()), timm_maps(plain, name, image, **indices))
    return report


@pytest.mark.parametrize("name", ["regnetx_002", "regnety_002"])
def test_pycls(name, tmp_path):
    plain = timm_plain(name)
    file = {"epoch": 1, "model_state": rename(plain.state_dict(), PYCLS), "optimizer_state": {}, "cfg": "MODEL: {}"}
    report = check(name, plain, write_torch(tmp_path / "file.pyth", file))
    assert (report.source, report.container) == ("pycls", "model_state")
    assert "BGR" in report.lookalikes and "flipped" in report.lookalikes
    assert report.left_over["head.fc.weight"] == "head"


def test_regnet_of_detectron2(tmp_path):
    """It has pycls' names, behind the prefix of a detector."""
    plain = timm_plain("regnetx_002")
    state = {key: value for key, value in rename(plain.state_dict(), PYCLS).items() if not key.startswith("head.")}
    file = {**prefixed(state, "backbone.bottom_up."), "backbone.fpn_lateral2.weight": torch.ones(1)}
    report = check("regnetx_002", plain, write_torch(tmp_path / "file.pth", {"model": file}), source="detectron2")
    assert (report.source, report.prefix) == ("pycls", "backbone.bottom_up.")


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_mmdet_regnet(prefix, tmp_path):
    plain = timm_plain("regnetx_002")
    state = shift(plain.state_dict(), r"^(s\d)\.b(\d+)\.", "{}.{}.", by=-1)
    state = prefixed(rename(state, MMDET_REGNET), prefix)
    report = check("regnetx_002", plain, write_mmengine(tmp_path / "file.pth", state))
    assert report.source == "mmdet-regnet" and "BGR" in report.lookalikes


def test_mmdet_regnet_into_a_resnet_is_refused(tmp_path):
    state = shift(timm_plain("regnetx_002").state_dict(), r"^(s\d)\.b(\d+)\.", "{}.{}.", by=-1)
    with pytest.raises(CheckpointMatchError, match="not for this model"):
        load(our_resnet(50), write_torch(tmp_path / "file.pth", rename(state, MMDET_REGNET)))


def torchvision_regnet(name):
    torch.manual_seed(0)
    net = randomise_norms(getattr(torchvision.models, name)(weights=None)).eval()
    maps = []
    with torch.no_grad():
        value = net.stem(IMAGE)
        for stage in net.trunk_output:
            value = stage(value)
            maps.append(value)
    return net, maps


@pytest.mark.parametrize(("theirs", "name"), [("regnet_x_800mf", "regnetx_008"), ("regnet_y_400mf", "regnety_004")])
def test_torchvision_regnet(theirs, name, tmp_path):
    net, maps = torchvision_regnet(theirs)
    model = our_timm(name, **MAPS)
    report = load(model, write_torch(tmp_path / "file.pth", net.state_dict()), source="torchvision")
    assert report.source == "torchvision-regnet"
    assert_same(list(maps_of(model).values()), maps)


def test_torchvision_regnet_that_is_wider_is_refused(tmp_path):
    net, _ = torchvision_regnet("regnet_x_400mf")
    with pytest.raises(CheckpointMatchError, match="another shape"):
        load(our_timm("regnetx_004", **MAPS), write_torch(tmp_path / "file.pth", net.state_dict()))


def test_pycls_and_torchvision_name_the_same_network(tmp_path):
    """torchvision's numbers prove the table of pycls too: no reference of pycls is on a package index."""
    net, maps = torchvision_regnet("regnet_y_400mf")
    state = shift(net.state_dict(), r"^trunk_output\.block(\d)\.block\d-(\d+)\.", "s{}.b{}.", by=1)
    state = rename(state, [*TORCHVISION_TO_PYCLS, (r"\.se\.fc1\.", ".se.f_ex.0."), (r"\.se\.fc2\.", ".se.f_ex.2.")])
    model = our_timm("regnety_004", **MAPS)
    assert load(model, write_torch(tmp_path / "file.pyth", {"model_state": state})).source == "pycls"
    assert_same(list(maps_of(model).values()), maps)


def test_mmdet_darknet(tmp_path):
    plain = timm_plain("darknet53")
    state = shift(plain.state_dict(), r"^stages()\.(\d)\.", "conv_res_block{}{}.", by=1)
    rules = [(r"^stem\.", ""), (r"\.conv_down\.", ".conv."), (r"\.blocks\.(\d+)\.", r".res\1.")]
    state = {key: value for key, value in rename(state, rules).items() if not key.startswith("head.")}
    assert len(state) == 312
    file = {**prefixed(state, "backbone."), "bbox_head.convs_pred.0.weight": torch.ones(1)}
    report = check("darknet53", plain, write_mmengine(tmp_path / "file.pth", file), out_indices=(0, 1, 2, 3, 4, 5))
    assert report.source == "mmdet-darknet"
    assert "LeakyReLU(0.1)" in report.lookalikes
    assert report.left_over == {"bbox_head.convs_pred.0.weight": "outside 'backbone'"}


def ssd_state(plain):
    state = {key: value for key, value in plain.state_dict().items() if key.startswith("features.")}
    for index, shape in ((31, (1024, 512, 3, 3)), (33, (1024, 1024, 1, 1))):
        state |= {f"features.{index}.weight": torch.ones(shape), f"features.{index}.bias": torch.ones(shape[0])}
    return state


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_mmdet_ssd(prefix, tmp_path):
    torch.manual_seed(0)
    plain = torchvision.models.vgg16(weights=None).eval()
    state = prefixed(ssd_state(plain), prefix)
    assert len(state) == 30
    more = {"neck.l2_norm.weight": torch.ones(512)} if prefix else {}
    image = noise(1, 3, 64, 96)
    model = our_timm("vgg16", out_indices=(0, 1, 2, 3, 4))
    report = load(model, write_mmengine(tmp_path / "file.pth", {**state, **more}), source="mmdet")
    assert report.source == "mmdet-ssd" and "ceil_mode" in report.lookalikes
    assert report.left_over[f"{prefix}features.31.weight"].startswith("fc6")
    with torch.no_grad():
        theirs = [plain.features[: index + 1](image) for index in (3, 8, 15, 22, 29)]
        assert_same(list(model(image).values()), theirs)


@pytest.mark.parametrize(
    ("source", "rules"),
    [("mmdet-resnest", MMDET_STEM), ("mmpretrain-resnest", [*MMPRETRAIN_STEM, *NO_FIRST_POOL]), ("timm-resnest", [])],
)
def test_resnest(source, rules, tmp_path):
    plain = timm_plain("resnest14d")
    path = write_torch(tmp_path / "file.pth", rename(plain.state_dict(), rules))
    report = check("resnest14d", plain, path, source=source)
    assert set(report.left_over.values()) <= {"head", "batch counter"}


def test_resnest_of_detectron2s_fork(tmp_path):
    plain = timm_plain("resnest14d")
    state = shift(plain.state_dict(), r"^layer()(\d)\.", "res{}{}.", by=1)
    stem = [
        (r"^conv1\.0\.", "stem.conv1_1."),
        (r"^conv1\.1\.", "stem.conv1_1.norm."),
        (r"^conv1\.3\.", "stem.conv1_2."),
    ]
    stem += [
        (r"^conv1\.4\.", "stem.conv1_2.norm."),
        (r"^conv1\.6\.", "stem.conv1_3."),
        (r"^bn1\.", "stem.conv1_3.norm."),
    ]
    blocks = [(r"^(res\d\.\d+)\.bn([13])\.", r"\1.conv\2.norm."), (r"\.downsample\.1\.", ".shortcut.")]
    blocks += [(r"\.downsample\.2\.", ".shortcut.norm."), (r"^fc\.", "linear.")]
    path = write_torch(tmp_path / "file.pth", {"model": rename(state, [*stem, *blocks])})
    assert check("resnest14d", plain, path).source == "detectron2-resnest"


def test_res2net_of_openmmlab(tmp_path):
    plain = timm_plain("res2net50d")
    path = write_torch(tmp_path / "file.pth", {"state_dict": rename(plain.state_dict(), MMDET_STEM)})
    # Its first block has no pool, where timm's has one: see tests/backbones for the values.
    with pytest.raises(PreprocessingError, match="stride1_pool=false"):
        load(our_timm("res2net50d"), path)
    assert load(our_timm("res2net50d", stride1_pool=False), path).source == "mmdet-res2net"


def test_cadene_is_not_interchangeable_with_gluon(tmp_path):
    plain = timm_plain("legacy_seresnet18")
    path = write_torch(tmp_path / "file.pth", plain.state_dict())
    report = check("legacy_seresnet18", plain, path)
    assert "not interchangeable" in report.lookalikes
    with pytest.raises(CheckpointMatchError):
        load(our_resnet(se_reduction=16), path)


def test_torchvision_names_are_timms(tmp_path):
    plain = torchvision_net("resnet18")
    report = check("resnet18", plain, write_torch(tmp_path / "file.pth", plain.state_dict()))
    assert report.source == "as stored"
    assert report.left_over["fc.weight"] == "head"
