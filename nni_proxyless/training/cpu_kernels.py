"""Modules that train faster on the CPU and compute the same results, composed of PyTorch's own kernels.

Measured on mobile networks in channels_last (benchmarks/HISTORY.md, cost):

* PyTorch's CPU kernel takes up to ten times as long for the weight gradient of a depthwise kernel wider than 3 as for
  one of width 3, at any height. So this module computes the gradient in strips of width 3, each with a shifted image.
* An in-place ReLU6 saves a copy of its input for the backward pass. If batch-norm and ReLU6 are one function, their
  output can be saved instead, and the next convolution saves that anyway. Gradients are masked in place.

Searches and retrainings insert these modules with `accelerate`. Exported networks and networks measured on devices do
not contain them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..network.blocks import ConvBNReLU, MBConv

STRIP = 3
CHUNK_BYTES = 16 << 20  # size of the images that are processed at a time, so that they stay in the cache


def accelerate(model: nn.Module) -> nn.Module:
    """Replace modules by faster equivalents in place. Parameters, buffers and their names do not change.

    Wide depthwise convolutions are replaced anywhere in the model. Batch-norms and their ReLU6 are replaced only in
    this package's blocks.

    Args:
        model: Model to accelerate; changed in place.

    Returns:
        The same model.
    """
    for module in model.modules():
        for name, child in list(module.named_children()):
            if type(child) is nn.Conv2d and _is_wide_depthwise(child):
                module._modules[name] = _twin(DepthwiseConv2d, child)
        if isinstance(module, (ConvBNReLU, MBConv)) and not isinstance(module.act, nn.Identity):
            for name, kind in (
                ("bn", BatchNormReLU6),
                ("bn1", BatchNormReLU6),
                ("bn2", BatchNormReLU6),
                ("bn3", BatchNorm),
            ):
                norm = module._modules.get(name)
                if type(norm) is nn.BatchNorm2d:
                    module._modules[name] = _twin(kind, norm)
            module._modules["act"] = nn.Identity()
            if type(module) is MBConv:
                module.__class__ = FasterMBConv
    return model


def _is_wide_depthwise(conv: nn.Conv2d) -> bool:
    return (
        conv.groups == conv.in_channels == conv.out_channels
        and conv.groups > 1
        and conv.kernel_size[1] > STRIP
        and conv.dilation == (1, 1)
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
        and conv.bias is None
    )


def _twin(kind: type[Any], module: nn.Module) -> Any:
    """Create a module of a subclass that shares the parameters, buffers, hooks and settings of another module."""
    made: Any = object.__new__(kind)
    made.__dict__.update(module.__dict__)
    return made


def _on_plain_cpu(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype is torch.float32 and not torch.is_autocast_enabled("cpu")


class DepthwiseConv2d(nn.Conv2d):
    """Depthwise convolution with a kernel wider than 3 and a fast weight gradient on the CPU.

    Shape: (batch, channels, height, width), as for `torch.nn.Conv2d`.
    """

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and self.weight.requires_grad and _on_plain_cpu(x) and x.ndim == 4:
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
        if torch.is_grad_enabled():
            y = functional.conv2d(x, weight, None, stride, padding, groups=x.shape[1])
            return *_again(y, (x, weight), ctx.needs_input_grad, grad), None, None
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = _conv_backward(grad, x, weight, stride, padding, (True, False))[0]
        if ctx.needs_input_grad[1]:
            grad_weight = depthwise_weight_gradient(grad, x, weight, stride, padding)
        return grad_x, grad_weight, None, None


def _again(y: Tensor, inputs: tuple[Tensor, ...], wanted: Sequence[bool], grad: Tensor) -> list[Tensor | None]:
    """Return gradients that can be differentiated again, for a loss that contains a gradient (`create_graph=True`).

    Args:
        y: Output, computed again by functions of PyTorch.
        inputs: Inputs of these functions.
        wanted: Whether each input's gradient is needed.
        grad: Gradient ∂L/∂y.
    """
    needed = [x for x, need in zip(inputs, wanted, strict=False) if need]
    found = iter(torch.autograd.grad(y, needed, grad, create_graph=True))
    return [next(found) if need else None for _, need in zip(inputs, wanted, strict=False)]


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


def _normalises_in_place(norm: nn.BatchNorm2d, x: Tensor) -> bool:
    """Whether a batch-norm may overwrite its input.

    That is so if it normalises by the batch's statistics, records nothing, and no autograd graph is built.
    """
    return norm.training and not norm.track_running_stats and not torch.is_grad_enabled() and _on_plain_cpu(x)


def _normalise_(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    stats = x.new_empty((2, x.shape[1]))
    torch.native_batch_norm(x, norm.weight, norm.bias, None, None, True, 0.0, norm.eps, out=(x, stats[0], stats[1]))
    return x


class BatchNorm(nn.BatchNorm2d):
    """Batch-norm that overwrites its input in those passes of an architecture step that build no autograd graph.

    No other operation may read that input. In this package's blocks, it is the output of a convolution.

    Shape: (batch, channels, height, width), as for `torch.nn.BatchNorm2d`.
    """

    def forward(self, x: Tensor) -> Tensor:
        return _normalise_(self, x) if _normalises_in_place(self, x) else super().forward(x)


class BatchNormReLU6(nn.BatchNorm2d):
    """Batch-norm and ReLU6 in one function that saves two tensors for the backward pass instead of three.

    The backward pass masks the incoming gradient in place. So the output must be used by one operation only, and this
    operation must not pass its own gradient on unchanged, as an addition does. In this package's blocks, it is the next
    convolution.

    Shape: (batch, channels, height, width), as for `torch.nn.BatchNorm2d`.
    """

    def forward(self, x: Tensor) -> Tensor:
        if _normalises_in_place(self, x):
            return _normalise_(self, x).clamp_(0.0, 6.0)
        if not (self.training and torch.is_grad_enabled() and _on_plain_cpu(x)):
            return functional.relu6(super().forward(x), inplace=True)
        factor = 0.0 if self.momentum is None else self.momentum
        tracks = self.track_running_stats and self.running_mean is not None
        if tracks and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                factor = 1.0 / float(self.num_batches_tracked)
        y: Tensor = _BatchNormReLU6.apply(
            x,
            self.weight,
            self.bias,
            self.running_mean if tracks else None,
            self.running_var if tracks else None,
            factor,
            self.eps,
        )
        return y


class _BatchNormReLU6(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, factor: float, eps: float
    ) -> Tensor:
        y, batch_mean, inverse_std = torch.native_batch_norm(x, weight, bias, mean, var, True, factor, eps)
        y.clamp_(0.0, 6.0)
        ctx.save_for_backward(x, weight, bias, y, batch_mean, inverse_std)
        ctx.eps = eps
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, y, batch_mean, inverse_std = ctx.saved_tensors
        if torch.is_grad_enabled():
            plain = functional.relu6(functional.batch_norm(x, None, None, weight, bias, True, 0.0, ctx.eps))
            return *_again(plain, (x, weight, bias), ctx.needs_input_grad, grad), None, None, None, None
        torch.ops.aten.hardtanh_backward.grad_input(grad, y, 0.0, 6.0, grad_input=grad)
        wanted = list(ctx.needs_input_grad[:3])
        grads = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, None, None, batch_mean, inverse_std, True, ctx.eps, wanted
        )
        return *(g if needed else None for g, needed in zip(grads, wanted, strict=True)), None, None, None, None


class FasterMBConv(MBConv):
    """MBConv that calls functions instead of its modules in passes of an architecture step without an autograd graph.

    An architecture step has up to six such passes in each layer, and calling eight modules takes 2 % of the time of
    each pass. If one of the modules has hooks, the pass calls all modules, as `MBConv` does.

    Shape: (batch, c_in, h, w) to (batch, c_out, h / stride, w / stride), as for `MBConv`.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not (_normalises_in_place(self.bn3, x) and self._is_unmodified()):
            return super().forward(x)
        y = x
        if self.expands:
            y = _normalise_(self.bn1, torch.conv2d(x, self.conv_pw.weight)).clamp_(0.0, 6.0)
        dw = self.conv_dw
        y = torch.conv2d(y, dw.weight, None, dw.stride, dw.padding, dw.dilation, dw.groups)
        y = _normalise_(self.bn2, y).clamp_(0.0, 6.0)
        y = _normalise_(self.bn3, torch.conv2d(y, self.conv_pwl.weight))
        return y.add_(x) if self.residual else y

    def _is_unmodified(self) -> bool:
        modules = self._modules
        return type(modules["bn2"]) is BatchNormReLU6 and not any(
            module._forward_pre_hooks or module._forward_hooks for module in modules.values() if module is not None
        )
