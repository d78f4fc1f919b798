"""The parser of the command line: each mistake ends with one short line, and no option is silently ignored."""

from __future__ import annotations

import argparse
import difflib
import math
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from .messages import one_line

_SHOWN = 100  # largest number of characters of a received word in a message


class Parser(argparse.ArgumentParser):
    """Reports an error in the arguments as one line with exit code 2, as for all other bad input.

    An option that is given twice is refused, because argparse would silently use the last one.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.register("action", None, _Once)
        self.register("action", "store", _Once)

    def error(self, message: str) -> NoReturn:
        """Write the message and the command that shows the help, and end the process."""
        message = re.sub(r"^argument (\S+): must be", r"\1 must be", message)
        message = re.sub(r"(required: .*), key=value$", r"\1", message)  # argparse names it, although it may be absent
        sys.stderr.write(one_line(f"{self.prog}: error", message, f" (see {self.prog} --help)") + "\n")
        sys.exit(2)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        names = [str(name) for name in action.choices or ()]
        if names and value not in names:
            close = difflib.get_close_matches(str(value)[:_SHOWN].lower(), names, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            text = f"invalid choice: {str(value)[:_SHOWN]!r}{hint} (choose from {', '.join(names)})"
            raise argparse.ArgumentError(action, text)


class _Once(argparse._StoreAction):
    """Stores the value of an argument, and refuses an option that is given a second time."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        # The namespace remembers, because a parser may parse several command lines.
        given = namespace.__dict__.setdefault("given", set())
        if self.dest in given and option is not None:
            several = ", with all its values after it" if self.nargs in ("+", "*") else ""
            raise argparse.ArgumentError(self, f"is given twice; give it once{several}")
        given.add(self.dest)
        super().__call__(parser, namespace, values, option)


def whole(least: int, most: int) -> Callable[[str], int]:
    """Return a type for an argument: a whole number from `least` to `most`."""

    def read(text: str) -> int:
        try:
            number = int(text) if len(text) < 30 else None
        except ValueError:
            number = None
        if number is None or not least <= number <= most:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}, got {_shown(text)}")
        return number

    return read


def whole_or_dynamic(most: int) -> Callable[[str], int | None]:
    """Return a type for an argument: a whole number from 1 to `most`, or `dynamic`, which is read as `None`."""

    def read(text: str) -> int | None:
        if text == "dynamic":
            return None
        try:
            return whole(1, most)(text)
        except argparse.ArgumentTypeError as reason:
            raise argparse.ArgumentTypeError(str(reason).replace(", got", ", or dynamic, got", 1)) from reason

    return read


def positive(unit: str) -> Callable[[str], float]:
    """Return a type for an argument: a positive, finite number of a unit."""

    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not 0 < number < math.inf:
            raise argparse.ArgumentTypeError(f"must be a positive number of {unit}, got {_shown(text)}")
        return number

    return read


def _shown(text: str) -> str:
    return text[:_SHOWN] if re.fullmatch(r"[-+.\w]+", text) else repr(text[:_SHOWN])
