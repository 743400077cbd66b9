"""The picture of `features`: every number is drawn where it lies in the photo."""

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from detrex_backbones import Backbone, FeatureExtractor, ShapeSpec, TimmBackbone
from detrex_backbones.view import draw_features, extract_maps

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
