"""Finalists whose latency is doubtful near the budget, because the table knows latencies to some milliseconds only."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from nni.nas.evaluator.pytorch import DataLoader, Lightning, Trainer
from torch import Tensor

from nni_proxyless import ProxylessNAS
from nni_proxyless.latency import LatencyTable
from nni_proxyless.latency.uncertainty import Uncertainty
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.search.epoch_callback import finalist_rows
from nni_proxyless.strategies.finalist import Finalist, best
from nni_proxyless.strategies.search_warnings import doubtful_latencies
from tests import toy
from tests.strategies.test_finalists import QUIET, OwnModule, run


class Rows(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Data in the form that `OwnModule` expects."""

    def __init__(self, seed: int) -> None:
        self.x, self.y = toy.feature_data(seed, 256).tensors

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.x[index], "y": self.y[index]}


def search(table: LatencyTable) -> Any:
    data = [DataLoader(Rows(seed), batch_size=64) for seed in (0, 1)]
    evaluator = Lightning(
        OwnModule(None), Trainer(max_epochs=1, **QUIET), train_dataloaders=data[0], val_dataloaders=data[1]
    )
    return run(ProxylessNAS(latency=table, budget_ms=5.4, finalists=8, seed=0), toy.Features(), evaluator)


def test_finalists_whose_latency_is_doubtful_near_the_budget_are_named() -> None:
    """The standard deviation is 0.6 ms, so that finalists within 1 ms of the budget are doubtful."""
    known = Uncertainty(0.0, (0.6,), dict.fromkeys(toy.table().operators, (0.0,)))  # type: ignore[arg-type]
    strategy = search(replace(toy.table(), uncertainty=known))
    assert len(strategy.compared) == 8
    for finalist in strategy.compared:
        assert finalist.latency_std_ms == pytest.approx(0.6)
        z = (5.4 - toy.latency_ms(finalist.choices)) / 0.6
        assert finalist.above_budget == pytest.approx(0.5 * math.erfc(z / math.sqrt(2.0)))
    doubtful = [f for f in strategy.compared if 5.4 - toy.latency_ms(f.choices) < 1.6449 * 0.6]
    assert 0 < len(doubtful) < 8
    (told,) = [text for text in strategy.warnings if "within the budget" in text]
    assert told.startswith(
        f"the table cannot tell whether {len(doubtful)} of 8 finalists are within the budget of 5.4 ms"
    )
    assert ("the exported network is one of them" in told) == (best(strategy.compared) in doubtful)


def test_a_table_that_does_not_know_its_uncertainty_says_nothing() -> None:
    plain = search(toy.table())
    assert [finalist.above_budget for finalist in plain.compared] == [None] * 8
    assert not any("within the budget" in text for text in plain.warnings)


def test_the_warning_names_the_exported_network() -> None:
    assert "(the exported network is one of them)" in (doubtful_latencies([0.5, 0.01, None], 0, 5.0) or "")
    assert "1 of 3 finalists are within the budget of 5 ms; time" in (
        doubtful_latencies([0.5, 0.01, None], 1, 5.0) or ""
    )
    assert doubtful_latencies([0.04, 0.96, None], 1, 5.0) is None


def test_doubts_are_columns_of_the_file_only_if_they_are_known(tiny_spec: SpaceSpec) -> None:
    choices = {layer.label: layer.names[0] for layer in tiny_spec.layers}
    plain = Finalist(choices, -1.0, 0.9, 0.8, 5.0, 100)
    common = ["architecture", "latency_ms", "multiply_adds", "log_likelihood", "accuracy", "ranked_by"]
    (row,) = finalist_rows(tiny_spec, [plain])
    assert list(row) == common
    (row,) = finalist_rows(tiny_spec, [replace(plain, latency_std_ms=0.3, above_budget=0.2)])
    assert list(row) == [*common, "latency_std_ms", "above_budget"]
    assert (row["architecture"], row["above_budget"]) == ("k3_e1 k3_e1 k3_e1", 0.2)
