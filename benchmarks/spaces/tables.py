"""Table of predicted against measured latencies, made from the CSV files."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable

import numpy as np

from benchmarks.constants import SPACES_RESULTS
from benchmarks.markdown import markdown_table, rounded
from benchmarks.results_csv import read_rows
from benchmarks.spaces.spaces import SPACES
from nni_proxyless.latency.arrays import spearman

_BACKENDS = {"torch": "PyTorch", "onnxruntime": "ONNX Runtime"}
_COLUMNS = (
    "space", "runtime", "processor", "modules", "networks", "range, ms", "mean error, %", "worst error, %", "Spearman",
)  # fmt: skip


def predictions() -> str:
    """Errors of the predictions by space, runtime and processor; the header alone before the first measurement."""
    groups: dict[tuple[str, str, str], list[dict[str, str]]] = defaultdict(list)
    for path in sorted(SPACES_RESULTS.glob("predictions-*.csv")):
        for row in read_rows(path):
            groups[row["space"], row["backend"], row["processor"]].append(row)
    lines = []
    for (space, backend, processor), rows in groups.items():
        predicted = np.array([float(row["predicted_ms"]) for row in rows])
        measured = np.array([float(row["measured_ms"]) for row in rows])
        errors = np.abs(predicted - measured) / measured
        lines.append(
            (
                SPACES[space].name,
                _BACKENDS[backend],
                processor,
                rows[0]["modules"],
                len(rows),
                f"{measured.min():.3g} – {measured.max():.3g}",
                rounded(100 * statistics.fmean(errors), 1),
                rounded(100 * float(errors.max()), 1),
                rounded(spearman(predicted, measured), 3),
            )
        )
    return markdown_table(_COLUMNS, lines)


TABLES: dict[str, Callable[[], str]] = {"space_predictions": predictions}
