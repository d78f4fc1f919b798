"""One self-contained HTML page of an experiment, its pictures, and the numbers behind them as CSV."""

from __future__ import annotations

from .gather import Results, find_results
from .page import make_report

__all__ = ["Results", "find_results", "make_report"]
