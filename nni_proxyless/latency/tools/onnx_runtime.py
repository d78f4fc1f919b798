"""Output of ONNX Runtime's benchmark program."""

from __future__ import annotations

from .reading import Reading, lines_of, matches, the_only, times


def onnxruntime_perf_test(output: str) -> Reading:
    """Read the output of `onnxruntime_perf_test`.

    The latency is the median, `P50 Latency`, in seconds, which the option `-s` prints. Without it, the latency is the
    mean, `Average inference time cost` or `Average inference time cost total`, in milliseconds. The mean also counts if
    the program prints a time of submission: then its percentiles may be those of the submission to the device, as up to
    version 1.23 (pull request 26313).

    Sources: `onnxruntime/test/perftest/performance_runner.cc` and its README (ONNX Runtime 1.0 to 1.24).

    Raises:
        RunError: The output has no result, or several.
    """
    lines = lines_of(output)
    submitted = matches(r"time cost submission", lines)
    median = [] if submitted else times(r"\bP50 Latency(?::| is)\s*", "median", lines)
    mean = times(r"Average (?:inference )?time cost(?: total)?:\s*", "mean", lines)
    return the_only(median or mean, "result ('P50 Latency' or 'Average inference time cost')", lines)
