"""The DETR family tensor by tensor: the original's name, detrex's name, the shape, the rows that detrex keeps.

Written down from the networks' own definitions, apart from the tables under test. Depths and numbers of layers are the
real ones, so that the numbers of tensors are; widths are small, as no name depends on them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

BLOCKS = {26: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
STATISTICS = ("weight", "bias", "running_mean", "running_var")

# COCO's category numbers, as its annotations have them.
COCO = (*range(1, 12), *range(13, 26), 27, 28, *range(31, 45), *range(46, 66), 67, 70, *range(72, 83), *range(84, 91))


class Entry(NamedTuple):
    """One tensor.

    Args:
        theirs: the original's name.
        ours: detrex's name.
        shape: in the original.
        rows: that detrex keeps; None for all.
    """

    theirs: str
    ours: str
    shape: tuple[int, ...]
    rows: Sequence[int] | None = None

    @property
    def our_shape(self) -> tuple[int, ...]:
        return self.shape if self.rows is None else (len(self.rows), *self.shape[1:])


class Size(NamedTuple):
    """Widths. Defaults are small; those of the published models: 256, 2048 (Deformable: 1024), 100 or 300, 8, 64."""

    dim: int = 8
    hidden: int = 6
    queries: int = 5
    heads: int = 2
    stem: int = 4
    depth: int = 50
    layers: int = 6


SMALL = Size()


def backbone(size: Size, theirs: str = "backbone.0.body.") -> Iterator[Entry]:
    def conv_norm(conv: str, norm: str, ours: str, *shape: int) -> Iterator[Entry]:
        yield Entry(f"{theirs}{conv}.weight", f"backbone.{ours}.weight", shape)
        for leaf in STATISTICS:
            yield Entry(f"{theirs}{norm}.{leaf}", f"backbone.{ours}.norm.{leaf}", shape[:1])

    yield from conv_norm("conv1", "bn1", "stem.conv1", size.stem, 3, 7, 7)
    last = size.stem
    for stage, blocks in enumerate(BLOCKS[size.depth]):
        middle = size.stem * 2**stage
        for index in range(blocks):
            layer, res = f"layer{stage + 1}.{index}.", f"res{stage + 2}.{index}."
            if index == 0:
                names = (layer + "downsample.0", layer + "downsample.1", res + "shortcut")
                yield from conv_norm(*names, 4 * middle, last, 1, 1)
            yield from conv_norm(layer + "conv1", layer + "bn1", res + "conv1", middle, last, 1, 1)
            yield from conv_norm(layer + "conv2", layer + "bn2", res + "conv2", middle, middle, 3, 3)
            yield from conv_norm(layer + "conv3", layer + "bn3", res + "conv3", 4 * middle, middle, 1, 1)
            last = 4 * middle


def affine(theirs: str, ours: str, *shape: int, rows: Sequence[int] | None = None) -> Iterator[Entry]:
    """A weight, and a bias as long as the weight's first dimension."""
    yield Entry(f"{theirs}.weight", f"{ours}.weight", shape, rows)
    yield Entry(f"{theirs}.bias", f"{ours}.bias", shape[:1], rows)


def mlp(theirs: str, ours: str, *widths: int) -> Iterator[Entry]:
    for index, (before, after) in enumerate(pairwise(widths)):
        yield from affine(f"{theirs}.layers.{index}", f"{ours}.layers.{index}", after, before)


def attention(theirs: str, ours: str, dim: int) -> Iterator[Entry]:
    yield Entry(f"{theirs}.in_proj_weight", f"{ours}.in_proj_weight", (3 * dim, dim))
    yield Entry(f"{theirs}.in_proj_bias", f"{ours}.in_proj_bias", (3 * dim,))
    yield from affine(f"{theirs}.out_proj", f"{ours}.out_proj", dim, dim)


def deformable_attention(theirs: str, ours: str, size: Size, levels: int) -> Iterator[Entry]:
    points = size.heads * levels * 4
    for name, out in (
        ("sampling_offsets", 2 * points),
        ("attention_weights", points),
        ("value_proj", size.dim),
        ("output_proj", size.dim),
    ):
        yield from affine(f"{theirs}.{name}", f"{ours}.{name}", out, size.dim)


def rest_of_layer(theirs: str, ours: str, size: Size, norms: dict[int, int]) -> Iterator[Entry]:
    """Feed-forward network, and norms: the original's number -> detrex's."""
    yield from affine(f"{theirs}linear1", f"{ours}ffns.0.layers.0.0", size.hidden, size.dim)
    yield from affine(f"{theirs}linear2", f"{ours}ffns.0.layers.1", size.dim, size.hidden)
    for there, here in norms.items():
        yield from affine(f"{theirs}norm{there}", f"{ours}norms.{here}", size.dim)


def prelu(entries: Sequence[Entry]) -> list[Entry]:
    """With a trained activation in every feed-forward network."""
    first = [entry for entry in entries if entry.theirs.endswith("linear1.bias")]
    return [
        *entries,
        *(
            Entry(e.theirs.replace("linear1.bias", "activation.weight"), e.ours.replace("0.0.bias", "0.1.weight"), (1,))
            for e in first
        ),
    ]


def layers(part: str, size: Size) -> Iterator[tuple[str, str]]:
    for index in range(size.layers):
        yield (f"transformer.{part}.layers.{index}.",) * 2


def _dense(size: Size, classes: int, rows: Sequence[int] | None) -> Iterator[Entry]:
    """What DETR and Conditional DETR share: all but the decoder's layers."""
    yield from backbone(size)
    for theirs, ours in layers("encoder", size):
        yield from attention(theirs + "self_attn", ours + "attentions.0.attn", size.dim)
        yield from rest_of_layer(theirs, ours, size, {1: 0, 2: 1})
    yield from affine("transformer.decoder.norm", "transformer.decoder.post_norm_layer", size.dim)
    yield from affine("input_proj", "input_proj", size.dim, 32 * size.stem, 1, 1)
    yield Entry("query_embed.weight", "query_embed.weight", (size.queries, size.dim))
    yield from affine("class_embed", "class_embed", classes, size.dim, rows=rows)
    yield from mlp("bbox_embed", "bbox_embed", size.dim, size.dim, size.dim, 4)


def detr(size: Size = SMALL, classes: int = 92) -> list[Entry]:
    entries = list(_dense(size, classes, (*COCO, 91) if classes == 92 else None))
    for theirs, ours in layers("decoder", size):
        entries += attention(theirs + "self_attn", ours + "attentions.0.attn", size.dim)
        entries += attention(theirs + "multihead_attn", ours + "attentions.1.attn", size.dim)
        entries += rest_of_layer(theirs, ours, size, {1: 0, 2: 1, 3: 2})
    return entries


def conditional(size: Size = SMALL, classes: int = 91) -> list[Entry]:
    entries = list(_dense(size, classes, COCO if classes == 91 else None))
    parts = {
        "qcontent": "query_content",
        "qpos": "query_pos",
        "kcontent": "key_content",
        "kpos": "key_pos",
        "v": "value",
    }
    for index, (theirs, ours) in enumerate(layers("decoder", size)):
        for letter, number in (("sa", 0), ("ca", 1)):
            for part, name in parts.items():
                if (letter, part) != ("ca", "qpos") or index == 0:
                    names = (f"{theirs}{letter}_{part}_proj", f"{ours}attentions.{number}.{name}_proj")
                    entries += affine(*names, size.dim, size.dim)
        sine = (f"{theirs}ca_qpos_sine_proj", f"{ours}attentions.1.query_pos_sine_proj")
        entries += affine(*sine, size.dim, size.dim)
        entries += affine(f"{theirs}self_attn.out_proj", f"{ours}attentions.0.out_proj", size.dim, size.dim)
        entries += affine(f"{theirs}cross_attn.out_proj", f"{ours}attentions.1.out_proj", size.dim, size.dim)
        entries += rest_of_layer(theirs, ours, size, {1: 0, 2: 1, 3: 2})
    entries += mlp(*("transformer.decoder.query_scale",) * 2, *(size.dim,) * 3)
    entries += mlp(*("transformer.decoder.ref_point_head",) * 2, size.dim, size.dim, 2)
    return entries


def _sparse(size: Size, levels: int) -> Iterator[Entry]:
    """What Deformable DETR and DN Deformable DETR share: all but queries and heads."""
    yield from backbone(size)
    if levels == 1:
        neck = [("convs.0", 32 * size.stem, 1)]
    else:
        neck = [(f"convs.{index}", 2 ** (3 + index) * size.stem, 1) for index in range(3)]
        neck += [("extra_convs.0", 32 * size.stem, 3)]
    for index, (name, channels, kernel) in enumerate(neck):
        yield from affine(f"input_proj.{index}.0", f"neck.{name}.conv", size.dim, channels, kernel, kernel)
        yield from affine(f"input_proj.{index}.1", f"neck.{name}.norm", size.dim)
    yield Entry("transformer.level_embed", "transformer.level_embeds", (levels, size.dim))
    for theirs, ours in layers("encoder", size):
        yield from deformable_attention(theirs + "self_attn", ours + "attentions.0", size, levels)
        yield from rest_of_layer(theirs, ours, size, {1: 0, 2: 1})
    for theirs, ours in layers("decoder", size):
        yield from attention(theirs + "self_attn", ours + "attentions.0.attn", size.dim)
        yield from deformable_attention(theirs + "cross_attn", ours + "attentions.1", size, levels)
        yield from rest_of_layer(theirs, ours, size, {1: 1, 2: 0, 3: 2})


def _heads(size: Size, classes: int, number: int, also_classes: bool, also_boxes: bool) -> Iterator[Entry]:
    decoder = "transformer.decoder."
    for index in range(number):
        kept = range(80) if index == 6 else COCO
        for place in ("", decoder) if also_classes else ("",):
            name = f"{place}class_embed.{index}"
            yield from affine(name, name, classes, size.dim, rows=kept if classes == 91 else None)
        for place in ("", decoder) if also_boxes else ("",):
            name = f"{place}bbox_embed.{index}"
            yield from mlp(name, name, size.dim, size.dim, size.dim, 4)


def deformable(
    size: Size = SMALL, refine: bool = False, two_stage: bool = False, levels: int = 4, classes: int = 91
) -> list[Entry]:
    dim = size.dim
    entries = list(_sparse(size, levels))
    if two_stage:
        for name, width in (("enc_output", dim), ("pos_trans", 2 * dim)):
            entries += affine(*(f"transformer.{name}",) * 2, width, width)
            entries += affine(*(f"transformer.{name}_norm",) * 2, width)
    else:
        entries += affine(*("transformer.reference_points",) * 2, 2, dim)
        entries += [Entry("query_embed.weight", "query_embedding.weight", (size.queries, 2 * dim))]
    entries += _heads(size, classes, 7 if two_stage else 6, two_stage, refine or two_stage)
    return entries


def dn_deformable(size: Size = SMALL, classes: int = 91) -> list[Entry]:
    dim = size.dim
    entries = [*_sparse(size, 4), *_heads(size, classes, 6, False, True)]
    entries += mlp(*("transformer.decoder.query_scale",) * 2, dim, dim, dim)
    entries += mlp(*("transformer.decoder.ref_point_head",) * 2, 2 * dim, dim, dim)
    encoder = ("label_enc.weight", "denoising_generator.label_encoder.weight")
    entries += [Entry(*encoder, (classes + 1, dim - 1), (*COCO, 91) if classes == 91 else None)]
    entries += [Entry(*("tgt_embed.weight",) * 2, (size.queries, dim - 1))]
    entries += [Entry(*("refpoint_embed.weight",) * 2, (size.queries, 4))]
    return entries
