"""Numbers and time units as programs print them: decimal commas, thousands separators, `µs`, `msec`, `seconds`."""

from __future__ import annotations

import re

_NAMES = {
    1e-6: ("ns", "nsec", "nsecs", "nanosec", "nanosecs", "nanosecond", "nanoseconds"),
    1e-3: ("us", "usec", "usecs", "microsec", "microsecs", "microsecond", "microseconds"),
    1.0: ("ms", "msec", "msecs", "millis", "millisec", "millisecs", "millisecond", "milliseconds"),
    1e3: ("s", "sec", "secs", "second", "seconds"),
}
_MILLISECONDS = {name: factor for factor, names in _NAMES.items() for name in names}
_MICRO = "\u00b5\u03bc"  # the micro sign and the Greek letter, which look alike
# A unit is at the end of a word. A capital S alone is the siemens, so only longer names may have capitals.
UNIT = (
    "(?:"
    + "|".join(sorted((f"(?i:{name})" for name in _MILLISECONDS if name != "s"), key=len, reverse=True))
    + f"|[{_MICRO}]s(?:ecs?)?|s)(?![\\w{_MICRO}])"
)
_GROUPS = "'\u2019_\u00a0\u2009\u202f"  # apostrophes, underscore, and the spaces that do not break a line
_MINUS = "\u2212"
NUMBER = rf"[-+{_MINUS}]?(?:\d+(?:[.,{_GROUPS}]\d+)*|\.\d+)(?:[eE][-+]?\d+)?"
_PARTS = re.compile(rf"([-+{_MINUS}]?)([\d.,{_GROUPS}]+)((?:[eE][-+]?\d+)?)")


class AmbiguousNumberError(ValueError):
    """A number with one comma and three digits after it, as in `1,234`."""


def milliseconds_per(unit: str) -> float:
    """Return the length of a time unit in milliseconds, such as 0.001 for `us`, `µs` or `microseconds`.

    Raises:
        KeyError: The text is not a time unit.
    """
    name = re.sub(f"[{_MICRO}]", "u", unit)
    return _MILLISECONDS[name if len(name) == 1 else name.lower()]


def to_number(text: str) -> float:
    """Convert a printed number.

    The last of several different separators is the decimal one. A single comma is the decimal one, unless exactly three
    digits follow it: `12,5` is 12.5, `1,234.5` and `1.234,5` are 1234.5, and `0,125` is 0.125.

    Raises:
        AmbiguousNumberError: The number has one comma and then three digits: 1.234 or 1234.
        ValueError: The text is not a number, but for example a version.
    """
    parts = _PARTS.fullmatch(text)
    if parts is None:
        raise ValueError(f"{text!r} is not a number")
    sign, mantissa, exponent = parts[1].replace(_MINUS, "-"), parts[2], parts[3]
    marks = [mark for mark in mantissa if not mark.isdigit()]
    decimal = _decimal_mark(mantissa, marks)
    whole, _, fraction = mantissa.rpartition(decimal) if decimal else (mantissa, "", "")
    groups = re.split(f"[.,{_GROUPS}]", whole) if whole else ["0"]
    separators = {mark for mark in whole if not mark.isdigit()}
    if len(separators) > 1 or (separators and not _grouped(groups)) or not (fraction.isdigit() or not decimal):
        raise ValueError(f"{text!r} is not a number")
    return float(f"{sign}{''.join(groups)}.{fraction or 0}{exponent}")


def _decimal_mark(mantissa: str, marks: list[str]) -> str:
    """Return the decimal mark of a number, or an empty string if it has none."""
    if not marks or marks[-1] not in ".,":
        return ""
    last = marks[-1]
    if marks.count(last) > 1:
        return ""
    whole, _, fraction = mantissa.rpartition(last)
    if len(marks) == 1 and last == "," and len(fraction) == 3 and 1 <= len(whole) <= 3 and whole.strip("0"):
        raise AmbiguousNumberError(
            f"'{mantissa}' is {whole}.{fraction} or {whole}{fraction}: let the program print a decimal point "
            "(LC_ALL=C) and no thousands separator"
        )
    return last


def _grouped(groups: list[str]) -> bool:
    return 1 <= len(groups[0]) <= 3 and all(len(group) == 3 for group in groups[1:])
