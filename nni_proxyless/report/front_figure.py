"""The picture of a front in two or three quantities, as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .colours import GRID, TARGET_COLOURS
from .drawing import Panel, Picture, require_matplotlib, to_png

_GOOD = ("accuracy", "likelihood")


def draw_front(
    networks: Sequence[Mapping[str, float]], names: Sequence[str], units: Mapping[str, str], title: str
) -> bytes:
    """Draw a front: accuracy or likelihood upwards if it has one of them, and a third quantity as colour.

    Args:
        networks: Values of the quantities for each network of the front.
        names: Two or three quantities.
        units: Unit of each quantity; empty if it has none.
        title: Title of the picture.

    Raises:
        MissingDependencyError: Matplotlib is not installed.
    """
    require_matplotlib("a picture of a front")
    upwards = next((name for name in _GOOD if name in names), names[-1])
    across, *third = [name for name in names if name != upwards]
    columns = {name: [network[name] for network in networks] for name in names}

    def draw(axes: Any) -> None:
        if third:
            points = axes.scatter(columns[across], columns[upwards], c=columns[third[0]], s=18, cmap="viridis")
            axes.figure.colorbar(points, ax=axes, label=_label(third[0], units))
        else:
            axes.plot(
                columns[across], columns[upwards], "o-", color=TARGET_COLOURS[0].light, markersize=4, linewidth=0.8
            )
        axes.set(xlabel=_label(across, units), ylabel=_label(upwards, units))
        axes.grid(color=GRID.light)
        axes.set_axisbelow(True)

    text = f"{title}: {len(networks)} networks that no other one dominates"
    return to_png(Picture("front", [Panel(draw, 7.0, 5.0, text)], title=text))


def _label(name: str, units: Mapping[str, str]) -> str:
    if name == "likelihood":
        return "log-likelihood [nats]"
    if name == "accuracy":
        return "accuracy with shared weights"
    return f"{name} [{units[name]}]" if units[name] else name
