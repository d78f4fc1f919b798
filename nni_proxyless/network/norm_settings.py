"""Settings of batch-norm. Imports no torch, so that a space is checked before anything slow starts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NormSettings:
    """Batch-norm settings. The defaults are the paper's: eps 1e-3 and momentum 0.1."""

    eps: float = 1e-3
    momentum: float = 0.1
