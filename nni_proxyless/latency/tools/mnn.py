"""Output of MNN's benchmark programs."""

from __future__ import annotations

from .reading import TIME, Reading, lines_of, matches, reading, the_only


def mnn_benchmark(output: str) -> Reading:
    """Read the output of MNN's `benchmark.out`, which measures every network of a folder.

    The latency is `avg`, the mean, in milliseconds. The folder must contain one network.

    Source: `benchmark/benchmark.cpp` (MNN 0.2 to 3.3).

    Raises:
        RunError: The output has no result, or several.
    """
    lines = lines_of(output)
    found = matches(rf"^\[ - \] .*?\bmax = .*?\bmin = .*?\bavg = *{TIME}", lines)
    readings = [reading(match["number"], match["unit"], "mean", line) for match, line in found]
    return the_only(readings, "line '[ - ] … avg = … ms'", lines)


def mnn_v2basic(output: str) -> Reading:
    """Read the output of MNN's `MNNV2Basic.out`.

    The latency is `Avg`, the mean, in milliseconds. `OpSum` is the sum of the times of the operators, which have lines
    of their own; neither is the latency of the network. The number of runs, the second argument, must be at least 1.

    Source: `tools/cpp/MNNV2Basic.cpp` and `docs/tools/test.md` (MNN 1.0 to 3.3).

    Raises:
        RunError: The output has no result, or several.
    """
    lines = lines_of(output)
    found = matches(rf"^Avg= *{TIME}, *(?:OpSum = |min= )", lines)
    readings = [reading(match["number"], match["unit"], "mean", line) for match, line in found]
    return the_only(readings, "line 'Avg= … ms'", lines)
