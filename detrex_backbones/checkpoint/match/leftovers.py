"""What a file has and the model doesn't: for a stated reason, of another network beside it, or of another architecture.

A floating-point tensor behind the prefix that was taken must have a place in the model, or a reason why it has none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from itertools import takewhile

from detrex_backbones.checkpoint.entry import Entry, Shapes, Status
from detrex_backbones.checkpoint.match.positions import POSITION_TABLES
from detrex_backbones.checkpoint.names.conventions import conventions
from detrex_backbones.checkpoint.names.readings import Reading

__all__ = ["MAP_NORM", "OWN", "explain_leftovers"]

OWN = "detectron2"  # the convention of this library's own names
BEHIND = "after the last feature map of the model"
OTHER_MAP = "norm of a feature map that the model doesn't output"
# As detectors with Swin, ConvNeXt or FocalNet call a norm for each map of the backbone, and as Hugging Face does.
MAP_NORM = re.compile(r"^(norm\d|hidden_states_norms\.(stage)?\d)\.(weight|bias)$")

# What files of many sources hold beside the weights that maps depend on. Names are those behind the prefix.
REASONS = (
    (r"(^|\.)(attn_mask|relative_position_index|relative_coords_table|inv_freq)$", "computed by the model"),
    (r"(^|\.)(rope|rope_embed)\.\w+$|\.qkv\.bias_mask$", "computed by the model"),
    (r"(^|\.)cell_anchors\.\d+$", "anchors, which the config holds"),
    (r"(^|\.)pixel_(mean|std)$", "preprocessing, which the config holds"),
    (r"^(cls_token|dist_token)$", "class token, which is in no feature map"),
    (r"(^|\.)mask_token$|^decoder(_\w+)?(\.|$)", "decoder of the pre-training"),
    (r"^(norm|fc_norm|norm_head)\.(weight|bias)$", "norm before the classifier"),
)

# The first number of a name that ends a component: "layer4." of "layer4.0.conv1.weight", "blocks.7." of a ViT's.
NUMBERED = re.compile(r"^((?:[^.]+\.)*?[^.]*?)([0-9]{1,9})(?=\.)")
# A stage is made of numbered blocks (a RegNet's are `s1.b1`), each of which is made of layers; a block alone is not.
BLOCK_OF_STAGE = re.compile(r"^\.(?:[A-Za-z_]\w*\.)?b?\d+\.\w+\.\w")


def explain_leftovers(reading: Reading, whole: Callable[[], Shapes]) -> None:
    """Say of every tensor without a place what it is, and find those of another architecture.

    Args:
        reading: of which each entry has a place by now, or none.
        whole: name -> shape of all that the model's networks have where nothing is left out of them; {} where that
            isn't known. Asked only if there is a tensor that nothing else explains.
    """
    leftovers = [entry for entry in reading.entries if entry.status in (Status.NO_PLACE, Status.NO_NAME)]
    for entry in leftovers:
        why = _why_not_of_network(entry, reading)
        if why:
            entry.set(Status.NOT_OF_NETWORK, why)
    if leftovers and any(entry.model_key and MAP_NORM.match(entry.theirs) for entry in reading.entries):
        for entry in leftovers:
            if MAP_NORM.match(entry.theirs):
                entry.set(Status.NOT_OF_NETWORK, OTHER_MAP)
    unknown = [entry for entry in leftovers if entry.status is not Status.NOT_OF_NETWORK and _is_weight(entry)]
    if not unknown:
        return
    network, known = _Network(entry.theirs for entry in reading.entries if entry.model_key), whole()
    if known:
        cut = {
            entry.theirs
            for entry in unknown
            for name in (entry.theirs, entry.ours)
            if any(_is_of(tail, entry, known) for tail in _tails(name))
        }
    else:
        cut = network.stages_behind([entry.theirs for entry in unknown])
    for entry in unknown:
        if entry.theirs in cut:
            entry.set(Status.NOT_OF_NETWORK, BEHIND)
        elif network.holds(entry.theirs) or MAP_NORM.match(entry.theirs):
            entry.set(Status.OTHER_ARCHITECTURE, entry.why)


def _is_of(name: str, entry: Entry, known: Shapes) -> bool:
    """Whether networks have a tensor under this name; a table of positions may be of another size."""
    return name in known and (known[name] == entry.shape or name.endswith(POSITION_TABLES))


class _Network:
    """The network that a file's placed tensors are of.

    Args:
        placed: their names in the file.
    """

    def __init__(self, placed: Iterable[str]) -> None:
        names = list(placed)
        self._prefix = _common_module(names)
        self._names = [name[len(self._prefix) :] for name in names]

    @cached_property
    def _tops(self) -> set[str]:
        return {name.partition(".")[0] for name in self._names}

    @cached_property
    def _stages(self) -> dict[str, int]:
        """What stands before the first number of names -> the highest number."""
        last: dict[str, int] = {}
        for name in self._names:
            found = NUMBERED.match(name)
            if found:
                last[found[1]] = max(int(found[2]), last.get(found[1], 0))
        return last

    def holds(self, name: str) -> bool:
        """Whether a tensor without a place is of this network, rather than of another one beside it.

        It is if it stands in a module of which other tensors found a place, or in one more of a numbered row of these,
        or if it is a tensor or a layer by itself: other networks are modules of modules.
        """
        if not name.startswith(self._prefix):
            return False
        name = name[len(self._prefix) :]
        found = NUMBERED.match(name)
        return name.partition(".")[0] in self._tops or name.count(".") < 2 or bool(found and found[1] in self._stages)

    def stages_behind(self, names: list[str]) -> set[str]:
        """Those of the names that are of whole stages behind the last one that found a place: the model is cut there.

        A stage is a numbered module of numbered blocks. More of a row of single blocks (a ViT's) is a deeper network.
        """
        behind: dict[tuple[str, str], list[str]] = {}
        for name in names:
            found = NUMBERED.match(name[len(self._prefix) :]) if name.startswith(self._prefix) else None
            if found and int(found[2]) > self._stages.get(found[1], int(found[2])):
                behind.setdefault((found[1], found[2]), []).append(name)
        rest = {key: [name[len(self._prefix) + len("".join(key)) :] for name in found] for key, found in behind.items()}
        stages = [key for key, found in rest.items() if any(map(BLOCK_OF_STAGE.match, found))]
        return {name for key in stages for name in behind[key]}


def _why_not_of_network(entry: Entry, reading: Reading) -> str:
    """What a tensor is that nothing in the model asked for, in the words of its convention or of our own names."""
    names = [(each, entry.theirs[len(place) :]) for each, place in reading.known_by if entry.theirs.startswith(place)]
    reasons = (each.why_left_out(name) for each, name in (*names, (conventions()[OWN], entry.ours)))
    found = next(filter(None, reasons), "")
    behind = entry.theirs.removeprefix(reading.prefix)
    return found or next((why for pattern, why in REASONS if re.search(pattern, behind)), "")


def _is_weight(entry: Entry) -> bool:
    return entry.tensor is not None and entry.tensor.dtype.is_floating_point


def _common_module(names: list[str]) -> str:
    """The dotted path that all names begin with, "" or with a dot at its end."""
    if not names:
        return ""
    parts = zip(min(names).split(".")[:-1], max(names).split("."), strict=False)
    return "".join(f"{one}." for one, _ in takewhile(lambda pair: pair[0] == pair[1], parts))


def _tails(name: str) -> Iterator[str]:
    dot = "."
    while dot:
        yield name
        _, dot, name = name.partition(".")
