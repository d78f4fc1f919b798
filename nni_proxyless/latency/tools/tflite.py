"""Output of the benchmark programs of TensorFlow Lite and LiteRT."""

from __future__ import annotations

import re

from .quantity import NUMBER, to_number
from .reading import Reading, lines_of, matches, reading, the_only, times

_STATISTICS = re.compile(rf"count=\d+ .*?\bavg=(?P<avg>{NUMBER})\b.*?\bmedian=(?P<median>{NUMBER})")


def benchmark_model(output: str) -> Reading:
    """Read the output of `benchmark_model` of TensorFlow Lite or LiteRT.

    The latency is the median of the timed runs, if the program prints one: in a line `count=… median=…`, in
    microseconds (since 2025), or as `Inference (median)`. Otherwise it is their mean: `Inference (avg)`, in
    microseconds for TensorFlow Lite and in milliseconds for LiteRT. The lines about memory are not latencies.

    Sources: `tensorflow/lite/tools/benchmark/benchmark_model.cc` (TensorFlow 1.14 to 2.20; `no stats` before 2019),
    `xla/tsl/util/stats_calculator.h`, and `litert/tools/benchmark_litert_model.h` (LiteRT 1.4 to 2.3).

    Raises:
        RunError: The output has no result, or several.
    """
    lines = lines_of(output)
    found = [
        reading(match["number"], "us", "mean", line)
        for match, line in matches(
            rf"[Ii]nference timings in us:.*(?:Inference \(avg\)|no stats): (?P<number>{NUMBER})", lines
        )
    ]
    if not found:
        found = times(r"Inference \(median\):\s+", "median", lines) or times(r"Inference \(avg\):\s+", "mean", lines)
    mean = the_only(found, "result ('Inference (avg)')", lines)
    rounding = 0.0051 if mean.printed.endswith(" ms") else 1e-4 * abs(mean.milliseconds)
    for line in reversed(lines):
        statistics = _STATISTICS.search(line)
        # Profiles of operators have such lines too. The runs of the whole network are those with the printed mean.
        if statistics and abs(to_number(statistics["avg"]) / 1000 - mean.milliseconds) <= rounding:
            return reading(statistics["median"], "us", "median", line)
    return mean


def litert_benchmark(output: str) -> Reading:
    """Read the output of `litert-benchmark`, which the package `ai-edge-litert` installs.

    The latency is `Inference (median)`, in milliseconds, or `median_ms` of the file that `--result_json` writes.

    Source: `litert/python/tools/benchmark_litert_model.py` and its README (LiteRT 2.3).

    Raises:
        RunError: The output has no result, or several.
    """
    lines = lines_of(output)
    found = times(r"Inference \(median\):\s+", "median", lines) or [
        reading(match["number"], "ms", "median", line)
        for match, line in matches(rf'"median_ms": (?P<number>{NUMBER})', lines)
    ]
    return the_only(found, "result ('Inference (median)')", lines)
