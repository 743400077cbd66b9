"""Every config of detectron2 and detrex with a network of `OURS`, its import line changed and nothing else."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch

from detrex_backbones import LazyConfig, instantiate
from tests.interop.theirs import link_configs, need_detectron2, need_detrex

OURS = {"ConvNeXt", "FocalNet", "InternImage", "EVAViT", "EVA02_ViT", "RegNet", "SimpleStem", "ResBottleneckBlock"}
OURS |= {"SimpleFeaturePyramid"}

# Of modules that have them; detrex's dino-focal has a FocalNet of its own beside its configs.
THEIR_LINES = re.compile(r"^from (?:(?:detectron2|detrex)\.modeling\.backbone[.\w]*|\.focalnet) import (.+)$", re.M)

# Where configs lie -> what belongs to them.
FOLDERS = {
    "detectron2": {"configs": ["COCO-InstanceSegmentation/*regnet*.py", "new_baselines/*regnet*.py"]},
    "detrex": {
        "projects/dino/configs": [
            *("dino-convnext/*.py", "dino-focal/dino_*.py", "dino-internimage/*.py", "dino-eva-01/*.py"),
            "models/dino_[cefi]*.py",
        ],
        "projects/dino_eva/configs": ["dino-eva-*/*.py", "models/dino_eva*.py"],
    },
}


def with_our_imports(text: str) -> str:
    def changed(line: re.Match[str]) -> str:
        names = [name.strip() for name in line[1].split(",")]
        ours = [name for name in names if name in OURS]
        left = [name for name in names if name not in OURS]
        lines = [f"from detrex_backbones import {', '.join(ours)}"] if ours else []
        if left:
            lines.append(line[0].partition(" import ")[0] + f" import {', '.join(left)}")
        return "\n".join(lines)

    return THEIR_LINES.sub(changed, text)


def configs_of(project: str, root: Path) -> list[tuple[Path, str]]:
    """(folder of configs, path in it) of every config that is meant."""
    found = [
        (root / folder, path.relative_to(root / folder).as_posix())
        for folder, patterns in FOLDERS[project].items()
        for pattern in patterns
        for path in sorted((root / folder).glob(pattern))
        if path.read_text(encoding="utf-8").strip()  # one is empty
    ]
    assert len(found) >= {"detectron2": 4, "detrex": 25}[project]
    return found


def copied(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.yaml", "*.md"), dirs_exist_ok=True)
    for file in target.rglob("*.py"):
        file.write_text(with_our_imports(file.read_text(encoding="utf-8")), encoding="utf-8")
    return target


def backbone_node(path: Path):
    backbone = LazyConfig.load(path).model.backbone
    return backbone.bottom_up if "bottom_up" in backbone else backbone


@pytest.mark.parametrize("project", FOLDERS)
def test_every_config_builds_the_same_backbone(project, tmp_path, monkeypatch):
    root = need_detrex() if project == "detrex" else need_detectron2()
    link_configs(monkeypatch, **{project: root, "detectron2": need_detectron2()})
    copies: dict[Path, Path] = {}
    linspace = torch.linspace  # detrex reads values of it, which the meta device has none of
    monkeypatch.setattr(torch, "linspace", lambda *args, **kwargs: linspace(*args, **{"device": "cpu"} | kwargs))
    for folder, name in configs_of(project, root):
        if folder not in copies:
            copies[folder] = copied(folder, tmp_path / str(len(copies)))
        nodes = backbone_node(folder / name), backbone_node(copies[folder] / name)
        with torch.device("meta"):
            theirs, ours = instantiate(nodes[0]), instantiate(nodes[1])
        assert type(ours).__module__.startswith("detrex_backbones.backbones."), name
        assert not type(theirs).__module__.startswith("detrex_backbones.backbones."), name
        state = [{key: value.shape for key, value in net.state_dict().items()} for net in (theirs, ours)]
        assert state[0] == state[1], name
        shapes = [
            {key: (value.channels, value.stride) for key, value in net.output_shape().items()} for net in (theirs, ours)
        ]
        assert shapes[0] == shapes[1], name
        learning = [{key for key, value in net.named_parameters() if value.requires_grad} for net in (theirs, ours)]
        assert learning[0] == learning[1], name
