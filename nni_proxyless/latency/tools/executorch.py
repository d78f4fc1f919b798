"""Logs of ExecuTorch's runners, and the table of its Inspector."""

from __future__ import annotations

import re
import statistics

from ...errors import RunError
from .quantity import NUMBER
from .reading import TIME, Reading, lines_of, matches, reading, shown, the_only, times

_EXECUTION = "Method::execute"


def executorch(output: str) -> Reading:
    """Read the log of a runner of ExecuTorch, or the table that its Inspector prints.

    The latency is, in this order:

    * the median of the lines `Iteration 3 of 10: … ms` of `executor_runner` (since 1.1),
    * the mean: the time of `Model executed successfully 10 time(s) in … ms`, divided by the number of executions,
    * the mean after `avg` in `100 inference took … ms, avg … ms`, as the runners for Qualcomm and MediaTek print it,
    * `avg_inference_latency(ms)` in the results of the Android benchmark app,
    * the row `Method::execute` of the Inspector's table: its column `p50 (ms)`, otherwise `avg (ms)`.

    The times of day in the log are not latencies. A runner that prints only `Model executed successfully.` gives no
    time.

    Sources: `examples/portable/executor_runner/executor_runner.cpp` (ExecuTorch 0.2 to 1.3),
    `examples/qualcomm/executor_runner/qnn_executor_runner.cpp`, and `devtools/inspector/_inspector.py`.

    Raises:
        RunError: The execution failed, or the output has no result, or several.
    """
    lines = lines_of(output)
    failed = matches(r"failed with status 0x[0-9a-fA-F]*[1-9a-fA-F]", lines)
    if failed:
        raise RunError(f"the runner failed; it said: {shown(failed[0][1])}")
    done = matches(rf"Model executed successfully (?P<count>\d+) time\(s\) in {TIME}", lines)
    if done:
        totals = [reading(match["number"], match["unit"], "mean", line) for match, line in done]
        total, count = the_only(totals, "result", lines), int(done[0][0]["count"])
        runs = times(rf"\bIteration \d+ of {count}: ", "one run", lines)
        if count > 1 and len(runs) == count:
            median = statistics.median(run.milliseconds for run in runs)
            return Reading(median, f"median of {count} executions", "ms", runs[0].line)
        if count == 0:
            raise RunError(f"the runner executed the model 0 times; the line was: {total.line}")
        what = "mean" if count > 1 else "one run"
        return Reading(total.milliseconds / count, what, f"{total.printed} for {count} execution(s)", total.line)
    app = matches(rf'"avg_inference_latency\(ms\)",\s*"actualValue":\s*(?P<number>{NUMBER})', lines)
    found = (
        times(r"(?<!\d)\d+ inference took .*?\bavg ", "mean", lines)
        or [reading(match["number"], "ms", "mean", line) for match, line in app]
        or _inspected(lines)
    )
    return the_only(found, "time ('Model executed successfully … time(s) in … ms' or 'avg … ms')", lines)


def _inspected(lines: list[str]) -> list[Reading]:
    """Read the row of the whole execution in the Inspector's table."""
    columns: list[str] = []
    found = []
    for line in lines:
        cells = [cell.strip() for cell in re.split(r"[|│]|\s{2,}", line.strip("|│ "))]
        cells = [cell for cell in cells if cell]
        if "event_name" in cells:
            columns = cells
        elif _EXECUTION in cells and columns:
            for column, statistic in (("p50", "median"), ("avg", "mean")):
                heads = [place for place, head in enumerate(columns) if re.fullmatch(rf"{column} \((\w+)\)", head)]
                # Empty cells would shift the row. The number of columns before the name is the same in both.
                place = heads[0] - columns.index("event_name") + cells.index(_EXECUTION) if heads else len(cells)
                if place < len(cells) and re.fullmatch(NUMBER, cells[place]):
                    unit = columns[heads[0]].partition("(")[2].rstrip(")")
                    found.append(reading(cells[place], unit, statistic, line))
                    break
    return found
