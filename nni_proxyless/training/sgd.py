"""SGD with Nesterov momentum, fused on the CPU for weights whose memory layout allows it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError


class FusedSGD(torch.optim.SGD):
    """SGD with one fused kernel per tensor, even if only some weights have a momentum buffer so far.

    PyTorch's fused kernel cannot start the momentum of only some weights. That happens when a path is sampled for the
    first time.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Lightning refuses to clip the gradients of an optimizer that takes a gradient scaler's scaled ones. There is
        # no scaler on the CPU, neither with 32-true nor with bf16-mixed.
        self._step_supports_amp_scaling = False

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step. Missing momentum buffers start at 0, which gives the same step as SGD without dampening."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None and self.state[weight].get("momentum_buffer") is None:
                    self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        super().step()
        return loss


def make_sgd(
    parameters: Iterable[Any],
    learning_rate: float,
    momentum: float,
    weight_decay: float = 0.0,
    *,
    overlapping: bool = False,
) -> torch.optim.SGD:
    """Create an SGD optimizer, with Nesterov momentum if `momentum` is above 0.

    SGD with momentum is fused on the CPU. It is not fused on CUDA, because Lightning cannot clip gradients that a
    gradient scaler (precision 16-mixed) has scaled if the optimizer is fused.

    Args:
        parameters: Tensors, or parameter groups (dictionaries) of tensors.
        learning_rate: Initial learning rate.
        momentum: Momentum of SGD.
        weight_decay: Factor of the L2 penalty for groups that do not set their own.
        overlapping: Whether some parameters are views of the same memory. Such parameters must not be updated at the
            same time, so PyTorch's update of all tensors at once, the default on CUDA, is switched off.
    """
    listed = list(parameters)
    groups = listed if listed and isinstance(listed[0], dict) else [{"params": listed}]
    fused = momentum > 0 and all(weight.device.type == "cpu" for group in groups for weight in group["params"])
    if fused:
        groups = [part for group in groups for part in _fused_where_dense(group)]
        make: type[torch.optim.SGD] = FusedSGD
    else:
        make = torch.optim.SGD
    return make(
        groups, learning_rate, momentum=momentum, weight_decay=weight_decay, nesterov=momentum > 0, fused=fused,
        foreach=False if overlapping else None,
    )  # fmt: skip


def _fused_where_dense(group: dict[str, Any]) -> list[dict[str, Any]]:
    """Split a group into a fused part with the dense weights and an unfused part with all others.

    PyTorch's fused kernel treats every weight as dense. Entangled depthwise weights are not.
    """
    dense = [weight for weight in group["params"] if _is_dense(weight)]
    kept = {id(weight) for weight in dense}
    strided = [weight for weight in group["params"] if id(weight) not in kept]
    parts = [{**group, "params": dense}] if dense else []
    return [*parts, {**group, "params": strided, "fused": False, "foreach": False}] if strided else parts


def _is_dense(weight: Tensor) -> bool:
    """Whether the elements of a weight fill a block of memory without gaps, in any order of dimensions."""
    filled = 1
    for stride, size in sorted(zip(weight.stride(), weight.shape, strict=True)):
        if size > 1:
            if stride != filled:
                return False
            filled *= size
    return True


def check_fused(optimizers: Iterable[Any]) -> None:
    """Check that no fused optimizer has weights that are views with gaps, such as entangled depthwise kernels.

    Args:
        optimizers: Optimizers of an evaluator, either PyTorch's or Lightning's.

    Raises:
        InputError: A fused optimizer has such a weight. PyTorch's fused kernel would treat it as dense and change other
            weights instead.
    """
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        if group.get("fused") and not all(map(_is_dense, group["params"])):
            raise InputError(
                "the evaluator's optimizer has fused=True, which would train entangled weights wrongly; "
                "give fused=False, or MobileNetV2Space(entangled=False)"
            )
