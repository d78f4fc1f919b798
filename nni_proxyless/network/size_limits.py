"""Largest sizes in the description of a space. Larger ones are typing errors, and would exhaust any machine."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import SpaceError
from ..values import MOST_CHANNELS as MOST_CHANNELS
from .operators import Operator

MOST_LAYERS, MOST_WIDTH = 500, 16_384
MOST_CLASSES = 1_000_000
MOST_KERNEL, MOST_EXPANSION, MOST_VALUES = 63, 64, 10_000_000_000


def check_size(operators: Sequence[Operator], source: str) -> None:
    """Check that the operators of a space are not too large for any machine.

    Args:
        operators: All operators of all networks of the space.
        source: Name of the description in error messages.

    Raises:
        SpaceError: The candidates have more than `MOST_VALUES` parameters in all, or one has more values for an image.
    """
    parameters = sum(operator.parameters for operator in operators)
    values = max(op.hidden_channels * op.input_shape[1] * op.input_shape[2] for op in operators)
    if parameters > MOST_VALUES or values > MOST_VALUES:
        raise SpaceError(
            f"{source} is too large: its candidates have {parameters:,} parameters in all and up to {values:,} values "
            f"for an image, and {MOST_VALUES:,} are allowed; choose smaller widths, kernels or images"
        )
