"""show: receptive fields against gradients, and the picture of the stages."""

import json

import pytest
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from detrex_backbones import BasicStem, ResNet, TimmBackbone, get_config, instantiate, make_stage
from detrex_backbones.cli import main
from detrex_backbones.config import LazyCall as L
from detrex_backbones.view.receptive_field import GLOBAL, WINDOWS, follow, receptive_fields
from detrex_backbones.view.stages import stages_of
from detrex_backbones.zoo import build_on_meta, list_configs


def fields_of(node, size=(224, 224)):
    backbone = build_on_meta(node)
    backbone = getattr(backbone, "backbone", backbone).eval()
    return receptive_fields(backbone, size, {name: shape.stride for name, shape in backbone.output_shape().items()})


def reached(backbone, height, width):
    """The first and the last row of the image that have a gradient from the middle of each map, and that middle.

    All weights are positive: nothing cancels.
    """
    backbone = backbone.double().eval()
    for name, value in backbone.named_parameters():
        offsets = "offset" in name
        value.data = torch.zeros_like(value) if offsets else (0.5 + torch.rand_like(value)) / value[:1].numel()
    for name, value in backbone.named_buffers():
        if name.endswith(".weight"):  # of frozen norms, some of which begin at zero
            value.fill_(1)
    image = torch.ones(1, 3, height, width, dtype=torch.double, requires_grad=True)
    found = {}
    for name, value in backbone(image).items():
        middle = value[0, :, value.shape[2] // 2, value.shape[3] // 2].sum()
        gradient = torch.autograd.grad(middle, image, retain_graph=True)[0]
        rows = gradient[0].abs().sum(dim=(0, 2)).nonzero()
        found[name] = int(rows.min()), int(rows.max()), value.shape[2] // 2
    return found


CONVOLUTIONAL = {
    "resnet18": lambda: L(ResNet)(
        stem=get_config("resnet/resnet18").model.backbone.stem,
        stages=get_config("resnet/resnet18").model.backbone.stages,
        out_features=["res2", "res3", "res4", "res5"],
    ),
    "resnet50-dc5": lambda: get_config("resnet/resnet50_dc5_detectron2").model.backbone,
    "vgg16": lambda: L(TimmBackbone)(model_name="vgg16", out_indices=None),
    "regnetx_002": lambda: L(TimmBackbone)(model_name="regnetx_002", out_indices=None),
    "convnext": lambda: L(TimmBackbone)(model_name="convnext_atto"),
    "darknet53": lambda: get_config("darknet/darknet53").model.backbone,
    "deformable": lambda: L(ResNet)(
        stem=L(BasicStem)(norm="BN"),
        stages=L(make_stage)(depth=50, norm="BN", deform_on_per_stage=[False, False, True, True]),
        out_features=["res3", "res4", "res5"],
    ),
}


@pytest.mark.few(1)
@pytest.mark.parametrize("kind", CONVOLUTIONAL)
def test_the_receptive_field_is_what_gradients_reach(kind, monkeypatch):
    # The gradient of a maximum reaches one pixel of a window only; a mean has the same window.
    def mean(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
        return F.avg_pool2d(x, kernel_size, stride, padding, ceil_mode)

    node = CONVOLUTIONAL[kind]()
    worked_out, backbone = fields_of(node), instantiate(node)
    strides = {name: shape.stride for name, shape in backbone.output_shape().items()}
    fields = follow(build_on_meta(node).eval(), torch.empty(1, 3, 224, 224, device="meta"))[1]
    monkeypatch.setattr(F, "max_pool2d", mean)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        measured = reached(backbone, height=1280, width=32)
    assert worked_out == {name: last - first + 1 for name, (first, last, _) in measured.items()}
    lies_at = {name: (first + last) / 2 - place * strides[name] for name, (first, last, place) in measured.items()}
    assert lies_at == {name: fields[name].centre(stride) for name, stride in strides.items()}


def test_what_sees_the_whole_image():
    def of(name):
        return set(fields_of(L(TimmBackbone)(model_name=name, out_indices=None)).values())

    assert of("vit_tiny_patch16_224") == {GLOBAL}
    assert of("seresnet18") - {7} == {GLOBAL}
    swin = fields_of(L(TimmBackbone)(model_name="swin_tiny_patch4_window7_224"))
    assert [*swin.values()] == [WINDOWS, WINDOWS, WINDOWS, GLOBAL]  # 7 x 7 positions are one window


def test_show_has_them(capsys):
    assert main(["show", "resnet/resnet50.py", "--json"]) == 0
    maps = json.loads(capsys.readouterr().out)["maps"]
    assert [row["receptive_field"] for row in maps] == [35, 91, 267, 427]
    assert main(["show", "resnet/resnet50.py"]) == 0
    out = capsys.readouterr().out
    assert "receptive field" in out and max(map(len, out.splitlines())) <= 80


def test_stages_are_those_of_the_network():
    stages = stages_of(build_on_meta(get_config("resnet/resnet50").model.backbone).eval(), 3, (128, 192))
    assert [(stage.name, stage.blocks, stage.shape, stage.source, stage.maps) for stage in stages] == [
        ("stem", 0, (64, 32, 48), -1, []),
        ("res2", 3, (256, 32, 48), 0, ["res2"]),
        ("res3", 4, (512, 16, 24), 1, ["res3"]),
        ("res4", 6, (1024, 8, 12), 2, ["res4"]),
        ("res5", 3, (2048, 4, 6), 3, ["res5"]),
    ]


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_picture(suffix, tmp_path, capsys):
    file = tmp_path / f"stages.{suffix}"
    assert main(["show", "resnet/resnet18.py", "--graph", str(file)]) == 0
    assert file.read_bytes().startswith(b"\x89PNG" if suffix == "png" else b"<?xml")
    assert f"wrote {file}" in capsys.readouterr().err
    if suffix == "svg":
        text = file.read_text()
        assert all(f"<!-- {name} -->" in text for name in ("stem", "res2", "res5"))


def test_bad_files_are_refused(tmp_path, capsys):
    assert main(["show", "resnet/resnet18.py", "--graph", str(tmp_path / "a.gif")]) == 1
    assert ".png or .svg" in capsys.readouterr().err
    assert main(["show", "resnet/resnet18.py", "--graph", str(tmp_path / "no" / "a.png")]) == 1
    assert "can't be written" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["show --graph", "features --output"])
def test_a_picture_is_whole_or_as_it_was(command, tmp_path, monkeypatch, capsys):
    def fail(self, file, **options):
        file.write(b"half")
        raise OSError("the disk is full")

    name, option = command.split()
    old = tmp_path / ("old.png" if name == "show" else "grace_hopper_features.png")
    old.write_bytes(b"old")
    monkeypatch.setattr(Figure, "savefig", fail)
    monkeypatch.chdir(tmp_path)
    assert main([name, "resnet/resnet18.py", option, str(old if name == "show" else tmp_path)]) == 1
    assert "the disk is full" in capsys.readouterr().err
    assert old.read_bytes() == b"old" and not list(tmp_path.glob(".*"))


@pytest.mark.few(1)
@pytest.mark.parametrize("name", [name for name in list_configs() if "resnet" not in name][::6])
def test_every_kind_can_be_drawn(name, tmp_path, capsys):
    assert main(["show", name, "--graph", str(tmp_path / "a.png")]) == 0


def test_blocks_that_are_gone_through_one_by_one_are_a_stage():
    backbone = build_on_meta(L(TimmBackbone)(model_name="vit_tiny_patch16_224", out_indices=None)).eval()
    stages = {stage.name: stage for stage in stages_of(backbone, 3, (224, 224))}
    assert (stages["blocks"].blocks, stages["blocks"].shape) == (12, (197, 192))  # 14 x 14 and the class token
    assert stages["blocks"].maps == ["p9", "p10", "p11"]
    assert not stages["patch_embed"].maps


def test_a_list_of_lists_of_blocks_is_a_list_of_stages():
    backbone = build_on_meta(L(TimmBackbone)(model_name="efficientnet_b0", out_indices=(1, 2, 3, 4))).eval()
    stages = {stage.name: stage for stage in stages_of(backbone, 3, (224, 224))}
    assert list(stages) == ["conv_stem", *(f"blocks.{place}" for place in range(7))]
    last = {"blocks.1": ["p1"], "blocks.2": ["p2"], "blocks.4": ["p3"], "blocks.6": ["p4"]}
    assert {name: stage.maps for name, stage in stages.items() if stage.maps} == last
    assert (stages["blocks.2"].blocks, stages["blocks.2"].shape) == (2, (40, 28, 28))
