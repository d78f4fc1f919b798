"""Accuracy of every network of a small space with the weights of one supernet, in a fraction of the time.

The final selection evaluates one network after the other. Networks whose first layers agree compute the same values
there, so `all_accuracies` walks through the space as a tree and computes each common beginning once. Batch-norms take
their statistics from the same batches, and are then folded into the convolutions before them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from nni_proxyless.network.blocks import MBConv

CHUNK = 1000  # images that are evaluated at once


@torch.no_grad()
def all_accuracies(
    supernet: Any,
    statistics: Sequence[Tensor],
    images: Tensor,
    labels: Tensor,
    wanted: Callable[[tuple[str, ...]], bool] = lambda names: True,
) -> dict[str, float]:
    """Top-1 accuracy of each network of a MobileNetV2Space.

    Args:
        supernet: The space with trained weights, mutated by NNI or not.
        statistics: Batches of equally many images that estimate the batch-norm statistics.
        images: Images that the networks are compared on, shape (images, channels, height, width).
        labels: Their classes.
        wanted: Function of the names of the first candidates that says whether a network begins with them.

    Returns:
        Names of the candidates, separated by spaces, to the accuracy between 0 and 1.
    """
    found: dict[str, float] = {}
    blocks = list(supernet.blocks)

    def walk(layer: int, begun: Tensor, seen: list[Tensor], names: tuple[str, ...]) -> None:
        if layer == len(blocks):
            _, last = _through(supernet.head, batches, begun, seen)
            right = [supernet.classifier(part).argmax(1) for part in last]
            found[" ".join(names)] = float((torch.cat(right) == labels).float().mean())
            return
        for name, candidate in blocks[layer].named_children():
            if wanted((*names, name)):
                walk(layer + 1, *_through(candidate, batches, begun, seen), (*names, name))

    begun = torch.cat(list(statistics)).contiguous(memory_format=torch.channels_last)
    seen = [part.contiguous(memory_format=torch.channels_last) for part in images.split(CHUNK)]
    batches = len(statistics)
    for module in (supernet.stem, blocks.pop(0)):
        begun, seen = _through(module, batches, begun, seen)
    walk(0, begun, seen, ())
    return found


def _through(module: Any, batches: int, begun: Tensor, seen: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Outputs of a module for the batches of the statistics, and for the images with these statistics."""
    if isinstance(module, nn.Identity):
        return begun, seen
    if not isinstance(module, MBConv):
        return _convolve(module.conv, module.bn, True, batches, begun, seen)
    first, last = begun, seen
    if module.expands:
        first, last = _convolve(module.conv_pw, module.bn1, True, batches, first, last)
    first, last = _convolve(module.conv_dw, module.bn2, True, batches, first, last)
    first, last = _convolve(module.conv_pwl, module.bn3, False, batches, first, last)
    if module.residual:
        first, last = first.add_(begun), [own.add_(x) for own, x in zip(last, seen, strict=True)]
    return first, last


def _convolve(
    conv: nn.Conv2d, norm: nn.BatchNorm2d, active: bool, batches: int, begun: Tensor, seen: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Convolution, batch-norm and, if `active`, ReLU6.

    The first outputs are normalised by their own batch. The others are normalised by the mean over all batches of the
    mean and of the unbiased variance, as a cumulative average of batch-norm would be.
    """
    where = conv.stride, conv.padding, conv.dilation, conv.groups
    first = conv2d(begun, conv.weight, None, *where)
    each = first.permute(0, 2, 3, 1).reshape(batches, -1, first.shape[1])  # (batches, values, channels), a view
    variance, mean = torch.var_mean(each, 1, correction=0, keepdim=True)  # (batches, 1, channels)
    scale = norm.weight / (variance + norm.eps).sqrt()
    each.mul_(scale).add_(norm.bias - mean * scale)
    unbiased = (variance * (each.shape[1] / (each.shape[1] - 1))).mean((0, 1))
    scale = norm.weight / (unbiased + norm.eps).sqrt()
    shift = norm.bias - mean.mean((0, 1)) * scale
    last = [conv2d(x, conv.weight * scale[:, None, None, None], shift, *where) for x in seen]
    if active:
        first, last = first.clamp_(0.0, 6.0), [y.clamp_(0.0, 6.0) for y in last]
    return first, last
