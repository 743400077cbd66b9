"""COCO files as people have them: read rightly, or refused before the first step."""

import json

import numpy as np
import pytest
from PIL import ExifTags, Image
from tiny import tiny

from detrex_backbones import instantiate
from detrex_backbones.errors import InputError
from train_detector import train
from train_detector.coco import CocoDetection
from train_detector.evaluate import average_precision

ORIENTATION = ExifTags.Base.Orientation


@pytest.fixture
def files(tmp_path):
    """What writes two images and their annotations, changed by a function, and reads them."""

    def write(change=lambda content: None):
        for name in ("a.png", "b.png"):
            Image.fromarray(np.zeros((60, 40, 3), np.uint8)).save(tmp_path / name)
        content = {
            "images": [{"id": 5 + i, "file_name": f"{n}.png", "width": 40, "height": 60} for i, n in enumerate("ab")],
            "categories": [{"id": 3, "name": "cat"}, {"id": 9, "name": "dog"}],
            "annotations": [
                {"id": 1 + i, "image_id": 5 + i, "category_id": 3, "bbox": [3, 4, 20, 20], "area": 400, "iscrowd": 0}
                for i in range(2)
            ],
        }
        change(content)
        (tmp_path / "notes.json").write_text(json.dumps(content))
        return CocoDetection(str(tmp_path), str(tmp_path / "notes.json"))

    return write


def perfect(data):
    """AP of a detector that finds every box."""
    boxes = [{key: one[key] for key in ("image_id", "category_id", "bbox")} for one in data.coco.dataset["annotations"]]
    return average_precision(data, [{**box, "score": 0.9} for box in boxes])["AP"]


@pytest.mark.parametrize("ids", [(0, 1), (7, 7), (None, None), ("x", 0)])
def test_ids_of_annotations_decide_nothing(files, ids):
    def change(content):
        for entry, value in zip(content["annotations"], ids, strict=True):
            entry["id"] = value

    assert perfect(files(change)) == pytest.approx(1)


@pytest.mark.parametrize("missing", [("area",), ("iscrowd",), ("area", "iscrowd", "id")])
def test_what_may_be_missing(files, missing):
    def change(content):
        for entry in content["annotations"]:
            for key in missing:
                del entry[key]

    data = files(change)
    assert perfect(data) == pytest.approx(1)
    assert data[0][1]["boxes"].tolist() == [[3, 4, 23, 24]]
    assert data.coco.dataset["annotations"][0]["area"] == 400


@pytest.mark.parametrize(
    ("part", "entry", "values", "message"),
    [
        ("images", 1, {"id": 5}, "images that have the id of another: 5"),
        ("categories", 1, {"id": 3}, "categories that have the id of another: 3"),
        ("categories", 1, {"name": "cat"}, "categories that have the name of another: 'cat'"),
        ("annotations", 0, {"image_id": 1}, "1 of the annotations, whose image_id none of the images has: 1"),
        ("annotations", 0, {"category_id": 2}, "1 of the annotations, whose category_id none of the categories has: 2"),
        ("annotations", 0, {"bbox": [1, 2, 3]}, "COCO's format"),
        ("annotations", 0, {"bbox": [1, 2, 3, "4"]}, "COCO's format"),
        ("annotations", 0, {"bbox": [1, 2, 3, float("nan")]}, "COCO's format"),
        ("annotations", 0, {"area": "large"}, "COCO's format"),
        ("images", 0, {"id": "5"}, "COCO's format"),
        ("images", 0, {"id": [5]}, "COCO's format"),
        ("images", 0, {"file_name": 5}, "COCO's format"),
    ],
)
def test_what_has_several_meanings_or_none(files, part, entry, values, message):
    with pytest.raises(InputError, match=message):
        files(lambda content: content[part][entry].update(values))


@pytest.mark.parametrize(("stored", "orientation"), [((40, 60), 6), ((40, 60), 8), ((61, 40), 1)])
def test_an_image_of_another_size_than_its_entry_says(files, tmp_path, stored, orientation):
    """Stored is (height, width). Two are turned by viewers, and their entry says what is stored; one is cut off."""
    data = files(lambda content: content["images"][1].update(height=40 if stored[0] == 40 else 60, width=stored[1]))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(np.zeros((*stored, 3), np.uint8)).save(tmp_path / "b.png", exif=exif)
    with pytest.raises(InputError, match=r"1 of 2 images in .*'b\.png' is 6\d x 40 pixels .*boxes would lie elsewhere"):
        data.check_images()
    with pytest.raises(InputError, match="its entry says"):
        data[1]
    assert data[0][0].shape == (3, 60, 40)


@pytest.mark.parametrize("entry", [{"height": 60, "width": 40}, {"height": None, "width": None}])
def test_an_image_that_is_turned_as_its_entry_says(files, tmp_path, entry):
    data = files(lambda content: content["images"][1].update(entry))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / "b.png", exif=exif)
    data.check_images()
    image, target = data[1]
    assert image.shape == (3, 60, 40) and target["boxes"].tolist() == [[3, 4, 23, 24]]


def test_images_that_are_missing_are_counted_and_the_first_are_named(files, tmp_path):
    def change(content):
        content["images"] += [{"id": 10 + i, "file_name": f"none{i}.png"} for i in range(7)]

    data = files(change)
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(InputError) as caught:
        data.check_images()
    said = str(caught.value)
    assert "8 of 9 images" in said and "'b.png' is no image" in said and "'none0.png' is missing" in said
    assert "and 3 more" in said and "none6" not in said


def test_a_run_finds_them_before_its_first_step(tmp_path):
    cfg = tiny(tmp_path, "run")
    instantiate(cfg.data.prepare)
    (tmp_path / "scenes" / "test" / "000002.png").unlink()
    with pytest.raises(InputError, match=r"1 of 3 images in .*'000002\.png' is missing"):
        train(cfg)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("box", [None, [], ["1", 2, 3, 4], [1, 2, 3, 4, 5], [1, 2, float("nan"), 4]])
def test_boxes_that_are_none_are_counted_and_the_first_are_named(files, box):
    def change(content):
        content["annotations"] += [{"image_id": 5, "category_id": 3, "bbox": box} for _ in range(7)]
        del content["annotations"][-1]["bbox"]

    with pytest.raises(InputError) as caught:
        files(change)
    said = f"7 of the annotations have a bbox that isn't [x, y, width, height]: number 3 of image 5: {box!r}, number 4"
    assert said in str(caught.value) and "and 2 more" in str(caught.value)


def test_ids_of_several_kinds_are_said(files):
    with pytest.raises(InputError, match="the ids of images are of several kinds: int, str"):
        files(lambda content: content["images"][0].update(id="5"))


@pytest.mark.parametrize("area", [-1, float("nan"), "400"])
def test_an_area_that_is_none_is_the_boxs(files, area):
    data = files(lambda content: content["annotations"][0].update(area=area))
    assert data.coco.anns[1]["area"] == 400 and perfect(data) == pytest.approx(1)


def test_sizes_written_as_text_are_numbers(files):
    data = files(lambda content: content["images"][0].update(height="60", width="40"))
    data.check_images()
    data = files(lambda content: content["images"][0].update(height="40"))
    with pytest.raises(InputError, match="its entry says 40 x 40"):
        data.check_images()


def test_names_of_classes_can_be_shown(files):
    data = files(lambda content: content["categories"][0].update(name="cat\x1b[2J\n"))
    assert data.names == ["'cat\\x1b[2J\\n'", "dog"]
