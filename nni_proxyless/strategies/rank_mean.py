"""Means over the processes (ranks) that search together.

All ranks sample the same paths, so the same parameters have gradients on all ranks. The gradients are concatenated and
averaged in a single reduction.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed
from torch import Tensor, nn


class RankMean:
    """Averages tensors over all ranks. With a single rank, nothing changes.

    Args:
        ranks: Number of ranks.
    """

    def __init__(self, ranks: int = 1) -> None:
        self._ranks = ranks

    def of(self, values: Tensor) -> Tensor:
        """Return the mean of a tensor over all ranks, in the same shape. The tensor itself may be overwritten."""
        if self._ranks > 1:
            torch.distributed.all_reduce(values)
            values = values / self._ranks
        return values

    def gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace the gradients of parameters by their means over all ranks, in place.

        A parameter without a gradient on some of the ranks, as with blocks that are skipped at random, counts there as
        one with a gradient of zero.
        """
        if self._ranks == 1:
            return
        listed = list(parameters)
        if not listed:
            return
        present = torch.tensor([float(p.grad is not None) for p in listed], device=listed[0].device)
        torch.distributed.all_reduce(present)
        used = [p for p, count in zip(listed, present.tolist(), strict=True) if count]
        for parameter in used:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if not used:
            return
        gradients = [p.grad for p in used if p.grad is not None]
        flat = self.of(torch.cat([g.flatten() for g in gradients]))
        for gradient, mean in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))
