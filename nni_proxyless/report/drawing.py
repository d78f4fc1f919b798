"""Converts panels to files: each panel becomes an SVG inside the page, and all panels of a picture a PNG next to it.

Small panels, one below the other, can be read on a phone. A wide page shows them side by side.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from ..errors import MissingDependencyError
from .checks import clean
from .colours import ALL, INK, SOFT

_SETTINGS = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "nni-proxyless",  # the same figure gives the same file
    "font.size": 8,
    "text.color": INK.light,
    "axes.labelcolor": INK.light,
    "axes.edgecolor": SOFT.light,
    "xtick.color": SOFT.light,
    "ytick.color": SOFT.light,
    "xtick.labelcolor": INK.light,
    "ytick.labelcolor": INK.light,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
}
_POINTS = 72  # an inch
_DPI = 110
_VARIABLES = {colour.light.lower(): colour.css for colour in ALL}


@dataclass(frozen=True)
class Panel:
    """One drawing of a picture.

    Attributes:
        draw: Function that draws into Matplotlib's axes.
        width: Width in inches.
        height: Height in inches.
        label: What the drawing shows, for people who do not see it.
        margins: Left, right, bottom and top margin in inches. Without them, Matplotlib finds margins that fit, which
            takes half of the time.
    """

    draw: Callable[[Any], None]
    width: float
    height: float
    label: str
    margins: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class Picture:
    """A picture of the page: one or more panels.

    Attributes:
        name: Name of its PNG, without ending.
        panels: Drawings, in reading order.
        columns: Largest number of panels side by side.
        title: Heading; may be empty.
        target: Target whose colour marks the heading; may be empty.
        wide: Whether the panels need their width, so that a narrow screen scrolls them.
        folded: Whether the page shows the picture only when it is unfolded.
        legend: Panel below all others; `None` for none.
        source: Files that the numbers come from, as pairs of text and address.
    """

    name: str
    panels: Sequence[Panel]
    columns: int = 1
    title: str = ""
    target: str = ""
    wide: bool = False
    folded: bool = False
    legend: Panel | None = None
    source: list[tuple[str, str]] = field(default_factory=list)


def require_matplotlib(purpose: str = "a report") -> None:
    """Check that Matplotlib is installed.

    Args:
        purpose: What needs it, for the message.

    Raises:
        MissingDependencyError: Matplotlib is not installed. The message says how to install it.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as reason:
        raise MissingDependencyError.of(reason, purpose, "matplotlib", "plot") from reason


def to_svg(panel: Panel, key: str) -> str:
    """Draw a panel as an SVG element for a page.

    Colours are CSS variables, and the page's font is used. The element refers to nothing outside itself.

    Args:
        panel: Panel.
        key: Beginning of all ids, which must differ between the panels of a page.
    """
    import matplotlib

    with matplotlib.rc_context(_SETTINGS):
        figure = _figure(panel.width, panel.height, fitted=panel.margins is None)
        panel.draw(figure.subplots())
        if panel.margins is not None:
            left, right, bottom, top = panel.margins
            figure.subplots_adjust(
                left / panel.width, bottom / panel.height, 1 - right / panel.width, 1 - top / panel.height
            )
        buffer = io.StringIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            empty = dict.fromkeys(("Date", "Creator", "Format", "Type"))
            figure.savefig(buffer, format="svg", transparent=True, metadata=empty)
    return _for_page(buffer.getvalue(), panel, key)


def _for_page(text: str, panel: Panel, key: str) -> str:
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"<style[^>]*>.*?</style>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r"<[^>]*>", lambda tag: _tag_for_page(tag[0], key), text)  # texts have no > of their own
    width, height = panel.width * _POINTS, panel.height * _POINTS
    start = (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(clean(panel.label))}" '
        f'style="--w:{width:g}px">'
    )
    text = re.sub(r"^<svg[^>]*>", lambda _: start, text)
    return re.sub(r"\s*\n\s*", "\n", text).strip()


def _tag_for_page(tag: str, key: str) -> str:
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)
    tag = re.sub(r"(font: [^;\"]*?px) [^;\"]*", r"\1 inherit", tag)
    tag = re.sub(r'\bid="([^"]+)"', rf'id="{key}-\1"', tag)
    tag = re.sub(r"url\(#([^)]+)\)", rf"url(#{key}-\1)", tag)
    tag = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{key}-\1"', tag).replace('xlink:href="data:', 'href="data:')
    return re.sub(r"#[0-9a-fA-F]{6}\b(?=[;\"])", lambda found: _VARIABLES.get(found[0].lower(), found[0]), tag)


def to_png(picture: Picture) -> bytes:
    """Draw all panels of a picture into one PNG, on white."""
    import matplotlib

    panels = [*picture.panels, *([] if picture.legend is None else [picture.legend])]
    columns = max(1, min(picture.columns, len(picture.panels)))
    rows = math.ceil(len(picture.panels) / columns)
    heights = [picture.panels[row * columns].height for row in range(rows)]
    heights += [] if picture.legend is None else [picture.legend.height]
    title = 0.3 if picture.title else 0.0
    with matplotlib.rc_context(_SETTINGS):
        figure = _figure(columns * picture.panels[0].width, sum(heights) + title)
        grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
        for number, panel in enumerate(panels):
            last = panel is picture.legend
            panel.draw(figure.add_subplot(grid[-1, :] if last else grid[number // columns, number % columns]))
        if picture.title:
            figure.suptitle(plain(picture.title), x=0.01, ha="left", fontsize=10)
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a box stands for the character
            figure.savefig(buffer, format="png")
    return buffer.getvalue()


def plain(text: str) -> str:
    """Return a name as Matplotlib shows it: without formulas, which begin with $, and never left out of a legend."""
    text = clean(text).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def end_with_data(axes: Any, xs: Sequence[float], ys: Sequence[float]) -> None:
    """Let both axes end where the data end, with a little room around, and with ticks only between the ends.

    Args:
        axes: Matplotlib's axes, after everything was drawn.
        xs: Horizontal values of all data.
        ys: Vertical values of all data.
    """
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side, axis, values in (("bottom", axes.xaxis, xs), ("left", axes.yaxis, ys)):
        low, high = min(values), max(values)
        room = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
        axis.set_view_interval(low - room, high + room, ignore=True)
        axes.spines[side].set_bounds(low, high) if high > low else axes.spines[side].set_visible(False)
        slack = 1e-9 * max(abs(low), abs(high))
        ticks = [tick for tick in axis.get_major_locator()() if low - slack <= tick <= high + slack]
        if high > low and len(ticks) > 1:
            axis.set_ticks(ticks)
        else:
            axis.set_ticks(sorted({low, high}), [f"{value:.4g}" for value in sorted({low, high})])


def _figure(width: float, height: float, *, fitted: bool = True) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained" if fitted else None)
    FigureCanvasAgg(figure)
    return figure
