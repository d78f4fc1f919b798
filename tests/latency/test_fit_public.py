"""Tables fitted to public latencies of whole networks (HELP, Lee et al. 2021; HW-NAS-Bench, Li et al. 2021)."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import nnls

from nni_proxyless.latency import Calibration, Choice, LatencyTable
from nni_proxyless.latency.architectures_file import Measurements
from nni_proxyless.latency.arrays import spearman
from nni_proxyless.latency.counts import Counts, read_counts
from nni_proxyless.latency.doubtful import uncertainty_of
from nni_proxyless.latency.fitting.encoding import Encoding
from nni_proxyless.latency.fitting.fit import fit_table
from tests.helpers import REPOSITORY, made_up_table

GPUS = ["1080ti_1", "1080ti_32", "1080ti_64", "titanx_1", "titanx_32", "titanx_64"]
PHONES = ["samsung_a50", "pixel3", "essential_ph_1", "samsung_s7"]


class Public:
    """Public measurements of 5,000 networks on 13 devices."""

    def __init__(self, folder: Path) -> None:
        architectures = pd.read_csv(folder / "architectures.csv", dtype=str)
        self.layers = {label: architectures[label].to_numpy(dtype=str) for label in architectures}
        self.latencies = pd.read_csv(folder / "latency_ms.csv")
        self.counts: Counts = read_counts(folder / "counts.csv")
        self._known: dict[str, LatencyTable] = {}

    def some(self, name: str, index: Any) -> Measurements:
        return Measurements(self.layers, self.latencies[name].to_numpy(dtype=float)).rows(index)

    def split(self, name: str, number: int, seed: int) -> tuple[Measurements, Measurements]:
        """Draw networks for the fit; all others are for the test."""
        order = np.random.default_rng(seed).permutation(len(self.latencies))
        return self.some(name, order[:number]), self.some(name, order[number:])

    def table(self, name: str) -> LatencyTable:
        """Return a known device: plain least squares on every second network."""
        if name not in self._known:
            measured = self.some(name, np.arange(0, len(self.latencies), 2))
            encoding = Encoding(measured.candidates)
            design = np.column_stack([encoding.features(measured.layers), np.ones(len(measured))])
            gram = design.T @ design + 1e-6 * np.eye(design.shape[1])
            *values, intercept = np.linalg.solve(gram, design.T @ measured.latency_ms)
            costs = encoding.costs(np.array(values), float(intercept))
            entries = {
                Choice(k, n): c for k, of in costs.layers.items() for n, c in zip(costs.candidates[k], of, strict=True)
            }
            self._known[name] = made_up_table(entries, Calibration(1.0, costs.fixed), name)
        return self._known[name]


@pytest.fixture(scope="module")
def public() -> Public:
    folder = Path(os.environ.get("NNI_PROXYLESS_DATA", REPOSITORY.parent / "shared" / "data")) / "latency" / "fbnet"
    if not folder.is_dir():
        pytest.skip(f"needs the shared data; there is none in {folder} (set NNI_PROXYLESS_DATA)")
    return Public(folder)


def of_table(table: LatencyTable, test: Measurements) -> tuple[float, float]:
    """Rank correlation and mean relative error."""
    predicted = table.own_costs().of_many(test.layers)
    return spearman(predicted, test.latency_ms), float(np.mean(np.abs(predicted / test.latency_ms - 1)))


@pytest.mark.parametrize(
    ("name", "rank", "error"),
    [("1080ti_32", 0.95, 0.03), ("silver_4210r", 0.97, 0.02), ("pixel3", 0.99, 0.01), ("essential_ph_1", 0.69, 0.11)],
)
def test_three_hundred_networks_make_a_table(public: Public, name: str, rank: float, error: float) -> None:
    """One device of each kind; a table of all 5,000 networks reaches 0.98, 0.99, 1.00 and 0.74."""
    known, test = public.split(name, 300, 0)
    found = of_table(fit_table(known).table, test)
    assert found[0] > rank
    assert found[1] < error


def test_ten_measurements_of_a_new_device_beat_the_plain_mixture(public: Public) -> None:
    """The new devices are of the kinds of the basis. Counts do not make the fit worse."""
    basis = [public.table(name) for name in [*GPUS[:3], "silver_4114", "silver_4210r", *PHONES]]
    ours, counted, plain = [], [], []
    for name, seed in itertools.product(["titanx_1", "titanx_32", "titanx_64", "gold_6240"], range(2)):
        known, test = public.split(name, 10, seed)
        stacked = [np.stack([t.own_costs().of_many(part.layers) for t in basis], axis=1) for part in (known, test)]
        weights, _ = nnls(stacked[0], known.latency_ms)
        plain.append(spearman(stacked[1] @ weights, test.latency_ms))
        ours.append(of_table(fit_table(known, basis).table, test)[0])
        counted.append(of_table(fit_table(known, basis, counts=public.counts).table, test)[0])
    assert np.mean(ours) > np.mean(plain)
    assert np.mean(ours) > 0.975
    assert np.mean(counted) > np.mean(plain)


@pytest.mark.parametrize(
    ("known", "new", "goal"),
    [
        ([*PHONES, "silver_4114", "gold_6240"], GPUS[1::2], 0.92),
        (GPUS, ["pixel3", "silver_4210r", "samsung_a50"], 0.89),
    ],
)
def test_counts_make_up_for_a_basis_of_another_kind(
    public: Public, known: list[str], new: list[str], goal: float
) -> None:
    """GPUs from phones and CPUs, and the reverse, from twenty networks. Intervals cover about what they say."""
    basis = [public.table(name) for name in known]
    ranks, without, inside = [], [], []
    for name, seed in itertools.product(new, range(2)):
        few, test = public.split(name, 20, seed)
        table = fit_table(few, basis, counts=public.counts).table
        ranks.append(of_table(table, test)[0])
        without.append(of_table(fit_table(few, basis).table, test)[0])
        predicted = table.own_costs().of_many(test.layers)
        inside.append(np.abs(predicted - test.latency_ms) / uncertainty_of(table).std(test.layers, predicted))
    assert np.mean(ranks) > goal
    assert np.mean(without) < goal - 0.05
    assert 0.5 < np.mean(np.array(inside) < 0.9945) < 0.85  # nominal 0.68
    assert 0.85 < np.mean(np.array(inside) < 1.96) < 0.99  # nominal 0.95
