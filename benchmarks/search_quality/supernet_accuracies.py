"""Accuracies with shared weights that `shared_weights.py` has measured for all networks of the ground truth."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from benchmarks.results_csv import read_rows
from benchmarks.search_quality.settings import SUPERNETS_CSV


def read_supernets(path: Path = SUPERNETS_CSV) -> dict[tuple[str, int], list[dict[str, str]]]:
    """Variant and seed of each supernet to its rows, one for each network."""
    found: dict[tuple[str, int], list[dict[str, str]]] = defaultdict(list)
    for row in read_rows(path):
        found[row["variant"], int(row["seed"])].append(row)
    return dict(found)


def shared_accuracies(rows: list[dict[str, str]]) -> dict[str, float]:
    """Network to accuracy with the weights of one supernet."""
    return {row["architecture"]: float(row["accuracy"]) for row in rows}
