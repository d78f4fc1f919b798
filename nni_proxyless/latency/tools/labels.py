"""Time units that an output names away from its numbers, such as in the heading of a table: `latency (us)`."""

from __future__ import annotations

import re

from .quantity import NUMBER, UNIT, milliseconds_per

# '(us)', '[us]', 'latency_us', '"unit": "us"', 'units are us', 'in us', 'mean us'
_LABEL = re.compile(
    rf"(?:[(\[]\s*|_|(?:\b|_)units?\b[\"']?\s*(?:is|are|of|[:=])?\s*(?:time\s+in\s+)?[\"']?|\bin\s+"
    rf"|\b(?:latency|time|avg|average|mean|median|min|max|p\d\d|duration|elapsed|runtime)\s+)(?P<unit>{UNIT})",
    re.IGNORECASE,
)
# 'microseconds' alone, and 'latencyUs' or 'elapsedNanos'
_WORD = re.compile(r"\b(?P<unit>(?:micro|nano)sec(?:ond)?s?|[un]secs?|[\u00b5\u03bc]s)\b", re.IGNORECASE)
_CAMEL = re.compile(r"(?<=[a-z])(?P<unit>U[sS]|N[sS]|Micro(?:s|seconds)|Nano(?:s|seconds)|Secs?|Seconds)(?![a-z])")
_NUMBER_BEFORE = re.compile(rf"{NUMBER}\W{{0,3}}$")
_NUMBER_AFTER = re.compile(rf"[)\]\"']*\s*[:=|]+\s*[\"'\[(]*{NUMBER}|\s*[)\]]+[\"']*\s+(?:is\s+)?{NUMBER}")
_SHORT = {"micros": "us", "nanos": "ns"}


def foreign_unit(text: str, unit: str = "ms") -> str | None:
    """Return a time unit that a text names away from its numbers, if it differs from the unit of bare numbers.

    Args:
        text: What a program printed.
        unit: Unit of a number without a unit.
    """
    for line in text.splitlines():
        for pattern in (_LABEL, _WORD, _CAMEL):
            for match in pattern.finditer(line):
                name = match["unit"]
                known = _SHORT.get(name.lower(), name)
                if milliseconds_per(known if len(known) == 1 else known.lower()) == milliseconds_per(unit):
                    continue
                before, after = line[: match.start("unit")], line[match.end("unit") :]
                if not (_NUMBER_BEFORE.search(before) or (pattern is not _CAMEL and _NUMBER_AFTER.match(after))):
                    return name
    return None
