"""The optimizer of the architecture parameters."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn, optim

from .arch_settings import ArchSettings


def make_arch_optimizer(parameters: Sequence[nn.Parameter], arch: ArchSettings, rate: float) -> optim.Optimizer:
    """Adam over the architecture parameters.

    Args:
        parameters: One tensor of shape (num_candidates,) for each label.
        arch: Settings of the architecture's training.
        rate: Learning rate at the start.

    Raises:
        ValueError: There are no parameters.
    """
    if not parameters:
        raise ValueError("the model space has no choices: there is nothing to search")
    on_cpu = all(parameter.device.type == "cpu" for parameter in parameters)
    return optim.Adam(
        parameters,
        lr=rate,
        betas=arch.arch_betas,
        weight_decay=arch.effective_arch_weight_decay,
        foreach=not on_cpu,  # many small tensors: all at once,
        fused=on_cpu,  # or, three times as fast on the CPU, each with one kernel
    )
