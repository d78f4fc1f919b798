"""Renders the sections of a report as an HTML page."""

from __future__ import annotations

import datetime
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .. import __version__
from ..files import results_folder
from ..latency import this_device
from ..latency.difference import NOTICEABLE
from .checks import number_of
from .colours import BASELINE, css_variables, target_colour
from .drawing import Picture
from .headings import heading
from .kept_budgets import quantity_text
from .results import Results
from .verdict import Line

_MOST_OPEN = 3  # pictures of a section that are shown without a click


@dataclass
class Section:
    """A section of the page.

    Attributes:
        key: Name of the section's anchor and of its CSV file.
        title: Heading.
        text: Paragraphs.
        pictures: Pictures.
        rows: Rows of the table, which is written as a CSV file and shown on the page.
        shown: Whether the page shows the table. If not, it is only in the CSV file.
        folded: Whether the page shows the table only when it is unfolded.
        hidden: Columns that are only in the CSV file.
        headings: Headings of columns that differ from their usual ones; see `headings.heading`.
    """

    key: str
    title: str
    text: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    rows: Sequence[Mapping[str, Any]] = ()
    shown: bool = True
    folded: bool = False
    hidden: Collection[str] = ()
    headings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Drawn:
    """A picture that was drawn.

    Attributes:
        panels: SVG elements.
        legend: SVG element of the legend; empty for none.
        png: All panels in one PNG.
    """

    panels: Sequence[str]
    legend: str
    png: bytes


def address(path: Path, folder: Path) -> str:
    """Return the address of a file for a link in a page.

    Args:
        path: Path of the file.
        folder: Folder of the page.
    """
    try:
        relative = os.path.relpath(path.resolve(), folder.resolve())
    except ValueError:  # another drive of Windows
        return path.resolve().as_uri()
    return quote(Path(relative).as_posix().encode("utf-8", "surrogateescape"))


def render(
    results: Results,
    lines: Sequence[Line],
    warnings: Sequence[str],
    parts: Sequence[Section],
    drawn: Mapping[str, Drawn],
    folder: Path,
) -> str:
    """Render the HTML page with all figures embedded.

    Args:
        results: Results to report.
        lines: Rows of the verdict.
        warnings: Warnings.
        parts: Sections.
        drawn: Drawings of their pictures by the pictures' names.
        folder: Folder of the page.

    Raises:
        MissingDependencyError: Jinja is not installed.
    """
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("nni_proxyless", "report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["shown"] = _shown
    device = this_device()
    now = f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC"
    unfinished = sum(search.unfinished for search in results.searches)
    counts = _counted(len(results.searches), "search", "es") + (
        f", {unfinished} of them not finished" if unfinished else ""
    )
    counts += f", {_counted(len(results.trained), 'retrained network')}"
    return environment.get_template("page.html.j2").render(
        title=f"nni-proxyless: {results.title}",
        subtitle=f"{counts}; made {now} by nni-proxyless {__version__} on {device.name} ({device.processor})",
        light=css_variables(dark=False),
        dark=css_variables(dark=True),
        lines=[_line(results, line, folder) for line in lines],
        warnings=warnings,
        colours={target: target_colour(results.targets, target).css for target in results.targets},
        sections=[
            {
                "key": part.key,
                "title": part.title,
                "text": part.text,
                "pictures": [
                    {
                        "title": picture.title,
                        "colour": target_colour(results.targets, picture.target).css if picture.target else "",
                        "panels": [Markup(svg) for svg in drawn[picture.name].panels],
                        "legend": Markup(drawn[picture.name].legend),
                        "wide": picture.wide,
                        "least": f"{1.2 * 72 * picture.panels[0].width:.0f}px",
                        "folded": number >= _MOST_OPEN,
                        "links": [
                            *(picture.source or ([(f"{part.key}.csv", f"{part.key}.csv")] if part.rows else [])),
                            (f"{picture.name}.png", quote(f"{picture.name}.png")),
                        ],
                    }
                    for number, picture in enumerate(part.pictures)
                ],
                "columns": [c for c in part.rows[0] if c not in part.hidden] if part.rows and part.shown else [],
                "headings": {
                    column: part.headings.get(column) or heading(column, results.targets)
                    for column in (part.rows[0] if part.rows and part.shown else ())
                },
                "rows": part.rows if part.shown else [],
                "texts": _texts(part.rows),
                "folded": part.folded,
                "csv": f"{part.key}.csv" if part.rows else "",
            }
            for part in parts
        ],
    )


def _counted(count: int, what: str, plural: str = "s") -> str:
    return f"{count} {what}{'' if count == 1 else plural}"


def _texts(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the columns that have texts, which are aligned to the left."""
    return {
        column for row in rows for column, value in row.items() if value not in (None, "") and number_of(value) is None
    }


def _line(results: Results, line: Line, folder: Path) -> dict[str, Any]:
    trained = line.trained
    named = [] if trained is None else [("model card", trained.folder / results_folder.MODEL_CARD)]
    named += [("how to use it", readme) for readme in _readmes(line)]
    files = [
        {"name": file.path.name, "size": quantity_text("file_size", file.size), "href": address(file.path, folder)}
        for file in line.files
        if file.size is not None
    ]
    gone = [file.path.name for file in line.files if file.size is None]
    baseline = line.kind == "baseline"
    return {
        "target": line.target,
        "colour": BASELINE.css if baseline else target_colour(results.targets, line.target).css,
        "baseline": baseline,
        "name": line.name,
        "href": address(line.folder, folder) + "/",
        "links": [(text, address(path, folder)) for text, path in named],
        "kind": line.kind,
        "multiply_adds": "" if line.multiply_adds is None else f"{line.multiply_adds / 1e6:.3g} M multiply-adds",
        "budgets": [
            {"word": kept.word, "text": str(kept)[len(kept.word) :], "holds": kept.holds} for kept in line.budgets
        ],
        "predicted": _milliseconds(line.predicted_ms),
        "measured": _milliseconds(line.measured_ms),
        "error": "" if line.error is None else f"{100 * line.error:+.1f}\xa0%",
        "far": line.error is not None and abs(line.error) > NOTICEABLE,
        "test": "" if trained is None or trained.test_accuracy is None else f"{100 * trained.test_accuracy:.2f}\xa0%",
        "held_out": "" if trained is None else f"{100 * trained.accuracy:.2f}\xa0%",
        "trained": trained is not None,
        "finished": line.finished,
        "files": files,
        "gone": gone,
        "expected": "" if line.expected_bytes is None else quantity_text("file_size", line.expected_bytes),
        "command": line.next_command,
        "note": line.note,
    }


def _readmes(line: Line) -> list[Path]:
    """Return the instructions beside the exported files."""
    found = dict.fromkeys(file.path.with_name("README.md") for file in line.files if file.size is not None)
    return [path for path in found if path.is_file()]


def _milliseconds(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}\xa0ms"


def _shown(value: Any, column: str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    if column == "error":
        return f"{100 * value:+.1f} %"
    if column == "accuracy":
        return f"{value:.4f}"
    return f"{value:,.0f}" if value >= 10_000 else f"{value:.4g}"
