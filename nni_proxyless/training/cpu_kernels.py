"""Modules that train faster on the CPU and compute the same results, composed of PyTorch's own kernels.

Measured on mobile networks in channels_last (benchmarks/HISTORY.md, cost). `depthwise.py` has the convolutions,
`norms.py` the batch-norms, and `in_order.py` the Sequentials of both in any model.

Searches and retrainings insert these modules with `accelerate`. Exported networks and networks measured on devices do
not contain them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..network.blocks import ConvBNReLU, MBConv
from .depthwise import DepthwiseConv2d, is_wide_depthwise
from .in_order import join_norms
from .norms import BatchNorm, BatchNormReLU6, normalise_, normalises_in_place

__all__ = ["BatchNorm", "BatchNormReLU6", "DepthwiseConv2d", "FasterMBConv", "accelerate"]


def accelerate(model: nn.Module) -> nn.Module:
    """Replace modules by faster equivalents in place. Parameters, buffers and their names do not change.

    Wide depthwise convolutions are replaced anywhere in the model. Batch-norms are combined with their neighbours in
    this package's blocks and in every `nn.Sequential`.

    Args:
        model: Model to accelerate; changed in place.

    Returns:
        The same model.
    """
    for module in model.modules():
        for name, child in list(module.named_children()):
            if type(child) is nn.Conv2d and is_wide_depthwise(child):
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
    join_norms(model)
    return model


def _twin(kind: type[Any], module: nn.Module) -> Any:
    """Create a module of a subclass that shares the parameters, buffers, hooks and settings of another module."""
    made: Any = object.__new__(kind)
    made.__dict__.update(module.__dict__)
    return made


class FasterMBConv(MBConv):
    """MBConv that calls functions instead of its modules in passes of an architecture step without an autograd graph.

    An architecture step has up to six such passes in each layer, and calling eight modules takes 2 % of the time of
    each pass. If one of the modules has hooks, the pass calls all modules, as `MBConv` does.

    Shape: (batch, c_in, h, w) to (batch, c_out, h / stride, w / stride), as for `MBConv`.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not (normalises_in_place(self.bn3, x) and self._is_unmodified()):
            return super().forward(x)
        y = x
        if self.expands:
            y = normalise_(self.bn1, torch.conv2d(x, self.conv_pw.weight)).clamp_(0.0, 6.0)
        dw = self.conv_dw
        y = torch.conv2d(y, dw.weight, None, dw.stride, dw.padding, dw.dilation, dw.groups)
        y = normalise_(self.bn2, y).clamp_(0.0, 6.0)
        y = normalise_(self.bn3, torch.conv2d(y, self.conv_pwl.weight))
        return y.add_(x) if self.residual else y

    def _is_unmodified(self) -> bool:
        modules = self._modules
        return type(modules["bn2"]) is BatchNormReLU6 and not any(
            module._forward_pre_hooks or module._forward_hooks for module in modules.values() if module is not None
        )
