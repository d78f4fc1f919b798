"""What was read from the output of a program, and the text helpers that the parsers share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import RunError
from .quantity import NUMBER, UNIT, AmbiguousNumberError, milliseconds_per, to_number

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_MICRO = re.compile(r"\\(?:u00b5|u03bc|xb5)", re.IGNORECASE)  # as JSON and Python escape it
_LONGEST = 160
TIME = rf"(?P<number>{NUMBER})\s*(?P<unit>{UNIT})"


@dataclass(frozen=True)
class Reading:
    """A latency that was read from the output of a program.

    Attributes:
        milliseconds: The latency in milliseconds.
        statistic: What the number is: `median`, `mean`, `minimum`, `one run`, or `as printed` if the output does not
            say.
        printed: The number and its unit, as printed or as the tool defines it.
        line: The line of the output that contains the number.
    """

    milliseconds: float
    statistic: str
    printed: str
    line: str

    def __str__(self) -> str:
        return f"{self.milliseconds:.6g} ms ({self.statistic}; {self.printed}), from '{self.line}'"


def lines_of(output: str) -> list[str]:
    """Split an output into lines that are not empty, without colours and other terminal sequences."""
    return [line.strip() for line in _MICRO.sub("\u00b5", _ESCAPES.sub("", output)).splitlines() if line.strip()]


def shown(line: str) -> str:
    """Shorten a line for a message, and replace characters that would act on a terminal."""
    line = " ".join(line[: 4 * _LONGEST].split())
    line = "".join(character if character.isprintable() else "\ufffd" for character in line)
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def reading(number: str, unit: str, statistic: str, line: str) -> Reading:
    """Create a reading from a printed number and its unit.

    Raises:
        RunError: The number is ambiguous, or is not a number.
    """
    try:
        value = to_number(number)
    except AmbiguousNumberError as reason:
        raise RunError(f"it printed a latency that cannot be read: {reason}; the line was: {shown(line)}") from reason
    except ValueError as reason:
        raise RunError(f"it printed '{shown(number)}', which is not a number; the line was: {shown(line)}") from reason
    return Reading(value * milliseconds_per(unit), statistic, f"{shown(number)} {unit}", shown(line))


def matches(pattern: str, lines: Sequence[str]) -> list[tuple[re.Match[str], str]]:
    """Search each line, and return the matches with their lines."""
    found = ((re.search(pattern, line), line) for line in lines)
    return [(match, line) for match, line in found if match]


def times(label: str, statistic: str, lines: Sequence[str]) -> list[Reading]:
    """Read the number and the unit after a label, in each line that has them.

    Args:
        label: Regular expression of the text directly before the number.
        statistic: What the number is; see `Reading`.
        lines: Lines of the output.
    """
    return [reading(m["number"], m["unit"], statistic, line) for m, line in matches(label + TIME, lines)]


def the_only(readings: Sequence[Reading], wanted: str, lines: Sequence[str]) -> Reading:
    """Return the only reading.

    Args:
        readings: All readings of one kind in the output.
        wanted: What the output must contain, for the error message.
        lines: Lines of the output.

    Raises:
        RunError: There is no reading, or there are several, as from several networks.
    """
    if not readings:
        last = f"the last line was: {shown(lines[-1])}" if lines else "it printed nothing"
        raise RunError(f"it printed no {wanted}; {last}")
    if len(readings) > 1:
        listed = "; ".join(one.line for one in readings[:3]) + ("; …" if len(readings) > 3 else "")
        raise RunError(
            f"it printed {len(readings)} results, but each call of the command must measure one network: {listed}"
        )
    return readings[0]
