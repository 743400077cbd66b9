"""Parameter groups, the schedule, averaged weights, COCO's figures, pictures and the log."""

import contextlib
import io
import math

import pytest
import torch
from PIL import Image
from pycocotools.cocoeval import COCOeval
from torch import nn

from detrex_backbones import get_config, instantiate, list_configs
from detrex_backbones.errors import ArgumentError
from detrex_backbones.zoo import build_on_meta
from train_detector.coco import CocoDetection
from train_detector.config import load_config
from train_detector.evaluate import ap_table, average_precision
from train_detector.log import RunLog, read_metrics
from train_detector.optim import AveragedWeights, WarmupCosine, param_groups
from train_detector.pictures import draw_curve, draw_predictions
from train_detector.scenes import make_scenes


def test_groups_of_a_detector():
    model = build_on_meta(get_config("detectors/faster_rcnn_resnet18_fpn").model)
    model.backbone.bottom_up.stem.conv1.weight.requires_grad_(False)
    groups = {group["name"]: group for group in param_groups(model, backbone_factor=0.1, weight_decay=0.05)}
    assert {name: (group["lr_factor"], group["weight_decay"]) for name, group in groups.items()} == {
        "backbone": (0.1, 0.05),
        "backbone, no decay": (0.1, 0.0),
        "rest": (1.0, 0.05),
        "rest, no decay": (1.0, 0.0),
    }
    ids = [id(parameter) for group in groups.values() for parameter in group["params"]]
    assert sorted(ids) == sorted(id(one) for one in model.parameters() if one.requires_grad)
    assert all(one.dim() > 1 for name in ("backbone", "rest") for one in groups[name]["params"])
    below = {id(one) for one in model.backbone.bottom_up.parameters()}
    assert all(id(one) in below for name in groups if "backbone" in name for one in groups[name]["params"])
    assert not any(id(one) in below for name in groups if "rest" in name for one in groups[name]["params"])


def test_groups_refuse():
    with pytest.raises(ArgumentError, match="backbone_factor"):
        param_groups(nn.Linear(2, 2), backbone_factor=-1)
    with pytest.raises(ArgumentError, match="no parameters"):
        param_groups(nn.ReLU())


def test_the_schedule():
    schedule = WarmupCosine(steps=110, warmup=10, last=0.1)
    assert [schedule(step) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert [schedule(step) for step in (10, 60, 110, 200)] == pytest.approx([1.0, 0.55, 0.1, 0.1])
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(torch.optim.SGD([torch.zeros(1)], lr=1.0), 100, eta_min=0.1)
    for step in range(10, 110):
        assert schedule(step) == pytest.approx(theirs.get_last_lr()[0])
        theirs.optimizer.step()
        theirs.step()
    for wrong in ({"warmup": 111}, {"warmup": -1}, {"last": 2}):
        with pytest.raises(ArgumentError, match=next(iter(wrong))):
            WarmupCosine(**{"steps": 110, "warmup": 10, **wrong})


def test_averages_are_torchs():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    averages = AveragedWeights(model, 0.9)
    averages.updates = 1000  # beyond the time in which it forgets faster
    theirs = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    theirs.update_parameters(model)
    for _ in range(5):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        averages.update()
        theirs.update_parameters(model)
    current = {name: value.detach().clone() for name, value in model.named_parameters()}
    averages.swap()
    for name, value in model.named_parameters():
        torch.testing.assert_close(value, theirs.module.get_parameter(name))
    averages.swap()
    assert all(torch.equal(value, current[name]) for name, value in model.named_parameters())
    for decay in (-0.1, 1.0):
        with pytest.raises(ArgumentError, match=r"train\.ema"):
            AveragedWeights(model, decay)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = make_scenes(str(tmp_path_factory.mktemp("data") / "scenes"), train=1, test=8, size=96, seed=1)
    return CocoDetection(str(root / "test"), str(root / "test.json"))


def imperfect(data):
    """Boxes that are right, moved, of another class, missing, or twice there."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for entry in data.coco.dataset["annotations"]:
        shift, chance = (torch.rand(2, generator=generator) * 12).tolist(), torch.rand(3, generator=generator).tolist()
        if chance[0] < 0.15:
            continue
        x, y, width, height = entry["bbox"]
        category = entry["category_id"] if chance[1] < 0.8 else 1 + entry["category_id"] % 4
        box = [x + shift[0] - 4, y + shift[1] - 4, width, height]
        found.append({"image_id": entry["image_id"], "category_id": category, "bbox": box, "score": chance[2]})
    return found


def test_figures_and_table_are_pycocotools(scenes):
    found = imperfect(scenes)
    figures = average_precision(scenes, found)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        theirs = COCOeval(scenes.coco, scenes.coco.loadRes(found), "bbox")
        theirs.evaluate(), theirs.accumulate(), theirs.summarize()
    stats = theirs.stats.tolist()
    assert 0.05 < stats[0] < 0.9 and stats[1] > stats[0]
    assert [figures[key] for key in ("AP", "AP50", "AP75", "AR")] == pytest.approx([*stats[:3], stats[8]])
    assert f"{stats[1]:.3f}" in printed.getvalue()
    for index, name in enumerate(scenes.names):  # a class by itself is a class of the table
        theirs.params.catIds = [index + 1]
        with contextlib.redirect_stdout(io.StringIO()):
            theirs.evaluate(), theirs.accumulate(), theirs.summarize()
        assert [figures["classes"][name][key] for key in ("AP", "AP50")] == pytest.approx(theirs.stats[:2].tolist())
    lines = ap_table(figures).splitlines()
    assert max(map(len, lines)) <= 80
    row = next(line for line in lines if line.strip().startswith("all"))
    assert row.split()[1:] == [f"{100 * value:.1f}" for value in stats[:3]]
    assert (
        next(line for line in lines if " star" in line).split()[2] == f"{100 * figures['classes']['star']['AP50']:.1f}"
    )


def test_all_right_and_nothing_at_all(scenes):
    every = [
        {key: entry[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9}
        for entry in scenes.coco.dataset["annotations"]
    ]
    assert average_precision(scenes, every)["AP"] == pytest.approx(1)
    nothing = average_precision(scenes, [])
    assert nothing["AP"] == nothing["AP50"] == nothing["AR"] == 0
    lines = ap_table(nothing).splitlines()
    assert lines[-1] == " AR: 0.0" and lines[-2].endswith("large -")  # no true box is that large


def test_the_grid_shows_boxes(scenes, tmp_path):
    items = [scenes[index] for index in range(5)]
    images, targets = [image for image, _ in items], [target for _, target in items]
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0), "scores": torch.zeros(0)}
    right = [{**target, "scores": torch.full((len(target["labels"]),), 0.9)} for target in targets]
    weak = [{**one, "scores": one["scores"] * 0.5} for one in right]
    pictures = {}
    for name, found in (("none", [none] * 5), ("right", right), ("weak", weak)):
        draw_predictions(tmp_path / f"{name}.png", images, found, targets, scenes.names)
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.size == (4 * 260, 2 * 260)
            pictures[name] = picture.convert("RGB").tobytes()
    assert pictures["none"] == pictures["weak"] != pictures["right"]


def test_the_log_takes_back_what_came_after_the_checkpoint(tmp_path, capsys):
    def run(start, end):
        log = RunLog(tmp_path, start, 6, 2)
        for step in range(start, end):
            log.step({"step": step, "loss": 1 / (step + 1), "lr": 0.1, "part": 0.5})
        log.evaluation(end, {"AP": 0.5, "classes": {}})
        log.close()

    run(0, 5)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')  # a kill in the middle of a line
    run(4, 6)
    entries = read_metrics(tmp_path)
    assert [entry["step"] for entry in entries] == list(range(6))
    lines = capsys.readouterr().err.splitlines()
    assert all(len(line) <= 80 for line in lines) and any(line.startswith("step 6/6  loss 0.167") for line in lines)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {"train/loss", "train/lr", "train/part", "test/AP"} <= set(board.Tags()["scalars"])
    assert board.Scalars("train/loss")[-1].value == pytest.approx(1 / 6)
    draw_curve(tmp_path / "curve.png", entries)
    with Image.open(tmp_path / "curve.png") as picture:
        assert picture.size == (640, 360)


@pytest.mark.parametrize("name", [name for name in list_configs() if name.startswith("detectors/")])
def test_the_last_rate_of_every_ready_config(name):
    cfg = load_config(name)
    schedule = instantiate(cfg.schedule)
    assert math.isclose(schedule(cfg.train.steps), 0.02) and schedule.steps == cfg.train.steps
