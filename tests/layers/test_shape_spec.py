import dataclasses

import pytest

from detrex_backbones import ShapeSpec


def test_fields_and_defaults_are_detectron2s():
    fields = {field.name: field.default for field in dataclasses.fields(ShapeSpec)}
    assert fields == {"channels": None, "height": None, "width": None, "stride": None}


def test_is_compared_by_value():
    assert ShapeSpec(channels=256, stride=4) == ShapeSpec(channels=256, stride=4)
    assert ShapeSpec(channels=256, stride=4) != ShapeSpec(channels=256, stride=8)
    assert len({ShapeSpec(channels=256), ShapeSpec(channels=256)}) == 1


def test_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ShapeSpec(channels=256).channels = 512
