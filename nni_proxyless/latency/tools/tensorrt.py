"""Output of TensorRT's benchmark program."""

from __future__ import annotations

import re
import statistics
from dataclasses import replace

from ...errors import RunError
from .reading import Reading, lines_of, matches, shown, the_only, times

_COMPUTE = re.compile(r'"computeMs"\s*:\s*([\d.eE+-]+)')


def trtexec(output: str) -> Reading:
    """Read the output of `trtexec`.

    The latency is the median of `GPU Compute Time`, in milliseconds. The lines `Latency` and `Host Latency` also count
    the copies of the input and the output between host and device. Inside a network, operators exchange no data with
    the host. So a table of operators that were measured with these copies would count copies for each operator.
    `Enqueue Time` is the work of the CPU, which overlaps with that of the GPU. With several streams (`--infStreams`),
    a time contains that of the others, and the reading says so.

    Until TensorRT 7, the median is a line `median: … ms` below the line `GPU Compute`. The file of `--exportTimes` is
    read too: the median of its `computeMs`.

    Source: `samples/common/sampleReporting.cpp` (TensorRT 7 to 10), and "Command-Line Programs" in NVIDIA's
    documentation.

    Raises:
        RunError: The program reports a failure, or the output has no result, or several.
    """
    lines = lines_of(output)
    failed = matches(r"&&&& FAILED", lines)
    if failed:
        errors = [line for line in lines if "[E]" in line]
        raise RunError(f"trtexec failed; it said: {shown((errors or [failed[-1][1]])[-1])}")
    found = times(r"(?<!Total )GPU Compute Time: min = .*?median = ", "median", lines)
    for number, line in enumerate(lines):
        if re.search(r"\bGPU Compute$", line):
            found += times(r"\bmedian: ", "median", lines[number + 1 : number + 6])[:1]
    exported = [float(number) for number in _COMPUTE.findall(output)]
    if exported and not found:
        return Reading(
            statistics.median(exported), f"median of {len(exported)} runs", "ms", "computeMs of --exportTimes"
        )
    read = the_only(found, "line 'GPU Compute Time' with a median", lines)
    for match, _ in matches(r"\bStreams: (\d+)$", lines):
        if int(match[1]) > 1:
            return replace(read, statistic=f"{read.statistic} with {match[1]} streams at a time")
    return read
