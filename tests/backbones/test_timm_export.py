"""What is said in another way so that it can be exported gives timm's own numbers."""

import copy
import io
import pickle

import pytest
import timm
import torch
from torch.export import Dim

from detrex_backbones import TimmBackbone
from detrex_backbones.backbones.timm.exportable import WholePatchEmbed
from tests.reference import assert_same_maps, noise


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (1, 16), (33, 15)])
@pytest.mark.parametrize("pad", [True, False])
def test_the_grid_of_patches_is_timms(size, pad):
    theirs = timm.layers.PatchEmbed(img_size=None, patch_size=16, embed_dim=4, dynamic_img_pad=pad)
    ours = copy.deepcopy(theirs)
    ours.__class__ = WholePatchEmbed
    assert ours.dynamic_feat_size(size) == theirs.dynamic_feat_size(size)


@pytest.mark.slow
def test_a_vision_transformer_of_open_sizes_can_be_saved():
    net = TimmBackbone("vit_tiny_patch16_224", depth=1, out_indices=(0,)).eval()
    assert any(type(part) is WholePatchEmbed for part in net.modules())
    assert type(next(pickle.loads(pickle.dumps(net)).timm_model.model.children())) is WholePatchEmbed
    file = io.BytesIO()
    sizes = {0: Dim.DYNAMIC, 2: 16 * Dim("rows"), 3: 16 * Dim("columns")}
    with torch.no_grad():
        torch.export.save(torch.export.export(net, (noise(2, 3, 64, 96),), dynamic_shapes=(sizes,)), file)
        file.seek(0)
        images = noise(1, 3, 112, 48)
        assert_same_maps(torch.export.load(file).module()(images), net(images))
