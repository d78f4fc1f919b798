"""The loader of the ground truth (`benchmarks/ground_truth`) against numbers made by hand."""

from __future__ import annotations

import csv
import importlib.util
import itertools
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from nni_proxyless.network.space_spec import SpaceSpec
from tests.helpers import REPOSITORY

FOLDER = REPOSITORY / "benchmarks" / "ground_truth"


def module(name: str) -> ModuleType:
    described = importlib.util.spec_from_file_location(f"ground_truth_{name}", FOLDER / f"{name}.py")
    assert described is not None
    assert described.loader is not None
    made = importlib.util.module_from_spec(described)
    sys.modules[described.name] = made
    described.loader.exec_module(made)
    return made


@pytest.fixture
def names() -> list[str]:
    spec = SpaceSpec.from_yaml(str(FOLDER / "space.yml"))
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
    accuracies[names[9]] = (0.9,)  # trained with one seed only so far: left out
    truth = module("load").GroundTruth(written(tmp_path / "networks.csv", accuracies))
    assert truth.names == sorted(names[:9])
    assert truth.accuracy == pytest.approx([np.mean(accuracies[name]) for name in truth.names])
    assert truth.seed_noise == pytest.approx(0.02 / np.sqrt(2))
    latency = {name: float(i) for i, name in enumerate(names[:9])}
    truth.latency_ms["device"] = np.array([latency[name] for name in truth.names])
    score = truth.score(names[3], "device", 5.0)  # six networks take 5 ms or less: it is the fourth of them
    assert score.within_budget
    assert score.best_accuracy == pytest.approx(0.56)
    assert score.regret == pytest.approx(0.02)
    assert score.percentile == pytest.approx(100 * 3.5 / 6)
    assert not truth.score(names[6], "device", 5.0).within_budget
    assert truth.budget("device", 0.5) == 4.0
    with pytest.raises(KeyError):
        truth.score(names[9], "device", 5.0)


def test_every_network_is_trained_once(names: list[str]) -> None:
    train = module("train")
    made = [a.candidate_names for a in train.all_architectures(SpaceSpec.from_yaml(str(FOLDER / "space.yml")))]
    assert sorted(made) == sorted(names)
    assert len(set(made)) == len(made)
    assert 200 <= len(made) <= 400


@pytest.mark.skipif(not (FOLDER / "networks.csv").exists(), reason="no network has been trained yet")
def test_the_committed_ground_truth(names: list[str]) -> None:
    """Only networks of the space, no training twice, and what the README claims of noise holds."""
    truth = module("load").GroundTruth()
    assert set(truth.names) <= set(names)
    with (FOLDER / "networks.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["architecture"], row["seed"]) for row in csv.DictReader(file)]
    assert len(set(rows)) == len(rows)
    assert set(truth.latency_ms) == {"cpu_torch", "cpu_onnxruntime"}
