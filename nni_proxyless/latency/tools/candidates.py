"""The numbers in the output of a program that may be its latency, according to the text around them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ...errors import RunError
from .quantity import NUMBER, UNIT, AmbiguousNumberError, to_number
from .reading import Reading, reading, shown

# '12 500': a space may separate thousands, or two numbers.
_SPACED = re.compile(r"(?<![\w.,])[-+]?\d{1,3}(?: \d{3})* $")
_THREE = re.compile(r"\d{3}(?!\d)")
# A number does not start or end inside a word, a version, a date, a time of day, a fraction or a list of sizes.
_TOKEN = re.compile(rf"(?<![\w.])(?<![A-Za-z]-)(?<!\d[-+:/,'\u2019])(?P<number>{NUMBER})")
_CONTINUED = re.compile(r"\.?[^\W\d]|[:/,'\u2019.-]\d|\d|-\w")
# '12.5 ms', '12.5 [ms]', '12.5 ± 0.3 ms', '12.5 (+/- 0.3) ms', '12.5, "unit": "ms"'
_UNIT_AFTER = re.compile(
    rf"(?:\s*\(?(?:±|\+/?-)\s*{NUMBER})?\)?\s*(?:[\[(|]|,?\s*[\"']units?[\"']\s*:\s*[\"'])?\s*(?P<unit>{UNIT})"
)
# 'latency (ms): 12.5', 'latency_ms=12.5', '"ms": 12.5', 'latency in us: 12.5', 'latency [ms] 12.5'; not 'per s: 80'
_UNIT_BEFORE = re.compile(
    rf"(?<!per[\s_])(?<!\d\s)(?:(?:^|(?<=[\s\"(\[_])|(?<=\W')){UNIT}[)\]\"']*\s*[:=|]+\s*[\"'\[(]*"
    rf"|(?:_|[\[(]\s*){UNIT}\s*[)\]\"']*\s+(?:is\s+)?)$"
)
_UNIT = re.compile(UNIT)
_SPREAD = re.compile(
    r"(?:±|\+/?-|[<≤≥]|\b(?:std|stdev|stddev|sd|iqr|variance|jitter)\b[\w. ]*[:=(]*)\s*$", re.IGNORECASE
)
# A word after a bare number is a unit that is not known, as in '5000 cycles' or '2 min', unless it is one of these.
# So are characters that stand for a micro sign which was lost on the way, as in '5000 ?s'.
_LOST = r"(?:[^\x00-\x7f\s±°│┃║]|\?|\\\w+)+s(?!\w)|\\"
_WORD_AFTER = re.compile(rf"\s*(?:(?!(?:on|for|with|using|at|and)\b)[^\W\d_]|{_LOST})")
_NO_TIME_AFTER = re.compile(
    rf"\s*(?:(?:m|mins?|minutes?|h|hrs?|hours?|cycles?|ticks?|clk|clocks?|points?)\b|{_LOST})", re.IGNORECASE
)
_NO_TIME_BEFORE = re.compile(
    r"(?:\b|_)(?:[fqrti]ps|throughput|mem\w*|rss|cycles?|ticks?|instructions?|%)[\"')\]]*[\s:=]*$", re.IGNORECASE
)
# '11 ~ 13 ms' is a range.
_RANGE = re.compile(r"\d\s*(?:~|\.\.+|[…–—])\s*$")
_STAMP = re.compile(r"\]\s*\S")
# Words beside a bare number that make it something else than a latency.
_COUNTED = r"""(?:[kmgtp]?(?:flops?|macs?|ops?|bytes?|bits?|params?|parameters?|tokens?|inf\w*|ima?ge?s?|frames?
    |samples?|quer\w+|req\w*|its?|iter\w*|runs?|batch\w*|steps?|items?))"""
_THING_AFTER = re.compile(
    rf"""\s*[\[(]?\s*(?:%|°|×|per\b|/\s*(?:s\b|sec|{_COUNTED}\b)|{_COUNTED}(?!\w)
    |(?:[kmgt]?i?b|[kmgt]?bits?|[kmgt]?hz|fps|qps|rps|tps|ips|x|th|st|nd|rd|[km]?w|m?j|[cfkv])(?:/s|ps)?(?!\w)
    |(?:times?|loops?|threads?|cores?|rounds?|repeat\w*|repetition\w*|layers?|nodes?|warm-?ups?|epochs?|models?|files?
      |measurements?|percentile|pixels?|degrees?|watts?|volts?|devices?|operators?|outputs?|inputs?)(?!\w))""",
    re.IGNORECASE | re.VERBOSE,
)
_THING_BEFORE = re.compile(
    r"""(?:\b|_)(?:fps|qps|throughput|rate|mem\w*|rss|size|bytes|footprint|usage|threads?|cores?|batch\w*|n?iter\w*|runs?
    |count|loops?|version|seed|acc\w*|top-?\d|pid|id|port|exit|code|status|errors?|warnings?|lines?|steps?|epochs?
    |frames?|images?|samples?|flops|macs|param\w*|temp\w*|freq\w*|clock|speed-?up|score|loss|index|energy|power|percent\w*
    |cycles?|ticks?|clk|instructions?|real|user|sys
    |warm-?up\w*|per\ss\w*|per_s\w*|\w+/s\w*|(?:[kmgt]i?)?b|[kmgt]flops?|g?ops|ram|heap|%)
    (?:\s*[\[(]?(?:avg|average|mean|median|min|max)\b)?["')\]]*[\s:=]*(?:is\s+|of\s+|after\s+|in\s+)?[\[(]?$""",
    re.IGNORECASE | re.VERBOSE,
)
_OTHER_UNIT = re.compile(r"\s*[\[(]?\s*(?:%|(?:[fqrti]ps|[kmgt]i?b(?:/s)?|[kmgt]?flops)(?!\w))", re.IGNORECASE)
# Words before a time that is not the time of a run, if it is the only time in the output.
_PREPARATION = re.compile(
    r"\b(?:timeout|warm-?up|init\w*|load\w*|compil\w*|build\w*|start-?up|set-?up|first|session)\b", re.IGNORECASE
)
_NAMED = re.compile(r"\b(?:latency|inference(?:\s+time)?|median|mean|avg|average|p50)\W*(?:is\W*)?$", re.IGNORECASE)
_TOTAL = re.compile(r"\b(?:total|overall|wall\w*|duration)\b", re.IGNORECASE)
# '10 runs in 4 ms', '3.2 s for 256 images'
_RUNS = (
    r"\b(?!1\b)\d+\s+(?:time\(s\)|(?:timed\s+)?(?:times|runs|iterations|executions|inferences|loops|images|samples"
    r"|frames|batches)\b)"
)
_MANY_BEFORE = re.compile(rf"{_RUNS}.*\b(?:in|took|takes)\b\W*$", re.IGNORECASE)
_MANY_AFTER = re.compile(rf"\s*(?:for|in|over|/|\()\s*{_RUNS}", re.IGNORECASE)
_MANY = re.compile(_RUNS, re.IGNORECASE)
_DURATION = re.compile(r"\b(?:elapsed|took|ran|executed|finished|done|completed)\b", re.IGNORECASE)
_OF_ONE = re.compile(r"\b(?:avg|average|mean|median|each|per|p50)\b|/\s*(?:run|iter|inf|im|frame)", re.IGNORECASE)
_OTHER_UNIT_OF_WORK = re.compile(r"\s*(?:/|per)\s*(?:\d|epoch|layer|token|op\b|operator)", re.IGNORECASE)
_LONG = re.compile(r"\d\s*(?:h|hours?|hrs?|m|mins?|minutes?)[\s,.]*$")
_STATISTIC = re.compile(r"median|p50|mean|avg|average|minimum|min\b|best|maximum|max\b|p\d\d+", re.IGNORECASE)
# Limits for a line of JSON, which may be very long.
_AROUND = 100  # number of characters before and after a number that are looked at
_ENOUGH = 1000  # number of candidates in a line
_SAME = {"p50": "median", "avg": "mean", "average": "mean", "min": "minimum", "best": "minimum", "max": "maximum"}


@dataclass(frozen=True)
class Candidate:
    """A number in the output that may be the latency.

    Attributes:
        value: The time, if the number is the latency; not a number for a part of a longer time.
        text: The number and its unit.
        before: Text of the line before the number.
        unit: The time unit beside the number; `None` for a bare number.
        after: Text of the line after the number and its unit.
    """

    value: Reading
    text: str
    before: str
    unit: str | None
    after: str

    @property
    def ends_line(self) -> bool:
        return not self.after.strip(" .;,)]}\"'")

    @property
    def named(self) -> bool:
        """Whether the word directly before the number says that it is a latency."""
        return _NAMED.search(self.before) is not None

    @property
    def doubtful(self) -> bool:
        """Whether a bare number has a word after it that may be a unit."""
        return self.unit is None and _WORD_AFTER.match(self.after) is not None

    @property
    def of_a_run(self) -> bool:
        """Whether the words around a time with a unit allow that it is the time of one run of the network."""
        around = self.before + self.after
        many = (
            _TOTAL.search(self.before)
            or _MANY_BEFORE.search(self.before)
            or _MANY_AFTER.match(self.after)
            or (_DURATION.search(around) and _MANY.search(around) and not _OF_ONE.search(around))
        )
        if many and self.value.statistic in ("mean", "median"):
            many = None  # 'Average inference time cost total: 12.5 ms'
        other = _RANGE.search(self.before) or (self.unit and _OTHER_UNIT_OF_WORK.match(self.after))
        return not other and (self.unit is None or not (_PREPARATION.search(self.before) or many))

    def same_as(self, other: Candidate) -> bool:
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


def candidates(line: str, default: str | None) -> list[Candidate]:
    """List the numbers of a line that may be a latency; bare ones only if there is a default unit."""
    found: list[Candidate] = []
    for token in _TOKEN.finditer(line):
        before = line[max(0, token.start() - _AROUND) : token.start()]
        after = line[token.end() : token.end() + _AROUND]
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
            if len(found) == _ENOUGH:
                break
            found.append(Candidate(value, token["number"] + after[:end], before, unit, after[end:]))
    return found


def _value(number: str, unit: str | None, default: str | None, before: str, line: str) -> Reading | None:
    """Convert a number; `None` if it is not a number, but for example a version."""
    try:
        to_number(number)
    except AmbiguousNumberError:
        pass  # `reading` raises the error
    except ValueError:
        return None
    if unit is not None and _SPACED.search(before) and _THREE.match(number):
        raise RunError(
            f"the space in '{before.split()[-1]} {number}' may separate thousands or two numbers: print no thousands "
            f"separator, or set pattern; the line was: {shown(line)}"
        )
    if unit is not None and _LONG.search(before):
        return Reading(math.nan, "a part of a longer time", f"{number} {unit}", shown(line))
    names = _STATISTIC.findall(before)
    name = names[-1].lower() if names else ""
    statistic = _SAME.get(name, name) or "as printed"
    if unit is None:
        statistic = f"a number without a unit, taken as {default}"
    return reading(number, unit or default or "ms", statistic, line)


def unit_beside(text: str, start: int, end: int) -> str | None:
    """Return the time unit next to the number `text[start:end]`, if there is one."""
    before, after = text[:start].rpartition("\n")[2], text[end:].partition("\n")[0]
    following = _UNIT_AFTER.match(after)
    if following:
        return following["unit"]
    return _label_unit(before)


def no_time_beside(text: str, end: int) -> bool:
    """Whether a unit of another kind, such as FPS, MB or %, stands directly after the number that ends at `end`."""
    return _OTHER_UNIT.match(text[end:].partition("\n")[0]) is not None


def unclear_beside(text: str, start: int, end: int) -> str | None:
    """Say what makes it unclear whether the bare number `text[start:end]` is a time; `None` if nothing does."""
    before, after = text[:start].rpartition("\n")[2], text[end:].partition("\n")[0]
    if _NO_TIME_AFTER.match(after):
        return f"'{after.split()[0][:40]}' stands after it"
    thing = _NO_TIME_BEFORE.search(before)
    return f"'{thing[0].strip()}' stands before it" if thing else None


def whole_number(text: str, start: int, end: int, pattern: str) -> str:
    """Return the number that `text[start:end]` is a part of; the part itself if it is a whole number.

    Args:
        text: What a program printed.
        start: Start of the part.
        end: End of the part.
        pattern: Regular expression that found the part. If it has a comma, commas separate numbers in the text.
    """
    part = text[start:end]
    for match in re.finditer(NUMBER, text[max(0, start - _AROUND) : end + _AROUND]):
        first, last = (place + max(0, start - _AROUND) for place in match.span())
        if first <= start and end <= last and (first, last) != (start, end):
            left, right = text[first:start], text[end:last]
            if "," in pattern and (left.endswith(",") or right.startswith(",")):
                continue
            try:
                to_number(match[0])
            except AmbiguousNumberError:
                return match[0]
            except ValueError:
                continue
            return match[0] if left.strip("+-") or right else part
    return part


def _label_unit(before: str) -> str | None:
    label = _UNIT_BEFORE.search(before)
    return None if label is None else _UNIT.search(label[0].lstrip("_([ "))[0]  # type: ignore[index]
