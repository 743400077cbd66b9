"""The detectors of detectron2's and detrex's model zoos by name: their backbones, and what they want of the images."""

import pytest
import torch

from detrex_backbones import FeatureExtractor, SwinTransformer, load_checkpoint
from detrex_backbones.checkpoint.fetch import cache_path, find_known, find_weight, list_weights
from detrex_backbones.checkpoint.files import read_checkpoint
from detrex_backbones.config import LazyConfig
from detrex_backbones.errors import ArgumentError, CheckpointMatchError, PreprocessingError
from detrex_backbones.zoo import get_config
from detrex_backbones.zoo.meta_build import build_on_meta

DINO = "detrex://dino_swin_tiny_224_4scale_12ep"
RGB = {"pixel_mean": [123.675, 116.28, 103.53], "pixel_std": [58.395, 57.12, 57.375], "input_format": "RGB"}
BGR = {**RGB, "input_format": "BGR"}
MEAN = {**RGB, "pixel_mean": [127.5, 127.5, 127.5]}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DETREX_BACKBONES_CACHE", str(tmp_path / "cache"))


def extractor(out_indices=(1, 2, 3), images=RGB):
    """Swin with few channels, so that the file is small."""
    net = SwinTransformer(embed_dim=12, depths=(1, 1, 2, 1), num_heads=(3, 3, 3, 3), out_indices=out_indices)
    return FeatureExtractor(net, **images)


@pytest.fixture
def downloaded():
    """A file of the detector's in the cache, where a download puts it: its backbone, neck and transformer."""
    torch.manual_seed(0)
    state = {f"backbone.{key}": torch.rand_like(value, dtype=torch.float) if value.is_floating_point() else value
             for key, value in extractor().backbone.state_dict().items()}  # fmt: skip
    path = cache_path(find_weight(DINO).url)
    path.parent.mkdir(parents=True)
    others = {"neck.convs.0.conv.weight": torch.rand(8, 24, 1, 1), "transformer.level_embeds": torch.rand(4, 8)}
    torch.save({"model": state | others}, path)
    return path, state


@pytest.mark.parametrize("name", [DINO, f"{DINO}.pth", f"{DINO}?matching_heuristics=True", "the file"])
def test_the_backbone_comes_out_of_the_detector(name, downloaded):
    path, state = downloaded
    model = extractor()
    report = load_checkpoint(model, path if name == "the file" else name)
    assert (report.coverage, report.file_coverage) == (1, 1)
    for key, value in state.items():
        assert torch.equal(model.state_dict()[key], value), key


@pytest.mark.parametrize(("images", "said"), [(BGR, "input_format=RGB"), (MEAN, "pixel_mean=[123.675,116.28,103.53]")])
def test_other_images_are_refused(images, said, downloaded):
    for name in (DINO, downloaded[0]):
        with pytest.raises(PreprocessingError) as caught:
            load_checkpoint(extractor(images=images), name)
        assert DINO in str(caught.value) and f"model.{said}" in str(caught.value)


def test_a_network_with_another_map_is_refused_with_what_it_was(downloaded):
    with pytest.raises(CheckpointMatchError) as caught:
        load_checkpoint(extractor((0, 1, 2, 3)), DINO)
    assert "norm0" in str(caught.value)
    assert "whose backbone is swin/tiny with model.backbone.out_indices=[1,2,3]" in str(caught.value)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/models/dino_swin_large_384_4scale_36ep.pth", "detrex://dino_swin_large_384_4scale_36ep"),
        ("dino_swin_large_384_4scale_36ep (1).pth", "detrex://dino_swin_large_384_4scale_36ep"),
        ("dino_swin_large_384_4scale_36ep_mine.pth", None),
        ("model_0039999_e76410.pkl", "detectron2://Misc/cascade_mask_rcnn_X_152_32x8d_FPN_IN5k_gn_dconv"),
        ("COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml", "detectron2://COCO-Detection/faster_rcnn_R_50_FPN_3x"),
        ("detectron2://ViTDet/COCO/mask_rcnn_vitdet_b", "detectron2://ViTDet/COCO/mask_rcnn_vitdet_b"),
    ],
)
def test_files_and_names_of_detectors_are_known(path, name):
    weight = find_known(path)
    assert (weight and weight.name) == name


def test_the_name_of_a_config_where_it_has_one_file():
    # The file of this config is called dino_swin_large_4scale_12ep.pth.
    assert find_weight("detrex://dino_swin_large_384_4scale_12ep").file == "dino_swin_large_4scale_12ep.pth"
    with pytest.raises(ArgumentError, match="dino_r50_4scale_24ep"):  # six files were made with this one
        find_weight("detrex://dino_r50_4scale_12ep")


def test_model_zoos_names_are_fetched_as_the_catalogues(tmp_path, monkeypatch):
    name = "COCO-Detection/faster_rcnn_R_50_FPN_3x"
    path = cache_path(find_weight(f"detectron2://{name}").url)
    path.parent.mkdir(parents=True)
    torch.save({"model": {"weight": torch.ones(1)}}, path)
    for one in (f"{name}.yaml", f"{name}.py", name, f"detectron2://{name}.yaml"):
        assert set(read_checkpoint(one).tensors) == {"weight"}, one
    # What lies here under that name is meant.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "COCO-Detection").mkdir()
    torch.save({"model": {"mine": torch.ones(1)}}, tmp_path / f"{name}.yaml")
    assert set(read_checkpoint(f"{name}.yaml").tensors) == {"mine"}


@pytest.mark.slow
def test_every_row_names_a_config_that_builds():
    detectors = [*list_weights("detrex://*"), *list_weights("detectron2://*")]
    assert len(detectors) > 200
    for config, overrides in {(weight.config, weight.overrides) for weight in detectors if weight.config}:
        cfg = LazyConfig.apply_overrides(get_config(config), overrides)
        build_on_meta(cfg.model.backbone)
