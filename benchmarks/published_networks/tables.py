"""Tables and the picture of published accuracy against measured latency, made from the CSV file."""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.constants import PUBLISHED_RESULTS
from benchmarks.labels import place_labels
from benchmarks.markdown import markdown_table, rounded
from benchmarks.published_networks.networks import BASELINE, MOBILENET_V2, NETWORKS, OTHERS, PROXYLESS, Network
from benchmarks.results_csv import read_rows

Row = dict[str, str]
RESULTS = PUBLISHED_RESULTS / "published_networks.csv"
PICTURE = PUBLISHED_RESULTS / "published_networks.png"
# Name of a runtime to its backend and number format.
RUNTIMES = {
    "PyTorch": ("torch", "float32"),
    "ONNX Runtime": ("onnxruntime", "float32"),
    "ONNX Runtime int8": ("onnxruntime", "int8"),
    "OpenVINO": ("openvino", "float32"),
    "OpenVINO int8": ("openvino", "int8"),
    "MNN": ("mnn", "float32"),
    "ncnn": ("ncnn", "float32"),
}
HEADLINE = 1.8  # how much faster than MobileNetV2 1.4 the paper's network is on a Pixel 1
Latencies = Mapping[tuple[str, str], float]


def latencies(rows: Iterable[Row]) -> dict[tuple[str, str], float]:
    """Latency of each network in each runtime in milliseconds, by runtime and network.

    It is the median over all processes of the ratio to the reference network, times the reference's lowest latency in
    any process: some processes have slower memory than others.
    """
    ratios: dict[tuple[str, str], list[float]] = defaultdict(list)
    levels: dict[str, float] = {}
    for row in rows:
        reference = float(row["reference_ms"])
        ratios[row["runtime"], row["network"]].append(float(row["ms"]) / reference)
        levels[row["runtime"]] = min(reference, levels.get(row["runtime"], reference))
    return {key: statistics.median(found) * levels[key[0]] for key, found in ratios.items()}


def spread(rows: Iterable[Row]) -> float:
    """How far processes differ: the largest ratio to the reference divided by the smallest, minus 1, as a mean.

    The mean is over all networks and runtimes with several processes.
    """
    ratios: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        ratios[row["runtime"], row["network"]].append(float(row["ms"]) / float(row["reference_ms"]))
    return statistics.fmean(max(found) / min(found) - 1 for found in ratios.values() if len(found) > 1)


def front(found: Latencies, runtime: str, networks: Iterable[Network] = NETWORKS) -> list[Network]:
    """Networks to which no other one is at least as accurate and as fast in a runtime; the fastest one first."""
    best: list[Network] = []
    for network in sorted(networks, key=lambda n: (found[runtime, n.name], -n.top1)):
        if not best or network.top1 > best[-1].top1:
            best.append(network)
    return best


def published_networks() -> str:
    """Published accuracy, size and latency of each network; those on a runtime's front are in bold."""
    found = latencies(read_rows(RESULTS))
    on_front = {runtime: front(found, runtime) for runtime in RUNTIMES}
    rows = []
    for network in sorted(NETWORKS, key=lambda n: n.top1):
        cells = []
        for runtime in RUNTIMES:
            cell = rounded(found[runtime, network.name], 1)
            cells.append(f"**{cell}**" if network in on_front[runtime] else cell)
        top1 = f"[{rounded(network.top1, 1)}]({network.source})"
        rows.append((f"`{network.name}`", top1, rounded(network.multiply_adds_m, 0), *cells))
    return markdown_table(("network", "top-1, %", "multiply-adds, M", *(f"{name}, ms" for name in RUNTIMES)), rows)


def published_headline() -> str:
    """How much faster the networks of ProxylessNAS are than MobileNetV2 1.4, in each runtime."""
    found = latencies(read_rows(RESULTS))
    networks = [network for network in NETWORKS if network.family == PROXYLESS]
    columns = (
        "runtime", f"`{BASELINE.name}`, ms",
        *(f"`{n.name}` ({n.top1 - BASELINE.top1:+.1f} points)" for n in networks),
    )  # fmt: skip
    rows = [
        (
            runtime,
            rounded(found[runtime, BASELINE.name], 1),
            *(f"{rounded(found[runtime, BASELINE.name] / found[runtime, n.name], 2)} ×" for n in networks),
        )
        for runtime in RUNTIMES
    ]
    return markdown_table(columns, rows)


def draw(path: Path = PICTURE) -> None:
    """Draw published accuracy against latency, a panel for each runtime."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    from nni_proxyless.report.colours import TARGET_COLOURS

    found = latencies(read_rows(RESULTS))
    figure, axes = pyplot.subplots(2, 4, figsize=(16, 9), dpi=110, sharey=True)
    texts: dict[Any, list[tuple[float, float, str]]] = defaultdict(list)
    for axis, runtime in zip(axes.flat, RUNTIMES, strict=False):
        for colour, marker, family in zip(
            (one.light for one in TARGET_COLOURS), "osD", (PROXYLESS, MOBILENET_V2, OTHERS), strict=False
        ):
            points = sorted((found[runtime, n.name], n.top1, n.name) for n in NETWORKS if n.family == family)
            axis.plot(
                [x for x, _, _ in points], [y for _, y, _ in points], marker, color=colour, label=family,
                linestyle="-" if family == MOBILENET_V2 else "none",
            )  # fmt: skip
            texts[axis] += [(x, y, re.sub("proxyless_|mobilenet_v2_|_x1_5", "", name)) for x, y, name in points]
        axis.set_title(runtime, fontsize=10)
        axis.set_xlabel("latency, ms")
        axis.set_xscale("log")
        for along in (axis.xaxis.set_major_formatter, axis.xaxis.set_minor_formatter):
            along(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        axis.tick_params(which="both", labelsize=7)
        axis.grid(alpha=0.3, which="both")
        axis.margins(x=0.5)
    for axis in axes[:, 0]:
        axis.set_ylabel("published top-1, %")
    last = axes.flat[len(RUNTIMES)]
    last.axis("off")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    last.legend(handles, labels, loc="center")
    figure.tight_layout()
    for axis, labels in texts.items():
        place_labels(axis, labels, size=7.5)
    figure.savefig(path, dpi=figure.dpi)
    pyplot.close(figure)


TABLES = {"published_networks": published_networks, "published_headline": published_headline}
