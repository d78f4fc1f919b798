"""Draw the picture of the README from the committed CSV files of the CIFAR-10 benchmark.

    python -m benchmarks.readme_picture

On the left are the networks that were found for the two devices at one budget, block by block. On the right is the
accuracy of trained networks against their measured latency, where a ring marks the network on the left. There is a row
for each device.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

from benchmarks.cifar10.settings import MOBILENET, read, spec
from benchmarks.cifar10.summary import Points, lines, load_results
from benchmarks.constants import REPOSITORY, TARGET_NAMES, TARGETS
from nni_proxyless.report.colours import KERNEL_COLOURS, TARGET_COLOURS

PICTURE = REPOSITORY / "docs" / "images" / "devices.png"
PROCESSOR = "AMD EPYC family 25 model 17"  # the processor whose latency tables the searches used
BUDGET = "0.5"  # fraction of the largest network's latency
SEED = "0"
EXPANSIONS = (3, 6)
# Name in the CSV files, name in the picture, colour, marker and line.
FAMILIES = (
    ("proxyless", "ProxylessNAS (ours)", TARGET_COLOURS[0].light, "o", "none"),
    ("random_best_of_8", "random search, best of 8", TARGET_COLOURS[1].light, "^", "none"),
    (MOBILENET, "MobileNetV2, three widths", "0.35", "s", "-"),
)
WIDTH, HEIGHT, DPI = 9.0, 4.9, 200  # inches, and dots per inch


def found(target: str) -> str:
    """Name of the network that was found for a target: the candidates of its layers, such as `k5_e3 skip`.

    Raises:
        LookupError: There is not exactly one such search in the CSV file.
    """
    wanted = ("proxyless", target, BUDGET, SEED)
    rows = [row for row in read("searches") if (row["strategy"], row["target"], row["budget"], row["seed"]) == wanted]
    if len(rows) != 1:
        raise LookupError(f"searches.csv has {len(rows)} searches {wanted}, expected one")
    return rows[0]["architecture"]


def draw_blocks(axes: Any, candidates: list[str]) -> None:
    """Draw a network block by block: colour and number are the kernel size, the height is the expansion ratio."""
    from matplotlib.patches import Rectangle

    for x, name in enumerate(candidates):
        if name == "skip":
            axes.plot([x - 0.4, x + 0.4], [0, 0], color="0.7", linewidth=1.2, solid_capstyle="butt")
            continue
        kernel, expansion = (int(part[1:]) for part in name.split("_"))
        axes.add_patch(
            Rectangle((x - 0.42, 0), 0.84, expansion, facecolor=KERNEL_COLOURS[kernel], edgecolor="0.25", linewidth=0.6)
        )
        axes.text(x, expansion / 2, str(kernel), ha="center", va="center", fontsize=8)
    layers = spec().layers
    sizes = [layer.candidates["k3_e3"].output_shape[1] for layer in layers]
    stages = [layer.label.partition("_")[0] for layer in layers]
    for x, (before, after) in enumerate(itertools.pairwise(stages), start=1):
        if before != after:
            axes.axvline(x - 0.5, color="0.85", linewidth=0.8, zorder=0)
    for size in dict.fromkeys(sizes):
        inside = [x for x, of in enumerate(sizes) if of == size]
        axes.text(
            (inside[0] + inside[-1]) / 2, -0.45, f"{size} × {size}", ha="center", va="top", fontsize=8, color="0.3"
        )
    axes.set(xlim=(-0.6, len(layers) - 0.4), ylim=(-0.12, 6.4), xticks=[], yticks=EXPANSIONS)
    axes.set_ylabel("expansion ratio", fontsize=8)
    axes.tick_params(labelsize=8)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)


def draw_points(axes: Any, points: Points, target: str, marked: tuple[float, float]) -> None:
    """Draw accuracy against measured latency, with a ring around one point."""
    for family, name, colour, marker, line in FAMILIES:
        of = sorted(points[target, family])
        axes.plot(
            *zip(*of, strict=True), linestyle=line, marker=marker, markersize=5.5, color=colour, label=name, linewidth=1
        )
    axes.plot(*marked, linestyle="none", marker="o", markersize=11, color=TARGET_COLOURS[0].light, fillstyle="none")
    axes.set_ylabel("test accuracy, %", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(color="0.92")
    axes.set_axisbelow(True)


def draw() -> Any:
    """Draw the whole picture, as a Matplotlib figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(h_pad=0.06, hspace=0.06, wspace=0.04)
    grid = figure.subplots(len(TARGETS), 2, width_ratios=(1.35, 1))
    results = load_results()
    points = lines(results)[1][PROCESSOR]
    for (left, right), target in zip(grid, TARGETS, strict=True):
        name = found(target)
        candidates = name.split()
        blocks = sum(candidate != "skip" for candidate in candidates)
        draw_blocks(left, candidates)
        left.set_title(f"found for {TARGET_NAMES[target]}: {blocks} blocks", fontsize=9, loc="left")
        accuracy = sum(results.accuracy[name]) / len(results.accuracy[name])
        draw_points(right, points, target, (results.latency[PROCESSOR][name, target], accuracy))
        right.set_title(f"measured with {TARGET_NAMES[target]}", fontsize=9, loc="left")
    grid[-1][0].set_xlabel("searched layers, with the size of their feature maps", fontsize=8, labelpad=22)
    grid[-1][1].set_xlabel("measured latency of 8 images, ms", fontsize=8)
    kernels = [
        Patch(facecolor=KERNEL_COLOURS[size], edgecolor="0.25", label=f"{size} × {size} kernel") for size in (3, 5, 7)
    ]
    marks, names = grid[0][1].get_legend_handles_labels()
    figure.legend(
        [*kernels, *marks], [*(patch.get_label() for patch in kernels), *names],
        loc="outside lower center", ncols=6, fontsize=8, frameon=False, columnspacing=1.2, handletextpad=0.5,
    )  # fmt: skip
    return figure


def write(path: Path = PICTURE) -> Path:
    """Write the picture as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw().savefig(path, format="png")
    return path


def main() -> None:
    sys.stdout.write(f"{write().relative_to(REPOSITORY)}\n")


if __name__ == "__main__":
    main()
