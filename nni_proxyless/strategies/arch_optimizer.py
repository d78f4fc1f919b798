"""Optimizer of the architecture parameters."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn, optim

from .arch_settings import ArchSettings


def make_arch_optimizer(parameters: Sequence[nn.Parameter], arch: ArchSettings, rate: float) -> optim.Optimizer:
    """Create an Adam optimizer of the architecture parameters.

    Args:
        parameters: Architecture parameters of each label, shape (num_candidates,) each.
        arch: Settings of the architecture's training.
        rate: Initial learning rate.

    Raises:
        ValueError: There are no parameters, because the model space has no choices.
    """
    if not parameters:
        raise ValueError("the model space has no choices: there is nothing to search")
    on_cpu = all(parameter.device.type == "cpu" for parameter in parameters)
    return optim.Adam(
        parameters,
        lr=rate,
        betas=arch.arch_betas,
        weight_decay=arch.effective_arch_weight_decay,
        foreach=not on_cpu,  # updates the many small tensors all at once
        fused=on_cpu,  # updates each tensor with a single kernel, which is three times as fast on the CPU
    )
