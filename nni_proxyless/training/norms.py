"""Batch-norms that train faster on the CPU: they are one function with a ReLU6, or overwrite their input.

An in-place ReLU6 saves a copy of its input for the backward pass. If batch-norm and ReLU6 are one function, their
output can be saved instead, and the next convolution saves that anyway.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .depthwise import gradients, on_plain_cpu

LARGE = 1 << 17  # numbers in an image for which more but faster operations pay


def normalises_in_place(norm: nn.BatchNorm2d, x: Tensor) -> bool:
    """Whether a batch-norm may overwrite its input, which must be an image that nothing else reads.

    That is so if it normalises by the batch's statistics, records nothing, and no autograd graph is built.
    """
    return norm.training and not norm.track_running_stats and not torch.is_grad_enabled() and _is_plain(x)


def normalise_(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Write the output of a batch-norm over its input, and return it.

    With channels_last, the last pass, y = s x + t, takes two thirds of the time of PyTorch's kernel. Two elementwise
    operations take half of that. They are not faster for small images.
    """
    if x.numel() < LARGE or not x.is_contiguous(memory_format=torch.channels_last) or norm.weight is None:
        stats = x.new_empty((2, x.shape[1]))
        torch.native_batch_norm(x, norm.weight, norm.bias, None, None, True, 0.0, norm.eps, out=(x, stats[0], stats[1]))
        return x
    mean, var = torch.batch_norm_update_stats(x, None, None, 0.0)
    scale = var.add_(norm.eps).rsqrt_().mul_(norm.weight)
    shift = torch.addcmul(norm.bias, mean, scale, value=-1.0)
    return x.mul_(scale[:, None, None]).add_(shift[:, None, None])


def trains_as_one(norm: nn.BatchNorm2d, x: Tensor) -> bool:
    """Whether `norm_relu6` can be used: a batch-norm in training, in a pass with an autograd graph."""
    return norm.training and torch.is_grad_enabled() and _is_plain(x)


def norm_relu6(norm: nn.BatchNorm2d, x: Tensor, *, masks_in_place: bool) -> Tensor:
    """Compute batch-norm and ReLU6, and save two tensors for the backward pass instead of three.

    Args:
        norm: Batch-norm in training. It records the batch's statistics as usual.
        x: Its input, shape (batch, channels, height, width).
        masks_in_place: Whether the backward pass may overwrite the gradient of the output. Then the output must be
            used by one operation only, and this operation must not pass its own gradient on unchanged, as an addition
            does. A convolution does not.
    """
    factor = 0.0 if norm.momentum is None else norm.momentum
    tracks = norm.track_running_stats and norm.running_mean is not None
    if tracks and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if norm.momentum is None:
            factor = 1.0 / float(norm.num_batches_tracked)
    mean, var = (norm.running_mean, norm.running_var) if tracks else (None, None)
    y: Tensor = _BatchNormReLU6.apply(x, norm.weight, norm.bias, mean, var, factor, norm.eps, masks_in_place)
    return y


def _is_plain(x: Tensor) -> bool:
    """Whether PyTorch's kernel can be called directly. Unlike modules, it takes a single value per channel."""
    return on_plain_cpu(x) and x.ndim == 4 and x.numel() > x.shape[1]


class BatchNorm(nn.BatchNorm2d):
    """Batch-norm that overwrites its input in those passes of an architecture step that build no autograd graph.

    No other operation may read that input. In this package's blocks, it is the output of a convolution.

    Shape: (batch, channels, height, width), as for `torch.nn.BatchNorm2d`.
    """

    def forward(self, x: Tensor) -> Tensor:
        return normalise_(self, x) if normalises_in_place(self, x) else super().forward(x)


class BatchNormReLU6(nn.BatchNorm2d):
    """Batch-norm and ReLU6 in one function; see `norm_relu6`.

    The backward pass masks the incoming gradient in place. In this package's blocks, the output is used by the next
    convolution alone.

    Shape: (batch, channels, height, width), as for `torch.nn.BatchNorm2d`.
    """

    def forward(self, x: Tensor) -> Tensor:
        if normalises_in_place(self, x):
            return normalise_(self, x).clamp_(0.0, 6.0)
        if trains_as_one(self, x):
            return norm_relu6(self, x, masks_in_place=True)
        return functional.relu6(super().forward(x), inplace=True)


class _BatchNormReLU6(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor | None,
        var: Tensor | None,
        factor: float,
        eps: float,
        masks_in_place: bool,
    ) -> Tensor:
        y, batch_mean, inverse_std = torch.native_batch_norm(x, weight, bias, mean, var, True, factor, eps)
        y.clamp_(0.0, 6.0)
        ctx.save_for_backward(x, weight, bias, y, batch_mean, inverse_std)
        ctx.settings = (eps, masks_in_place)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, y, batch_mean, inverse_std = ctx.saved_tensors
        eps, masks_in_place = ctx.settings
        wanted = list(ctx.needs_input_grad[:3])
        if torch.is_grad_enabled():  # the gradient will be differentiated itself
            again = functional.relu6(functional.batch_norm(x, None, None, weight, bias, True, 0.0, eps))
            return *gradients(again, (x, weight, bias), grad, wanted), *[None] * 5
        if masks_in_place:
            torch.ops.aten.hardtanh_backward.grad_input(grad, y, 0.0, 6.0, grad_input=grad)
        else:
            grad = torch.ops.aten.hardtanh_backward(grad, y, 0.0, 6.0)
        grads = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, None, None, batch_mean, inverse_std, True, eps, wanted
        )
        return *(g if needed else None for g, needed in zip(grads, wanted, strict=True)), *[None] * 5
