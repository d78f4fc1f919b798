"""Searches keep and use up their budgets, in a space whose best networks are known by enumeration (tests/toy.py)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace

from nni_proxyless import ProxylessNAS
from nni_proxyless.errors import LatencyTableError
from tests import toy
from tests.toy import COSTS

BUDGETS_MS = (2.5, 5.4, 6.2)


def search(epochs: int = 20, seed: int = 0, **settings: Any) -> ProxylessNAS:
    torch.manual_seed(seed)
    strategy = ProxylessNAS(latency=toy.table(), seed=seed, **settings)
    space = RawFormatModelSpace.from_model(toy.Features(), toy.evaluator(epochs))
    strategy(space, SequentialExecutionEngine())
    return strategy


@pytest.fixture(scope="module")
def alone() -> dict[tuple[str, ...], float]:
    return toy.accuracies()


def best_within(alone: dict[tuple[str, ...], float], budget_ms: float) -> tuple[tuple[str, ...], float]:
    """Find the most accurate network within a budget, and its lead over the second most accurate one."""
    feasible = sorted(
        (value, picks)
        for picks, value in alone.items()
        if toy.latency_ms(dict(zip(COSTS, picks, strict=True))) <= budget_ms
    )
    return feasible[-1][1], feasible[-1][0] - feasible[-2][0]


@pytest.mark.slow(100)
@pytest.mark.xdist_group("budget")  # they share the enumeration of all networks
@pytest.mark.parametrize("gradient", ["two_path", "full", "reinforce"])
def test_the_best_network_within_a_budget_is_found(gradient: str, alone: dict[tuple[str, ...], float]) -> None:
    for budget_ms in BUDGETS_MS[::2] if gradient == "full" else BUDGETS_MS[1:2]:
        best, lead = best_within(alone, budget_ms)
        assert lead > 0.02  # the best network is clearly better than all others
        found = []
        for seed in range(6):
            strategy = search(budget_ms=budget_ms, arch_gradient=gradient, seed=seed, finalists=1)  # α alone decide
            architecture = strategy.export_architecture()
            assert architecture.predicted_latency_ms is not None
            assert architecture.predicted_latency_ms <= budget_ms
            assert strategy.oneshot_module.export() == architecture.choices
            found.append(tuple(architecture.choices.values()))
        assert found.count(best) >= 5, (budget_ms, best, found)
        assert toy.latency_ms(dict(zip(COSTS, best, strict=True))) >= 0.9 * budget_ms


@pytest.mark.parametrize("gradient", ["two_path", "full", "reinforce"])
def test_a_short_search_keeps_its_budget_too(gradient: str) -> None:
    for seed in range(2):
        strategy = search(epochs=4, budget_fraction=0.4, arch_gradient=gradient, seed=seed)
        largest = toy.FIXED_MS + sum(max(of.values()) for of in COSTS.values())
        architecture = strategy.export_architecture()
        assert architecture.budget_ms == pytest.approx(0.4 * largest)
        assert architecture.predicted_latency_ms is not None
        assert architecture.predicted_latency_ms <= 0.4 * largest


def test_a_search_with_a_budget_ends_decided() -> None:
    sharp, plain = (search(budget_ms=5.4, epochs=8, sharpen_epochs=epochs) for epochs in (None, 0))
    assert sharp.oneshot_module.temperature == pytest.approx(0.1)
    assert plain.oneshot_module.temperature == 1.0
    assert sharp.oneshot_module.mean_entropy() < 0.5 * plain.oneshot_module.mean_entropy()


def test_the_rate_follows_the_number_of_steps_and_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="nni_proxyless"):
        strategy = search(epochs=2, budget_ms=5.4, arch_gradient="two_path")
    # In each of 32 steps, 2 of 3 paths move. The rate would be 7 / (32 * 2 / 3), which exceeds the upper limit.
    assert strategy.oneshot_module.arch_rate == pytest.approx(0.2)
    assert "architecture learning rate 0.2, for 32 architecture steps" in caplog.text
    from nni_proxyless.strategies.arch_settings import default_arch_rate

    assert default_arch_rate(960, 7, "full") == pytest.approx(7 / 960)
    assert default_arch_rate(960, 7, "two_path") == pytest.approx(7 / 960 * 3.5)
    assert default_arch_rate(500_000, 7, "two_path") == 0.001  # the paper's rate


def test_one_search_gives_a_network_for_every_table() -> None:
    strategy = search(epochs=4, budget_ms=5.4)
    other = toy.table()
    fronts = strategy.export_front({"here": toy.table(), "there": other})
    assert fronts["here"] == fronts["there"]
    point = fronts["here"][len(fronts["here"]) // 2]
    assert strategy.export_architecture(budget_ms=point.latency_ms, table=other).choices == point.choices
    assert strategy.export_front(budget_ms=5.4)["latency"][-1].choices == strategy.export_architecture().choices


def test_a_table_fitted_to_other_layers_is_refused() -> None:
    table = toy.table()
    operators = {entry: cost for entry, cost in table.operators.items() if "keep" not in str(entry)}
    from dataclasses import replace

    with pytest.raises(LatencyTableError, match=r"fitted to other layers: for 'f0' it has \['drop', 'blur'\]"):
        ProxylessNAS(latency=replace(table, operators=operators)).mutate_model(toy.Features())
