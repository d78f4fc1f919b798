"""The difference between a predicted and a measured latency, by one definition for all outputs."""

from __future__ import annotations

NOTICEABLE = 0.10  # relative error from which outputs warn


def relative_error(predicted_ms: float, measured_ms: float) -> float:
    """Compute (predicted - measured) / measured; positive if the prediction is too high.

    Args:
        predicted_ms: Predicted latency in milliseconds.
        measured_ms: Measured latency in milliseconds, above 0.
    """
    return (predicted_ms - measured_ms) / measured_ms


def difference_warning(predicted_ms: float | None, measured_ms: float | None) -> str | None:
    """Return a warning if the relative error of a prediction exceeds 10 %.

    Args:
        predicted_ms: Predicted latency in milliseconds; `None` if there is none.
        measured_ms: Measured latency in milliseconds; `None` if there is none.

    Returns:
        The warning in one line; `None` if the two agree or one of them is missing.
    """
    if predicted_ms is None or not measured_ms:
        return None
    error = relative_error(predicted_ms, measured_ms)
    if abs(error) <= NOTICEABLE:
        return None
    return (
        f"the predicted latency of {predicted_ms:.4g} ms differs from the measured {measured_ms:.4g} ms by "
        f"{100 * error:+.1f} %: the latency table may be wrong, or the machine may have been busy"
    )
