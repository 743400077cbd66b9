"""What every backbone must do. A new backbone runs through all of it: add it to `test_contract.py`."""

from __future__ import annotations

import copy
import io
import math
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from detrex_backbones import Backbone, FrozenBatchNorm2d, ShapeSpec
from detrex_backbones.errors import InputError
from tests.reference import noise, randomise_norms


def same_maps(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


def pickled(backbone: Backbone) -> Backbone:
    return pickle.loads(pickle.dumps(backbone))


def saved(backbone: Backbone) -> Backbone:
    file = io.BytesIO()
    torch.save(backbone, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


class BackboneContract:
    """Subclass it, and parametrise the class with `build`: a function without arguments that makes the backbone."""

    # How a map's height follows from the image's height and the stride, where they don't divide.
    rounding: tuple[Callable[[float], int], ...] = (math.ceil,)

    @pytest.mark.few(4)
    def test_is_a_backbone(self, backbone: Backbone) -> None:
        assert isinstance(backbone, Backbone)
        assert isinstance(backbone, nn.Module)

    def test_gives_the_maps_that_output_shape_names_in_its_order(self, backbone, maps) -> None:
        assert maps
        assert list(maps) == list(backbone.output_shape())

    def test_the_maps_have_the_channels_and_strides_that_were_promised(self, backbone, images, maps) -> None:
        for name, spec in backbone.output_shape().items():
            assert isinstance(spec, ShapeSpec)
            batch, channels, *size = maps[name].shape
            assert (batch, channels) == (len(images), spec.channels)
            for pixels, given in zip(images.shape[2:], size, strict=True):
                assert given in {rounded(pixels / spec.stride) for rounded in self.rounding}

    def test_the_maps_are_finite_and_not_constant(self, maps) -> None:
        for value in maps.values():
            assert torch.isfinite(value).all()
            assert value.std() > 0

    def test_what_it_says_of_padding_can_be_read(self, backbone) -> None:
        assert isinstance(backbone.size_divisibility, int)
        assert set(backbone.padding_constraints) <= {"size_divisibility", "size_divisiblity", "square_size"}

    def test_gives_the_same_maps_twice_and_leaves_the_images_alone(self, backbone, images, maps) -> None:
        before = images.clone()
        with torch.no_grad():
            assert same_maps(backbone(images), maps)
        assert torch.equal(images, before)

    def test_treats_each_image_of_a_batch_for_itself(self, backbone, images, maps) -> None:
        with torch.no_grad():
            alone = backbone(images[1:])
        for name, value in maps.items():
            torch.testing.assert_close(alone[name], value[1:], rtol=1e-4, atol=1e-4 * value.abs().max().item())

    @pytest.mark.few(3)
    def test_on_the_meta_device_allocates_nothing_and_gives_the_same_shapes(self, build, images, maps) -> None:
        with torch.device("meta"):
            backbone = build().eval()
        assert all(tensor.is_meta for tensor in (*backbone.parameters(), *backbone.buffers()))
        on_meta = backbone(images.to("meta"))
        assert {name: value.shape for name, value in on_meta.items()} == {
            name: value.shape for name, value in maps.items()
        }

    @pytest.mark.few(5)
    def test_copies_are_equal_and_independent(self, backbone, images, maps) -> None:
        duplicate = copy.deepcopy(backbone)
        with torch.no_grad():
            assert same_maps(duplicate(images), maps)
            for tensor in (*duplicate.parameters(), *duplicate.buffers()):
                tensor.zero_()
            assert same_maps(backbone(images), maps)

    @pytest.mark.few(4)
    @pytest.mark.parametrize("duplicated", [pickled, saved])
    def test_a_file_of_it_holds_the_same_network(self, backbone, images, maps, duplicated) -> None:
        duplicate = duplicated(backbone)
        assert duplicate.output_shape() == backbone.output_shape()
        with torch.no_grad():
            assert same_maps(duplicate(images), maps)

    @pytest.mark.few(3)
    @pytest.mark.parametrize("duplicated", [copy.deepcopy, pickled, saved])
    def test_a_copy_in_training_computes_as_in_training(self, build, images, duplicated) -> None:
        backbone = build().train()
        duplicate = duplicated(backbone)
        assert [module.training for module in duplicate.modules()] == [module.training for module in backbone.modules()]
        learning = [name for name, parameter in backbone.named_parameters() if parameter.requires_grad]
        assert [name for name, parameter in duplicate.named_parameters() if parameter.requires_grad] == learning
        given = []
        for net in (backbone, duplicate, duplicated(duplicate)):
            torch.manual_seed(7)
            given.append(net(images))
        assert same_maps(given[0], given[1])
        with torch.no_grad():
            assert same_maps(duplicate.eval()(images), backbone.eval()(images))

    @pytest.mark.few(4)
    def test_a_saved_state_dict_restores_it(self, build, backbone, images, maps) -> None:
        file = io.BytesIO()
        torch.save(backbone.state_dict(), file)
        file.seek(0)
        other = build().eval()
        with torch.no_grad():
            assert not same_maps(other(images), maps)
            other.load_state_dict(torch.load(file, weights_only=True), strict=True)
            assert same_maps(other(images), maps)

    @pytest.mark.few(2)
    def test_only_what_is_not_frozen_gets_a_gradient(self, build, images) -> None:
        backbone = build().train()
        sum(value.square().mean() for value in backbone(images).values()).backward()
        trained = [parameter.grad for parameter in backbone.parameters() if parameter.requires_grad]
        assert all(parameter.grad is None for parameter in backbone.parameters() if not parameter.requires_grad)
        assert all(gradient is not None for gradient in trained)  # or DistributedDataParallel would wait for it
        assert any(gradient.any() for gradient in trained)
        frozen = [module for module in backbone.modules() if isinstance(module, FrozenBatchNorm2d)]
        assert not any(buffer.requires_grad or buffer.grad is not None for norm in frozen for buffer in norm.buffers())

    @pytest.mark.parametrize("dimensions", [1, 3, 5])
    def test_images_that_are_no_batch_are_an_error(self, backbone, dimensions) -> None:
        with pytest.raises(InputError, match=r"\(N, C, H, W\)"):
            backbone(torch.zeros([1, 3, 65, 97, 1][:dimensions]))


@pytest.fixture(scope="class")
def backbone(build):
    torch.manual_seed(0)
    return randomise_norms(build()).eval()


@pytest.fixture(scope="class")
def images():
    return noise(2, 3, 65, 97)


@pytest.fixture(scope="class")
def maps(backbone, images):
    with torch.no_grad():
        return backbone(images)
