"""The figures of a report, as PNG. Most people with a colour vision deficiency can tell their colours apart."""

from __future__ import annotations

import io
import itertools
import math
import warnings
from collections.abc import Sequence
from typing import Any

from ..errors import MissingDependencyError
from .checks import clean
from .gather import Results, Search
from .tables import Point, Row, front

KERNEL_COLOURS = {1: "#999999", 3: "#56B4E9", 5: "#009E73", 7: "#E69F00"}
OTHER_KERNEL = "#CC79A7"
KINDS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
_MARKERS = "os^Dv<>P"
WIDTH = 12.0  # inches, which are 1200 pixels at 100 dots per inch
# Matplotlib draws at most 65,536 pixels.
MOST_DRAWN = 60  # networks or targets
MOST_PANELS = 400


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
        raise MissingDependencyError(f"{purpose} needs matplotlib: pip install 'nni-proxyless[plot]'") from reason


def architectures(drawn: Sequence[tuple[str, Sequence[Row]]]) -> bytes:
    """Draw networks one below the other, block by block, as in the paper's figure 5.

    Args:
        drawn: Title and rows (see `tables.drawn_blocks`) of each network.
    """
    from matplotlib.patches import Patch, Rectangle

    figure = draw_empty(WIDTH, 0.9 + 2.1 * len(drawn))
    all_axes = figure.subplots(len(drawn), 1, squeeze=False)[:, 0]
    # Block heights are relative to the largest expansion ratio, which is at least 6, the largest of the paper's space.
    largest = max([6, *(int(r["expansion"]) for _, rows in drawn for r in rows if r["kind"] == "mbconv")])
    kernels = sorted({int(r["kernel"]) for _, rows in drawn for r in rows if r["kind"] == "mbconv"})
    for axes, (title, rows) in zip(all_axes, drawn, strict=True):
        for row in rows:
            x = int(row["position"])
            if row["kind"] == "skip":
                box = Rectangle((x - 0.42, 0), 0.84, 0.28, fill=False, linestyle="--", edgecolor="0.55")
                axes.text(x, 0.14, "skip", ha="center", va="center", fontsize=8, color="0.45")
            else:
                expansion = int(row["expansion"])
                height = 0.3 + 0.7 * expansion / largest if row["kind"] == "mbconv" else 0.45
                colour = _colour(row)
                box = Rectangle((x - 0.42, 0), 0.84, height, facecolor=colour, edgecolor="0.2", linewidth=0.8)
                axes.text(x, height / 2, _label(row), ha="center", va="center", fontsize=8, rotation=90)
                size = f"{row['size']}²" if isinstance(row["size"], int) else row["size"]
                axes.text(x, -0.06, f"{row['width']}\n{size}", ha="center", va="top", fontsize=7, color="0.3")
            axes.add_patch(box)
        for before, row in itertools.pairwise(rows):
            if row["stage"] != before["stage"]:
                axes.axvline(int(row["position"]) - 0.5, color="0.75", linewidth=1)
        axes.set(xlim=(-0.6, len(rows) - 0.4), ylim=(-0.45, 1.12), yticks=[], xticks=[])
        for side in ("top", "right", "left", "bottom"):
            axes.spines[side].set_visible(False)
        axes.set_title(_plain(title), fontsize=11, loc="left")
    legend = [
        Patch(facecolor=KERNEL_COLOURS.get(k, OTHER_KERNEL), edgecolor="0.2", label=f"{k} x {k}") for k in kernels
    ]
    figure.legend(
        handles=legend, loc="outside upper right", ncols=max(1, len(legend)), fontsize=9, frameon=False,
        title="depthwise kernel; height: expansion; below: width and size of maps", title_fontsize=8,
    )  # fmt: skip
    return png_of(figure)


def accuracy_against_latency(points: Sequence[Point], targets: Sequence[str]) -> bytes:
    """Plot the accuracy and latency of all networks for each target, with the Pareto front.

    Args:
        points: Networks that searches have found, and baselines.
        targets: Names of the targets, one plot each.
    """
    columns = min(2, len(targets))
    rows = math.ceil(len(targets) / columns)
    figure = draw_empty(WIDTH, 4.6 * rows)
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    kinds = list(dict.fromkeys(point.kind for point in points))
    for axes in grid[len(targets) :]:
        axes.set_visible(False)
    for axes, target in zip(grid, targets, strict=False):
        here = [point for point in points if point.target == target]
        for number, kind in enumerate(kinds):
            for trained in (False, True):
                some = [point for point in here if point.kind == kind and point.trained == trained]
                if some:
                    colour = KINDS[number % len(KINDS)]
                    axes.scatter(
                        [p.latency_ms for p in some], [100 * p.accuracy for p in some], s=48,
                        marker=_MARKERS[number % len(_MARKERS)], edgecolors=colour,
                        facecolors=colour if trained else "none",
                        label=_plain(f"{kind}{', retrained' if trained else ''}"),
                    )  # fmt: skip
        # Accuracies with a supernet's weights are not comparable with those of retrained networks, so each kind has its
        # own front.
        for trained, style in ((True, "-"), (False, ":")):
            best = front([point for point in here if point.trained == trained])
            if len(best) > 1:
                axes.plot([p.latency_ms for p in best], [100 * p.accuracy for p in best], style, color="0.5", zorder=0)
        axes.set(xlabel="latency [ms], measured if possible", ylabel="top-1 accuracy [%]")
        axes.set_title(_plain(target), fontsize=11)
        axes.grid(color="0.92")
        axes.legend(fontsize=8, frameon=False)
    return png_of(figure)


def progress(results: Results) -> bytes:
    """Plot the expected latency relative to the budget, the entropy and the accuracy of each search over its epochs."""
    figure = draw_empty(WIDTH, 3.9)
    latency, entropy, accuracy = figure.subplots(1, 3)
    for number, search in enumerate(results.searches):
        colour = KINDS[number % len(KINDS)]
        style = ("-", "--", ":", "-.")[number // len(KINDS) % 4]
        epochs = [int(row["epoch"]) for row in search.history]
        scale, _ = _scale(search)

        def column(key: str, search: Search = search, scale: float = 1.0) -> list[float]:
            return [float(row[key]) * scale for row in search.history]

        latency.plot(epochs, column("expected_latency_ms", scale=scale), style, color=colour, label=_plain(search.name))
        latency.plot(epochs, column("latency_ms", scale=scale), style, color=colour, alpha=0.35, linewidth=1)
        entropy.plot(epochs, column("entropy"), style, color=colour)
        accuracy.plot(epochs, column("default", scale=100.0), style, color=colour)
    units = {_scale(search)[1] for search in results.searches}
    if units == {"budget"}:
        latency.axhline(1.0, color="0.4", linewidth=0.8)
    unit = "part of the budget" if units == {"budget"} else "ms" if units == {"ms"} else "ms, or part of the budget"
    latency.set(xlabel="epoch", ylabel=f"expected latency [{unit}]\n(pale: decoded network)")
    entropy.set(xlabel="epoch", ylabel="mean entropy of layers [nats]", ylim=(0, None))
    accuracy.set(xlabel="epoch", ylabel="accuracy of the decoded network [%]")
    for axes in (latency, entropy, accuracy):
        axes.grid(color="0.92")
    if len(results.searches) <= 12:
        figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return png_of(figure)


def _scale(search: Search) -> tuple[float, str]:
    ratio, expected = (
        float(search.history[-1].get(key) or 0) for key in ("expected_over_budget", "expected_latency_ms")
    )
    return (ratio / expected, "budget") if ratio > 0 and expected > 0 else (1.0, "ms")


def heat_map(search: Search) -> bytes:
    """Draw the probabilities of the candidates over the epochs, in a panel for each of at most `MOST_PANELS` layers."""
    layers: dict[str, dict[str, list[float]]] = {}
    for row in search.probabilities:
        layers.setdefault(row["layer"], {}).setdefault(row["candidate"], []).append(float(row["probability"]))
    layers = dict(itertools.islice(layers.items(), MOST_PANELS))
    epochs = sorted({int(row["epoch"]) for row in search.probabilities})
    columns = min(4, len(layers))
    rows = math.ceil(len(layers) / columns)
    figure = draw_empty(WIDTH, 0.6 + 1.55 * rows)
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in grid[len(layers) :]:
        axes.set_visible(False)
    image: Any = None
    for axes, (label, candidates) in zip(grid, layers.items(), strict=False):
        extent = (epochs[0] - 0.5, epochs[-1] + 0.5, len(candidates) - 0.5, -0.5)
        image = axes.imshow(
            list(candidates.values()),
            aspect="auto",
            vmin=0,
            vmax=1,
            cmap="viridis",
            extent=extent,
            interpolation="nearest",
        )
        axes.set_yticks(range(len(candidates)), [_plain(name) for name in candidates], fontsize=7)
        axes.tick_params(axis="x", labelsize=7)
        axes.set_title(_plain(label), fontsize=8)
    figure.colorbar(image, ax=list(grid), label="probability", fraction=0.02)
    return png_of(figure)


def predicted_against_measured(rows: Sequence[Row]) -> bytes:
    """Plot predicted against measured latencies, with the line on which they are equal.

    Args:
        rows: Rows of `tables.predicted_and_measured`.
    """
    figure = draw_empty(6.5, 5.2)
    axes = figure.subplots()
    values = [float(row[key]) for row in rows for key in ("predicted_latency_ms", "measured_latency_ms")]
    ends = [0.9 * min(values), 1.1 * max(values)]
    axes.plot(ends, ends, color="0.6", linewidth=1)
    for number, target in enumerate(dict.fromkeys(str(row["target"]) for row in rows)):
        some = [row for row in rows if row["target"] == target]
        axes.scatter(
            [row["measured_latency_ms"] for row in some], [row["predicted_latency_ms"] for row in some], s=40,
            marker=_MARKERS[number % len(_MARKERS)], color=KINDS[number % len(KINDS)], label=_plain(target),
        )  # fmt: skip
    axes.set(xlim=ends, ylim=ends, xscale="log", yscale="log")
    axes.set(xlabel="measured latency [ms]", ylabel="predicted latency [ms]")
    axes.legend(fontsize=8, frameon=False, title="found for")
    axes.grid(color="0.92")
    return png_of(figure)


def _label(row: Row) -> str:
    if row["kind"] == "conv":
        return f"conv {row['kernel']}x{row['kernel']}"
    return "linear" if row["kind"] == "classifier" else f"MB{row['expansion']} {row['kernel']}x{row['kernel']}"


def _colour(row: Row) -> str:
    return KERNEL_COLOURS.get(int(row["kernel"]), OTHER_KERNEL) if row["kind"] == "mbconv" else "#EEEEEE"


def draw_empty(width: float, height: float) -> Any:
    """Return an empty figure of a size in inches, which needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _plain(text: str) -> str:
    """Return a name as Matplotlib shows it: without formulas, which begin with $, and never left out of a legend."""
    text = clean(text).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def png_of(figure: Any) -> bytes:
    """Return a figure as a PNG file."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a box stands for the character
        figure.savefig(buffer, format="png")
    return buffer.getvalue()
