"""Maps by name, frozen beginnings, image sizes and further arguments of timm models."""

import pytest
import torch
from torch import nn

from detrex_backbones import FeatureExtractor, TimmBackbone
from detrex_backbones.errors import ArgumentError, InputError
from tests.old_libraries import skip_without_maps, skip_without_network
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
            ({"out_features": ("p-",)}, "'p-' is no name of a map"),
            ({"out_features": ("p-6",)}, r"maps \[0, 1, 2, 3, 4\]"),
            ({"out_features": ("p9",)}, r"maps \[0, 1, 2, 3, 4\]"),
            ({"out_features": ()}, "at least one"),
        ],
    )
    def test_wrong_names_are_errors(self, kwargs, message):
        with pytest.raises(ArgumentError, match=message):
            meta("resnet14t", **kwargs)

    @pytest.mark.few(1)
    @pytest.mark.parametrize("feature_cls", ["list", "dict", "getter", "hook"])
    def test_of_a_channels_last_family_come_channels_first(self, feature_cls):
        ours = meta("swin_tiny_patch4_window7_224", out_indices=(1, 3), feature_cls=feature_cls)
        maps = ours(torch.empty(2, 3, 64, 96, device="meta"))
        assert [tuple(value.shape) for value in maps.values()] == [(2, 192, 8, 12), (2, 768, 2, 3)]


class TestFreezeAt:
    @pytest.mark.few(1)
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

    @pytest.mark.few(1)
    @pytest.mark.parametrize(
        ("name", "kwargs", "wrapper", "freeze_at", "frozen", "trained"),
        [
            ("resnet14t", {}, "FeatureListNet", 2, "layer1", "layer2"),
            ("resnet14t", {"feature_cls": "dict"}, "FeatureDictNet", 2, "layer1", "layer2"),
            ("resnet14t", {"feature_cls": "hook"}, "FeatureHookNet", 2, "body.layer1", "body.layer2"),
            ("resnet14t", {"feature_cls": "fx"}, "FeatureGraphNet", 2, "graph_module.layer1", "graph_module.layer2"),
            (
                "legacy_xception",
                {},
                "FeatureHookNet",
                2,
                "body.block1",
                "body.block2",
            ),  # its map is taken at block2.rep.0
            ("cspnext_tiny", {}, "FeatureGetterNet", 2, "model.stages.0", "model.stages.1"),
            ("mobilenetv2_035", {}, "EfficientNetFeatures", 3, "blocks.1", "blocks.2"),
            ("mobilenetv3_small_050", {}, "MobileNetV3Features", 2, "blocks.0", "blocks.1"),
            ("hrnet_w18_small", {}, "HighResolutionNetFeatures", 1, "conv1", "conv2"),
        ],
    )
    def test_works_in_every_kind_of_wrapper(self, name, kwargs, wrapper, freeze_at, frozen, trained):
        skip_without_maps(name)
        ours = meta(name, out_indices=None, freeze_at=freeze_at, **kwargs)
        assert type(ours.timm_model).__name__ == wrapper
        names = [key for key, _ in ours.timm_model.named_parameters()]
        learns = [parameter.requires_grad for parameter in ours.timm_model.parameters()]
        cut = next(i for i, key in enumerate(names) if key.startswith(trained + "."))
        assert names.index(next(key for key in names if key.startswith(frozen + "."))) < cut
        assert learns == [i >= cut for i in range(len(names))]
        # A map that comes of frozen parameters alone has no gradients, the last one has.
        maps = list(ours(torch.empty(2, 3, 64, 64, device="meta")).values())
        assert [maps[0].requires_grad, maps[-1].requires_grad] == [False, True]

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

    @pytest.mark.parametrize("freeze_at", [True, "1", None])
    def test_of_another_kind_is_an_error(self, freeze_at):
        with pytest.raises(ArgumentError, match=r"freeze_at=.* is of type \w+\. Allowed: whole numbers"):
            meta("resnet14t", freeze_at=freeze_at)

    @pytest.mark.parametrize("freeze_at", [-1, 9])
    def test_out_of_range_is_an_error(self, freeze_at):
        with pytest.raises(ArgumentError, match=r"freeze_at=.*Allowed: 0 \(nothing\), 1 \(all before layer1\)"):
            meta("resnet14t", freeze_at=freeze_at)


class TestSizes:
    @pytest.mark.few(1)
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

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("name", "kwargs", "divisibility"),
        [
            ("maxvit_pico_rw_256", {"img_size": 128}, 128),
            ("halonet26t", {}, 256),
        ],
    )
    def test_of_a_fixed_number_of_windows_are_multiples_of_them(self, name, kwargs, divisibility):
        ours = meta(name, out_indices=None, **kwargs).eval()
        assert (ours.size_divisibility, ours.padding_constraints) == (divisibility, {})
        maps = ours(torch.empty(1, 3, 2 * divisibility, divisibility, device="meta"))
        for key, spec in ours.output_shape().items():
            assert maps[key].shape[2:] == (2 * divisibility // spec.stride, divisibility // spec.stride)
        with pytest.raises(InputError, match=rf"multiples of {divisibility}, its size_divisibility"):
            ours(torch.empty(1, 3, divisibility + 1, divisibility, device="meta"))

    def test_that_are_bound_to_a_rectangle_say_what_divides_it(self):
        ours = meta("gcvit_xxtiny", img_size=(192, 256))
        assert (ours.size_divisibility, ours.padding_constraints) == (64, {})

    @pytest.mark.slow
    def test_that_are_bound_to_a_square_are_padded_to_it(self):
        skip_without_maps("coat_tiny")
        ours = TimmBackbone("coat_tiny", out_indices=None, img_size=96)
        ours = FeatureExtractor(ours, pixel_mean=[0.0] * 3, pixel_std=[1.0] * 3, input_format="RGB").eval()
        with torch.no_grad():
            maps = ours(noise(1, 3, 61, 83))
        assert [tuple(value.shape[2:]) for value in maps.values()] == [(24, 24), (12, 12), (6, 6), (3, 3)]

    def test_that_tables_are_too_small_for_are_an_error(self):
        # Its positions are looked up by value, which shows on no meta device; and it is made for squares alone.
        ours = TimmBackbone("mvitv2_tiny").eval()
        assert ours.size_divisibility == ours.padding_constraints["square_size"] == 224
        with pytest.raises(InputError, match=r"mvitv2_tiny can't run.*to \(224, 224\).*img_size=\(256, 256\)"):
            ours(noise(1, 3, 161, 227))

    def test_that_lack_their_first_map_have_the_others(self):
        with pytest.raises(ArgumentError, match=r"out_indices=\[0, 1, 2, 3\]: tresnet_m has the maps \[1, 2, 3, 4\]"):
            meta("tresnet_m")
        assert [shape.channels for shape in meta("tresnet_m", out_indices=(2, -1)).output_shape().values()] == [
            128,
            2048,
        ]

    @pytest.mark.slow
    def test_values_that_meta_tensors_lack_are_not_blamed_on_the_size(self):
        skip_without_network("gemma4_vit_167m")
        with pytest.raises(InputError, match=r"gemma4_vit_167m looks at values.*Run it on the CPU or on a GPU"):
            meta("gemma4_vit_167m")(torch.empty(1, 3, 96, 96, device="meta"))

    def test_swin_fills_up_what_is_no_multiple_of_its_patch(self):
        maps = TimmBackbone("swin_tiny_patch4_window7_224", out_indices=(0, 3)).eval()(noise(1, 3, 61, 82))
        assert [tuple(value.shape[-2:]) for value in maps.values()] == [(16, 21), (2, 3)]

    @pytest.mark.few(1)
    @pytest.mark.parametrize(
        ("name", "cure"),
        [
            ("gcvit_xxtiny", r"to \(224, 224\), or make it with img_size=\(64, 96\) and pad them to that\."),
            ("nest_tiny", r"to \(224, 224\), or make it with img_size=\(96, 96\) and pad them to that\."),
            ("efficientformer_l1", r"to \(224, 224\)\.$"),
        ],
    )
    def test_that_it_was_not_made_for_are_an_error_with_the_cure(self, name, cure):
        ours = meta(name, out_indices=None)
        assert ours.size_divisibility == 224
        assert ours.padding_constraints == {"size_divisibility": 224, "square_size": 224}
        with pytest.raises(InputError, match=rf"\(61, 90\).*bound to the size.*{cure}"):
            ours(torch.empty(1, 3, 61, 90, device="meta"))

    def test_are_those_that_the_cure_makes_it_for(self):
        ours = TimmBackbone("gcvit_xxtiny", out_indices=None, img_size=(64, 96)).eval()
        maps = ours(noise(1, 3, 64, 96))
        assert [tuple(value.shape[2:]) for value in maps.values()] == [(16, 24), (8, 12), (4, 6), (2, 3)]

    @pytest.mark.parametrize(
        ("name", "sizes"),
        [
            ("inception_v3", (0, {})),
            ("pit_ti_224", (224, {"size_divisibility": 224, "square_size": 224})),
        ],
    )
    def test_over_strides_that_are_not_those_of_the_maps_are_warned_of(self, name, sizes):
        ours = meta(name, out_indices=None)
        with pytest.warns(UserWarning, match=f"maps of timm's {name} are not H / stride by W / stride"):
            assert ours.size_divisibility == sizes[0]
        assert ours.padding_constraints == sizes[1]

    def test_over_strides_are_warned_of_for_no_other(self, recwarn):
        assert meta("resnet14t", out_indices=None).size_divisibility == 0
        assert not recwarn

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
