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
        """Replace the gradients of parameters by their means over all ranks, in place."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self._ranks == 1 or not gradients:
            return
        flat = self.of(torch.cat([g.flatten() for g in gradients]))
        for gradient, mean in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))
