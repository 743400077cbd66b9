import numpy as np
import pytest
import torch
from PIL import Image

from detrex_backbones import Backbone, BasicStem, FeatureExtractor, ResNet, ShapeSpec, make_stage
from detrex_backbones.errors import ArgumentError, InputError
from tests.reference import assert_close

MEAN, STD = [123.675, 116.280, 103.530], [58.395, 57.120, 57.375]


class Echo(Backbone):
    """Gives its input back, and constrains the padding as it is told."""

    def __init__(self, divisibility: int = 0, **constraints: int):
        super().__init__()
        self._divisibility, self._constraints = divisibility, constraints

    def forward(self, x):
        return {"images": x}

    def output_shape(self):
        return {"images": ShapeSpec(channels=3, stride=1)}

    @property
    def size_divisibility(self):
        return self._divisibility

    @property
    def padding_constraints(self):
        return self._constraints


def photo(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def by_hand(image: np.ndarray, mean=MEAN, std=STD) -> np.ndarray:
    """(H, W, C) 0-255 -> (C, H, W), in float64."""
    return ((image.astype(np.float64) - mean) / std).transpose(2, 0, 1)


def extractor(backbone: Backbone | None = None, **kwargs) -> FeatureExtractor:
    return FeatureExtractor(backbone or Echo(), **{"pixel_mean": MEAN, "pixel_std": STD, **kwargs})


class TestPreprocess:
    def test_is_the_formula(self):
        image = photo(5, 7)
        batch = extractor().preprocess(image)
        assert batch.dtype == torch.float32
        np.testing.assert_allclose(batch.numpy(), by_hand(image)[None], rtol=1e-5, atol=1e-6)

    def test_gives_bgr_weights_bgr_images_with_their_own_means(self):
        image = photo(5, 7)
        mean, std = [103.53, 116.28, 123.675], [1.0, 2.0, 3.0]
        batch = extractor(pixel_mean=mean, pixel_std=std, input_format="BGR").preprocess(image)
        np.testing.assert_allclose(batch.numpy(), by_hand(image[..., ::-1], mean, std)[None], rtol=1e-5, atol=1e-5)

    def test_pads_images_of_different_sizes_with_zeros_on_the_right_and_at_the_bottom(self):
        images = [photo(5, 7), photo(8, 4, seed=1), photo(3, 3, seed=2)]
        batch = extractor().preprocess(images)
        expected = np.zeros((3, 3, 8, 7))
        for index, image in enumerate(images):
            expected[index, :, : image.shape[0], : image.shape[1]] = by_hand(image)
        np.testing.assert_allclose(batch.numpy(), expected, rtol=1e-5, atol=1e-6)

    def test_takes_every_form_of_the_same_images_alike(self):
        images = [photo(5, 7), photo(5, 7, seed=1)]
        batch = np.stack(images)
        tensors = torch.from_numpy(batch).permute(0, 3, 1, 2)
        expected = extractor().preprocess(images)
        for form in (
            batch,
            tensors,
            tuple(images),
            list(tensors),
            [Image.fromarray(image) for image in images],
            batch.astype(np.float64),
            tensors.float(),
            batch.astype(np.uint16) * 257,
            [images[0], tensors[1].double()],
        ):
            torch.testing.assert_close(extractor().preprocess(form), expected)
        torch.testing.assert_close(extractor().preprocess(Image.fromarray(images[0])), expected[:1])
        torch.testing.assert_close(extractor().preprocess(tensors[0]), expected[:1])

    @pytest.mark.parametrize("channels", [1, 4, 6])
    def test_takes_as_many_channels_as_there_are_means(self, channels):
        image, mean, std = photo(5, 7, channels), list(range(channels)), list(range(1, channels + 1))
        batch = extractor(pixel_mean=mean, pixel_std=std).preprocess(image)
        np.testing.assert_allclose(batch.numpy(), by_hand(image, mean, std)[None], rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize(
        ("backbone", "size"),
        [
            (Echo(), (33, 40)),
            (Echo(divisibility=32), (64, 64)),
            (Echo(size_divisibility=16), (48, 48)),
            (Echo(divisibility=32, size_divisibility=16), (48, 48)),
            (Echo(square_size=50), (50, 50)),
            (Echo(square_size=0, size_divisibility=20), (40, 40)),
        ],
    )
    def test_pads_as_the_backbone_wants_it(self, backbone, size):
        batch = extractor(backbone).preprocess([photo(33, 20), photo(20, 40)])
        assert batch.shape == (2, 3, *size)
        assert not batch[0, :, 33:].any() and not batch[0, :, :, 20:].any()

    def test_keeps_a_size_that_fits(self):
        assert extractor(Echo(divisibility=32)).preprocess(photo(64, 32)).shape == (1, 3, 64, 32)

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.005), (torch.float64, 1e-6)])
    def test_gives_the_dtype_of_the_model(self, dtype, tolerance):
        image = photo(5, 7)
        batch = extractor().to(dtype).preprocess(image)
        assert batch.dtype == dtype
        assert_close(batch[0], torch.from_numpy(by_hand(image)), tolerance)

    def test_leaves_the_images_as_they_were(self):
        image = torch.from_numpy(photo(5, 7)).permute(2, 0, 1).float()
        before = image.clone()
        extractor().preprocess([image])
        assert torch.equal(image, before)

    @pytest.mark.parametrize(
        ("images", "message"),
        [
            ([], "no images"),
            (np.zeros((0, 5, 7, 3), np.uint8), "no images"),
            ("photo.jpg", "is a str"),
            ([photo(5, 7), None], "is a NoneType"),
            (photo(5, 7, 5), "5 channels, the network takes 3"),
            (np.zeros((2, 2, 5, 7, 3), np.uint8), r"shape \(2, 2, 5, 7, 3\)"),
        ],
    )
    def test_what_is_no_image_is_an_error(self, images, message):
        with pytest.raises(InputError, match=message):
            extractor().preprocess(images)

    def test_an_image_beyond_the_backbones_square_is_an_error(self):
        with pytest.raises(InputError, match=r"33x20.*square of 32"):
            extractor(Echo(square_size=32)).preprocess(photo(33, 20))


class TestExtractor:
    def test_runs_the_backbone_on_what_preprocess_gives(self):
        backbone = ResNet(BasicStem(), make_stage(18, norm="BN"), out_features=["res2", "res3"])
        model = extractor(backbone).eval()
        images = [photo(33, 47), photo(40, 35, seed=1)]
        with torch.no_grad():
            maps, expected = model(images), backbone(model.preprocess(images))
        assert list(maps) == ["res2", "res3"]
        assert all(torch.equal(maps[name], expected[name]) for name in maps)
        assert model.output_shape() == backbone.output_shape()

    def test_means_are_no_part_of_the_checkpoint(self):
        model = extractor()
        assert list(model.state_dict()) == []
        assert {name for name, _ in model.named_buffers()} == {"pixel_mean", "pixel_std"}

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"pixel_mean": [1.0]}, "differ in length"),
            ({"pixel_std": [1.0, 0.0, 1.0]}, "above 0"),
            ({"pixel_std": [1.0, -1.0, 1.0]}, "above 0"),
            ({"pixel_mean": [float("nan")] * 3}, "finite"),
            ({"pixel_mean": []}, "pixel_mean"),
            ({"pixel_mean": 3.0}, "pixel_mean=3.0 is not a list of numbers"),
            ({"pixel_mean": ["a", "b", "c"]}, r"pixel_mean\[0\]='a' is of type str. Allowed: numbers"),
            ({"input_format": "rgb"}, "input_format='rgb'.*'RGB', 'BGR'"),
            ({"input_format": "BGR", "pixel_mean": [1.0], "pixel_std": [1.0]}, "'BGR' needs 3 channels"),
        ],
    )
    def test_wrong_arguments_are_errors_that_name_them(self, kwargs, message):
        with pytest.raises(ArgumentError, match=message):
            extractor(**kwargs)


def test_a_batch_in_a_tensor_is_as_good_as_its_images_one_by_one():
    images = torch.from_numpy(np.stack([photo(5, 7), photo(5, 7, seed=1)])).permute(0, 3, 1, 2)
    net = extractor(Echo(4), input_format="BGR")
    assert torch.equal(net.preprocess(images), net.preprocess(list(images)))
    assert torch.equal(net.preprocess(images[:, :1]), net.preprocess(list(images[:, :1])))
    with pytest.raises(InputError, match=r"an image tensor has shape \(2, 3, 5, 7\)"):
        net.preprocess([images])
    with pytest.raises(InputError, match="no images"):
        net.preprocess(images[:0])


def test_a_module_that_is_no_backbone_runs_unpadded_and_states_no_shapes():
    class Maps(torch.nn.Module):
        def forward(self, images):
            return {"half": images[..., ::2, ::2]}

    extractor = FeatureExtractor(Maps(), MEAN, STD)
    image = photo(31, 47)
    expected = torch.from_numpy(by_hand(image)).float()[None, :, ::2, ::2]
    assert_close(extractor(image)["half"], expected)
    with pytest.raises(ArgumentError, match=r"Maps has no output_shape\(\)"):
        extractor.output_shape()
