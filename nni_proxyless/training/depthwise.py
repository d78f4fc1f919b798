"""Depthwise convolutions with kernels wider than 3, whose weight gradients are computed faster on the CPU.

PyTorch's CPU kernel takes up to ten times as long for the weight gradient of a depthwise kernel wider than 3 as for one
of width 3, at any height. So the gradient is computed in strips of width 3, each with a shifted image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

STRIP = 3
CHUNK_BYTES = 16 << 20  # size of the images that are processed at a time, so that they stay in the cache


def is_wide_depthwise(conv: nn.Conv2d) -> bool:
    """Whether a convolution can be replaced by a `DepthwiseConv2d`, and is slow otherwise."""
    return (
        conv.groups == conv.in_channels == conv.out_channels
        and conv.groups > 1
        and conv.kernel_size[1] > STRIP
        and conv.dilation == (1, 1)
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
        and conv.bias is None
    )


def on_plain_cpu(x: Tensor) -> bool:
    """Whether a tensor is on the CPU, in single precision and without autocast."""
    return x.device.type == "cpu" and x.dtype is torch.float32 and not torch.is_autocast_enabled("cpu")


class DepthwiseConv2d(nn.Conv2d):
    """Depthwise convolution with a kernel wider than 3 and a fast weight gradient on the CPU.

    Shape: (batch, channels, height, width), as for `torch.nn.Conv2d`.
    """

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and self.weight.requires_grad and on_plain_cpu(x) and x.ndim == 4:
            y: Tensor = _DepthwiseConv.apply(x, self.weight, self.stride, self.padding)
            return y
        return super().forward(x)


class _DepthwiseConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = (stride, padding)
        return functional.conv2d(x, weight, None, stride, padding, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding = ctx.geometry
        if torch.is_grad_enabled():  # the gradient will be differentiated itself
            y = functional.conv2d(x, weight, None, stride, padding, groups=x.shape[1])
            return *gradients(y, (x, weight), grad, ctx.needs_input_grad[:2]), None, None
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = _conv_backward(grad, x, weight, stride, padding, (True, False))[0]
        if ctx.needs_input_grad[1]:
            grad_weight = depthwise_weight_gradient(grad, x, weight, stride, padding)
        return grad_x, grad_weight, None, None


def depthwise_weight_gradient(
    grad: Tensor, x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """Weight gradient ∂L/∂W of a depthwise convolution, computed in strips of columns.

    With stride s and padding p, W[c, 0, i, j] is multiplied by x[n, c, h s + i - p, w s + j - p]. So the gradient of
    the columns j0 to j0 + 2 is that of a kernel of width 3 without padding, for the padded x shifted by j0 - p columns.

    Args:
        grad: Gradient ∂L/∂y, shape (batch, channels, out_height, out_width).
        x: Input, shape (batch, channels, height, width).
        weight: Weight, shape (channels, 1, kernel_height, kernel_width), with kernel_width at least 3.
        stride: Vertical and horizontal stride.
        padding: Vertical and horizontal padding.

    Returns:
        Gradient of the shape of `weight`.
    """
    height, width = weight.shape[2:]
    columns = (grad.shape[3] - 1) * stride[1] + STRIP
    # Padding passed as an argument needs no copy of x. But PyTorch's kernel is then ten times as slow if the vertical
    # stride is above 1 or the kernel is higher than the image.
    pads = stride[0] == 1 and x.shape[2] >= height
    down = padding[0] if pads else 0
    rows = x.shape[2] if pads else (grad.shape[2] - 1) * stride[0] + height
    images = max(1, CHUNK_BYTES // (x[0].numel() * x.element_size()))
    result = torch.zeros_like(weight)
    strip = weight.new_empty(weight.shape[0], 1, height, STRIP)
    starts = (*range(0, width - STRIP, STRIP - 1), width - STRIP)
    for x_part, grad_part in zip(torch.split(x, images), torch.split(grad, images), strict=True):
        found = torch.empty_like(weight)
        moved: Tensor | None = None
        for start in starts:
            left = padding[1] - start
            if pads and left >= 0 and (x.shape[3] + 2 * left - STRIP) // stride[1] + 1 == grad.shape[3]:
                source, across = x_part, left
            else:
                source, across = _moved(x_part, padding[0] - down, left, rows, columns, moved), 0
                moved = source
            found[..., start : start + STRIP] = _conv_backward(
                grad_part, source, strip, stride, (down, across), (False, True)
            )[1]
        result += found
    return result


def _moved(x: Tensor, top: int, left: int, rows: int, columns: int, into: Tensor | None) -> Tensor:
    """Shift `x` down and to the right, then crop it or pad it with zeros to a given number of rows and columns.

    Args:
        x: Images, shape (batch, channels, height, width).
        top: Number of zero rows above `x`.
        left: Number of zero columns to the left of `x`. If negative, that many columns of `x` are cropped there.
        rows: Number of rows of the result.
        columns: Number of columns of the result.
        into: Result of an earlier call that differed only in `left`. It is overwritten and returned.

    Returns:
        Shifted images, shape (batch, channels, rows, columns).
    """
    height = min(x.shape[2], rows - top)
    if into is None:
        last = x.is_contiguous(memory_format=torch.channels_last)
        into = torch.empty(
            (*x.shape[:2], rows, columns),
            dtype=x.dtype,
            memory_format=torch.channels_last if last else torch.contiguous_format,
        )
        into[:, :, :top] = 0
        into[:, :, top + height :] = 0
    first, end = max(0, left), min(columns, left + x.shape[3])
    inner = into[:, :, top : top + height]
    inner[..., :first] = 0
    inner[..., end:] = 0
    inner[..., first:end] = x[:, :, :height, first - left : end - left]
    return into


def _conv_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    wanted: tuple[bool, bool],
) -> Any:
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, stride, padding, (1, 1), False, (0, 0), x.shape[1], (*wanted, False)
    )


def gradients(y: Tensor, inputs: Sequence[Tensor | None], grad: Tensor, wanted: Sequence[bool]) -> list[Tensor | None]:
    """Return those gradients of a function's inputs that are wanted. They can be differentiated again.

    Args:
        y: Output of the function, with its graph.
        inputs: Inputs of the function.
        grad: Gradient of the loss in the output.
        wanted: For each input, whether its gradient is wanted; all others are `None`.
    """
    chosen = [x for x, needed in zip(inputs, wanted, strict=True) if needed and x is not None]
    found = iter(torch.autograd.grad(y, chosen, grad, create_graph=True))
    return [next(found) if needed else None for needed in wanted]
