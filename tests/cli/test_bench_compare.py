"""`bench` and `compare`: figures that can be known otherwise, tables of 80 columns, pictures that are written."""

import json

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image

from detrex_backbones.backbones.timm import build
from detrex_backbones.cli import main
from detrex_backbones.errors import ArgumentError, ConfigTypeError
from detrex_backbones.evaluation import Conditions, compare_models, measure_speed
from detrex_backbones.evaluation.compare import linear_cka
from detrex_backbones.view import draw_speed
from detrex_backbones.zoo.whole_config import read_config

FAST = ["--seconds", "0.01", "--size", "32x32", "--device", "cpu"]


def run(capsys, *argv):
    status = main([str(argument) for argument in argv])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)).save(path)
    return path


@pytest.mark.slow
def test_bench_prints_a_table_that_sorts(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "80")
    picture = tmp_path / "bench.png"
    argv = ("bench", "resnet18", "timm/test_resnet", "resnet/resnet34", *FAST)
    status, out, _ = run(capsys, *argv, "--sort", "parameters", "--picture", picture)
    assert status == 0
    lines = [line for line in out.splitlines() if line.strip()]
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[2:5]] == ["timm/test_resnet", "resnet18", "resnet/resnet34"]
    assert lines[3].split()[1:5] == [
        "69.76",
        "89.08",
        "11.2",
        "0.04",
    ]  # top-1, top-5, million parameters, GFLOPs at 32 x 32
    assert lines[-1].startswith("1 x 32 x 32 pixels, float32; torch ")
    with Image.open(picture) as image:
        assert min(image.size) > 300


def test_bench_counts_what_the_network_has(capsys):
    status, out, _ = run(capsys, "bench", "resnet18", *FAST, "--batch-size", "2", "--dtype", "bfloat16", "--json")
    content = json.loads(out)
    (row,) = content["rows"]
    assert status == 0
    assert row["parameters"] == sum(
        p.numel() for name, p in torchvision.models.resnet18().named_parameters() if "fc" not in name
    )
    assert row["images_per_second"] == pytest.approx(2e3 / row["median"])
    assert row["p95"] >= row["median"] > 0 and row["runs"] >= 1
    assert content["conditions"]["dtype"] == "bfloat16" and "torch" in content["machine"]


def test_bench_of_photos_runs_each_once(capsys, photo, tmp_path, monkeypatch):
    from detrex_backbones.evaluation import speed

    seen = []
    original = speed.read_image
    monkeypatch.setattr(speed, "read_image", lambda path: seen.append(path) or original(path))
    for index in range(3):
        (tmp_path / f"{index}.png").write_bytes(photo.read_bytes())
    status, out, err = run(capsys, "bench", "resnet18", "--images", tmp_path, "--limit", "3", "--device", "cpu")
    assert status == 0 and "mean over 3 images" in out and "the first 3 of 4 images" in err
    assert len(seen) == len(set(seen)) == 3


def test_bench_fetches_no_weights(monkeypatch):
    created = []
    original = build.create

    def create(name, indices, arguments):
        created.append(arguments.get("pretrained"))
        return original(name, indices, arguments)

    monkeypatch.setattr(build, "create", create)
    cfg = read_config("timm/test_resnet", ["model.backbone.pretrained=true"])
    speed = measure_speed(
        "x", cfg, Conditions(size=(64, 64), device="cpu", seconds=0.01, channels_last=True, fused=True)
    )
    assert created and not any(created)
    network = timm.create_model("test_resnet", features_only=True)
    assert speed.parameters == sum(value.numel() for value in network.parameters())


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["bench", "resnet18", "resnet51x"], "resnet51x"),
        (["bench", "resnet18", "--dtype", "float31"], "Did you mean 'float32'"),
        (["bench", "resnet18", "--picture", "a.gif"], ".png or .svg"),
        (["compare", "resnet18", "resnet51x"], "resnet51x"),
    ],
)
def test_wrong_arguments(argv, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    extra = FAST if argv[0] == "bench" else []
    status, _, err = run(capsys, *argv, *extra)
    assert status == 1 and said in err and "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_a_detector_is_no_backbone_to_time():
    cfg = read_config("resnet/resnet18")
    cfg.model = {"_target_": "torch.nn.Identity"}
    with pytest.raises(ConfigTypeError, match="model is a Identity"):
        measure_speed("x", cfg)
    with pytest.raises(ArgumentError, match="batch_size=0"):
        measure_speed("x", cfg, Conditions(batch_size=0))


def test_the_picture_has_a_point_for_each():
    rows = [
        {"name": "a", "median": 5.0, "parameters": 10, "top1": 70.0},
        {"name": "b", "median": 500.0, "parameters": 40, "top1": None},
    ]
    axis = draw_speed(rows, "on a machine").axes[0]
    points = [collection.get_offsets()[0].tolist() for collection in axis.collections]
    assert points[0] == [5.0, 70.0] and points[1][0] == 500.0 and points[1][1] < 70.0
    assert axis.get_xscale() == "log" and axis.get_title() == "on a machine"
    assert [text.get_text() for text in axis.texts] == ["a", "b"]


def test_compare_of_two_checkpoints_finds_the_stage_that_changed(tmp_path, photo, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    torch.manual_seed(0)
    state = torchvision.models.resnet18().state_dict()
    torch.save(state, tmp_path / "a.pth")
    changed = {
        key: value * 1.01 if "layer4" in key and value.is_floating_point() else value for key, value in state.items()
    }
    torch.save(changed, tmp_path / "b.pth")
    picture = tmp_path / "maps.png"
    argv = ("compare", tmp_path / "a.pth", tmp_path / "b.pth", "--config", "resnet/resnet18", "--image", photo)
    argv = (*argv, "train.device=cpu")
    status, out, _ = run(capsys, *argv, "--picture", picture)
    tables = [line for line in out.splitlines() if not line.startswith("wrote ")]  # a path is as long as it is
    assert status == 0 and max(map(len, tables)) <= 80
    with Image.open(picture) as image:
        assert min(image.size) > 200
    monkeypatch.chdir(tmp_path)
    _, out, _ = run(capsys, *argv)
    assert out.endswith("wrote output/compare_a_b.png\n") and (tmp_path / "output/compare_a_b.png").exists()
    (tmp_path / "output/compare_a_b.png").unlink()
    _, out, _ = run(capsys, *argv, "--json", "--no-picture")
    content = json.loads(out)
    assert content["picture"] is None and not list(tmp_path.glob("output/*"))
    assert set(content["config"]) == {"train.init_checkpoint"}
    differences = {row["module"]: row["difference"] for row in content["weights"]}
    assert differences == {"stem": 0, "res2": 0, "res3": 0, "res4": 0, "res5": pytest.approx(0.01, rel=1e-4)}
    cosines = [row["cosine"] for row in content["maps"]]
    assert cosines[:3] == pytest.approx([1, 1, 1]) and cosines[3] < 1 - 1e-6


def test_compare_of_two_networks_pairs_maps_by_stride(photo):
    from detrex_backbones import read_image

    configs = [
        read_config(name, ["train.init_checkpoint=", "train.device=cpu"]) for name in ("resnet18", "timm/test_resnet")
    ]
    comparison = compare_models(*configs, read_image(photo))
    assert [(row["a"], row["stride"]) for row in comparison.maps][-1] == ("res5", 32)
    assert all(row["cosine"] is None and 0 <= row["cka"] <= 1 for row in comparison.maps)
    stem = next(row for row in comparison.weights if row["module"] == "stem")
    assert stem["tensors"] == 0 and stem["only_a"] == 5
    assert "model.backbone.stages.depth" in comparison.config


@pytest.mark.parametrize("points", [200, 20])  # more and fewer than channels
def test_cka_does_not_depend_on_a_rotation(points):
    torch.manual_seed(0)
    values = torch.randn(points, 40, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(40, 40, dtype=torch.float64))[0]
    assert linear_cka(values, 3 * values @ rotation + 1) == pytest.approx(1)
    # Its definition, by the centred matrices of products (Kornblith et al. 2019, equation 1).
    other = torch.randn(points, 30, dtype=torch.float64)
    centre = torch.eye(points, dtype=torch.float64) - 1 / points
    k, m = (centre @ one @ one.T @ centre for one in (values, other))
    assert linear_cka(values, other) == pytest.approx(float((k * m).sum() / (k.norm() * m.norm())))
