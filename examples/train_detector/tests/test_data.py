"""The scenes are a valid COCO set, always the same one; the sampler gives every process its part of one stream."""

import contextlib
import hashlib
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from detrex_backbones.errors import ArgumentError, InputError
from train_detector.coco import CocoDetection, StepSampler, collate
from train_detector.scenes import CATEGORIES, draw_scene, make_scenes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return make_scenes(str(tmp_path_factory.mktemp("data") / "scenes"), train=12, test=3, size=96, seed=3)


def load(path):
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def test_pycocotools_finds_the_set_sound(scenes):
    coco = load(scenes / "train.json")
    assert len(coco.imgs) == 12 and [entry["name"] for entry in coco.dataset["categories"]] == list(CATEGORIES)
    assert 12 <= len(coco.anns) <= 48 and {entry["category_id"] for entry in coco.anns.values()} == {1, 2, 3, 4}
    for entry in coco.anns.values():
        x, y, width, height = entry["bbox"]
        assert x >= 0 and y >= 0 and x + width <= 96.01 and y + height <= 96.01 and min(width, height) > 8
        mask = coco.annToMask(entry)  # of the polygon, by pycocotools
        rows, columns = np.nonzero(mask)
        assert abs(columns.min() - x) <= 2 and abs(rows.max() + 1 - y - height) <= 2
        assert mask.sum() == pytest.approx(entry["area"], rel=0.12, abs=12)
    for entry in coco.imgs.values():
        with Image.open(scenes / "train" / entry["file_name"]) as image:
            assert image.size == (96, 96) and image.mode == "RGB"


def test_shapes_stand_out_where_their_boxes_are():
    pixels, shapes = draw_scene(128, np.random.default_rng(5))
    for shape in shapes:
        points = np.array(shape["polygon"]).reshape(-1, 2)
        x, y = points.mean(0).astype(int)
        inside = pixels[y - 2 : y + 3, x - 2 : x + 3].mean((0, 1))
        assert np.abs(inside - pixels.mean((0, 1))).max() > 25


def test_the_same_arguments_give_the_same_bytes(scenes, tmp_path):
    def digest(root):
        files = [path for path in sorted(root.rglob("*")) if path.is_file()]
        return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()

    before = digest(scenes)
    assert digest(make_scenes(str(tmp_path / "again"), 12, 3, 96, 3)) == before
    stamp = (scenes / "train.json").stat().st_mtime_ns
    make_scenes(str(scenes), 12, 3, 96, 3)
    assert (scenes / "train.json").stat().st_mtime_ns == stamp
    assert digest(make_scenes(str(tmp_path / "again"), 12, 3, 96, 4)) != before  # made anew


def test_scenes_never_overwrite_something_else(tmp_path):
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(ArgumentError, match="holds something else"):
        make_scenes(str(tmp_path), 1, 1)
    for wrong in ({"train": 0}, {"size": 8}, {"seed": -1}, {"test": "many"}):
        with pytest.raises(ArgumentError, match=next(iter(wrong))):
            make_scenes(str(tmp_path / "new"), **wrong)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_items_are_what_torchvision_takes(scenes):
    data = CocoDetection(str(scenes / "train"), str(scenes / "train.json"), flip=0.5, seed=0)
    image, target = data[0]
    assert image.shape == (3, 96, 96) and image.min() >= 0 and 0.5 < image.max() <= 1
    entries = load(scenes / "train.json").imgToAnns[target["image_id"]]
    assert target["labels"].tolist() == [entry["category_id"] for entry in entries]
    wanted = [[x, y, x + width, y + height] for x, y, width, height in (entry["bbox"] for entry in entries)]
    torch.testing.assert_close(target["boxes"], torch.tensor(wanted))
    flips = 0
    for drawn in range(40):
        again, mirrored = data[0, drawn]
        torch.testing.assert_close(data[0, drawn][0], again)
        if not torch.equal(again, image):
            flips += 1
            torch.testing.assert_close(again.flip(-1), image)
            torch.testing.assert_close(mirrored["boxes"][:, 0], 96 - target["boxes"][:, 2])
    assert 10 < flips < 30


def test_crowds_and_empty_boxes_are_left_out_and_ids_may_have_gaps(tmp_path):
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    Image.new("L", (20, 10)).save(tmp_path / "b.png")
    boxes = [([1, 1, 5, 5], 7, 0), ([0, 0, 9, 9], 7, 1), ([2, 2, 0, 4], 90, 0), ([15, 5, 50, 50], 90, 0)]
    content = {
        "images": [{"id": 5, "file_name": "a.png"}, {"id": 9, "file_name": "b.png"}],
        "categories": [{"id": 90, "name": "b"}, {"id": 7, "name": "a"}],
        "annotations": [
            {"id": index, "image_id": 5, "bbox": box, "category_id": category, "iscrowd": crowd, "area": 1}
            for index, (box, category, crowd) in enumerate(boxes, 1)
        ],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    data = CocoDetection(str(tmp_path), str(tmp_path / "a.json"))
    assert data.names == ["a", "b"]
    images, targets = collate([data[0], data[1]])
    assert targets[0]["labels"].tolist() == [1, 2]
    assert targets[0]["boxes"].tolist() == [[1, 1, 6, 6], [15, 5, 20, 10]]
    assert images[1].shape == (3, 10, 20) and targets[1]["boxes"].shape == (0, 4)
    content["annotations"][0]["category_id"] = 8
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="COCO's format"):
        CocoDetection(str(tmp_path), str(tmp_path / "a.json"))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"images": [], "annotations": []}', '{"images": 3}'])
def test_what_is_no_coco_file(text, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match="COCO's format"):
        CocoDetection(str(tmp_path), str(tmp_path / "a.json"))
    with pytest.raises(InputError, match="do not exist"):
        CocoDetection(str(tmp_path), str(tmp_path / "b.json"))
    with pytest.raises(InputError, match="does not exist"):
        CocoDetection(str(tmp_path / "none"), str(tmp_path / "a.json"))
    with pytest.raises(ArgumentError, match="flip"):
        CocoDetection(str(tmp_path), str(tmp_path / "a.json"), flip=2)


def test_processes_share_the_stream_of_one():
    alone = list(StepSampler(10, 4, steps=9, seed=1))
    parts = [list(StepSampler(10, 4, steps=9, seed=1, rank=rank, world=2)) for rank in range(2)]
    assert [one + two for one, two in zip(*parts, strict=True)] == alone
    drawn = [index for step in alone for index, _ in step]
    assert all(
        sorted(drawn[start : start + 10]) == list(range(10)) for start in (0, 10, 20)
    )  # each epoch has each image
    assert drawn[:10] != drawn[10:20]
    assert list(StepSampler(10, 4, steps=9, start=5, seed=1)) == alone[5:]
    assert len(StepSampler(10, 4, steps=9, start=5)) == 4
    assert list(StepSampler(10, 4, steps=9, seed=2)) != alone


def test_a_batch_that_cannot_be_shared():
    with pytest.raises(ArgumentError, match="3 processes"):
        StepSampler(10, 4, steps=1, world=3)
    with pytest.raises(ArgumentError, match="no images"):
        StepSampler(0, 4, steps=1)
