"""The matrix as it stands in the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.peer_files.case import Case

__all__ = ["Row", "markdown"]

HEAD = """# Backbones of detectors

Written by `python -m benchmarks.peer_files --markdown docs/detector-backbones.md`.

For each row: the class of the other library in a small variant with random weights (norms, their statistics, layer
scales and tables too); its file, as the library writes it, behind `backbone.` and with a detector's neck and
transformer beside it; loaded into this library's network by `load_checkpoint` with no options; both networks on the
same images. Every load is whole from both sides: each tensor of the network has a value, and each weight of the file a
place or a stated reason. *Difference* is the largest difference of any map and size over the map's largest value, both
computed in float64, so that rounding doesn't hide another eps or another order of steps.

**{equal} of {all} rows load whole and are equal to 1e-5; {refused} of other networks are refused, or the report names
what they are.** Measured with {versions}.{left_out}

| project | class | here | names taken | image sizes (H x W) | difference | |
| --- | --- | --- | --- | --- | --- | --- |
"""

REFUSED = """
## Refused

Networks that aren't there, whose files must not load as another one in silence.

| project | class | into | | why |
| --- | --- | --- | --- | --- |
"""

NOT_THERE = """
## Not equal, or not there

| project | class | why |
| --- | --- | --- |
| transformers, authors | DINOv2 at another size than its table's | Hugging Face resizes the table without \
antialiasing, timm with it |
| transformers | PVT v2 | its norms all have eps 1e-6; those of attention and patches have 1e-5 at its authors' and \
in timm: about 1e-6 in the maps |
| transformers, detrex | FocalNet at sizes that don't halve, in timm's network | they pad where timm cuts off |
| OpenMMLab, transformers, segmentation-models-pytorch | EfficientNet in `efficientnet_*` or torchvision's | which pad \
otherwise and have another eps: an error says so. Take `tf_efficientnet_*` |
| transformers, segmentation-models-pytorch | EfficientNet at sizes that don't halve as its own (224 pixels for B0, \
240 for B1, ...) | its classes pad as for that size alone, `tf_efficientnet_*` as TensorFlow does at any: the report \
says so |
| transformers | MobileNetV2 in `mobilenetv2_100` without options, or torchvision's | as for EfficientNet: take \
`pad_type='same', bn_eps=1e-3` |
| transformers | `HieraBackbone` | leaves out a step of `HieraModel` (`unroll`): its own maps are scrambled. Its files \
are those of `HieraModel`, which are equal |
| segmentation-models-pytorch | DenseNet, DPN in timm's networks | the weights load whole; its DenseNet gives the \
maps behind the norm and ReLU of each transition, its DPN those behind one ReLU more, timm the maps in front of them |
| RT-DETR | ResNet-18 and 34 in timm's or torchvision's networks | they have a projection in res2, too: \
`make_stage(18, shortcut="avg_pool", project_res2=True)` has it |
| OpenMMLab | HRNet in `TimmBackbone("hrnet_w18")` without options | whose maps come from the classifier's \
`incre_modules`, which detectors don't have: an error says to take `feature_location=''` |
| RT-DETR, PP-YOLOE | CSPResNet | its class is on no package index: not compared by this command. Made after its \
authors' names; once, by hand, the maps of `CSPResNet` in all four sizes were theirs to the last bit |
| Megvii | YOLOX's CSPDarknet | likewise; OpenMMLab's class of it is compared |
| Co-DETR | ViT-L | is EVA-02's network, which `EVA02_ViT` is; the names of its files are not known for certain: not \
compared |
| DEIMv2 | DINOv3 with its adapter | its class is on no package index: not compared by this command. `DINOv3STAs` has \
its names; once, by hand, its maps in all four sizes were within 5e-9, at sizes that are multiples of 32: the others \
fail there, and are refused here |
| RF-DETR | images that aren't square | its code doesn't cut these into rectangles; `WindowedDINOv2` does |
| DINOv3 | files with biases of queries and values into `vit_*_dinov3` | which have no such biases: take \
`vit_*_dinov3_qkvb` |
"""


@dataclass(frozen=True)
class Row:
    """What was measured.

    Args:
        case: which.
        source: of the load.
        coverage: of the network and of the file, the smaller.
        apart: (H, W) -> relative difference.
        failed: what went wrong, otherwise "".
        refused: whether the load refused the file.
        named: what else the file's names can be, by the report.
    """

    case: Case
    source: str = ""
    coverage: float = 0.0
    apart: dict[tuple[int, int], float] = field(default_factory=dict)
    failed: str = ""
    refused: bool = False
    named: str = ""

    @property
    def equal(self) -> bool:
        """Whether it loaded whole, and all maps of all sizes are the same to 1e-5."""
        return self.coverage == 1 and bool(self.apart) and max(self.apart.values()) <= 1e-5

    @property
    def told(self) -> bool:
        """Whether a network that isn't there was refused, or the report names it among the lookalikes."""
        word = self.case.name.removesuffix("ResNet")
        return bool(self.case.refused) and (self.refused or (bool(self.named) and word in self.named))


def markdown(rows: Sequence[Row], versions: Mapping[str, str | None]) -> str:
    """The page. `versions` of the libraries measured; None for those that can't be imported here."""
    missing = [name for name, version in versions.items() if version is None]
    of = ", ".join(f"{name} {version}".strip() for name, version in versions.items() if version is not None)
    left_out = f" Not importable here, and so left out: {', '.join(missing)}." if missing else ""
    there, others = ([row for row in rows if bool(row.case.refused) is refused] for refused in (False, True))
    numbers = {"equal": sum(row.equal for row in there), "all": len(there), "refused": sum(row.told for row in others)}
    text = HEAD.format(**numbers, versions=of, left_out=left_out) + "".join(map(_line, there))
    return text + (REFUSED + "".join(map(_refused_line, others)) if others else "") + NOT_THERE


def _line(row: Row) -> str:
    case = row.case
    sizes = ", ".join(f"{height}x{width}" for height, width in case.sizes)
    difference = row.failed or f"{max(row.apart.values()):.1g}"
    cells = (case.peer, f"`{case.name}`", f"`{case.called}`", row.source, sizes, difference, case.note)
    return _row(cells)


def _refused_line(row: Row) -> str:
    case = row.case
    how = "refused" if row.refused else "loads, and the report names it" if row.told else "LOADS IN SILENCE"
    return _row((case.peer, f"`{case.name}`", f"`{case.called}`", how, case.refused))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |\n"
