"""Docstrings are written in Markdown. This extension makes reStructuredText of them for autodoc.

It converts links, code spans, fenced blocks and tables, and protects characters that mean something in
reStructuredText only.
"""

from __future__ import annotations

import re
from typing import Any

_LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")
_SPAN = re.compile(r"(`[^`]+`)")
_ARGUMENT = re.compile(r"\s*\*+\w+:")  # napoleon reads `*criteria:` and `**settings:`
_BULLET = re.compile(r"(\s*[*-] )?(.*)", re.DOTALL)


def _text(line: str) -> str:
    """Convert a line of text; code spans stay as they are."""
    if _ARGUMENT.match(line):
        return line
    start = _BULLET.fullmatch(line)
    assert start is not None
    parts = _SPAN.split(_LINK.sub(r"\1", start[2]))
    text = "".join(part if part.startswith("`") else re.sub(r"([*|])", r"\\\1", part) for part in parts)
    text = re.sub(r"`([^`]+)`", r"``\1``", text)
    return (start[1] or "") + text


def _table(rows: list[str]) -> list[str]:
    """Return a `list-table` with the content of a Markdown table, whose second row only separates the header."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in (rows[0], *rows[2:]):
        cells = [_text(cell.strip()) for cell in row.strip().strip("|").split("|")]
        lines += [f"   {'* -' if number == 0 else '  -'} {cell}" for number, cell in enumerate(cells)]
    return [*lines, ""]


def to_restructured_text(lines: list[str]) -> list[str]:
    """Convert the lines of a docstring."""
    converted: list[str] = []
    table: list[str] = []
    fence: str | None = None
    for line in [*lines, ""]:
        if fence is None and line.startswith("|") and line.rstrip().endswith("|"):
            table.append(line)
            continue
        if table:
            converted += _table(table)
            table = []
        if line.strip().startswith("```"):
            indent = line[: len(line) - len(line.lstrip())]
            converted += [f"{indent}.. code-block:: {line.strip()[3:] or 'text'}", ""] if fence is None else [""]
            fence = indent if fence is None else None
        elif fence is not None:
            converted.append(f"   {line}" if line else line)
        else:
            converted.append(line if line.lstrip().startswith((">>>", "...")) else _text(line))
    return converted


def _process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = to_restructured_text(lines)


def setup(app: Any) -> dict[str, bool]:
    """Convert docstrings before napoleon reads them."""
    app.connect("autodoc-process-docstring", _process, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
