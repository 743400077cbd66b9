"""Maps by name, frozen beginnings, image sizes and further arguments of timm models."""

import pytest
import torch
from torch import nn

from detrex_backbones import FeatureExtractor, TimmBackbone
from detrex_backbones.errors import ArgumentError, InputError
from tests.reference import noise


def meta(name: str, **kwargs) -> TimmBackbone:
    with torch.device("meta"):
        return TimmBackbone(name, **kwargs)


class TestMaps:
    def test_are_chosen_by_name(self):
        ours = meta("resnet14t", out_features=("p3", "p1"))
        assert list(ours.output_shape()) == ["p3", "p1"]
        assert [spec.stride for spec in ours.output_shape().values()] == [16, 4]

    def test_none_of_them_asked_for_are_timms_choice(self):
        assert list(meta("resnet14t", out_indices=None).output_shape()) == ["p0", "p1", "p2", "p3", "p4"]
        assert list(meta("vit_tiny_patch16_224", out_indices=None).output_shape()) == ["p9", "p10", "p11"]

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"out_features": ("p1",), "out_indices": (1, 2)}, "choose different maps"),
            ({"out_features": "p1"}, "is a string"),
            ({"out_features": ("res2",)}, "'res2' is no name of a map"),
            ({"out_features": ("p-1",)}, "'p-1' is no name of a map"),
            ({"out_features": ("p9",)}, r"maps \[0, 1, 2, 3, 4\]"),
            ({"out_features": ()}, "at least one"),
        ],
    )
    def test_wrong_names_are_errors(self, kwargs, message):
        with pytest.raises(ArgumentError, match=message):
            meta("resnet14t", **kwargs)

    @pytest.mark.parametrize("feature_cls", ["list", "dict", "getter", "hook"])
    def test_of_a_channels_last_family_come_channels_first(self, feature_cls):
        ours = meta("swin_tiny_patch4_window7_224", out_indices=(1, 3), feature_cls=feature_cls)
        maps = ours(torch.empty(2, 3, 64, 96, device="meta"))
        assert [tuple(value.shape) for value in maps.values()] == [(2, 192, 8, 12), (2, 768, 2, 3)]


class TestFreezeAt:
    @pytest.mark.parametrize(
        ("name", "freeze_at", "frozen", "trained"),
        [
            ("resnet14t", 1, ["conv1", "bn1"], ["layer1"]),
            ("resnet14t", 3, ["conv1", "bn1", "layer1", "layer2"], ["layer3"]),
            ("convnext_atto", 1, ["stem_0", "stem_1"], ["stages_0"]),
            ("convnext_atto", 2, ["stem_0", "stem_1", "stages_0"], ["stages_1"]),
            ("mobilenetv2_035", 2, ["conv_stem", "bn1", "blocks.0"], ["blocks.1", "blocks.6"]),
            (
                "vit_tiny_patch16_224",
                2,
                ["model.pos_embed", "model.cls_token", "model.patch_embed", "model.blocks.0"],
                ["model.blocks.1"],
            ),
        ],
    )
    def test_freezes_the_beginning(self, name, freeze_at, frozen, trained):
        ours = meta(name, freeze_at=freeze_at)
        kinds = {(True, True): 0, (True, False): 0, (False, True): 0, (False, False): 0}
        for key, parameter in ours.timm_model.named_parameters():
            before = any(key == start or key.startswith(start + ".") for start in frozen)
            kinds[before, parameter.requires_grad] += 1
            if any(key.startswith(start + ".") for start in trained):
                assert parameter.requires_grad, key
        assert kinds[True, True] == 0 and kinds[False, False] == 0 and kinds[False, True] > 0
        for key, module in ours.timm_model.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                assert not any(key == start or key.startswith(start + ".") for start in frozen), key

    @pytest.mark.parametrize(("name", "last"), [("resnet14t", 4), ("convnext_atto", 5)])
    def test_freezes_up_to_the_last_stage(self, name, last):
        ours = meta(name, freeze_at=last)
        assert not any(parameter.requires_grad for parameter in ours.parameters())

    def test_changes_no_output(self):
        torch.manual_seed(0)
        free = TimmBackbone("mobilenetv2_035").eval()
        frozen = TimmBackbone("mobilenetv2_035", freeze_at=3)
        frozen.load_state_dict(free.state_dict(), strict=False)
        frozen.eval()
        images = noise(1, 3, 33, 65)
        with torch.no_grad():
            for ours, theirs in zip(frozen(images).values(), free(images).values(), strict=True):
                torch.testing.assert_close(ours, theirs)

    @pytest.mark.parametrize("freeze_at", [-1, 9, True, "1", None])
    def test_out_of_range_is_an_error(self, freeze_at):
        with pytest.raises(ArgumentError, match=r"freeze_at=.*Allowed: 0 \(nothing\), 1 \(all before layer1\)"):
            meta("resnet14t", freeze_at=freeze_at)


class TestSizes:
    @pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "convnext_atto"])
    def test_of_photos_are_padded_as_the_model_needs(self, name):
        ours = FeatureExtractor(
            TimmBackbone(name, out_indices=None), pixel_mean=[0.0] * 3, pixel_std=[1.0] * 3, input_format="RGB"
        ).eval()
        step = max(ours.backbone.size_divisibility, 1)
        with torch.no_grad():
            maps = ours(noise(1, 3, 61, 83))
        padded = [-(-side // step) * step for side in (61, 83)]
        for key, spec in ours.output_shape().items():
            assert maps[key].shape == (1, spec.channels, *(-(-side // spec.stride) for side in padded))

    def test_that_tables_are_too_small_for_are_an_error(self):
        with pytest.raises(InputError, match=r"mvitv2_tiny can't run.*img_size=\(161, 227\)"):
            TimmBackbone("mvitv2_tiny").eval()(noise(1, 3, 161, 227))

    def test_that_need_padding_are_an_error_that_says_so(self):
        ours = TimmBackbone("swin_tiny_patch4_window7_224").eval()
        with pytest.raises(InputError, match=r"\(61, 82\).*multiples of 4, its size_divisibility: pad to \(64, 84\)"):
            ours(noise(1, 3, 61, 82))

    def test_that_it_was_not_made_for_are_an_error_with_the_cure(self):
        ours = TimmBackbone("pit_ti_224", out_indices=None).eval()
        with pytest.raises(InputError, match=r"\(64, 96\).*bound to the size.*img_size=\(64, 96\)"):
            ours(noise(1, 3, 64, 96))
        assert len(TimmBackbone("pit_ti_224", out_indices=None, img_size=(64, 96)).eval()(noise(1, 3, 64, 96))) == 3

    def test_are_not_blamed_for_other_errors(self, monkeypatch):
        ours = TimmBackbone("resnet14t")
        monkeypatch.setattr(ours.timm_model, "forward", lambda x: (_ for _ in ()).throw(RuntimeError("disk on fire")))
        with pytest.raises(RuntimeError, match=r"^disk on fire$"):
            ours(noise(1, 3, 33, 33))

    def test_of_other_channels_are_an_error(self):
        with pytest.raises(InputError, match=r"in_channels=3.*has 4"):
            TimmBackbone("resnet14t")(noise(1, 4, 33, 33))


class TestFurtherArguments:
    def test_reach_timm(self):
        assert meta("resnet14t", out_indices=(3, 4), output_stride=16).output_shape()["p4"].stride == 16
        dropping = meta("convnext_atto", drop_path_rate=0.5)
        assert any(type(module).__name__ == "DropPath" for module in dropping.modules())

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"drop_path_rat": 0.1}, r"does not take drop_path_rat=0.1.*'drop_path_rate'.*It takes: .*output_stride"),
            ({"img_size": (64, 64)}, r"does not take img_size=\(64, 64\)"),
            ({"in_chans": 4}, "called in_channels here"),
            ({"feature_cls": "lisst"}, "feature_cls='lisst'"),
        ],
    )
    def test_that_the_model_does_not_take_are_errors(self, kwargs, message):
        with pytest.raises(ArgumentError, match=message):
            meta("resnet14t", **kwargs)
