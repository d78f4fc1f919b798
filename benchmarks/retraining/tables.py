"""Table of the page about retrainings, made from the CSV files."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

from benchmarks.constants import RETRAINING_RESULTS
from benchmarks.markdown import markdown_table, rounded
from benchmarks.results_csv import read_rows

COLUMNS = ("size", "data", "images", "initial weights", "epochs", "steps", "top-1, % (seeds)", "tested on")


def retraining(folder: Path = RETRAINING_RESULTS) -> str:
    """Accuracy after trainings from scratch and from the supernet's weights, with a row for each length."""
    rows = [row for path in sorted(folder.glob("retraining-*.csv")) for row in read_rows(path)]
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        key = (row["size"], row["set"], row["images"], row["start"], row["epochs"], row["steps"], row["judged_on"])
        groups.setdefault(key, []).append(row)
    lines = []
    for key, of in groups.items():
        values = [100 * float(row["top1"]) for row in of]
        mean = rounded(statistics.fmean(values), 1)
        shown = mean if len(values) == 1 else f"{mean} ({', '.join(rounded(value, 1) for value in values)})"
        lines.append((*key[:6], shown, key[6]))
    return markdown_table(COLUMNS, lines)


TABLES: dict[str, Callable[[], str]] = {"retraining": retraining}
