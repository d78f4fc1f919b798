"""Latency tables of the two targets, and measured latencies of the networks."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

from benchmarks.cifar10.settings import (
    LATENCY_COLUMNS,
    MOBILENET_WIDTHS,
    TARGETS,
    csv_path,
    network,
    read,
    spec,
    table_path,
)
from benchmarks.constants import BENCHMARKS, CIFAR10_RESULTS
from benchmarks.results_csv import append_rows, processor

LARGEST_DRIFT = 0.05  # of MobileNetV2 between rounds


def make_tables() -> None:
    """Measure the latency tables that do not exist yet."""
    from nni_proxyless.search.targets import Target

    CIFAR10_RESULTS.mkdir(parents=True, exist_ok=True)
    for name, settings in TARGETS.items():
        if not table_path(name).exists():
            Target.parse(name, settings, BENCHMARKS).latency_table(spec()).save(table_path(name))


def measure(strategies: Iterable[str], rounds: int) -> None:
    """Measure each found network on its target, if it has no latency on this processor yet.

    The networks take turns, in fresh processes. Each round starts with MobileNetV2. If MobileNetV2's latency differs
    from the rounds before, the machine has changed, and the round measures nothing else. A finished round is saved.
    """
    from nni_proxyless.search.targets import Target

    here, of = processor(), set(strategies)
    known = {(row["network"], row["target"]) for row in read("latency") if row["processor"] == here}
    wanted = dict.fromkeys((row["architecture"], row["target"]) for row in read("searches") if row["strategy"] in of)
    missing = [pair for pair in wanted if pair not in known]
    concerned = {target for _, target in missing}
    references = [(f"mobilenet_v2_{w}", t) for t in TARGETS if t in concerned for w in MOBILENET_WIDTHS]
    targets = {name: Target.parse(name, settings, BENCHMARKS) for name, settings in TARGETS.items()}

    def row(name: str, target: str, number: int) -> dict[str, Any]:
        took = targets[target].measure(network(name))
        return {"network": name, "target": target, "round": number, "milliseconds": round(took, 5), "processor": here}

    for number in range(rounds):
        before = [row for row in read("latency") if row["processor"] == here]
        rows = [row(*pair, number) for pair in references]
        drift = _drift(before, rows, references)
        if drift:
            sys.stdout.write(f"MobileNetV2, now to before: {', '.join(f'{ratio:.3f}' for ratio in drift)}\n")
        if drift and not 1 - LARGEST_DRIFT < np.median(drift) < 1 + LARGEST_DRIFT:
            sys.stdout.write(f"round {number} is left out: MobileNetV2 takes {np.median(drift):.2f} times as long\n")
            continue
        append_rows([*rows, *(row(*pair, number) for pair in missing)], csv_path("latency"), LATENCY_COLUMNS)
        sys.stdout.write(f"round {number}: {len(missing)} networks\n")
        sys.stdout.flush()


def _drift(found: list[dict[str, str]], rows: list[dict[str, Any]], pairs: list[tuple[str, str]]) -> list[float]:
    """Ratio of each pair's latency in `rows` to that in `found`, for the pairs that both have."""

    def median(of: Iterable[dict[str, Any]], pair: tuple[str, str]) -> float:
        return float(np.median([float(r["milliseconds"]) for r in of if (r["network"], r["target"]) == pair]))

    known = {(row["network"], row["target"]) for row in found}
    return [median(rows, pair) / median(found, pair) for pair in pairs if pair in known]
