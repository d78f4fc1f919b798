"""Markdown tables and the numbers in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import ROUND_HALF_UP, Decimal


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table that ends with a newline; each row has as many cells as there are columns.

    Raises:
        ValueError: A row has another number of cells.
    """
    lines = [_line(columns), "|" + "---|" * len(columns) + "\n"]
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"a row has {len(row)} cells, the table {len(columns)} columns: {row}")
        lines.append(_line(row))
    return "".join(lines)


def rounded(value: float | str, digits: int) -> str:
    """A number with so many decimals; halves go away from zero, so that 0.855 becomes 0.86."""
    exact = Decimal(str(round(float(value), 9)))  # without what binary floating point adds
    return str(exact.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))


def _line(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |\n"
