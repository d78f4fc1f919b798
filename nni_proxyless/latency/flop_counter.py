"""PyTorch's counter of floating-point operations, with the operations that it leaves out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


@contextmanager
def plain_attention() -> Iterator[None]:
    """Context manager in which attention is computed by operations that can be seen, as in an exported graph."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel([SDPBackend.MATH]):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def multiply_adds_counted() -> Iterator[FlopCounterMode]:
    """Context manager that counts operations, two for each multiply-add, also those of attention and LSTM layers.

    PyTorch computes GRU and RNN layers by matrix products, which it counts, but each LSTM layer by one operation.
    """
    mapping = {torch.ops.aten.mkldnn_rnn_layer: _lstm_layer}
    with plain_attention(), FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        yield counter


def total_multiply_adds(counter: FlopCounterMode) -> float:
    """Return the multiply-adds that were counted so far."""
    return counter.get_total_flops() / 2  # PyTorch counts a multiply-add as two operations


def _lstm_layer(
    inputs: Sequence[int], from_inputs: Sequence[int], from_states: Sequence[int], *_: Any, **__: Any
) -> int:
    """Operations of one direction of an LSTM layer: each step multiplies its input and its state with weights.

    Args:
        inputs: Shape (steps, batch, features).
        from_inputs: Shape of the input's weights, (4 · hidden, features).
        from_states: Shape of the state's weights, (4 · hidden, hidden).
    """
    return 2 * math.prod(inputs[:-1]) * (math.prod(from_inputs) + math.prod(from_states))
