"""Labels of points in a picture, at places where they hide neither points nor lines nor each other."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

Box = tuple[float, float, float, float]  # left, bottom, right and top in pixels
_MARKER = 4.5  # half of a marker's width in points
_DISTANCES = (7.0, 10.0, 13.0, 17.0, 22.0, 28.0)  # from a point to its label, in points
_NEARER = 1.3  # a point that is up to so many times as far from a label as its own point can be taken for it
_ROOM = 1.0  # around a label, in pixels
_LINE_FROM = 12.0  # distance from which a thin line connects a label with its point


def place_labels(axis: Any, labels: Sequence[tuple[float, float, str]], *, size: float) -> list[Box]:
    """Write a label next to each point of a picture.

    Each label gets the nearest of several places where it overlaps nothing and no other point is as near, or the one
    where it overlaps least.

    Args:
        axis: Axes of matplotlib with all points and lines. Place the labels last: later changes of the size, the limits
            or the resolution would move them.
        labels: For each point, its coordinates in the units of the axes and the text.
        size: Size of the text in points.

    Returns:
        The box of each label in pixels.
    """
    figure = axis.figure
    figure.canvas.draw()  # which sets the limits of the axes
    axis.autoscale(False)  # lines to labels must not change them
    pixels = figure.dpi / 72
    centres = [axis.transData.transform((x, y)) for x, y, _ in labels]
    taken = [_around(centre, _MARKER * pixels) for centre in centres]
    for line in axis.lines:
        if line.get_linestyle() not in ("None", "none", ""):
            taken += _along(axis.transData.transform(line.get_xydata()), pixels)
    frame = axis.get_window_extent()
    placed = []
    for centre, (x, y, text) in zip(centres, labels, strict=True):
        made = axis.annotate(
            text, (x, y), textcoords="offset points", xytext=(0, 0), fontsize=size, color="0.35", va="bottom"
        )
        extent = made.get_window_extent()
        width, height = extent.width, extent.height
        best: tuple[float, int, float, tuple[float, float], Box] | None = None
        for distance, angle in itertools.product(_DISTANCES, range(0, 360, 15)):
            across, up = np.cos(np.radians(angle)), np.sin(np.radians(angle))
            # The label's left lower corner: its near edge is at the distance from the point.
            left = centre[0] + distance * pixels * across - width * (1 - across) / 2
            bottom = centre[1] + distance * pixels * up - height * (1 - up) / 2
            box = (left, bottom, left + width, bottom + height)
            wide = (box[0] - _ROOM, box[1] - _ROOM, box[2] + _ROOM, box[3] + _ROOM)
            hidden = sum(_common(wide, other) for other in taken) + _outside(box, frame)
            gap = _gap(box, centre)
            nearer = sum(other is not centre and _gap(box, other) < _NEARER * gap for other in centres)
            if best is None or (hidden, nearer, distance) < best[:3]:
                best = hidden, nearer, distance, ((left - centre[0]) / pixels, (bottom - centre[1]) / pixels), box
        assert best is not None
        _, _, distance, offset, box = best
        made.set_position(offset)
        if distance >= _LINE_FROM:
            near = (min(max(centre[0], box[0]), box[2]), min(max(centre[1], box[1]), box[3]))
            ends = axis.transData.inverted().transform([centre, near])
            axis.plot(*ends.T, color="0.5", linewidth=0.6, zorder=0.5)
        taken.append(box)
        placed.append(box)
    return placed


def _around(centre: Sequence[float], half: float) -> Box:
    return centre[0] - half, centre[1] - half, centre[0] + half, centre[1] + half


def _along(corners: Any, pixels: float) -> list[Box]:
    """Small boxes along a line through some corners."""
    made = []
    for first, second in itertools.pairwise(corners):
        steps = max(2, int(np.hypot(*(second - first)) / (2 * pixels)))
        made += [_around(first + (second - first) * part, pixels) for part in np.linspace(0, 1, steps)]
    return made


def _gap(box: Box, point: Sequence[float]) -> float:
    """Distance of a point from a box."""
    across = max(box[0] - point[0], point[0] - box[2], 0.0)
    up = max(box[1] - point[1], point[1] - box[3], 0.0)
    return float(np.hypot(across, up))


def _common(one: Box, other: Box) -> float:
    """Area that two boxes have in common."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0.0) * max(height, 0.0)


def _outside(box: Box, frame: Any) -> float:
    """Area of a box that is outside the frame of the axes."""
    whole = (box[2] - box[0]) * (box[3] - box[1])
    return whole - _common(box, (frame.x0, frame.y0, frame.x1, frame.y1))
