"""The pictures of networks: architectures, accuracy against latency, predicted against measured latency, and fronts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from ..decoding.budgets import QUANTITIES
from .colours import (
    BASELINE,
    BLOCK,
    GRID,
    INK,
    KERNEL_COLOURS,
    MARKERS,
    ON_KERNEL,
    OTHER_KERNEL,
    PAPER,
    SOFT,
    target_colour,
    target_marker,
)
from .drawing import Panel, Picture, end_with_data, plain
from .results import Front
from .tables import TEST, Point, Row, front

# Matplotlib draws at most 65,536 pixels.
MOST_DRAWN = 60  # networks or targets
_PANEL = (4.0, 3.0)  # inches
_BLOCK_WIDTH = 0.44  # inches
LIKELIHOODS = ("log_likelihood", "likelihood")


def architectures(drawn: Sequence[tuple[str, Sequence[Row]]], every: Sequence[str] = ()) -> Picture:
    """Draw networks one below the other, block by block, as in the paper's figure 5.

    Args:
        drawn: Title and rows (see `tables.drawn_blocks`) of each network.
        every: Names of all targets, which give each its colour.
    """
    # Block heights are relative to the largest expansion ratio, which is at least 6, the largest of the paper's space.
    blocks = [row for _, rows in drawn for row in rows if row["kind"] == "mbconv"]
    largest = max([6, *(int(row["expansion"]) for row in blocks)])
    kernels = sorted({int(row["kernel"]) for row in blocks})
    width = max([6.0, *(_BLOCK_WIDTH * len(rows) for _, rows in drawn)])
    panels = [
        Panel(lambda axes, title=title, rows=rows: _network(axes, title, rows, largest, every), width, 2.45, title)  # type: ignore[misc]
        for title, rows in drawn
    ]
    legend = Panel(lambda axes: _kernels(axes, kernels), 5.0, 0.4, "colours of the kernel sizes")
    return Picture("architectures", panels, wide=True, legend=legend if kernels else None)


def _network(axes: Any, title: str, rows: Sequence[Row], largest: int, every: Sequence[str]) -> None:
    from matplotlib.patches import Rectangle

    for row in rows:
        x = int(row["position"])
        if row["kind"] == "skip":
            box = Rectangle((x - 0.42, 0), 0.84, 0.28, fill=False, linestyle="--", edgecolor=SOFT.light)
            axes.text(x, 0.14, "skip", ha="center", va="center", color=SOFT.light)
        else:
            searched = row["kind"] == "mbconv"
            height = 0.3 + 0.7 * int(row["expansion"]) / largest if searched else 0.5
            colour = KERNEL_COLOURS.get(int(row["kernel"]), OTHER_KERNEL) if searched else BLOCK.light
            box = Rectangle((x - 0.42, 0), 0.84, height, facecolor=colour, edgecolor=SOFT.light, linewidth=0.8)
            on = ON_KERNEL if searched else INK.light
            axes.text(x, height / 2, _label(row), ha="center", va="center", rotation=90, color=on, fontsize=7.5)
            size = f"{row['size']}²" if isinstance(row["size"], int) else row["size"]
            axes.text(x, -0.06, f"{row['width']}\n{size}", ha="center", va="top", fontsize=7, color=SOFT.light)
        axes.add_patch(box)
    for before, row in itertools.pairwise(rows):
        if row["stage"] != before["stage"]:
            axes.axvline(int(row["position"]) - 0.5, color=GRID.light, linewidth=1)
    axes.set(xlim=(-0.6, len(rows) - 0.4), ylim=(-0.5, 1.1))
    axes.set_axis_off()
    own = target_colour(every, str(rows[0].get("target", "")))
    axes.set_title("\n".join(map(plain, title.split("\n"))), loc="left", color=own.light, fontsize=8.5)


def _kernels(axes: Any, kernels: Sequence[int]) -> None:
    from matplotlib.patches import Patch

    shown = [
        Patch(facecolor=KERNEL_COLOURS.get(k, OTHER_KERNEL), edgecolor=SOFT.light, label=f"{k} × {k}") for k in kernels
    ]
    text = "depthwise kernel; height: expansion ratio; below: width and size of the feature maps"
    _legend_only(axes, shown, [str(patch.get_label()) for patch in shown], len(shown), text)


def _legend_only(axes: Any, handles: Sequence[Any], names: Sequence[str], columns: int, title: str = "") -> None:
    axes.set_axis_off()
    axes.legend(
        handles, names, loc="upper left", ncols=max(1, columns), frameon=False, borderaxespad=0, title=title or None,
        title_fontsize=8, alignment="left",
    )  # fmt: skip


def accuracy_against_latency(points: Sequence[Point], targets: Sequence[str], every: Sequence[str]) -> Picture:
    """Plot the accuracy and latency of all networks for each target, with the Pareto fronts.

    Args:
        points: Networks that searches have found, and baselines.
        targets: Names of the targets, one plot each.
        every: Names of all targets, which give each its colour.
    """
    kinds = list(dict.fromkeys(point.kind for point in sorted(points, key=lambda p: p.baseline)))
    panels = [
        Panel(
            lambda axes, target=target: _accuracies(  # type: ignore[misc]
                axes, [point for point in points if point.target == target], target, every, kinds
            ),
            *_PANEL,
            f"accuracy against latency on {target}",
        )
        for target in targets
    ]
    pairs = {(point.kind, point.trained) for point in points}
    legend = Panel(lambda axes: _kinds(axes, points, kinds), 5.0, 0.15 + 0.18 * ((len(pairs) + 1) // 2), "markers")
    return Picture("accuracy_latency", panels, columns=2, legend=legend)


def _accuracies(axes: Any, here: Sequence[Point], target: str, every: Sequence[str], kinds: Sequence[str]) -> None:
    for point in here:
        colour = BASELINE.light if point.baseline else target_colour(every, target).light
        axes.scatter(
            [point.latency_ms], [100 * point.accuracy], s=42, marker=MARKERS[kinds.index(point.kind) % len(MARKERS)],
            edgecolors=colour, facecolors=colour if point.trained else PAPER.light, linewidths=1.3, zorder=3,
        )  # fmt: skip
    # Accuracies on different images, or with a supernet's weights, are not comparable, so each kind has its own front.
    for trained, images in dict.fromkeys((point.trained, point.accuracy_on) for point in here):
        best = front([point for point in here if (point.trained, point.accuracy_on) == (trained, images)])
        style = ":" if not trained else "-" if images == TEST else "--"
        if len(best) > 1:
            axes.plot(
                [p.latency_ms for p in best], [100 * p.accuracy for p in best], style, color=SOFT.light, linewidth=1
            )
    axes.grid(color=GRID.light, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set(xlabel="latency [ms], measured if possible", ylabel=f"top-1 accuracy [%] on\n{_images(here)}")
    axes.set_title(plain(target), loc="left", color=target_colour(every, target).light, fontweight="bold")
    if here:
        end_with_data(axes, [p.latency_ms for p in here], [100 * p.accuracy for p in here])


def _images(here: Sequence[Point]) -> str:
    """Name the images of the accuracies of retrained and of other networks."""
    trained = {point.accuracy_on for point in here if point.trained}
    others = {point.accuracy_on for point in here if not point.trained}
    if len(trained | others) == 1:
        return next(iter(trained | others))
    return f"{' and '.join(sorted(trained))} (hollow: {' and '.join(sorted(others))})" if others else "different images"


def _kinds(axes: Any, points: Sequence[Point], kinds: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    def mark(kind: str, *, filled: bool) -> Any:
        colour = BASELINE.light if any(p.kind == kind and p.baseline for p in points) else INK.light
        return Line2D(
            [], [], linestyle="none", marker=MARKERS[kinds.index(kind) % len(MARKERS)], markersize=6,
            markeredgecolor=colour, markerfacecolor=colour if filled else PAPER.light,
        )  # fmt: skip

    pairs = list(dict.fromkeys((p.kind, p.trained, p.baseline) for p in points))
    pairs.sort(key=lambda pair: (kinds.index(pair[0]), not pair[1]))
    names = [f"{k}, {'baseline' if b else 'retrained' if t else 'weights of the supernet'}" for k, t, b in pairs]
    _legend_only(axes, [mark(k, filled=t) for k, t, _ in pairs], [plain(name) for name in names], 2)


def predicted_against_measured(rows: Sequence[Row], every: Sequence[str]) -> Picture:
    """Plot predicted against measured latencies, with the line on which they are equal.

    Args:
        rows: Rows of `tables.predicted_and_measured`.
        every: Names of all targets, which give each its colour.
    """
    panel = Panel(lambda axes: _predictions(axes, rows, every), 4.4, 3.6, "predicted against measured latency")
    return Picture("predicted_measured", [panel])


def _predictions(axes: Any, rows: Sequence[Row], every: Sequence[str]) -> None:
    values = [float(row[key]) for row in rows for key in ("predicted_latency_ms", "measured_latency_ms")]
    ends = [min(values), max(values)]
    axes.plot(ends, ends, color=SOFT.light, linewidth=1)
    for target in dict.fromkeys(str(row["target"]) for row in rows):
        some = [row for row in rows if row["target"] == target]
        axes.scatter(
            [row["measured_latency_ms"] for row in some], [row["predicted_latency_ms"] for row in some], s=36,
            marker=target_marker(every, target), color=target_colour(every, target).light, label=plain(target),
            zorder=3,
        )  # fmt: skip
    axes.grid(color=GRID.light, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set(xlabel="measured latency [ms]", ylabel="predicted latency [ms]")
    axes.legend(frameon=False, title="found for", title_fontsize=8, loc="upper left")
    if ends[1] / ends[0] > 8:
        _logarithmic(axes, ends)
    else:
        end_with_data(axes, ends, ends)


def _logarithmic(axes: Any, ends: Sequence[float]) -> None:
    ticks = [base * 10.0**power for power in range(-7, 9) for base in (1, 2, 5)]
    inside = [tick for tick in ticks if ends[0] <= tick <= ends[1]]
    inside = inside if len(inside) <= 8 else [tick for tick in inside if f"{tick:e}".startswith("1")]
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set(xscale="log", yscale="log")
    for side, axis in (("bottom", axes.xaxis), ("left", axes.yaxis)):
        axis.set_view_interval(ends[0] / 1.15, ends[1] * 1.15, ignore=True)
        axes.spines[side].set_bounds(*ends)
        axis.set_ticks(inside, [f"{tick:g}" for tick in inside])
        axis.set_ticks([], minor=True)


def fronts(found: Sequence[Front], every: Sequence[str]) -> list[Picture]:
    """Draw fronts: each pair of quantities is a plot, likelihoods upwards.

    Args:
        found: Fronts that `decode` has written.
        every: Names of all targets, which give each its colour.
    """
    pictures = []
    for number, one in enumerate(found[:MOST_DRAWN]):
        upwards = [name for name in one.quantities if name in LIKELIHOODS]
        others = [name for name in one.quantities if name not in LIKELIHOODS]
        pairs = [(x, y) for y in upwards for x in others] or list(itertools.combinations(others, 2))
        panels = [
            Panel(lambda axes, one=one, x=x, y=y: _front(axes, one, x, y, every), *_PANEL, f"{y} against {x}")  # type: ignore[misc]
            for x, y in pairs
        ]
        pictures.append(Picture(f"front_{number + 1}", panels, columns=2, title=one.name))
    return pictures


def _front(axes: Any, one: Front, x: str, y: str, every: Sequence[str]) -> None:
    for number, table in enumerate(dict.fromkeys(str(row.get("table", "")) for row in one.rows)):
        some = sorted((row[x], row[y]) for row in one.rows if str(row.get("table", "")) == table)
        colour = target_colour(every, table)
        line = "-" if len(one.quantities) == 2 else "none"
        axes.plot(
            *zip(*some, strict=True), marker=MARKERS[number % len(MARKERS)], markersize=3.5, linestyle=line,
            linewidth=0.9, color=colour.light, label=plain(table or one.name),
        )  # fmt: skip
    axes.grid(color=GRID.light, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set(xlabel=plain(_words(x, every)), ylabel=plain(_words(y, every)))
    if any(row.get("table") for row in one.rows):
        axes.legend(frameon=False)
    end_with_data(axes, [row[x] for row in one.rows], [row[y] for row in one.rows])


def _words(quantity: str, targets: Sequence[str]) -> str:
    if quantity in LIKELIHOODS:
        return "log-likelihood [nats]"
    name, _, unit = quantity.rpartition("_")
    if unit == "ms":
        return f"{name} [ms]"
    if quantity in targets:
        return f"{quantity} [ms]"
    return quantity.replace("_", " ") + (" [bytes]" if QUANTITIES.get(quantity) == "bytes" else "")


def _label(row: Row) -> str:
    if row["kind"] == "conv":
        return f"conv {row['kernel']}×{row['kernel']}"
    return "linear" if row["kind"] == "classifier" else f"MB{row['expansion']} {row['kernel']}×{row['kernel']}"
