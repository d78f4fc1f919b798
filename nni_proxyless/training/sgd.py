"""SGD with Nesterov momentum, fused on the CPU where the weights allow it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError


class FusedSGD(torch.optim.SGD):
    """SGD in one kernel for each tensor, also where only some of the weights have a momentum yet.

    PyTorch's fused kernel cannot begin the momentum of some weights only, as when a path is sampled for the first time.
    """

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; momentum that is not there yet begins at 0, which is what SGD without dampening does."""
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
    """SGD, with Nesterov momentum where there is momentum; fused on the CPU.

    Not on CUDA, where Lightning cannot clip what a scaler (16-mixed) has scaled in a fused optimizer.

    Args:
        parameters: Tensors or groups of them.
        learning_rate: At the start.
        momentum: Of SGD.
        weight_decay: L2 penalty, of groups that have none of their own.
        overlapping: Whether some of them are views of the same memory, which must not be changed at the same time: on
            CUDA PyTorch would otherwise take a step on all tensors at once.
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
    """A group in two: PyTorch's fused kernel takes every weight for dense, which entangled depthwise ones are not."""
    dense = [weight for weight in group["params"] if _is_dense(weight)]
    kept = {id(weight) for weight in dense}
    strided = [weight for weight in group["params"] if id(weight) not in kept]
    parts = [{**group, "params": dense}] if dense else []
    return [*parts, {**group, "params": strided, "fused": False, "foreach": False}] if strided else parts


def _is_dense(weight: Tensor) -> bool:
    """Whether its elements fill a piece of memory, in whatever order."""
    filled = 1
    for stride, size in sorted(zip(weight.stride(), weight.shape, strict=True)):
        if size > 1:
            if stride != filled:
                return False
            filled *= size
    return True


def check_fused(optimizers: Iterable[Any]) -> None:
    """Refuse fused optimizers of weights that are views with gaps, as entangled depthwise kernels are.

    Args:
        optimizers: Those of an evaluator, PyTorch's or Lightning's.

    Raises:
        InputError: PyTorch's fused kernels would take such a weight for dense, and change others in its place.
    """
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        if group.get("fused") and not all(map(_is_dense, group["params"])):
            raise InputError(
                "the evaluator's optimizer has fused=True, which would train entangled weights wrongly; "
                "give fused=False, or MobileNetV2Space(entangled=False)"
            )
