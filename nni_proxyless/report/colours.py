"""Colours of a report, for a light and a dark page. Most people with a colour vision deficiency can tell them apart.

Figures are drawn in the light colours, which `drawing.py` replaces by CSS variables. So the pictures of a page follow
its scheme, and no two colours here are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Colour:
    """A colour of the page.

    Attributes:
        name: Name of its CSS variable, without dashes.
        light: Colour on a light page, as `#RRGGBB`.
        dark: Colour on a dark page, as `#RRGGBB`.
    """

    name: str
    light: str
    dark: str

    @property
    def css(self) -> str:
        """The colour as a value in CSS."""
        return f"var(--{self.name},{self.light})"


INK = Colour("ink", "#1C2024", "#E4E7EA")
SOFT = Colour("soft", "#5B6670", "#A3ADB6")  # text and lines of less weight
GRID = Colour("grid", "#E3E6E9", "#3A4148")
PAPER = Colour("paper", "#FFFFFE", "#16191C")
BLOCK = Colour("block", "#ECEEF0", "#2B3137")  # operators without a kernel of their own
BASELINE = Colour("baseline", "#6B7681", "#9AA5AF")

# One for each target, throughout the page. Further targets begin again, with other markers.
TARGET_COLOURS = tuple(
    Colour(f"t{number}", light, dark)
    for number, (light, dark) in enumerate(
        [
            ("#0072B2", "#5CB8F2"), ("#D55E00", "#FF9A57"), ("#7A3DB8", "#C9A3FF"), ("#2E7D32", "#7FD184"),
            ("#B0206F", "#FF8FC6"), ("#7A6200", "#DDBF4C"), ("#007A80", "#55D2D8"), ("#49566B", "#B7C2D3"),
        ]
    )
)  # fmt: skip
MARKERS = "os^Dv<>P"

# Colours of depthwise kernels by their size. They are the same in both schemes, with dark text on them.
KERNEL_COLOURS = {1: "#999999", 3: "#56B4E9", 5: "#009E73", 7: "#E69F00"}
OTHER_KERNEL = "#CC79A7"
ON_KERNEL = "#111111"

ALL = (INK, SOFT, GRID, PAPER, BLOCK, BASELINE, *TARGET_COLOURS)


def target_colour(targets: Sequence[str], target: str) -> Colour:
    """Return the colour of a target; that of text for one that no search of the report is for."""
    return TARGET_COLOURS[targets.index(target) % len(TARGET_COLOURS)] if target in targets else INK


def target_marker(targets: Sequence[str], target: str) -> str:
    """Return the marker of a target in Matplotlib's notation."""
    return MARKERS[targets.index(target) % len(MARKERS)] if target in targets else "o"


def css_variables(*, dark: bool) -> str:
    """Return the CSS that sets all colours for one scheme."""
    return " ".join(f"--{colour.name}:{colour.dark if dark else colour.light};" for colour in ALL)
