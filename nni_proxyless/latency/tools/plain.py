"""Reads a latency from the output of any program: a number with a time unit beside it, or a bare number at the end."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import RunError
from .quantity import NUMBER, UNIT, AmbiguousNumberError, to_number
from .reading import Reading, lines_of, reading, shown
from .registry import read_by_tools

# A number does not start or end inside a word, a version, a date, a time of day, a fraction or a list of sizes.
_TOKEN = re.compile(rf"(?<![\w.])(?<![A-Za-z]-)(?<!\d[-+:/,'])(?P<number>{NUMBER})")
_CONTINUED = re.compile(r"\.?[^\W\d]|[:/,'.-]\d|\d|-\w")
# '12.5 ms', '12.5 [ms]', '12.5 ± 0.3 ms', '12.5, "unit": "ms"'
_UNIT_AFTER = re.compile(
    rf"(?:\s*(?:±|\+/?-)\s*{NUMBER})?\)?\s*(?:[\[(|]|,?\s*[\"']units?[\"']\s*:\s*[\"'])?\s*(?P<unit>{UNIT})"
)
# 'latency (ms): 12.5', 'latency_ms=12.5', '"ms": 12.5', 'latency in us: 12.5', 'latency [ms] 12.5'; not 'per s: 80'
_UNIT_BEFORE = re.compile(
    rf"(?<!per[\s_])(?<!\d\s)(?:(?:^|(?<=[\s\"(\[_])|(?<=\W')){UNIT}[)\]\"']*\s*[:=|]+\s*[\"'\[(]*"
    rf"|(?:_|[\[(]\s*){UNIT}\s*[)\]\"']*\s+(?:is\s+)?)$"
)
_UNIT = re.compile(UNIT)
_SPREAD = re.compile(r"(?:±|\+/?-|\b(?:std|stdev|stddev|sd|iqr|variance|jitter)\b[\w. ]*[:=(]*)\s*$", re.IGNORECASE)
_STAMP = re.compile(r"\]\s*\S")
# Words beside a bare number that make it something else than a latency.
_COUNTED = r"""(?:[kmgtp]?(?:flops?|macs?|ops?|bytes?|bits?|params?|parameters?|tokens?|inf\w*|ima?ge?s?|frames?
    |samples?|quer\w+|req\w*|its?|iter\w*|runs?|batch\w*|steps?|items?))"""
_THING_AFTER = re.compile(
    rf"""\s*(?:%|°|×|per\b|/\s*(?:s\b|sec|{_COUNTED}\b)|{_COUNTED}(?!\w)
    |(?:[kmgt]?i?b|[kmgt]?bits?|[kmgt]?hz|fps|qps|rps|tps|ips|x|th|st|nd|rd|[km]?w|m?j|[cfkv])(?:/s|ps)?(?!\w)
    |(?:times?|loops?|threads?|cores?|rounds?|repeat\w*|repetition\w*|layers?|nodes?|warm-?ups?|epochs?|models?|files?
      |measurements?|percentile|pixels?|degrees?|watts?|volts?|devices?|operators?|outputs?|inputs?)(?!\w))""",
    re.IGNORECASE | re.VERBOSE,
)
_THING_BEFORE = re.compile(
    r"""(?:\b|_)(?:fps|qps|throughput|rate|mem\w*|rss|size|bytes|footprint|usage|threads?|cores?|batch\w*|n?iter\w*|runs?
    |count|loops?|version|seed|acc\w*|top-?\d|pid|id|port|exit|code|status|errors?|warnings?|lines?|steps?|epochs?
    |frames?|images?|samples?|flops|macs|param\w*|temp\w*|freq\w*|clock|speed-?up|score|loss|index|percent\w*
    |warm-?up\w*|per\ss\w*|per_s\w*|\w+/s\w*|(?:[kmgt]i?)?b|%)
    ["')\]]*[\s:=]*(?:is\s+|of\s+|after\s+|in\s+)?[\[(]?$""",
    re.IGNORECASE | re.VERBOSE,
)
# Words before a time that is not the time of a run, if it is the only time in the output.
_PREPARATION = re.compile(
    r"\b(?:timeout|warm-?up|init\w*|load\w*|compil\w*|build\w*|start-?up|set-?up|first|session)\b", re.IGNORECASE
)
_TOTAL = re.compile(r"\b(?:total|overall|wall\w*|duration)\b", re.IGNORECASE)
# '10 runs in 4 ms', '3.2 s for 256 images'
_RUNS = (
    r"\b(?!1\b)\d+\s+(?:time\(s\)|(?:timed\s+)?(?:times|runs|iterations|executions|inferences|loops|images|samples"
    r"|frames|batches)\b)"
)
_MANY_BEFORE = re.compile(rf"{_RUNS}.*\b(?:in|took|takes)\b\W*$", re.IGNORECASE)
_MANY_AFTER = re.compile(rf"\s*(?:for|in)\s+{_RUNS}", re.IGNORECASE)
_LONG = re.compile(r"\d\s*(?:h|hours?|hrs?|m|mins?|minutes?)[\s,.]*$")
_STATISTIC = re.compile(r"median|p50|mean|avg|average|minimum|min\b|best|maximum|max\b|p\d\d+", re.IGNORECASE)
_SAME = {"p50": "median", "avg": "mean", "average": "mean", "min": "minimum", "best": "minimum", "max": "maximum"}
_LISTED = 6


@dataclass(frozen=True)
class _Candidate:
    """A number in the output that may be the latency."""

    value: Reading
    text: str
    before: str
    unit: str | None
    after: str

    @property
    def ends_line(self) -> bool:
        return not self.after.strip(" .;,)]}\"'")

    @property
    def of_a_run(self) -> bool:
        """Whether the words around a time with a unit allow that it is the time of one run of the network."""
        many = _TOTAL.search(self.before) or _MANY_BEFORE.search(self.before) or _MANY_AFTER.match(self.after)
        if many and self.value.statistic in ("mean", "median"):
            many = None  # 'Average inference time cost total: 12.5 ms'
        return self.unit is None or not (_PREPARATION.search(self.before) or many)

    def same_as(self, other: _Candidate) -> bool:
        """Whether two candidates are one time that is printed twice, such as `0.0125 s (12.5 ms)`."""
        difference = abs(self.value.milliseconds - other.value.milliseconds)
        if self.unit is None or other.unit is None or difference == 0:
            return difference == 0 and (self.unit is None) == (other.unit is None)
        one_line = self.value.line == other.value.line
        return one_line and self.unit != other.unit and difference <= self._rounding() + other._rounding()

    def _rounding(self) -> float:
        """Half of the last digit, in milliseconds."""
        digits = re.sub(r"\D", "", re.split("[eE]", self.value.printed.split()[0])[0]).lstrip("0")
        value = abs(self.value.milliseconds)
        return 0.5 * 10.0 ** (math.floor(math.log10(value)) - len(digits) + 1) if 0 < value < math.inf else 0.0

    def __str__(self) -> str:
        return f"'{self.text}' in '{self.value.line}'"


def read_plain(output: str, errors: str = "", unit: str | None = None) -> Reading:
    """Read the latency from the output of a program that is none of the known tools.

    * A number with a time unit beside it (`12.5 ms`, `latency_us=12500`, `"ms": 12.5`) is converted. Several such times
      are an error, unless they are one time in different units.
    * Without any, the only bare number of the last line counts, in the default unit.
    * A number beside another unit, a count, a percentage, a time of day, a date, a version or a part of a name is no
      latency, nor is a spread such as `± 0.3 ms`.

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
    if not found[0].of_a_run:
        advice = _advice(output, errors)
        raise RunError(f"it printed one time, {found[0]}, which does not seem to be that of one run ({advice})")
    for tool, value in read_by_tools(f"{output}\n{errors}").items():
        if abs(value.milliseconds - found[0].value.milliseconds) > 1e-6 * abs(value.milliseconds):
            raise RunError(f"it printed {found[0]}, but as the output of {tool} this is {value} (set tool: {tool})")
    return found[0].value


def unit_beside(text: str, start: int, end: int) -> str | None:
    """Return the time unit that stands beside the number `text[start:end]`, if there is one."""
    before, after = text[:start].rpartition("\n")[2], text[end:].partition("\n")[0]
    following = _UNIT_AFTER.match(after)
    if following:
        return following["unit"]
    return _label_unit(before)


def _found(lines: Sequence[str], unit: str | None) -> list[_Candidate]:
    """List the numbers that may be the latency: all times with a unit, and a bare number of the last line."""
    timed = [one for line in lines for one in _candidates(line, None)]
    last = _candidates(lines[-1], unit or "ms") if lines else []
    bare = [] if any(one.unit is not None for one in last) else last
    return timed + [one for one in bare if one.ends_line or not timed]


def _label_unit(before: str) -> str | None:
    label = _UNIT_BEFORE.search(before)
    return None if label is None else _UNIT.search(label[0].lstrip("_([ "))[0]  # type: ignore[index]


def _candidates(line: str, default: str | None) -> list[_Candidate]:
    """List the numbers of a line that may be a latency; bare ones only if there is a default unit."""
    found = []
    for token in _TOKEN.finditer(line):
        before, after = line[: token.start()], line[token.end() :]
        if _SPREAD.search(before) or (before.strip() == "[" and _STAMP.match(after)):
            continue
        following = _UNIT_AFTER.match(after)
        unit = following["unit"] if following else None
        if unit is None:
            if _CONTINUED.match(after) or _THING_AFTER.match(after):
                continue
            unit = _label_unit(before)
            if unit is None and (default is None or _THING_BEFORE.search(before)):
                continue
        value = _value(token["number"], unit, default, before, line)
        if value is not None:
            end = following.end() if following else 0
            found.append(_Candidate(value, token["number"] + after[:end], before, unit, after[end:]))
    return found


def _value(number: str, unit: str | None, default: str | None, before: str, line: str) -> Reading | None:
    """Convert a number; `None` if it is no number, but for example a version."""
    try:
        to_number(number)
    except AmbiguousNumberError:
        pass  # `reading` raises the error
    except ValueError:
        return None
    if unit is not None and _LONG.search(before):
        return Reading(math.nan, "a part of a longer time", f"{number} {unit}", shown(line))
    names = _STATISTIC.findall(before)
    name = names[-1].lower() if names else ""
    statistic = _SAME.get(name, name) or "as printed"
    if unit is None:
        statistic = f"a number without a unit, taken as {default}"
    return reading(number, unit or default or "ms", statistic, line)


def _advice(output: str, errors: str) -> str:
    tools = list(read_by_tools(f"{output}\n{errors}"))
    if tools:
        return f"it looks like the output of {' or '.join(tools)}: set tool: {tools[0]}"
    return "set tool to the name of the program, or set pattern"
