"""Reads a latency from the output of any program: a number with a time unit next to it, or a bare number at the end."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...errors import RunError
from .candidates import Candidate, candidates
from .labels import foreign_unit
from .reading import Reading, lines_of, shown
from .registry import read_by_tools

_LISTED = 6


def read_plain(output: str, errors: str = "", unit: str | None = None) -> Reading:
    """Read the latency from the output of a program that is not one of the known tools.

    * A number with a time unit next to it (`12.5 ms`, `latency_us=12500`, `"ms": 12.5`) is converted. Several such
      times are an error, unless they are one time in different units.
    * Without any, the only bare number of the last line counts, in the default unit, if no word follows it. It is an
      error if the output names another unit elsewhere, as in a head `latency (us)`, unless `unit` is set.
    * A number with another unit, a count, a percentage, a time of day, a date, a version and a part of a name are not
      latencies. A spread such as `± 0.3 ms` is not a latency either.

    Args:
        output: What the program printed on stdout.
        errors: What it printed on stderr. This is read only if stdout has no latency.
        unit: Unit of a bare number: `ns`, `us`, `ms` or `s`. Defaults to `ms`. A unit in the output wins over it.

    Raises:
        RunError: There is no latency, or there are several. The message lists them and says to set `tool` or `pattern`.
    """
    lines = lines_of(output) or lines_of(errors)
    if not lines:
        raise RunError("it printed nothing; it must print the latency in milliseconds, or with its unit")
    found = _found(lines, unit) or _found(lines_of(errors), unit)
    if not found:
        raise RunError(
            "it printed no time with a unit, and in its last line no number that may be the latency "
            f"({_advice(output, errors)}); the last line was: {shown(lines[-1])}"
        )
    if any(not one.same_as(found[0]) for one in found[1:]):
        listed = ", ".join(str(one) for one in found[:_LISTED])
        more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
        advice = _advice(output, errors)
        raise RunError(f"it printed {len(found)} numbers that may be the latency: {listed}{more} ({advice})")
    if found[0].doubtful or math.isnan(found[0].value.milliseconds):
        advice = _advice(output, errors)
        raise RunError(f"it printed one number, {found[0]}, but its unit is not recognised ({advice})")
    elsewhere = foreign_unit(f"{output}\n{errors}") if found[0].unit is None and unit is None else None
    if elsewhere is not None:
        raise RunError(
            f"it printed one number, {found[0]}, without a unit beside it, and names the unit {elsewhere} elsewhere: "
            "set unit to that of the number"
        )
    if not found[0].of_a_run:
        advice = _advice(output, errors)
        raise RunError(f"it printed one time, {found[0]}, which does not seem to be the time of one run ({advice})")
    for tool, value in read_by_tools(f"{output}\n{errors}").items():
        if abs(value.milliseconds - found[0].value.milliseconds) > 1e-6 * abs(value.milliseconds):
            raise RunError(f"it printed {found[0]}, but as the output of {tool} this is {value} (set tool: {tool})")
    return found[0].value


def _found(lines: Sequence[str], unit: str | None) -> list[Candidate]:
    """List the numbers that may be the latency: all times with a unit, and the bare numbers of the last line."""
    timed = [one for line in lines for one in candidates(line, None)]
    bare = [_bare(line, unit or "ms") for line in lines]
    last = bare[-1] if bare else []
    # A number that is called a latency counts on every line, so that it is not passed over for another one.
    named = [one for line in bare[:-1] for one in line if one.named and one.ends_line]
    if timed:
        return timed + named + [one for one in last if one.ends_line]
    return last if any(one.named for one in last) else last and last + named


def _bare(line: str, unit: str) -> list[Candidate]:
    """List the numbers without a unit in a line; none if the line has a time with a unit."""
    found = candidates(line, unit)
    return [] if any(one.unit is not None for one in found) else found


def _advice(output: str, errors: str) -> str:
    tools = list(read_by_tools(f"{output}\n{errors}"))
    if tools:
        return f"it looks like the output of {' or '.join(tools)}: set tool: {tools[0]}"
    return "set tool to the name of the program, or set pattern"
