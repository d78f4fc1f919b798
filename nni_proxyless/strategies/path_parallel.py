"""Search in several processes: distributed data parallel (DDP) without torch's wrapper around the model.

All ranks sample the same paths, so the same few weights have gradients on all ranks. The search's Lightning module
averages these gradients (`strategies/rank_mean.py`). Torch's wrapper would wait for the gradients of all paths, and
communicate zeros for the paths that did not run.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed
from pytorch_lightning.strategies import DDPStrategy
from torch import nn

from ..training.ranks import WAITING


class PathParallelStrategy(DDPStrategy):
    """Lightning's DDP with its processes, samplers and devices, but without a wrapper around the model.

    The other ranks wait while rank 0 validates, and at the end while it compares the finalists. So the timeout is long.
    """

    def __init__(self) -> None:
        super().__init__(timeout=WAITING)

    def configure_ddp(self) -> None:
        """Start all ranks with the weights of rank 0. The model is not wrapped."""
        assert self.model is not None
        _from_rank_0([*self.model.parameters(), *self.model.buffers()])

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        assert self.lightning_module is not None
        with self.precision_plugin.train_step_context():
            return self.lightning_module.training_step(*args, **kwargs)


def share_buffers(model: nn.Module, ranks: int) -> None:
    """Copy the buffers of rank 0 to all ranks. Running statistics, for example, depend on the images of each rank."""
    if ranks > 1:
        _from_rank_0(list(model.buffers()))


@torch.no_grad()
def _from_rank_0(tensors: list[Any]) -> None:
    for tensor in tensors:
        torch.distributed.broadcast(tensor.data, 0)
