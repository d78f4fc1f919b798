"""Less work in each step of a search or training on the CPU, where it has no effect.

Networks of tests are so small that these two take a quarter of a step.
"""

from __future__ import annotations

import os
from typing import Any

import torch


def make_steps_quick() -> None:
    """Change this process, and the processes that it starts, unless PyTorch sees a GPU."""
    if torch.cuda.is_available():
        return
    # Optimizers ask in each step whether there is a GPU, and PyTorch then looks for NVIDIA's library again.
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    # Lightning moves every logged value to its device in each step, and for that visits all attributes.
    from pytorch_lightning.trainer.connectors.logger_connector.result import _ResultMetric

    def to(self: Any, *_args: Any, **_kwargs: Any) -> Any:
        return self

    _ResultMetric.to = to  # type: ignore[method-assign]
