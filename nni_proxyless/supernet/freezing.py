"""Freezing of a supernet's weights during an architecture step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .gated import Gate


class WeightFreezer:
    """Freezes everything in a supernet except its architecture parameters (paper section 3.2.1).

    Within `with freezer.frozen():`, weights require no gradient, and batch-norm does not update its running statistics.
    The buffers of all other modules are restored at the end.

    Args:
        model: The supernet.
        running_statistics: Whether batch-norm normalises by its running statistics instead of the batch's.
    """

    def __init__(self, model: nn.Module, running_statistics: bool = False) -> None:
        alphas = {id(module.alpha) for module in model.modules() if isinstance(module, Gate)}
        self._weights = [p for p in model.parameters() if id(p) not in alphas and p.requires_grad]
        self._norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
        # Batch-norm records nothing while either attribute is False. It then uses the running statistics if `training`
        # is False, and the batch's if `track_running_stats` is False.
        self._switch = "training" if running_statistics else "track_running_stats"
        kept = {id(buffer) for norm in self._norms for buffer in norm.buffers(recurse=False)}
        self._buffers = [buffer for buffer in model.buffers() if id(buffer) not in kept]

    @contextmanager
    def frozen(self) -> Iterator[None]:
        saved = [buffer.clone() for buffer in self._buffers]
        norms = [norm for norm in self._norms if getattr(norm, self._switch)]
        self._set(norms, requires_grad=False)
        try:
            yield
        finally:
            self._set(norms, requires_grad=True)
            with torch.no_grad():
                for buffer, value in zip(self._buffers, saved, strict=True):
                    buffer.copy_(value)

    def _set(self, norms: list[_BatchNorm], *, requires_grad: bool) -> None:
        for weight in self._weights:
            weight.requires_grad = requires_grad
        for norm in norms:  # nn.Module.__setattr__ would be slow for hundreds of norms: it looks for a parameter first
            norm.__dict__[self._switch] = requires_grad
