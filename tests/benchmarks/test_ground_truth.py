"""The loader of the ground truth (`benchmarks/search_quality/ground_truth`) against numbers made by hand."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest

from benchmarks.search_quality.ground_truth.load import NETWORKS_CSV, SPACE, GroundTruth
from benchmarks.search_quality.ground_truth.train import all_architectures
from nni_proxyless.network.space_spec import SpaceSpec
from tests.helpers import read_csv


@pytest.fixture
def names() -> list[str]:
    spec = SpaceSpec.from_yaml(str(SPACE))
    return [" ".join(of) for of in itertools.product(*(layer.names for layer in spec.layers))]


def written(path: Path, accuracies: dict[str, tuple[float, ...]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["architecture", "seed", "test_accuracy", "train_loss", "seconds"])
        for name, of in accuracies.items():
            writer.writerows([name, seed, accuracy, 1.0, 1.0] for seed, accuracy in enumerate(of))
    return path


def test_scores(tmp_path: Path, names: list[str]) -> None:
    accuracies = {names[i]: (0.5 + 0.01 * i, 0.52 + 0.01 * i) for i in range(9)}
    accuracies[names[9]] = (0.9,)  # trained with one seed only so far, so the ground truth leaves it out
    truth = GroundTruth(written(tmp_path / "networks.csv", accuracies))
    assert truth.names == sorted(names[:9])
    assert truth.accuracy == pytest.approx([np.mean(accuracies[name]) for name in truth.names])
    assert truth.seed_noise == pytest.approx(0.02 / np.sqrt(2))
    latency = {name: float(i) for i, name in enumerate(names[:9])}
    truth.latency_ms["device"] = np.array([latency[name] for name in truth.names])
    score = truth.score(names[3], "device", 5.0)  # six networks take 5 ms or less, and it is the fourth of them
    assert score.within_budget
    assert score.best_accuracy == pytest.approx(0.56)
    assert score.regret == pytest.approx(0.02)
    assert score.percentile == pytest.approx(100 * 3.5 / 6)
    assert not truth.score(names[6], "device", 5.0).within_budget
    assert truth.budget("device", 0.5) == 4.0
    with pytest.raises(KeyError):
        truth.score(names[9], "device", 5.0)


def test_every_network_is_trained_once(names: list[str]) -> None:
    made = [architecture.candidate_names for architecture in all_architectures(SpaceSpec.from_yaml(str(SPACE)))]
    assert sorted(made) == sorted(names)
    assert len(set(made)) == len(made)
    assert 200 <= len(made) <= 400


def test_the_committed_ground_truth(names: list[str]) -> None:
    """It contains only networks of the space, no training twice, and both targets."""
    truth = GroundTruth()
    assert set(truth.names) <= set(names)
    rows = [(row["architecture"], row["seed"]) for row in read_csv(NETWORKS_CSV)]
    assert len(set(rows)) == len(rows)
    assert set(truth.latency_ms) == {"cpu_torch", "cpu_onnxruntime"}
