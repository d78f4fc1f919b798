"""Tables of the pages about latency, made from the CSV files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.constants import LATENCY_RESULTS
from benchmarks.markdown import markdown_table, rounded
from benchmarks.results_csv import read_rows

Row = dict[str, str]
# Files of `latency_accuracy.py`, and whether their float32 tables of ONNX Runtime have the correction of 2026-11-26.
ACCURACY_FILES = (
    ("latency_accuracy_onnxruntime-amd-epyc.csv", True),
    ("latency_accuracy-amd-epyc.csv", False),
    ("latency_accuracy-intel-r-xeon-r-processor.csv", False),
)
RUNTIMES_FILE = "latency_accuracy_runtimes-amd-epyc-family-25-model-17.csv"
RUNTIMES = {"openvino": ("OpenVINO", "openvino"), "mnn": ("MNN", "MNN"), "ncnn": ("ncnn", "ncnn")}
FEW_SHOT_FILE = "few_shot-amd-epyc-family-25-model-1.csv"
FEW_SHOT_TASKS = {
    "a": "a: GPUs, basis of phones and CPUs",
    "b": "b: phones and CPUs, basis of GPUs",
    "c": "c: a GPU and a CPU, basis of all kinds",
    "d": "d: all, no basis",
}
FEW_SHOT_METHODS = {
    "plain mixture": "plain mixture",
    "basis": "`--basis`",
    "basis and counts": "`--basis --counts`",
    "suggested": "suggested networks",
}
BACKENDS = {
    ("onnxruntime", "float32"): "ONNX Runtime",
    ("torch", "float32"): "PyTorch",
    ("onnxruntime", "int8"): "ONNX Runtime int8",
}


def latency_accuracy() -> str:
    """Errors of latency tables on each processor and backend, over three runs."""
    columns = (
        "processor", "backend", "time to measure the table, s", "latencies of networks, ms", "mean error (runs)",
        "worst error", "Spearman (runs)", "mean error, not corrected for drift",
    )  # fmt: skip
    rows = []
    for file, corrected in ACCURACY_FILES:
        read = read_rows(LATENCY_RESULTS / file)
        for (backend, dtype), name in BACKENDS.items():
            runs = [row for row in read if (row["backend"], row["dtype"]) == (backend, dtype)]
            if not runs:
                continue
            uncorrected = name == "ONNX Runtime" and not corrected
            took, smallest, largest, spearman = (
                _column(runs, key) for key in ("measuring_s", "smallest_ms", "largest_ms", "spearman")
            )
            errors, worst, with_drift = (
                100 * _column(runs, key) for key in ("mean_error", "worst_error", "mean_error_by_clock")
            )
            rows.append(
                (
                    runs[0]["processor"],
                    name + (", uncorrected" if uncorrected else ""),
                    f"{rounded(took.min(), 0)}–{rounded(took.max(), 0)}",
                    f"{rounded(smallest.min(), 1)}–{rounded(largest.max(), 1)}",
                    f"{rounded(errors.mean(), 1)} % ({rounded(errors.min(), 1)}–{rounded(errors.max(), 1)})",
                    f"{rounded(worst.max(), 1)} %",
                    f"{rounded(spearman.mean(), 3)} ({rounded(spearman.min(), 3)}–{rounded(spearman.max(), 3)})",
                    f"{rounded(with_drift.mean(), 1)} %",
                )
            )
    return markdown_table(columns, rows)


def latency_accuracy_runtimes() -> str:
    """Errors of the tables of OpenVINO, MNN and ncnn, one line for each run."""
    columns = (
        "runtime", "load of the machine", "time to measure the table, s", "latencies of networks, ms", "mean error",
        "worst error", "Spearman",
    )  # fmt: skip
    rows = []
    for row in sorted(read_rows(LATENCY_RESULTS / RUNTIMES_FILE), key=lambda row: list(RUNTIMES).index(row["backend"])):
        name, package = RUNTIMES[row["backend"]]
        rows.append(
            (
                f"{name} {row[package]}",
                row["load"],
                rounded(float(row["measuring_s"]), 0),
                f"{rounded(float(row['smallest_ms']), 1)}–{rounded(float(row['largest_ms']), 1)}",
                f"{rounded(100 * float(row['mean_error']), 1)} %",
                f"{rounded(100 * float(row['worst_error']), 1)} %",
                rounded(float(row["spearman"]), 3),
            )
        )
    return markdown_table(columns, rows)


def budgets_by_stopwatch() -> str:
    """How many networks that were decoded within budgets are within them, by the table and when measured."""
    read = [row for path in sorted(LATENCY_RESULTS.glob("budgets_by_stopwatch-*.csv")) for row in read_rows(path)]
    return compared_with_budgets(read)


def compared_with_budgets(read: Sequence[Row]) -> str:
    """The table for some rows of `budgets_by_stopwatch.py`, a line for each processor, backend and space."""
    columns = (
        "processor", "backend", "space", "combinations", "within all budgets according to the table",
        "most likely network: within the latency budget when measured",
        "chosen network: in the measurement that chose it", "chosen network: in a new measurement",
        "new measurement: within the table's error of the budget", "largest excess",
        "mean error: stated by the table, of the chosen networks", "networks measured for a choice",
        "load of the machine",
    )  # fmt: skip
    rows = []
    for key in dict.fromkeys((row["processor"], row["backend"], row["space"]) for row in read):
        own = [row for row in read if (row["processor"], row["backend"], row["space"]) == key]
        limit, predicted, first, choosing, measured, stated, load, count = (
            _column(own, name)
            for name in (
                "limit_ms", "predicted_ms", "first_measured_ms", "choosing_ms", "measured_ms", "table_error", "load",
                "measured",
            )
        )  # fmt: skip
        kept = (predicted <= limit * (1 + 1e-9)) & np.array([row["others_within"] == "True" for row in own])
        excess = measured / limit - 1
        off = np.abs(predicted / measured - 1)
        within = (kept, first <= limit, choosing <= limit, excess <= 0, excess <= stated)
        rows.append(
            (
                *key,
                len(own),
                *(f"{int(of.sum())} of {len(own)}" for of in within),
                f"{rounded(100 * max(0.0, float(excess.max())), 1)} %",
                f"{rounded(100 * stated.mean(), 1)} %, {rounded(100 * off.mean(), 1)} %",
                f"{rounded(count.mean(), 2)}",
                f"{rounded(load.min(), 1)}–{rounded(load.max(), 1)}",
            )
        )
    return markdown_table(columns, rows)


def few_shot() -> str:
    """Rank correlation of tables from few timings, the mean over the new devices of each task."""
    columns = ("timings", "new devices", *FEW_SHOT_METHODS.values())
    read = read_rows(LATENCY_RESULTS / FEW_SHOT_FILE)
    rows = []
    for networks in ("10", "20"):
        means: dict[str, list[float]] = {method: [] for method in FEW_SHOT_METHODS}
        for task, name in FEW_SHOT_TASKS.items():
            cells = []
            for method in FEW_SHOT_METHODS:
                some = [r for r in read if (r["task"], r["networks"], r["method"]) == (task, networks, method)]
                if not some:
                    cells.append("–")
                    continue
                found, spread, worst = (_column(some, f"spearman{end}") for end in ("", "_std", "_worst"))
                means[method].append(float(found.mean()))
                cells.append(f"{rounded(found.mean(), 3)} ± {rounded(spread.mean(), 3)} ({rounded(worst.min(), 2)})")
            rows.append((networks, name, *cells))
            if task == "b":
                rows.append((networks, "mean of both", *(rounded(sum(found) / 2, 3) for found in means.values())))
    return markdown_table(columns, rows)


def few_shot_devices() -> str:
    """Rank correlation with basis and counts on each device, and how many of the networks the intervals contain."""
    columns = (
        "new device", "task", "10 timings", "20 timings", "20 suggested", "mean error", "in 68 % interval",
        "in 95 % interval",
    )  # fmt: skip
    read = read_rows(LATENCY_RESULTS / FEW_SHOT_FILE)
    rows = []
    for task, device in dict.fromkeys((row["task"], row["device"]) for row in read if row["task"] != "d"):
        of = {(r["method"], r["networks"]): r for r in read if (r["task"], r["device"]) == (task, device)}
        ten, twenty, chosen = (
            of[key] for key in (("basis and counts", "10"), ("basis and counts", "20"), ("suggested", "20"))
        )
        rows.append(
            (
                device,
                task,
                *(rounded(row["spearman"], 3) for row in (ten, twenty, chosen)),
                f"{rounded(100 * float(twenty['mean_error']), 1)} %",
                *(f"{rounded(100 * float(twenty[key]), 0)} %" for key in ("coverage_68", "coverage_95")),
            )
        )
    return markdown_table(columns, rows)


def _column(rows: list[Row], key: str) -> np.ndarray:
    return np.array([float(row[key]) for row in rows])


TABLES = {
    "latency_accuracy": latency_accuracy,
    "latency_accuracy_runtimes": latency_accuracy_runtimes,
    "budgets_by_stopwatch": budgets_by_stopwatch,
    "few_shot": few_shot,
    "few_shot_devices": few_shot_devices,
}
