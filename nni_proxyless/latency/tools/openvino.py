"""Output of OpenVINO's benchmark program."""

from __future__ import annotations

import re
from dataclasses import replace

from .reading import Reading, lines_of, matches, the_only, times

_INFO = r"(?:\[ INFO \]\s*)?"


def benchmark_app(output: str) -> Reading:
    """Read the output of `benchmark_app`, the Python program of the package `openvino` and the C++ sample alike.

    The latency is `Median`, in the printed unit: milliseconds, or microseconds for short latencies since version 2026.
    If `-latency_percentile` replaced the median, it is `Average` (`AVG` in version 2022). Versions up to 2021 print one
    line `Latency`, which is the median. If several requests ran at a time, the reading says so. Then a latency contains
    the wait for the other requests: `-hint latency`, or `-hint none -nireq 1`, avoids this.

    Sources: `tools/benchmark_tool/openvino/tools/benchmark/main.py` and
    `samples/cpp/benchmark_app/statistics_report.cpp` (OpenVINO 2021 to 2026.4).

    Raises:
        RunError: The output has no result, or results for several shapes of the input.
    """
    lines = lines_of(output)
    starts = [number for number, line in enumerate(lines) if re.match(rf"{_INFO}Latency:", line)]
    report = lines[starts[0] :] if starts else []
    found = (
        times(rf"^{_INFO}Median:\s*", "median", report)
        or times(rf"^{_INFO}(?:Average|AVG):\s*", "mean", report)
        or times(rf"^{_INFO}Latency:\s*", "median", report)
    )
    read = the_only(found, "result ('Median' under 'Latency')", lines)
    for match, _ in matches(r"Measuring performance .*?\b(\d+) inference requests", lines):
        if int(match[1]) > 1:
            return replace(read, statistic=f"{read.statistic} with {match[1]} requests at a time")
    return read
