"""Norms that become a part of the convolutions before them, for inference."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from detrex_backbones.errors import ArgumentError
from detrex_backbones.layers.conv import Conv2d, is_watched, standardised
from detrex_backbones.layers.frozen_batch_norm import FrozenBatchNorm2d, is_frozen_norm
from detrex_backbones.text import counted

__all__ = ["fuse_norms", "is_batch_norm", "loose_norms"]

logger = logging.getLogger(__name__)

# Other projects' by name: none is imported for it. timm's go on with a drop and an activation.
OTHERS = {("timm.layers.norm_act", "BatchNormAct2d"), ("timm.layers.norm_act", "SyncBatchNormAct")}


@torch.no_grad()
def fuse_norms(module: nn.Module, images: Tensor | None = None) -> nn.Module:
    """Fold batch norms into the convolutions before them, in place (Jacob et al. 2018, section 3.2).

    What the module computes stays the same, to rounding, without a pass over any map for its norm. The convolutions
    have a `bias` then, so checkpoints are to be loaded before. The `norm` of a `Conv2d` of this library becomes None.
    Another norm, of timm or torchvision, becomes its activation, or the identity; it is folded only where a run shows
    that all of a convolution's result goes into it, and nowhere else. Other norms stay as they are.

    Args:
        module: the network, or any part of one.
        images: what the module runs on to show which norms follow which convolutions; None folds those of this
            library's `Conv2d` alone. How many stay is logged as a warning.

    Returns:
        `module`.

    Raises:
        ArgumentError: a batch norm in training mode, which normalises by the batch. Nothing is changed then.
    """
    own = [(conv, conv.norm) for conv in module.modules() if isinstance(conv, Conv2d) and is_batch_norm(conv.norm)]
    loose = loose_norms(module)
    _check_modes(module, [norm for _, norm in own] + (loose if images is not None else []))
    folded = _fold_loose(module, loose, images) if loose and images is not None else 0
    for conv, norm in own:
        if conv.weight_standardization:
            conv.weight = nn.Parameter(standardised(conv.weight.detach()), conv.weight.requires_grad)
            conv.weight_standardization = False
        _fold(conv, norm)
        conv.norm = None
    left = len(loose) - folded
    if left:
        why = "give images to find their convolutions" if images is None else "none takes all of a convolution's result"
        logger.warning("%d batch norms are not fused: %s", left, why)
    return module


def loose_norms(module: nn.Module) -> list[nn.Module]:
    """The batch norms in it that are no part of a `Conv2d` of this library."""
    own = {id(conv.norm) for conv in module.modules() if isinstance(conv, Conv2d)}
    return [part for part in module.modules() if is_batch_norm(part) and id(part) not in own]


def _check_modes(module: nn.Module, norms: list[Any]) -> None:
    wanted = {id(norm) for norm in norms if norm.training and not is_frozen_norm(norm)}
    learning = [name for name, part in module.named_modules() if id(part) in wanted]
    if learning:
        raise ArgumentError(
            f"{counted(len(learning), 'batch norm', 'are')} in training mode, {learning[0]!r} for one: what normalises "
            f"by the batch can't be fused. Call eval() first."
        )


def _fold_loose(module: nn.Module, loose: list[nn.Module], images: Tensor) -> int:
    """Fold the norms whose convolutions are certain, and take it back if the module then gives anything else."""
    with _in_evaluation(module):
        pairs, expected = _pairs(module, loose, images)
        before = [(conv, conv.weight, conv.bias, norm, _rest(norm)) for conv, norm in pairs]
        for conv, _, _, norm, rest in before:
            _fold(conv, norm)
            _replace(module, norm, rest)
        is_same = not pairs or _are_close(tree_leaves(module(images)), expected)
    for conv, weight, bias, norm, rest in before:
        rest.train(norm.training)
        if not is_same:
            conv.weight, conv.bias = weight, bias
            _replace(module, rest, norm)
    return len(pairs) if is_same else 0


def _are_close(given: list[Tensor], expected: list[Tensor]) -> bool:
    """Whether they are the same to rounding; a reader that `_pairs` can't see gets numbers of another size."""
    pairs = [(a, b) for a, b in zip(given, expected, strict=True) if a.is_floating_point()]
    return all((a - b).norm() <= 10 * torch.finfo(a.dtype).eps ** 0.5 * b.norm() for a, b in pairs)


def _pairs(
    module: nn.Module, loose: list[nn.Module], images: Tensor
) -> tuple[list[tuple[nn.Conv2d, nn.Module]], list[Tensor]]:
    """The convolutions and norms of which a run's autograd graph shows that nothing stands between or beside them.

    Of a pair, the convolution computes with the module's own weight and bias, once, and nothing else reads the weight;
    its result is given to the norm as it is, to nothing else, and isn't given out; the norm is called once. Neither has
    hooks. What takes no part in gradients (`argmax`, `detach`) is not in the graph. What the run gave is returned, too.
    """
    convolutions = [part for part in module.modules() if isinstance(part, nn.Conv2d)]
    inputs: dict[int, list[Any]] = {id(norm): [] for norm in loose}  # the graph's node of each that a norm was given
    with _all_learning(convolutions), ExitStack() as hooks:
        watched = {id(part) for part in (*convolutions, *loose) if is_watched(part)}
        for norm in loose:
            note = inputs[id(norm)]
            handle = norm.register_forward_pre_hook(
                lambda _, args, note=note: note.append(args[0].grad_fn if args else None)
            )
            hooks.callback(handle.remove)
        given = tree_leaves(module(images.clone()))
        if not all(isinstance(value, Tensor) for value in given):
            return [], []  # what else is given out can't be seen
        readers = _count_readers([value.grad_fn for value in given])
        found = [
            (_convolution(nodes, readers, convolutions), norm)
            for norm, nodes in zip(loose, inputs.values(), strict=True)
        ]
    pairs = [(conv, norm) for conv, norm in found if conv is not None and not {id(conv), id(norm)} & watched]
    return pairs, [value.detach() for value in given]


def _count_readers(outputs: list[Any]) -> Counter[Any]:
    """How many operations read what each node of the graph gives; being given out counts as well."""
    readers, todo, seen = Counter(outputs), list(outputs), set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        below = [edge[0] for edge in node.next_functions]
        readers.update(below)
        todo += below
    return readers


def _convolution(nodes: list[Any], readers: Counter[Any], convolutions: list[nn.Conv2d]) -> nn.Conv2d | None:
    """The convolution that made the only thing that a norm was given, if nothing else has to do with either."""
    if len(nodes) != 1 or nodes[0] is None or nodes[0].name() != "ConvolutionBackward0" or readers[nodes[0]] != 1:
        return None
    _, weight, bias = (edge[0] for edge in nodes[0].next_functions)
    owners = [conv for conv in convolutions if conv.weight is getattr(weight, "variable", None)]
    is_its_own = len(owners) == 1 and readers[weight] == 1 and owners[0].bias is getattr(bias, "variable", None)
    return owners[0] if is_its_own and not nodes[0]._saved_transposed else None


@contextmanager
def _in_evaluation(module: nn.Module) -> Iterator[None]:
    """Frozen norms may stand in a network in training mode, whose drops would be no help."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def _all_learning(convolutions: list[nn.Conv2d]) -> Iterator[None]:
    """With gradients of every convolution's weight and bias; zeros as the bias of one without show if it adds one."""
    learns = [(value, value.requires_grad) for conv in convolutions for value in conv.parameters(recurse=False)]
    without = [conv for conv in convolutions if conv.bias is None]
    try:
        with torch.inference_mode(False), torch.enable_grad():
            for conv in without:
                conv.bias = nn.Parameter(conv.weight.new_zeros(conv.weight.shape[0]))
            for value, _ in learns:
                value.requires_grad_(True)
            yield
    finally:
        for conv in without:
            conv.bias = None
        for value, learned in learns:
            value.requires_grad_(learned)


def _fold(conv: nn.Conv2d, norm: Any) -> None:
    weight, bias = FrozenBatchNorm2d.copy_of(norm).fold(conv.weight, conv.bias)
    learns = conv.weight.requires_grad
    conv.weight = nn.Parameter(weight, requires_grad=learns)
    conv.bias = nn.Parameter(bias, requires_grad=learns)


def _rest(norm: Any) -> nn.Module:
    """What a norm does after normalising."""
    steps = [step for step in (getattr(norm, "drop", None), getattr(norm, "act", None)) if step is not None]
    steps = [step for step in steps if not isinstance(step, nn.Identity)]
    return nn.Sequential(*steps) if len(steps) > 1 else steps[0] if steps else nn.Identity()


def _replace(module: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for parent in list(module.modules()):
        for name, child in parent._modules.items():
            if child is old:
                setattr(parent, name, new)


def is_batch_norm(norm: Any) -> bool:
    """Whether it is a batch norm, frozen or not, that has statistics and whose forward is known."""
    kind = type(norm)
    known = (
        is_frozen_norm(norm) or kind in (nn.BatchNorm2d, nn.SyncBatchNorm) or (kind.__module__, kind.__name__) in OTHERS
    )
    return known and getattr(norm, "running_mean", None) is not None
