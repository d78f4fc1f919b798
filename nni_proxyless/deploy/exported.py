"""The record of one exported file."""

from __future__ import annotations

from dataclasses import dataclass

LEAST_AGREEMENT = 0.95  # least part of the images that int8 gives the same class as PyTorch
MOST_LOSS = 0.02  # most accuracy that int8 may lose


def is_lossy(agreement: float | None, accuracy_loss: float | None) -> bool:
    """Whether a file differs from PyTorch by more than `LEAST_AGREEMENT` and `MOST_LOSS` allow; see `Exported`."""
    disagrees = agreement is not None and agreement < LEAST_AGREEMENT
    return disagrees or (accuracy_loss or 0.0) > MOST_LOSS + 1e-9


@dataclass(frozen=True)
class Exported:
    """One exported file, its agreement with PyTorch and its latency.

    Attributes:
        format: Name of the format, one of the keys of `FILES`.
        file: Name of the file.
        max_difference: Largest absolute difference between a logit and PyTorch's.
        agreement: Fraction of the images that get the same class as in PyTorch.
        accuracy: Top-1 accuracy on these images, between 0 and 1; `None` if they have no labels.
        runtime: Description of the runtime that the latency was measured with.
        predicted_latency_ms: Latency in milliseconds by the table of that runtime; `None` if there is no such table.
        measured_latency_ms: Latency in milliseconds on this machine, corrected for machine slowdown: since the table
            was measured, if a comparable table is given.
        clock_latency_ms: Median latency in milliseconds without this correction.
        accuracy_loss: Top-1 accuracy of PyTorch on these images, less `accuracy`; `None` if they have no labels.
        weight_bits: Bits of the weights in int8, see `quantize_static`; `None` in other formats.
    """

    format: str
    file: str
    max_difference: float
    agreement: float
    accuracy: float | None
    runtime: str | None = None
    predicted_latency_ms: float | None = None
    measured_latency_ms: float | None = None
    clock_latency_ms: float | None = None
    accuracy_loss: float | None = None
    weight_bits: int | None = None
