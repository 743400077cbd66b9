"""The picture of `features`: every number is drawn where it lies in the photo."""

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from detrex_backbones import Backbone, FeatureExtractor, ShapeSpec, TimmBackbone
from detrex_backbones.errors import ArgumentError, InputError
from detrex_backbones.view import draw_features, draw_sheet, extract_maps
from detrex_backbones.view.colours import Draw, Place, layers_of, parse_draw

HEIGHT, WIDTH = 90, 70


def brightest(figure, column):
    """The photo's pixels that are drawn bright: first and last row, then column."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba())[::-1, :, :3].astype(int)  # matplotlib counts rows from the bottom
    axis = figure.axes[column]
    pixels = np.array([(x, y) for y in range(HEIGHT) for x in range(WIDTH)])
    across, up = np.floor(axis.transData.transform(pixels)).astype(int).T
    red = drawn[up, across, 0].reshape(HEIGHT, WIDTH)
    rows, columns = np.nonzero(red > (red.min() + red.max()) / 2)
    return (rows.min(), rows.max()), (columns.min(), columns.max())


@pytest.mark.parametrize(
    ("stride", "centre", "rows", "columns"),
    [
        (16, 7.5, (32, 47), (16, 31)),  # patches
        (16, 0, (24, 40), (8, 24)),  # convolutions of odd kernels, padded on both sides alike
        (32, None, (64, 89), (32, 63)),  # not known: cells; cut at the photo's edge
    ],
)
def test_a_number_is_drawn_at_its_place(stride, centre, rows, columns):
    # As large as a padded image makes it: more cells than the photo has.
    value = torch.zeros(1, 12, 12)
    value[0, 2, 1] = 1
    value[0, 9:] = 0.9  # of the padding: not seen
    centres = {} if centre is None else {"map": centre}
    photo = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    found = brightest(draw_features(photo, {"map": value}, {"map": stride}, centres), column=1)
    assert np.abs(np.array(found) - (rows, columns)).max() <= 1  # a pixel of the picture is not one of the photo


class Mean(Backbone):
    """The mean of every 8 x 8 pixels, of an image padded to multiples of 32."""

    size_divisibility = 32

    def forward(self, x):
        return {"map": torch.nn.functional.avg_pool2d(x, 8)}

    def output_shape(self):
        return {"map": ShapeSpec(channels=3, stride=8)}


def test_a_bright_spot_of_the_photo_is_bright_in_the_picture():
    photo = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    photo[40:48, 56:64] = 255
    maps, centres = extract_maps(FeatureExtractor(Mean(), pixel_mean=[0] * 3, pixel_std=[1] * 3), photo)
    assert maps["map"].shape == (3, 12, 12) and centres == {"map": 3.5}
    found = brightest(draw_features(np.full_like(photo, 128), maps, {"map": 8}, centres), column=1)
    assert np.abs(np.array(found) - ((40, 47), (56, 63))).max() <= 1


def test_where_attention_sees_everything_the_place_is_known_all_the_same():
    photo = np.zeros((224, 224, 3), np.uint8)
    backbone = TimmBackbone("vit_tiny_patch16_224", out_indices=(11,), depth=12)
    _, centres = extract_maps(FeatureExtractor(backbone, pixel_mean=[0] * 3, pixel_std=[1] * 3), photo)
    assert centres == {"p11": 7.5}


@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (HEIGHT, WIDTH, 2), (HEIGHT, WIDTH, 4)])
def test_every_kind_of_photo_can_be_drawn(shape):
    figure = draw_features(np.zeros(shape, np.uint16), {"map": torch.rand(2, 3, 3)}, {"map": 0}, {})
    FigureCanvasAgg(figure).draw()
    assert figure.axes[1].get_xlim() == (-0.5, WIDTH - 0.5) and figure.axes[1].get_ylim() == (HEIGHT - 0.5, -0.5)


def test_by_default_the_norm_over_channels_is_drawn():
    value = torch.randn(8, 5, 6)
    ((layers,),) = (layer["map"] for layer in layers_of([{"map": value}], {"map": Place(8, 0)}, Draw()))
    assert np.allclose(layers.values, value.norm(dim=0))
    figure = draw_features(np.zeros((40, 48, 3), np.uint8), {"map": value}, {"map": 8}, {})
    assert "norm of 8 channels" in figure.axes[1].get_title()
    assert len(figure.axes) == 3  # with a colour bar


def test_rounding_is_not_drawn_as_a_picture():
    value = torch.nn.functional.layer_norm(torch.randn(6, 6, 32), (32,)).permute(2, 0, 1)
    ((layer,),) = (layers["map"] for layers in layers_of([{"map": value}], {"map": Place(8, 0)}, Draw()))
    low, high = layer.limits
    shown = (layer.values - low) / (high - low)
    assert shown.max() - shown.min() < 0.1


def test_similarity_is_the_cosine_to_the_cell_of_the_point():
    value = torch.randn(8, 5, 6)
    ((layer,),) = (
        layers["map"] for layers in layers_of([{"map": value}], {"map": Place(8, 0)}, parse_draw("similarity=17,33"))
    )
    wanted = torch.nn.functional.cosine_similarity(value, value[:, 4, 2][:, None, None], dim=0)
    assert np.allclose(layer.values, wanted, atol=1e-6) and layer.limits[1] == 1
    with pytest.raises(InputError, match="point 100,3"):
        layers_of([{"map": value}], {"map": Place(8, 0)}, parse_draw("similarity=100,3"))


def test_channels_are_those_that_vary_most():
    value = torch.randn(4, 5, 6) * torch.tensor([1.0, 9.0, 2.0, 5.0])[:, None, None]
    (drawn,) = layers_of([{"map": value}], {"map": Place(8, 0)}, parse_draw("channels=2"))
    assert [layer.title for layer in drawn["map"]] == ["channel 1", "channel 3"]


def test_principal_components_are_shared_by_images_and_agree_between_maps():
    torch.manual_seed(0)
    hidden = [torch.rand(3, 12, 16) * torch.tensor([4.0, 2.0, 1.0])[:, None, None] for _ in range(2)]
    fine, coarse = (torch.linalg.qr(torch.randn(40, 3))[0] for _ in range(2))
    images = [
        {
            "fine": torch.einsum("ck,khw->chw", fine, one),
            "coarse": torch.einsum("ck,khw->chw", coarse, torch.nn.functional.avg_pool2d(one, 2)),
        }
        for one in hidden
    ]
    places = {"fine": Place(4, 0), "coarse": Place(8, 0)}
    both = layers_of(images, places, Draw("pca"))
    # The same pixel in two images has the same colour.
    same = layers_of([images[0], images[0]], places, Draw("pca"))
    assert np.array_equal(same[0]["fine"][0].values, same[1]["fine"][0].values)
    # A map that shows the same, coarser and through other channels, has nearly the same colours.
    for drawn in both:
        small = torch.nn.functional.avg_pool2d(torch.from_numpy(drawn["fine"][0].values).permute(2, 0, 1), 2)
        there = torch.from_numpy(drawn["coarse"][0].values).permute(2, 0, 1)
        for one, other in zip(small, there, strict=True):
            assert np.corrcoef(one.flatten(), other.flatten())[0, 1] > 0.95
    # Fewer channels or positions than components are no error.
    layers_of([{"map": torch.rand(2, 1, 1)}], {"map": Place(8, 0)}, Draw("pca"))


@pytest.mark.parametrize("text", ["nrom", "similarity=3", "similarity=a,b", "channels=0", "pca=3"])
def test_an_unknown_way_to_draw_is_refused(text):
    with pytest.raises(ArgumentError, match="Allowed: norm, pca"):
        parse_draw(text)


def drawn_size(axis):
    """Width and height of the photo in an axis, in inches."""
    box = axis.get_window_extent()
    return box.width / axis.figure.get_dpi(), box.height / axis.figure.get_dpi()


@pytest.mark.parametrize("size", [(2000, 30), (30, 2000), (100, 600)])
@pytest.mark.parametrize("draw", ["norm", "channels=2"])
def test_a_strip_keeps_its_ratio_and_can_be_read(size, draw):
    maps = {name: torch.rand(2, -(-size[0] // 8), -(-size[1] // 8)) for name in ("a", "b")}
    photo = np.zeros((*size, 3), np.uint8)
    figure = draw_features(photo, maps, {"a": 8, "b": 8}, {}, draw)
    panels = 3 if draw == "norm" else 5
    sheet = draw_sheet({"a.jpg": photo, "b.jpg": np.zeros((60, 80, 3), np.uint8)}, [maps] * 2, {"a": 8, "b": 8}, draw)
    for drawn, axes in ((figure, figure.axes[:panels]), (sheet, sheet.axes[:3])):
        FigureCanvasAgg(drawn).draw()
        assert max(drawn.get_size_inches()) <= 25
        for axis in axes:
            width, height = drawn_size(axis)
            assert width / height == pytest.approx(size[1] / size[0], rel=0.02)
            assert min(width, height) > 0.25
    width, height = drawn_size(sheet.axes[3])  # the photo beside it stays as it is on other sheets
    assert width / height == pytest.approx(80 / 60, rel=0.02) and 0.5 < width < 1.5


def test_a_large_photo_is_drawn_at_screen_size_at_its_place():
    photo = np.zeros((3000, 4000, 3), np.uint8)
    photo[1000:2000, :2000] = 255
    image = draw_features(photo, {"map": torch.rand(2, 3, 4)}, {"map": 1000}, {}).axes[0].images[0]
    drawn = image.get_array()
    assert max(drawn.shape[:2]) <= 640 and image.get_extent() == [-0.5, 3999.5, 2999.5, -0.5]
    rows, columns = np.nonzero(np.asarray(drawn)[..., 0] > 128)
    assert rows.min() / drawn.shape[0] == pytest.approx(1 / 3, abs=0.01)
    assert (columns.max() + 1) / drawn.shape[1] == pytest.approx(1 / 2, abs=0.01)


def test_a_contact_sheet_has_a_row_for_each_image():
    photos = {f"cats/{index}.jpg": np.zeros((40 + 8 * index, 48, 3), np.uint8) for index in range(3)}
    maps = [{"a": torch.rand(4, 5 + index, 6), "b": torch.rand(4, 3, 3)} for index in range(3)]
    figure = draw_sheet(photos, maps, {"a": 8, "b": 16}, "pca", caption="3 of 7 images")
    assert len(figure.axes) == 9 and figure.get_suptitle() == "3 of 7 images"
    assert [axis.get_title() for axis in figure.axes[::3]] == list(photos)
    FigureCanvasAgg(figure).draw()
