"""Configs as Python files that load as the same config."""

import pytest
import torch
from torch import nn

from detrex_backbones.cli import main
from detrex_backbones.config import LazyCall as L
from detrex_backbones.config import LazyConfig, instantiate
from detrex_backbones.config.nodes import as_config
from detrex_backbones.config.write_py import write_py
from detrex_backbones.errors import ConfigError
from detrex_backbones.zoo import get_config, list_configs
from detrex_backbones.zoo.whole_config import find_config


def written(cfg, tmp_path):
    write_py(cfg, tmp_path / "config.py")
    return LazyConfig.load(tmp_path / "config.py")


@pytest.mark.slow
def test_every_ready_config_is_written_and_read(tmp_path):
    for name in [*list_configs(), "timm/resnet18"]:
        cfg = find_config(name)
        assert LazyConfig.to_yaml(written(cfg, tmp_path)) == LazyConfig.to_yaml(cfg), name


def test_values_of_every_kind(tmp_path):
    cfg = as_config(
        {
            "model": L(nn.Conv2d)(in_channels=3, out_channels="${size.width}", kernel_size=(3, 3), dtype=torch.float64),
            "size": {"width": 8},
            "plain": {
                "a b": [1, 2.5, None, True, "x'y\"z\n"],
                "tuple": (1,),
                "far": float("inf"),
                "odd": "???",
                "norm": nn.BatchNorm2d,
            },
        }
    )
    again = written(cfg, tmp_path)
    assert instantiate(again.model).weight.shape == (8, 3, 3, 3) and again.model.dtype is torch.float64
    again.size.width = 4
    assert instantiate(again.model).out_channels == 4  # the interpolation is one still
    assert again.plain.norm is nn.BatchNorm2d and again.plain.far == float("inf")
    assert again.plain["a b"] == cfg.plain["a b"] and tuple(again.plain.tuple) == (1,)


def test_what_no_text_makes_is_refused_and_nothing_is_left(tmp_path):
    for value in (lambda: lambda: 3, object()):
        with pytest.raises(ConfigError, match=r"model\.x is "):
            write_py(as_config({"model": L(dict)(x=value)}), tmp_path / "config.py")
    for cfg in ({"model": {"a": "${width}"}, "width": 8}, {"width": 8}):  # a file gives its mappings and lists alone
        with pytest.raises(ConfigError, match="can't be written as Python"):
            write_py(as_config(cfg), tmp_path / "config.py")
    assert not list(tmp_path.iterdir())
    (tmp_path / "config.py").write_text("from before")
    with pytest.raises(ConfigError):
        write_py(as_config({"width": 8}), tmp_path / "config.py")
    assert (tmp_path / "config.py").read_text() == "from before"


@pytest.mark.parametrize("suffix", ["py", "yaml"])
def test_show_saves_what_it_shows(tmp_path, capsys, suffix):
    path = tmp_path / f"config.{suffix}"
    assert main(["show", "resnet/resnet18", "model.backbone.freeze_at=2", "--save", str(path), "--size", "64x64"]) == 0
    cfg = get_config("resnet/resnet18")
    cfg.model.backbone.freeze_at = 2
    assert LazyConfig.to_yaml(LazyConfig.load(path)) == LazyConfig.to_yaml(cfg)
    assert main(["show", "resnet/resnet18", "--save", str(tmp_path / "config.json")]) == 1
    assert ".py or .yaml or .yml" in capsys.readouterr().err
