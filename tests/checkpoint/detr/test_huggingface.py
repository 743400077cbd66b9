"""Hugging Face's DETR files into detrex's names: made from the names, and by transformers itself where it is here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from detrex_backbones.checkpoint.load import load_checkpoint
from detrex_backbones.checkpoint.names.conventions import conventions
from detrex_backbones.errors import CheckpointMatchError
from tests.checkpoint.detr.detectors import COCO, Size, detr
from tests.checkpoint.detr.files import (
    assert_accounted,
    load_and_compare,
    model_of,
    random_tensors,
    save,
    snapshot,
    tree,
    wanted,
)
from tests.reference import assert_close, noise

# The original's names -> those on disk, in this order.
RENAMES = (
    (r"^backbone\.0\.body\.", "model.backbone.conv_encoder.model."),
    (r"^transformer\.decoder\.norm\.", "model.decoder.layernorm."),
    (r"^transformer\.", "model."),
    (r"\.multihead_attn\.", ".encoder_attn."),
    (r"\.norm1\.", ".self_attn_layer_norm."),
    (r"(encoder\.layers\.\d+)\.norm2\.", r"\1.final_layer_norm."),
    (r"\.norm2\.", ".encoder_attn_layer_norm."),
    (r"\.norm3\.", ".final_layer_norm."),
    (r"\.linear([12])\.", r".fc\1."),
    (r"^input_proj\.", "model.input_projection."),
    (r"^query_embed\.", "model.query_position_embeddings."),
    (r"^class_embed\.", "class_labels_classifier."),
    (r"^bbox_embed\.", "bbox_predictor."),
)
IN_MEMORY = (
    (r"^model\.backbone\.conv_encoder\.model\.", "model.backbone.model."),
    (r"\.out_proj\.", ".o_proj."),
    (r"(layers\.\d+)\.fc", r"\1.mlp.fc"),
)
OWN_RESNET = (
    (r"\.model\.conv1\.", ".model.embedder.embedder.convolution."),
    (r"\.model\.bn1\.", ".model.embedder.embedder.normalization."),
    (r"\.model\.layer(\d)\.", lambda found: f".model.encoder.stages.{int(found[1]) - 1}.layers."),
    (r"\.conv([123])\.", lambda found: f".layer.{int(found[1]) - 1}.convolution."),
    (r"\.bn([123])\.", lambda found: f".layer.{int(found[1]) - 1}.normalization."),
    (r"\.downsample\.0\.", ".shortcut.convolution."),
    (r"\.downsample\.1\.", ".shortcut.normalization."),
)


def to_huggingface(tensors: dict[str, Tensor], *tables: Any) -> dict[str, Tensor]:
    """An original DETR's tensors as Hugging Face has them: attentions in three parts, and other names."""
    renamed = {}
    for name, tensor in tensors.items():
        parts = {name: tensor}
        if ".in_proj_" in name:
            thirds = zip("qkv", tensor.chunk(3), strict=True)
            parts = {name.replace("in_proj_", f"{letter}_proj."): third.clone() for letter, third in thirds}
        for part, value in parts.items():
            for table in (RENAMES, *tables):
                for pattern, replacement in table:
                    part = re.sub(pattern, replacement, part)
            renamed[part] = value
    return renamed


@pytest.mark.parametrize(
    "tables",
    [(), (IN_MEMORY,), (OWN_RESNET,), (OWN_RESNET, IN_MEMORY)],
    ids=["disk", "memory", "own resnet", "own resnet in memory"],
)
@pytest.mark.parametrize("depth", [50, 101])
def test_every_tensor_has_its_place(tables: Any, depth: int, tmp_path: Path) -> None:
    entries = detr(Size(depth=depth))
    tensors = random_tensors(entries)
    stored = to_huggingface(tensors, *tables)
    assert len(stored) == 530 + (depth == 101) * 17 * 15
    save_file(stored, tmp_path / "model.safetensors")
    model = model_of(entries, criterion__empty_weight=(81,))
    report = load_and_compare(model, tmp_path / "model.safetensors", wanted(entries, tensors), stored)
    assert (report.source, report.prefix, report.scope) == ("huggingface-detr", "", "")
    joined = {key for key in stored if ".k_proj." in key or ".v_proj." in key}
    assert report.left_over == dict.fromkeys(joined, "joined to its query projection")
    assert {item.adapted for item in report.loaded if ".q_proj." in item.checkpoint_key} == {
        "query, key and value joined"
    }


def test_another_number_of_classes_stays(tmp_path: Path) -> None:
    entries = detr(Size(layers=2, stem=1), classes=12)
    tensors = random_tensors(entries)
    stored = to_huggingface(tensors)
    load_and_compare(model_of(entries), save(tmp_path / "file.bin", stored), wanted(entries, tensors), stored)


def test_recognised_as_no_other_of_the_family() -> None:
    names = to_huggingface(random_tensors(detr(Size(layers=1, stem=1))))
    known = conventions()
    found = [name for name in known if "detr" in name and known[name].prefixes(names)]
    assert found == ["huggingface-detr"]
    assert "joined" in known["huggingface-detr"].one_way


def test_a_file_without_one_projection_is_refused(tmp_path: Path) -> None:
    entries = detr(Size(layers=2, stem=1))
    stored = to_huggingface(random_tensors(entries))
    del stored["model.encoder.layers.1.self_attn.v_proj.weight"]
    model = model_of(entries)
    before = snapshot(model)
    with pytest.raises(CheckpointMatchError, match=r"layers\.1\.attentions\.0\.attn\.in_proj_weight"):
        load_checkpoint(model, save(tmp_path / "file.bin", stored))
    assert snapshot(model) == before


@pytest.mark.parametrize("tables", [(OWN_RESNET,), (OWN_RESNET, IN_MEMORY)], ids=["disk", "memory"])
def test_its_own_resnet_into_a_bare_one(tables: Any, tmp_path: Path) -> None:
    entries = [entry for entry in detr() if entry.theirs.startswith("backbone.")]
    tensors = random_tensors(detr())
    stored = to_huggingface(tensors, *tables)
    model = tree({entry.ours.removeprefix("backbone."): entry.shape for entry in entries})
    report = load_checkpoint(model, save(tmp_path / "file.bin", stored))
    assert (report.source, report.coverage, len(report.loaded)) == ("huggingface", 1.0, 265)
    assert_accounted(report, stored)
    for entry in entries:
        assert torch.equal(model.state_dict()[entry.ours.removeprefix("backbone.")], tensors[entry.theirs])


# ---- what transformers itself writes


SIZE = Size(dim=32, hidden=16, queries=5, heads=2, layers=2)


def real_model(timm_backbone: bool) -> Any:
    transformers = pytest.importorskip("transformers")
    if timm_backbone:
        backbone = {"use_timm_backbone": True, "backbone": "resnet26"}
    else:
        widths = {"embedding_size": 8, "hidden_sizes": [32, 64, 128, 256], "depths": [3, 4, 6, 3]}
        config = transformers.ResNetConfig(**widths, out_features=["stage4"])
        backbone = {"use_timm_backbone": False, "backbone": None, "backbone_config": config}
    config = transformers.DetrConfig(
        **backbone,
        use_pretrained_backbone=False,
        d_model=SIZE.dim,
        num_queries=SIZE.queries,
        num_labels=91,
        **{f"{part}_layers": SIZE.layers for part in ("encoder", "decoder")},
        **{f"{part}_attention_heads": SIZE.heads for part in ("encoder", "decoder")},
        **{f"{part}_ffn_dim": SIZE.hidden for part in ("encoder", "decoder")},
    )
    torch.manual_seed(0)
    model = transformers.DetrForObjectDetection(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return model


@pytest.mark.parametrize("timm_backbone", [True, False], ids=["timm", "own ResNet"])
def test_a_file_that_transformers_wrote(timm_backbone: bool, tmp_path: Path) -> None:
    theirs = real_model(timm_backbone)
    theirs.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    entries = detr(SIZE._replace(stem=64, depth=26) if timm_backbone else SIZE._replace(stem=8))
    tables = () if timm_backbone else (OWN_RESNET,)
    assert set(stored) == set(to_huggingface(random_tensors(entries), *tables))
    model = model_of(entries, criterion__empty_weight=(81,))
    report = load_checkpoint(model, tmp_path / "model.safetensors")
    assert (report.source, report.coverage, len(report.loaded)) == ("huggingface-detr", 1.0, len(entries))
    assert len(report.loaded) + len(report.left_over) == len(stored)

    # The names in memory are others, and lead to the same.
    again = model_of(entries, criterion__empty_weight=(81,))
    in_memory = theirs.state_dict()
    assert set(in_memory) == set(to_huggingface(random_tensors(entries), *tables, IN_MEMORY))
    load_checkpoint(again, save(tmp_path / "memory.bin", in_memory))
    assert snapshot(again) == snapshot(model)
    rows = [*COCO, 91]
    assert torch.equal(model.class_embed.weight, theirs.class_labels_classifier.weight[rows])


def test_attention_gives_what_transformers_gives(tmp_path: Path) -> None:
    theirs = real_model(timm_backbone=False)
    theirs.save_pretrained(tmp_path)
    model = model_of(detr(SIZE._replace(stem=8)))
    load_checkpoint(model, tmp_path / "model.safetensors")
    layer = theirs.model.encoder.layers[0].self_attn
    ours = nn.MultiheadAttention(SIZE.dim, SIZE.heads, batch_first=True).eval()
    loaded = model.get_submodule("transformer.encoder.layers.0.attentions.0.attn")
    ours.load_state_dict(loaded.state_dict(), strict=True)
    states = noise(2, 7, SIZE.dim)
    with torch.no_grad():
        assert_close(ours(states, states, states)[0], layer(hidden_states=states)[0])
