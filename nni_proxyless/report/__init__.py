"""The report: one HTML page that shows the results of an experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .gather import Results, find_results
    from .page import make_report

__all__ = ["Results", "find_results", "make_report"]
__getattr__ = lazy_names(
    __name__, {"Results": "report.gather", "find_results": "report.gather", "make_report": "report.page"}
)
