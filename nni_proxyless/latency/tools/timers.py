"""Output of Python's timers: `timeit`, IPython's `%timeit`, and `torch.utils.benchmark`."""

from __future__ import annotations

import re
import statistics

from .reading import TIME, Reading, lines_of, matches, reading, the_only, times


def timeit(output: str) -> Reading:
    """Read the output of `python -m timeit`, IPython's `%timeit` or PyTorch's `Timer`.

    * PyTorch's `Measurement`: `Median: 5.73 us`; for one measurement, the line above `1 measurement, …`.
    * `%timeit`: the mean in `13.5 ms ± 33.7 µs per loop (mean ± std. dev. of 7 runs, 100 loops each)`.
    * `python -m timeit -v`: the median of `raw times`, divided by the number of loops.
    * `python -m timeit`: only the fastest repetition is printed: `best of 5: 55.8 usec per loop`.

    Sources: `Lib/timeit.py` (Python 3.7 to 3.14), `IPython/core/magics/execution.py` (`TimeitResult`, IPython 5 to 9),
    and `torch/utils/benchmark/utils/common.py` (PyTorch 1.6 to 2.14).

    Raises:
        RunError: The output has no result, or several.
    """
    lines = lines_of(output)
    found = times(r"^Median: ", "median", lines)
    for number, line in enumerate(lines[1:], start=1):
        if re.match(r"1 measurement, \d+ runs?\b", line):
            found += times("^", "one measurement", lines[number - 1 : number])
    # IPython prints times from a minute as '1min 3s', which are not read.
    found += times(r"^", "mean", [line for line in lines if re.match(rf"{TIME} (?:±|\+-|\+/-) .* per loop", line)])
    raw = matches(r"^raw times: (?P<all>.*)", lines)
    for match, line in matches(rf"^(?P<loops>\d+) loops?, best of \d+: {TIME} per loop", lines):
        if len(raw) == 1:
            every = [reading(m["number"], m["unit"], "", line) for m in re.finditer(TIME, raw[0][0]["all"])]
            middle = statistics.median(one.milliseconds for one in every) / int(match["loops"])
            found.append(Reading(middle, f"median of {len(every)} repetitions", "raw times / loops", line))
        else:
            found.append(reading(match["number"], match["unit"], "minimum", line))
    return the_only(found, "result ('Median: …', '… ± … per loop' or 'best of …: … per loop')", lines)
