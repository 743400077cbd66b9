"""Which of timm's networks have weights of these shapes, whatever their names are.

A network is known by one number: the sum of the hashes of its weights' shapes. Such a sum has no order, needs no names,
and what a file has besides can be taken off again. Networks that differ in their norms, their activations or the size
of their images have the same one: what it finds are candidates.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence

from detrex_backbones.atomic_write import write_whole
from detrex_backbones.checkpoint.fetch.catalog.library_tables import SHIPPED, installed_version

__all__ = ["networks_of_shapes", "write_shapes"]

TABLE = "timm_shapes-*.json.gz"
# Of no number of classes, no size of images, and not in every file of a network.
OTHERS = re.compile(
    r"^(head|head_dist|fc|classifier|last_linear|conv_head|pre_logits)\."
    r"|pos_embed|relative_position|relative_coords|attn_mask|num_batches_tracked"
)
FEWEST = 10  # tensors of a network
EXTRA = 2  # tensors that a file may have besides: classifiers of other names

Shapes = Mapping[str, Sequence[int]]


def networks_of_shapes(file: Shapes) -> list[str]:
    """The networks of timm whose weights a file may hold, behind any prefix; the names are timm's, in its order.

    Args:
        file: name -> shape of its floating-point tensors.
    """
    table, found = _read_table(), []
    for sums in map(_hashes, _behind_each_prefix(file)):
        whole, each = sum(sums), sorted(set(sums))
        for count in range(EXTRA + 1):
            for extra in itertools.combinations_with_replacement(each, count):
                found += table.get((whole - sum(extra)) % 2**64, [])
    return list(dict.fromkeys(found))


def write_shapes() -> None:
    """Write the table of the installed timm, which takes minutes: every network is built, without memory."""
    import timm
    import torch

    sums = {}
    for name in timm.list_models():
        with torch.device("meta"):
            net = timm.create_model(name, num_classes=0)
        shapes = {key: value.shape for key, value in net.state_dict().items() if value.is_floating_point()}
        sums[name] = f"{sum(_hashes(shapes)) % 2**64:016x}"
    content = json.dumps(sums).encode()
    for old in SHIPPED.glob(TABLE):
        old.unlink()
    file = SHIPPED / TABLE.replace("*", installed_version("timm"))
    write_whole(file, lambda opened: opened.write(gzip.compress(content, mtime=0)))


@functools.cache
def _read_table() -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for file in SHIPPED.glob(TABLE):
        for name, number in json.loads(gzip.decompress(file.read_bytes())).items():
            found.setdefault(int(number, 16), []).append(name)
    return found


def _behind_each_prefix(file: Shapes) -> Iterator[dict[str, Sequence[int]]]:
    """The tensors behind each prefix that may be a network's, without it."""
    behind: dict[str, dict[str, Sequence[int]]] = {"": dict(file)}
    for name, shape in file.items():
        for at in (at for at, letter in enumerate(name) if letter == "."):
            behind.setdefault(name[: at + 1], {})[name[at + 1 :]] = shape
    return (inside for inside in behind.values() if len(inside) >= FEWEST)


def _hashes(shapes: Shapes) -> list[int]:
    """A number for the shape of each matrix and convolution. A 1x1 convolution is a matrix."""
    plain = [tuple(n for n in shape if n != 1) for name, shape in shapes.items() if not OTHERS.search(name)]
    return [_hash(shape) for shape in plain if len(shape) > 1]


@functools.cache
def _hash(shape: tuple[int, ...]) -> int:
    return int.from_bytes(hashlib.blake2b(repr(shape).encode(), digest_size=8).digest(), "big")
