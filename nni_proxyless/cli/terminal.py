"""Colours and tables for people who read on a terminal. Pipes, files and plain terminals get the plain text instead.

`NO_COLOR` and `TERM=dumb` are honoured. The colours of single words are written here as codes, because the help has to
start quickly. Tables are drawn by rich, which is imported only on a terminal.
"""

from __future__ import annotations

import io
import re
import shutil
import sys
from collections.abc import Sequence
from typing import Any, Literal

from ..terminals import has_colours, is_terminal
from .streams import cleaned

Colour = Literal["bold", "red", "green", "yellow", "cyan"]
_CODES: dict[Colour, str] = {"bold": "1", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_LEVELS: dict[str, Colour] = {"warning": "yellow", "error": "red", "ok": "green"}
_LEVEL = re.compile(r"^(warning|error|ok)(?=\b)")
_HEADING = re.compile(r"^(usage:|example:|[a-z][\w ]*:$)", re.MULTILINE)
_OPTION = re.compile(r"(?<![\w-])(--?[a-zA-Z][\w-]*)")
_NUMBER = re.compile(r"[-+]?[\d.,]+(e[-+]?\d+)?( %| ms| h| days)?")


def painted(text: str, colour: Colour, stream: Any) -> str:
    """Return a text with the codes of a colour, if the stream shows colours."""
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if has_colours(stream) else text


def painted_level(line: str, stream: Any) -> str:
    """Return a line with its first word in colour if that word is `warning`, `error` or `ok`."""
    return _LEVEL.sub(lambda found: painted(found[1], _LEVELS[found[1]], stream), line)


def painted_help(text: str, stream: Any) -> str:
    """Return a help text with its headings and options in colour."""
    if not has_colours(stream):
        return text
    text = _OPTION.sub(lambda found: painted(found[1], "cyan", stream), text)
    return _HEADING.sub(lambda found: painted(found[1], "bold", stream), text)


def write_styled(text: str) -> None:
    """Write a text with codes of ours to the standard output, which removes all other codes."""
    getattr(sys.stdout, "write_styled", sys.stdout.write)(text)


def write_lines(*lines: str) -> None:
    """Write lines to the standard output. On a terminal, a warning at the beginning of a line is in colour."""
    write_styled("".join(f"{painted_level(cleaned(line), sys.stdout)}\n" for line in lines))
    sys.stdout.flush()


def write_table(rows: Sequence[Sequence[str]], plain: Sequence[str] | None = None) -> None:
    """Write a table to the standard output. A pipe gets lines of plain text.

    A table that is wider than the terminal is written as on a pipe, so that no value is cut or broken into lines.

    Args:
        rows: Rows of the table, the heading first.
        plain: Lines for a pipe; by default the rows with aligned columns.
    """
    from ..files.writing import aligned

    text = "".join(f"{line}\n" for line in (aligned(rows) if plain is None else plain))
    if is_terminal(sys.stdout):
        drawn = _drawn([[cleaned(cell) for cell in row] for row in rows])
        if drawn is not None:
            write_styled(drawn)
            sys.stdout.flush()
            return
    sys.stdout.write(text)
    sys.stdout.flush()


def _drawn(rows: Sequence[Sequence[str]]) -> str | None:
    """Draw a table for the terminal; `None` if it does not fit."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    width = shutil.get_terminal_size().columns
    colours = has_colours(sys.stdout)
    table = Table(box=SIMPLE_HEAD, header_style="bold" if colours else "", show_edge=False, pad_edge=False)
    for name, cells in zip(rows[0], zip(*rows[1:], strict=True), strict=True) if len(rows) > 1 else ():
        numbers = all(_NUMBER.fullmatch(cell) for cell in cells if cell) and any(cells)
        table.add_column(Text(name), justify="right" if numbers else "left", no_wrap=True)
    for row in rows[1:]:
        table.add_row(*(Text(cell, style=_style(cell) if colours else "") for cell in row))
    console = Console(file=io.StringIO(), force_terminal=True, width=10_000, highlight=False, no_color=not colours)
    if console.measure(table).maximum > width:
        return None
    console.print(table)
    printed = console.file.getvalue()
    return "".join(f"{line.rstrip()}\n" for line in printed.splitlines())


def _style(cell: str) -> str:
    return {"good": "green", "doubtful": "yellow", "bad": "red", "ok": "green"}.get(cell, _LEVELS.get(cell, ""))
