"""The loader of the ground truth (`benchmarks/search_quality/ground_truth`) against numbers made by hand."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest

from benchmarks.search_quality.ground_truth.contenders import contenders
from benchmarks.search_quality.ground_truth.load import NETWORKS_CSV, SPACE, GroundTruth
from benchmarks.search_quality.ground_truth.train import all_architectures
from benchmarks.search_quality.rescore import rescore
from benchmarks.search_quality.tables import ground_truth
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


def test_networks_may_have_different_numbers_of_trainings(tmp_path: Path, names: list[str]) -> None:
    accuracies = {
        names[0]: (0.50, 0.52),
        names[1]: (0.60, 0.61, 0.65),
        names[2]: (0.9,),  # trained with one seed only so far, so the ground truth leaves it out
    }
    truth = GroundTruth(written(tmp_path / "networks.csv", accuracies))
    order = [truth.index(name) for name in names[:2]]
    assert truth.names == sorted(names[:2])
    assert truth.accuracy[order] == pytest.approx([0.51, 0.62])
    assert truth.trainings[order].tolist() == [2, 3]
    # Squares: 2 · 0.01² and 0.02² + 0.01² + 0.03², with one and two degrees of freedom
    assert truth.seed_noise == pytest.approx(np.sqrt(0.0016 / 3))
    assert truth.standard_error[order] == pytest.approx(truth.seed_noise / np.sqrt([2, 3]))
    with pytest.raises(KeyError):
        truth.index(names[2])


def test_scores(tmp_path: Path, names: list[str]) -> None:
    """With little noise, estimates are the means."""
    accuracies = {names[i]: (0.5099 + 0.01 * i, 0.5101 + 0.01 * i) for i in range(9)}
    truth = GroundTruth(written(tmp_path / "networks.csv", accuracies))
    latency = {name: float(i) for i, name in enumerate(names[:9])}
    truth.latency_ms["device"] = np.array([latency[name] for name in truth.names])
    score = truth.score(names[3], "device", 5.0)  # six networks take 5 ms or less, and it is the fourth of them
    assert score.within_budget
    assert score.best_accuracy == pytest.approx(0.56, abs=2e-4)
    assert score.regret == pytest.approx(0.02, abs=2e-4)
    assert score.percentile == pytest.approx(100 * 3.5 / 6)
    assert not truth.score(names[6], "device", 5.0).within_budget
    assert truth.budget("device", 0.5) == 4.0


def test_contenders_are_chosen_by_the_first_seeds(tmp_path: Path, names: list[str]) -> None:
    accuracies: dict[str, tuple[float, ...]] = {name: (0.5 + 0.001 * i,) * 2 for i, name in enumerate(names)}
    exported = tmp_path / "searches.csv"
    exported.write_text(f"architecture\n{names[0]}\n")
    truth = GroundTruth(written(tmp_path / "networks.csv", accuracies))
    chosen = contenders(truth, best=2, results=(exported,), random_seeds=0)
    assert {names[0], names[-1]} < set(chosen)
    assert len(chosen) <= 1 + 2 * 6  # two of each target and budget
    accuracies[names[-1]] += (0.1,) * 5  # later trainings change nothing
    assert contenders(GroundTruth(written(tmp_path / "more.csv", accuracies)), 2, (exported,), 0) == chosen


def test_rescored_rows_have_the_scores_of_the_ground_truth(tmp_path: Path) -> None:
    truth = ground_truth()
    path = tmp_path / "searches.csv"
    path.write_text(
        "strategy,target,budget,seed,architecture,accuracy,best_accuracy,regret,percentile,within_budget\n"
        f"ours,cpu_torch,0.5,7,{truth.names[0]},0.1,0.2,0.1,50.0,False\n"
    )
    assert rescore(path, truth) == 1
    row = read_csv(path)[0]
    score = truth.score(truth.names[0], "cpu_torch", truth.budget("cpu_torch", 0.5))
    assert (row["strategy"], row["seed"], row["architecture"]) == ("ours", "7", truth.names[0])
    assert float(row["regret"]) == pytest.approx(score.regret, abs=1e-6)
    assert float(row["accuracy"]) == pytest.approx(score.accuracy, abs=1e-6)
    assert row["within_budget"] == str(score.within_budget)
    assert rescore(path, truth) == 0


def test_every_network_is_trained_once(names: list[str]) -> None:
    made = [architecture.candidate_names for architecture in all_architectures(SpaceSpec.from_yaml(str(SPACE)))]
    assert sorted(made) == sorted(names)
    assert len(set(made)) == len(made)
    assert 200 <= len(made) <= 400


def test_the_committed_ground_truth(names: list[str]) -> None:
    """It contains only networks of the space, no training twice, and both targets."""
    truth = ground_truth()
    assert set(truth.names) <= set(names)
    rows = [(row["architecture"], row["seed"]) for row in read_csv(NETWORKS_CSV)]
    assert len(set(rows)) == len(rows)
    assert set(truth.latency_ms) == {"cpu_torch", "cpu_onnxruntime"}
