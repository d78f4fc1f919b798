"""Candidates of one layer that start from, or train, the same weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from ..network.blocks import MBConv


@torch.no_grad()
def align_candidates(candidates: Iterable[nn.Module]) -> None:
    """Start all MBConv candidates of one layer as parts of the largest: centre of its kernel, first of its channels.

    Paths that are trained in turn then agree from the first step on what each channel means; started apart, most
    of a short search goes into finding such an agreement (docs/design.md has the measurement).
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
    """Let the MBConv candidates of one layer train the same weights: each a part of one tensor for all.

    A narrower one has the first channels, a smaller kernel the centre (weight entanglement, Chen et al. 2021,
    AutoFormer, section 3.2; the superkernel of Stamoulis et al. 2019, Single-Path NAS). Batch-norms stay each
    candidate's own, and blocks without an expansion, whose channels mean something else, share with their like only.
    Parameters stay what they were, as views of the same memory: names, state dicts and optimizers do not change. What
    copies parameters (another memory format, another device) parts them, until this is called again.
    """
    blocks = [module for module in candidates if isinstance(module, MBConv)]
    for expands in (True, False):
        like = [block for block in blocks if block.expands == expands]
        _share([block.conv_dw.weight for block in like])
        _share([block.conv_pwl.weight for block in like], transposed=True)
        if expands:
            _share([block.conv_pw.weight for block in like])


def _share(weights: Sequence[Tensor], transposed: bool = False) -> None:
    """Make each a view of one tensor, the first channels and the centre of its kernel; the largest gives its values.

    Args:
        weights: Shape (channels, …, kernel_height, kernel_width), or `transposed` (…, channels, 1, 1).
        transposed: Store the channels first all the same, so that the views of pointwise kernels are dense.
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
    """Once more let the candidates of each layer train the same weights, where the model's space says so.

    To be called after parameters have been copied, as to another device; otherwise it changes nothing.

    Args:
        model: A `MobileNetV2Space`, or the supernet that a strategy has made of one; any other model stays as it is.
    """
    if not getattr(model, "entangled", False):
        return
    for module in model.modules():
        if not isinstance(module, nn.Sequential):  # whose blocks follow each other
            entangle_candidates(child for child in module.children() if isinstance(child, MBConv))
