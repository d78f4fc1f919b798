"""Output of ncnn's benchmark program."""

from __future__ import annotations

from ...errors import RunError
from .quantity import NUMBER
from .reading import Reading, lines_of, matches, reading, shown, the_only

_FAILURE = (
    r"^(?:(?:fopen|layer load_\w+|find_blob_index_by_name|parse) .*failed|layer .* not exists or registered"
    r"|network graph not ready)"
)


def benchncnn(output: str) -> Reading:
    """Read the output of `benchncnn`, which prints one line per network on stderr.

    The latency is `avg`, the mean, in milliseconds. No unit is printed. The program prints hundredths of a millisecond.
    It prints a line for a network that it could not load, too, so a failure to load is an error.

    Source: `benchmark/benchncnn.cpp` (ncnn 2018 to 2026).

    Raises:
        RunError: A network could not be loaded, or the output has no result, or several.
    """
    lines = lines_of(output)
    failed = matches(_FAILURE, lines)
    if failed:
        raise RunError(f"benchncnn could not load the network; it said: {shown(failed[0][1])}")
    found = matches(rf"^(?P<name>.*?\S)\s+min = +{NUMBER}\s+max = +{NUMBER}\s+avg = +(?P<number>{NUMBER})(?!\S)", lines)
    readings = [reading(match["number"], "ms", "mean", line) for match, line in found]
    return the_only(readings, "line with 'min = … max = … avg = …'", lines)
