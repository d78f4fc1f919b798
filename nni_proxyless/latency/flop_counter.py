"""PyTorch's counter of floating-point operations, without its message where Triton is missing.

The counter needs Triton for kernels written in it only, which no network here has.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.utils.flop_counter import FlopCounterMode


def flop_counter() -> FlopCounterMode:
    """Return a context manager that counts, `torch.utils.flop_counter.FlopCounterMode`, and prints no table."""
    log = logging.getLogger("torch.utils.flop_counter")
    before = log.disabled
    log.disabled = True
    try:
        from torch.utils.flop_counter import FlopCounterMode
    finally:
        log.disabled = before
    return FlopCounterMode(display=False)
