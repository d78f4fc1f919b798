"""The parser of the command line: each mistake ends with one short line, and no option is silently ignored."""

from __future__ import annotations

import argparse
import difflib
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from .messages import one_line
from .terminal import painted, painted_help

_SHOWN = 100  # largest number of characters of a received word in a message


class Parser(argparse.ArgumentParser):
    """Reports an error in the arguments as one line with exit code 2, as for all other bad input.

    An option that is given twice is refused, because argparse would silently use the last one.

    Attributes:
        elsewhere: Commands of other parsers by their last word, for suggestions.
    """

    elsewhere: Mapping[str, str]

    def __init__(self, *args: Any, **settings: Any) -> None:
        if sys.version_info >= (3, 14):
            settings.setdefault("color", False)  # `print_help` paints the help in all versions
        super().__init__(*args, **settings)
        self.elsewhere = {}
        self.register("action", None, Once)
        self.register("action", "store", Once)

    def error(self, message: str) -> NoReturn:
        """Write the message and the command that shows the help, and end the process."""
        message = re.sub(r"^argument (\S+): must be", r"\1 must be", message)
        message = re.sub(r"(required: .*), key=value$", r"\1", message)  # argparse names it, although it may be absent
        start = f"{self.prog}: {painted('error', 'red', sys.stderr)}"
        sys.stderr.write(one_line(start, message, f" (see {self.prog} --help)") + "\n")
        sys.exit(2)

    def print_help(self, file: Any = None) -> None:
        """Write the help, in colours on a terminal."""
        stream = sys.stdout if file is None else file
        getattr(stream, "write_styled", stream.write)(painted_help(self.format_help(), stream))

    def commands(self) -> Mapping[str, argparse.ArgumentParser]:
        """Return the parsers of the commands by name; none for a command that has no subcommands."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                return dict(action.choices)
        return {}

    def takes(self, word: str) -> bool:
        """Whether a word, which begins with two dashes, is an option or the beginning of exactly one option."""
        name = word.split("=", 1)[0]
        return name in self._option_string_actions or len(self._get_option_tuples(word)) > 0

    def option_names(self) -> list[str]:
        """Return the options with two dashes."""
        return [name for name in self._option_string_actions if name.startswith("--")]

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        names = [str(name) for name in action.choices or ()]
        if names and value not in names:
            word = str(value)[:_SHOWN]
            others = self.elsewhere if isinstance(action, argparse._SubParsersAction) else {}
            close = closest(word.lower(), [*names, *others])
            hint = f"; did you mean '{others.get(close, close)}'?" if close else ""
            text = f"invalid choice: {word!r}{hint} (choose from {', '.join(names)})"
            raise argparse.ArgumentError(action, text)


class Once(argparse._StoreAction):
    """Stores the value of an argument, and refuses an option that is given a second time."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        # The namespace remembers, because a parser may parse several command lines.
        given = namespace.__dict__.setdefault("given", set())
        if self.dest in given and option is not None:
            several = ", with all its values after it" if self.nargs in ("+", "*") else ""
            raise argparse.ArgumentError(self, f"is given twice; give it once{several}")
        given.add(self.dest)
        super().__call__(parser, namespace, values, option)


def closest(word: str, names: Iterable[str]) -> str | None:
    """Return the name that is most similar to a word; `None` if none is similar."""
    return next(iter(difflib.get_close_matches(word, list(names), n=1)), None)


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
