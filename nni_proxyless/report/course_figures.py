"""The pictures of the progress of searches: latency, entropy, accuracy, and the probabilities of the candidates."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .colours import GRID, INK, SOFT, target_colour
from .drawing import Panel, Picture, end_with_data, plain
from .results import Results, Search

MOST_PANELS = 400
_MOST_NAMED = 24  # searches in a legend
_LONGEST_FIXED = 20  # characters of candidates for which the margin is known beforehand
_STYLES = ("-", "--", ":", "-.")


def progress(results: Results) -> Picture:
    """Plot the expected latency relative to the budget, the entropy and the accuracy of each search over its epochs."""
    units = {_scale(search)[1] for search in results.searches}
    budget = "fraction of the budget"
    unit = budget if units == {"budget"} else "ms" if units == {"ms"} else f"ms, or {budget}"
    panels = [
        Panel(lambda axes: _latencies(axes, results, unit, units), 3.9, 2.7, "expected latency over the epochs"),
        Panel(
            lambda axes: _course(axes, results, "entropy", 1.0, "mean entropy of layers [nats]"),
            3.9, 2.7, "entropy over the epochs",
        ),
        Panel(
            lambda axes: _course(axes, results, "default", 100.0, "held-out accuracy of the\ndecoded network [%]"),
            3.9, 2.7, "accuracy over the epochs",
        ),
    ]  # fmt: skip
    named = results.searches[:_MOST_NAMED]
    legend = Panel(lambda axes: _names(axes, results, named), 5.0, 0.15 + 0.17 * -(-len(named) // 2), "searches")
    return Picture("progress", panels, columns=3, legend=legend)


def _names(axes: Any, results: Results, named: Sequence[Search]) -> None:
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], **_look(results, search)) for search in named]
    axes.set_axis_off()
    axes.legend(
        lines, [plain(search.name) for search in named], loc="upper left", ncols=2, frameon=False, borderaxespad=0
    )


def _look(results: Results, search: Search) -> dict[str, Any]:
    """Colour of the search's target, and a line style that tells apart the searches of one target."""
    own = [other.name for other in results.searches if other.target == search.target]
    style = _STYLES[own.index(search.name) % len(_STYLES)]
    return {"color": target_colour(results.targets, search.target).light, "linestyle": style, "linewidth": 1.3}


def _course(axes: Any, results: Results, key: str, scale: float, label: str) -> None:
    xs: list[float] = []
    ys: list[float] = []
    for search in results.searches:
        epochs = [int(row["epoch"]) for row in search.history]
        values = [float(row[key]) * scale for row in search.history]
        axes.plot(epochs, values, **_look(results, search))
        xs, ys = [*xs, *epochs], [*ys, *values]
    _finish(axes, xs, [0.0, *ys] if key == "entropy" else ys, label)


def _latencies(axes: Any, results: Results, unit: str, units: set[str]) -> None:
    xs: list[float] = []
    ys: list[float] = []
    for search in results.searches:
        scale, _ = _scale(search)
        epochs = [int(row["epoch"]) for row in search.history]
        expected = [float(row["expected_latency_ms"]) * scale for row in search.history]
        decoded = [float(row["latency_ms"]) * scale for row in search.history]
        look = _look(results, search)
        axes.plot(epochs, expected, **look)
        axes.plot(epochs, decoded, **{**look, "linewidth": 0.9}, alpha=0.4)
        xs, ys = [*xs, *epochs], [*ys, *expected, *decoded]
    if units == {"budget"}:
        axes.axhline(1.0, color=SOFT.light, linewidth=0.8)
        ys.append(1.0)
    _finish(axes, xs, ys, f"expected latency [{unit}]\n(pale: decoded network)")


def _finish(axes: Any, epochs: Sequence[float], values: Sequence[float], label: str) -> None:
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(color=GRID.light, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set(xlabel="epoch", ylabel=label)
    end_with_data(axes, epochs, values)


def _scale(search: Search) -> tuple[float, str]:
    ratio, expected = (
        float(search.history[-1].get(key) or 0) for key in ("expected_over_budget", "expected_latency_ms")
    )
    return (ratio / expected, "budget") if ratio > 0 and expected > 0 else (1.0, "ms")


def heat_map(search: Search, epochs: tuple[int, int], name: str) -> Picture:
    """Draw the probabilities of the candidates over the epochs, in a panel for each of at most `MOST_PANELS` layers.

    Args:
        search: Search.
        epochs: First and last epoch of the horizontal axis, which all heat maps of a page share.
        name: Name of the picture.
    """
    layers: dict[str, dict[str, list[float]]] = {}
    for row in search.probabilities:
        layers.setdefault(row["layer"], {}).setdefault(row["candidate"], []).append(float(row["probability"]))
    layers = dict(itertools.islice(layers.items(), MOST_PANELS))
    own = sorted({int(row["epoch"]) for row in search.probabilities})
    panels = [
        Panel(
            lambda axes, label=label, of=of: _layer(axes, label, of, own, epochs),  # type: ignore[misc]
            2.9, 0.62 + 0.13 * len(of), f"{search.target}: probabilities of {label}",
        )
        for label, of in layers.items()
    ]  # fmt: skip
    tallest = max(panel.height for panel in panels)
    longest = max(len(name) for of in layers.values() for name in of)
    margins = (min(1.6, 0.2 + 0.062 * longest), 0.08, 0.36, 0.22) if longest <= _LONGEST_FIXED else None
    panels = [replace(panel, height=tallest, margins=margins) for panel in panels]
    title = search.target if search.name == search.target else f"{search.target} ({search.name})"
    legend = Panel(_scale_of_probability, 2.9, 0.5, "colours of the probabilities")
    return Picture(name, panels, columns=4, title=title, target=search.target, legend=legend)


def _layer(
    axes: Any, label: str, candidates: dict[str, list[float]], own: Sequence[int], epochs: tuple[int, int]
) -> None:
    axes.imshow(
        list(candidates.values()), aspect="auto", vmin=0, vmax=1, cmap="viridis", interpolation="none",
        extent=(own[0] - 0.5, own[-1] + 0.5, len(candidates) - 0.5, -0.5),
    )  # fmt: skip
    axes.set_xlim(epochs[0] - 0.5, epochs[1] + 0.5)
    axes.set_xticks(sorted({epochs[0], (epochs[0] + epochs[1]) // 2, epochs[1]}))
    axes.set_yticks(range(len(candidates)), [plain(name) for name in candidates])
    axes.tick_params(labelsize=7, length=2)
    axes.set_title(plain(label), fontsize=8, loc="left", color=INK.light)
    axes.set_xlabel("epoch", fontsize=7, labelpad=1)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _scale_of_probability(axes: Any) -> None:
    axes.imshow(
        [[step / 50 for step in range(51)]], aspect="auto", cmap="viridis", vmin=0, vmax=1, interpolation="none",
        extent=(0, 1, 0, 1),
    )  # fmt: skip
    axes.set(yticks=[], xticks=[0, 0.5, 1], xlabel="probability")
    axes.tick_params(labelsize=7, length=2)
    axes.xaxis.label.set_size(7)
    for spine in axes.spines.values():
        spine.set_visible(False)
