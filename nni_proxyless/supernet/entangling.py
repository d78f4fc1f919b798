"""Candidates of one layer that start from the same weights (alignment) or also train them (entanglement)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from ..network.blocks import MBConv


@torch.no_grad()
def align_candidates(candidates: Iterable[nn.Module]) -> None:
    """Initialise all MBConv candidates of one layer with parts of the largest candidate's weights.

    A candidate with a smaller kernel gets the centre of the largest kernel. One with fewer hidden channels gets the
    first channels. All candidates therefore agree on the meaning of each channel from the first step on. With
    independent initial weights, a short search spends most of its steps on reaching such an agreement (measured in
    benchmarks/HISTORY.md, cost).
    """
    blocks = [module for module in candidates if isinstance(module, MBConv)]
    if not blocks:
        return
    largest = max(blocks, key=lambda block: (block.conv_dw.out_channels, block.conv_dw.kernel_size[0]))
    for block in blocks:
        hidden, kernel = block.conv_dw.out_channels, block.conv_dw.kernel_size[0]
        margin = (largest.conv_dw.kernel_size[0] - kernel) // 2
        centre = slice(margin, margin + kernel)
        if block.expands and largest.expands:
            block.conv_pw.weight.copy_(largest.conv_pw.weight[:hidden].clone())
        block.conv_dw.weight.copy_(largest.conv_dw.weight[:hidden, :, centre, centre].clone())
        block.conv_pwl.weight.copy_(largest.conv_pwl.weight[:, :hidden].clone())


@torch.no_grad()
def entangle_candidates(candidates: Iterable[nn.Module]) -> None:
    """Let the MBConv candidates of one layer train the same weights: each uses a part of one shared tensor.

    A candidate with fewer hidden channels uses the first channels, one with a smaller kernel the centre of the kernel
    (weight entanglement, Chen et al. 2021, AutoFormer, section 3.2; the superkernel of Stamoulis et al. 2019,
    Single-Path NAS). Each candidate keeps its own batch-norms. Blocks without an expansion share weights only with
    each other, because their hidden channels have another meaning.

    The parameters remain the same objects and become views of the same memory. So names, state dicts and optimizers do
    not change. An operation that copies parameters (a change of memory format or device) ends the sharing until this
    function is called again.
    """
    blocks = [module for module in candidates if isinstance(module, MBConv)]
    for expands in (True, False):
        like = [block for block in blocks if block.expands == expands]
        _share([block.conv_dw.weight for block in like])
        _share([block.conv_pwl.weight for block in like], transposed=True)
        if expands:
            _share([block.conv_pw.weight for block in like])


def _share(weights: Sequence[Tensor], transposed: bool = False) -> None:
    """Turn weights into views of one shared tensor: its first channels and the centre of its kernel.

    Where weights overlap, the shared tensor takes the values of the largest one.

    Args:
        weights: Weights of shape (channels, …, kernel_height, kernel_width), or (…, channels, 1, 1) if `transposed`.
        transposed: Whether the hidden channels are the second dimension. The shared tensor stores them first in
            either case, so that the views of pointwise kernels are dense.
    """
    if len(weights) < 2:
        return
    tensors = [weight.data.transpose(0, 1) if transposed else weight.data for weight in weights]
    shape = [max(sizes) for sizes in zip(*(tensor.shape for tensor in tensors), strict=True)]
    shared = tensors[0].new_zeros(shape)
    for weight, tensor in sorted(zip(weights, tensors, strict=True), key=lambda pair: pair[1].numel()):
        margins = [(most - size) // 2 for most, size in zip(shape[2:], tensor.shape[2:], strict=True)]
        centre = [slice(m, m + size) for m, size in zip(margins, tensor.shape[2:], strict=True)]
        view = shared[(slice(tensor.shape[0]), slice(None), *centre)]
        view.copy_(tensor)
        weight.data = view.transpose(0, 1) if transposed else view


def entangle(model: nn.Module) -> None:
    """Let the candidates of each layer train the same weights again, if the model's space is entangled.

    Call this after parameters have been copied, for example to another device. At any other time it has no effect.

    Args:
        model: A `MobileNetV2Space`, or the supernet that a strategy has made from one. Any other model is left
            unchanged.
    """
    if not getattr(model, "entangled", False):
        return
    for module in model.modules():
        if not isinstance(module, nn.Sequential):  # the blocks of a Sequential are successive layers, not candidates
            entangle_candidates(child for child in module.children() if isinstance(child, MBConv))
