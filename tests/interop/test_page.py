"""The Python blocks of the page about detectron2 and detrex, in the order in which they stand."""

import re

import pytest
import torch

from detrex_backbones import DetectionCheckpointer, ResNet, load_checkpoint
from tests.interop.detectors import detect
from tests.interop.theirs import EXAMPLES, fill_norms, largest_difference, link_configs, need_detectron2

PAGE = EXAMPLES.parent / "docs" / "detectron2-and-detrex.md"


@pytest.fixture(scope="module")
def page():
    """What the blocks define, and "printed"."""
    monkeypatch = pytest.MonkeyPatch()
    link_configs(monkeypatch, detectron2=need_detectron2())
    printed = []
    names = {"print": lambda *values: printed.append(" ".join(map(str, values))), "printed": printed}
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), names)
    assert len(blocks) == 4
    yield names
    monkeypatch.undo()


def test_the_lazy_config(page):
    assert {name: (shape.channels, shape.stride) for name, shape in page["fpn"].output_shape().items()} == {
        f"p{level}": (256, 2**level) for level in range(3, 8)
    }
    text = "\n".join(page["printed"])
    assert re.search(r"model\.backbone\.in_features: \['res3', 'res4', 'res5'\] -> \['p1', 'p2', 'p3'\]", text)


def yaml_config(**changes):
    from detectron2 import model_zoo

    cfg = model_zoo.get_config("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml")
    cfg.MODEL.merge_from_list(["DEVICE", "cpu", "WEIGHTS", "", "ROI_HEADS.SCORE_THRESH_TEST", 0.0])
    cfg.MODEL.BACKBONE.NAME = changes.pop("backbone", cfg.MODEL.BACKBONE.NAME)
    cfg.merge_from_list([part for pair in changes.items() for part in pair])
    return cfg


def test_the_yaml_config_finds_what_theirs_finds(page, tmp_path):
    from detectron2.modeling import build_model

    theirs, ours = fill_norms(build_model(yaml_config())), build_model(yaml_config(backbone="build_our_fpn"))
    assert type(ours.backbone.bottom_up) is ResNet
    torch.save({"model": theirs.state_dict()}, tmp_path / "theirs.pth")
    assert load_checkpoint(ours, tmp_path / "theirs.pth").coverage == 1
    assert largest_difference(detect(ours), detect(theirs)) <= 1e-5


def test_the_default_trainer_saves_and_resumes_with_our_checkpointer(page, tmp_path):
    from detectron2.config import LazyConfig, instantiate

    scenes = instantiate(LazyConfig.load(str(EXAMPLES / "detectron2" / "generated.py")).dataloader.train)

    class Trainer(page["Trainer"]):
        @classmethod
        def build_train_loader(cls, cfg):
            return scenes

    def train(steps, resume):
        cfg = yaml_config(OUTPUT_DIR=str(tmp_path), backbone="build_our_fpn")
        cfg.SOLVER.MAX_ITER = steps
        cfg.TEST.EVAL_PERIOD = 0
        cfg.DATASETS.TEST = ()
        cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 32
        trainer = Trainer(cfg)
        assert type(trainer.checkpointer) is DetectionCheckpointer
        trainer.resume_or_load(resume)
        trainer.train()
        return trainer.start_iter, torch.load(tmp_path / "model_final.pth", weights_only=False)["iteration"]

    assert train(1, resume=False) == (0, 0)
    assert train(2, resume=True) == (1, 1)
