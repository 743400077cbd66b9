"""What holds for anything that can be drawn: each property is a function of that, and fails by an assertion."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import Tensor, nn

from detrex_backbones import load_checkpoint
from detrex_backbones.backbones.images.tensors import image_to_tensor
from detrex_backbones.checkpoint.convert import convert_checkpoint
from detrex_backbones.checkpoint.files import Checkpoint, read_checkpoint
from detrex_backbones.checkpoint.match.plan import plan_checkpoint
from detrex_backbones.checkpoint.match.suffixes import BATCH_COUNTER, make_plan
from detrex_backbones.config import LazyConfig
from detrex_backbones.config.values import parse_value
from detrex_backbones.errors import CheckpointError, CheckpointFileError, DetrexBackbonesError, InputError
from tests.checkpoint.nets import arrays, assert_same_tensors, raw, snapshot, weights
from tests.checkpoint.test_reading import write_legacy, write_pickle, write_safetensors, write_zip
from tests.fuzz import strategies as draw

Shapes = dict[str, tuple[int, ...]]


def plan_is_one_to_one(model: Shapes, checkpoint: Shapes) -> None:
    """No two keys of the model get one of the file, all lie in one submodule, and each has one fate."""
    plan = make_plan(model, checkpoint)
    taken = [*plan.matched.values(), *plan.mismatched.values()]
    assert len(taken) == len(set(taken))
    assert plan.scope == "" or plan.scope.endswith(".")
    for ours, theirs in plan.matched.items():
        assert ours.startswith(plan.scope) and (ours == theirs or ours.endswith("." + theirs))
        assert model[ours] == checkpoint[theirs]
    for ours, theirs in plan.mismatched.items():
        assert ours.startswith(plan.scope) and model[ours] != checkpoint[theirs]
    fates = [*plan.matched, *plan.mismatched, *plan.missing, *plan.outside]
    assert len(fates) == len(set(fates))
    assert {key for key in model if key not in fates and not key.endswith(BATCH_COUNTER)} == set()
    assert all(not key.startswith(plan.scope) for key in plan.outside)


def any_names_can_be_planned(state: dict[str, Tensor], model: Shapes) -> None:
    """A plan for any names, or an error of ours; and no tensor of the file goes to two places."""
    checkpoint = Checkpoint(Path("drawn"), "torch", "", state)
    try:
        attempt = plan_checkpoint(model, checkpoint)
    except DetrexBackbonesError:
        return
    stored = [item.checkpoint_key for item in attempt.report.loaded]
    assert len(stored) == len(set(stored))
    assert set(attempt.values) <= set(model)
    assert all(tuple(value.shape) == model[key] for key, value in attempt.values.items())


def files_give_what_was_written(state: dict[str, Tensor], kind: str) -> None:
    """Names, shapes, dtypes and bytes, in every format."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "drawn")
        if kind == "pickle of arrays":
            state = {key: value for key, value in state.items() if value.dtype != torch.bfloat16} or {
                "a": torch.ones(1)
            }
            write_pickle(arrays(state), path)
        elif kind == "safetensors":
            state = {key: value.contiguous() for key, value in sorted(state.items())}
            write_safetensors(state, path)
        else:
            {"torch": write_zip, "torch-legacy": write_legacy, "pickle": write_pickle}[kind](state, path)
        found = read_checkpoint(path).tensors
        assert_same_tensors(dict(sorted(found.items())), dict(sorted(state.items())))


class Drawn(nn.Module):
    """A module that has these tensors as buffers, whatever they are called."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        for name, value in sorted(state.items(), key=lambda item: -item[0].count(".")):
            place: nn.Module = self
            *path, last = name.split(".")
            for part in path:
                if part not in place._modules:
                    place.add_module(part, nn.Module())
                place = place.get_submodule(part)
            if last not in place._modules:
                place.register_buffer(last, value.clone())


def loads_are_whole_or_nothing(model: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    """A load puts the file's values where its report says, and no others; an error changes nothing."""
    module = Drawn(model)
    before = snapshot(module)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "drawn.pth")
        torch.save(state, path)
        try:
            report = load_checkpoint(module, path, allow_missing=["*"])
        except CheckpointError:
            assert snapshot(module) == before
            return
    after = module.state_dict()
    loaded = {item.model_key: item.checkpoint_key for item in report.loaded}
    for key, bytes_before in before.items():
        if key in loaded:
            assert raw(after[key]) == raw(state[loaded[key]].to(after[key].dtype)), key
        else:
            assert raw(after[key]) == bytes_before, key


def converting_there_and_back_is_identity(target: str, extension: str, dtype: torch.dtype, seed: int) -> None:
    """Names and bytes of a network's state, through another source's names and another container."""
    generator = torch.Generator().manual_seed(seed)
    # Few channels; but the stem's kernel stays as large as it tells ResNets from other networks.
    sizes = {key: [*(min(size, 3) for size in value.shape[:2]), *value.shape[2:]] for key, value in weights().items()}
    state = {key: torch.randn(size, generator=generator).to(dtype) for key, size in sizes.items()}
    with tempfile.TemporaryDirectory() as folder:
        path, there, back = Path(folder, "a.pth"), Path(folder, f"b{extension}"), Path(folder, "c.pth")
        torch.save(state, path)
        done = convert_checkpoint(path, there, to=target, source="torchvision")
        convert_checkpoint(there, back, to="torchvision", source=done.target)
        assert_same_tensors(dict(sorted(read_checkpoint(back).tensors.items())), dict(sorted(state.items())))


def programs_are_read_or_refused(program: bytes) -> None:
    """Any instructions: what they make, or an error of ours."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "drawn.pkl")
        path.write_bytes(program)
        try:
            read_checkpoint(path)
        except CheckpointFileError as error:
            assert str(path) in str(error)


def configs_save_and_load_as_they_are(tree: dict[str, Any]) -> None:
    """A config's YAML gives the same config."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "drawn.yaml")
        cfg = OmegaConf.create(tree)
        LazyConfig.save(cfg, path)
        loaded = OmegaConf.to_container(LazyConfig.load(path))
    assert loaded == tree
    assert repr(loaded) == repr(OmegaConf.to_container(cfg))  # 1 == 1.0 == True


def overrides_change_a_config_or_nothing(tree: dict[str, Any], texts: list[str]) -> None:
    """Any texts: all are applied, or an error of ours and the config is as it was."""
    cfg = OmegaConf.create({"model": tree, "train": {"lr": 0.1, "steps": [1, 2]}}, flags={"allow_objects": True})
    before = copy.deepcopy(cfg)
    try:
        LazyConfig.apply_overrides(cfg, texts)
    except DetrexBackbonesError as error:
        assert str(error)
        assert OmegaConf.to_container(cfg) == OmegaConf.to_container(before)


def values_are_read_as_they_are_written(value: Any) -> None:
    """Numbers, texts in quotes, lists and dicts."""
    found = parse_value(_written(value))
    assert found == value and type(found) is type(value)


def _written(value: Any) -> str:
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    if isinstance(value, list):
        return "[" + ", ".join(map(_written, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_written(key)}: {_written(inner)}" for key, inner in value.items()) + "}"
    return "null" if value is None else repr(value).lower()


def images_become_tensors_or_errors(image: Any, channels: int) -> None:
    """float32 (channels, H, W) from 0 to 255, or an error of ours."""
    try:
        tensor = image_to_tensor(image, channels)
    except InputError as error:
        assert "Allowed" in str(error) or "empty" in str(error) or "channels" in str(error)
        return
    assert tensor.dtype == torch.float32 and tensor.dim() == 3 and tensor.shape[0] == channels
    assert bool(torch.isfinite(tensor).all())


KINDS = ("torch", "torch-legacy", "pickle", "pickle of arrays", "safetensors")
PROPERTIES: dict[str, tuple[Callable[..., None], dict[str, st.SearchStrategy[Any]]]] = {
    "plans": (plan_is_one_to_one, {"model": draw.name_shapes, "checkpoint": draw.name_shapes}),
    "names": (any_names_can_be_planned, {"state": draw.state_dicts(), "model": draw.name_shapes}),
    "files": (files_give_what_was_written, {"state": draw.state_dicts(), "kind": st.sampled_from(KINDS)}),
    "loads": (
        loads_are_whole_or_nothing,
        {"model": draw.state_dicts(draw.likely_names), "state": draw.state_dicts(draw.likely_names)},
    ),
    "conversions": (
        converting_there_and_back_is_identity,
        {
            "target": st.sampled_from(["detectron2", "huggingface", "mmdet", "pycls"]),
            "extension": st.sampled_from([".pth", ".pkl", ".safetensors", ".ckpt"]),
            "dtype": st.sampled_from([torch.float32, torch.float16, torch.float64, torch.int64]),
            "seed": st.integers(0, 1000),
        },
    ),
    "programs": (programs_are_read_or_refused, {"program": draw.programs}),
    "configs": (configs_save_and_load_as_they_are, {"tree": draw.config_trees}),
    "overrides": (
        overrides_change_a_config_or_nothing,
        {"tree": draw.config_trees, "texts": st.lists(draw.override_texts, max_size=3)},
    ),
    "values": (values_are_read_as_they_are_written, {"value": draw.config_values}),
    "images": (images_become_tensors_or_errors, {"image": draw.images, "channels": st.integers(1, 4)}),
}
