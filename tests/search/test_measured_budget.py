"""A search whose network exceeds its latency budget when it is measured finds another one that does not."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from nni_proxyless import Architecture
from nni_proxyless.latency import LatencyTable
from nni_proxyless.report.kept_budgets import own_budgets
from nni_proxyless.search import measured_budget
from nni_proxyless.search.epoch_callback import Record
from nni_proxyless.search.measured_budget import MOST_COMPARISONS, lower_limit_ms
from nni_proxyless.search.prepared import prepare
from nni_proxyless.search.recipe import Recipe
from nni_proxyless.search.run import run_search
from nni_proxyless.search.shared_weights import decode_finalists
from nni_proxyless.search.targets import Target

TOLD = "exceeded it when it was measured"


def test_the_lower_limit_by_hand() -> None:
    assert lower_limit_ms(10.0, 9.9, 10.0) is None
    assert lower_limit_ms(10.0, 9.9, 10.0 + 1e-12) is None
    assert lower_limit_ms(10.0, 9.9, 10.5) == pytest.approx(10.0 * 9.9 / 10.5)
    assert lower_limit_ms(10.0, 9.9, 11.1) is None  # 11 % off: the table or the machine is at fault
    assert lower_limit_ms(10.0, 12.0, 10.5) == pytest.approx(10.0 * 12.0 / 10.5)


BUDGET = 0.87  # of the largest network


def search(
    recipe_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    excess: float,
    growth: float = 1.0,
    part: float = BUDGET,
    **settings: Any,
) -> tuple[Architecture, list[tuple[Architecture, float]], list[tuple[Record, int | None]]]:
    """Run a short search on a target whose measurements all differ from the table by the same factor.

    Args:
        recipe_file: Path of the recipe.
        monkeypatch: Fixture of pytest.
        excess: Measured latency of the search's network, as a part of the budget.
        growth: Number by which the factor grows with each measurement.
        part: Budget as a part of the largest network's latency.
        **settings: Settings of the recipe.

    Returns:
        Architecture, the measured architectures with their latencies in their order, and what was reported.
    """
    measured: list[tuple[Architecture, float]] = []

    def measure(self: Target, architecture: Architecture, table: LatencyTable | None = None) -> float | None:
        assert table is not None
        if self.backend is None:  # the training of a shared search
            return None
        costs = table.costs(architecture.require_spec())
        first = measured[0][0] if measured else architecture
        factor = excess * part * costs.largest / costs.of(first.choices) * growth ** len(measured)
        measured.append((architecture, float(factor * costs.of(architecture.choices))))
        return measured[-1][1]

    monkeypatch.setattr(Target, "measure", measure)
    monkeypatch.setattr(measured_budget, "NOTICEABLE", 0.3)  # the factor of so short a search is up to 1.17
    said: list[tuple[Record, int | None]] = []
    target = {"device": {"table": "table.yml", "backend": "torch"}}
    short = {
        "epochs": 2, "warmup_epochs": 1, "finalists": 6, "targets": target, "budget_fraction": part, **settings
    }  # fmt: skip
    prepared = prepare(Recipe.load(recipe_file, short))
    output = recipe_file.parent / "out"
    return run_search(prepared, output, lambda *words: said.append(words)), measured, said


@pytest.mark.parametrize("share", [False, True])
def test_another_network_is_chosen_with_room_for_the_error_of_the_table(
    share: bool, recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, measured, said = search(recipe_file, monkeypatch, 1.005, share_search=share)
    output = recipe_file.parent / "out"
    table = LatencyTable.load(output / "latency_table.yml")
    budget, predicted = found.budget_ms, found.predicted_latency_ms
    assert budget is not None
    assert predicted is not None
    (first, above), (other, within) = measured
    assert above == pytest.approx(1.005 * budget)
    assert found.choices == other.choices != first.choices
    assert found.measured_latency_ms == within <= budget
    (kept,) = own_budgets("device", found)
    assert (kept.word, kept.advice) == ("kept", "")
    lower = (first.predicted_latency_ms or 0.0) / 1.005
    assert predicted <= lower
    assert [text for text in found.warnings if TOLD in text] == [found.warnings[-1]]
    assert f"within {lower:.4g} ms according to the table" in found.warnings[-1]
    # `decode --finalists` chooses the same network from the folder.
    again = decode_finalists(output, {"device": table}, lower, 6)["device"]
    assert again.choices == found.choices
    assert again.metrics["default"] == pytest.approx(found.metrics["default"])
    rows = list(csv.DictReader((output / "finalists.csv").read_text().splitlines()))
    assert max(float(row["latency_ms"]) for row in rows) <= lower
    assert found.candidate_names in {row["architecture"] for row in rows}
    assert Architecture.load(output / "architecture.json") == found
    network = found.build()
    network.load_state_dict(torch.load(output / "weights.pt", weights_only=True))
    last, number = said[-1]
    assert number is None
    assert (last.default, last.latency_ms) == (found.metrics["default"], predicted)


@pytest.mark.parametrize(
    ("excess", "settings"),
    [
        (1.0, {}),
        (1.6, {}),
        (1.005, {"objective": "mul_log"}),
        (1.005, {"strategy": "random"}),
        (1.005, {"budget_fraction": None, "objective": "add_linear", "latency_weight": 0.1}),
    ],
    ids=["just within", "not like the table", "a reference", "random", "no budget"],
)
def test_the_first_network_is_kept(
    excess: float, settings: dict[str, Any], recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, measured, _ = search(recipe_file, monkeypatch, excess, **settings)
    assert len(measured) == 1
    assert found.choices == measured[0][0].choices
    assert not [text for text in found.warnings if TOLD in text]


def test_the_network_that_exceeds_the_budget_least_is_chosen_if_none_is_within_it(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each further network differs more from the table, so that room for the last error is not enough."""
    found, measured, _ = search(recipe_file, monkeypatch, 1.005, growth=1.08)
    assert 1 < len(measured) <= 1 + MOST_COMPARISONS
    assert found.budget_ms is not None
    assert min(value for _, value in measured) > found.budget_ms
    least = min(measured, key=lambda one: one[1])
    assert (found.choices, found.measured_latency_ms) == (least[0].choices, least[1])


@pytest.mark.parametrize(("strategy", "finalists"), [("gumbel_darts", None), ("enas", 3)])
def test_other_strategies_compare_as_many_networks_as_before(
    strategy: str, finalists: int | None, recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, measured, _ = search(recipe_file, monkeypatch, 1.005, strategy=strategy, finalists=finalists)
    assert len(measured) == 2
    assert found.measured_latency_ms is not None
    assert found.budget_ms is not None
    assert found.measured_latency_ms <= found.budget_ms
    rows = recipe_file.parent / "out" / "finalists.csv"
    assert rows.exists() == (strategy == "enas")
    if rows.exists():
        assert 1 <= len(list(csv.DictReader(rows.read_text().splitlines()))) <= 3


def test_other_budgets_are_kept_too(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    budgets = {"device": f"{100 * BUDGET:g}%", "parameters": "90%"}
    found, measured, _ = search(recipe_file, monkeypatch, 1.005, budget_fraction=None, budgets=budgets)
    assert len(measured) == 2
    kept = {one.constraint.name: one for one in own_budgets("device", found)}
    assert set(kept) == {"device", "parameters"}
    assert all(one.holds for one in kept.values())
    assert kept["parameters"].value == found.parameters
    assert kept["device"].measured == measured[1][1]


def test_no_network_is_fast_enough(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fastest network of the space just fits by the table."""
    costs = LatencyTable.load(recipe_file.parent / "table.yml").costs(prepare(Recipe.load(recipe_file)).spec)
    smallest = 1.0001 * costs.smallest / costs.largest
    found, measured, _ = search(recipe_file, monkeypatch, 1.08, part=smallest)
    assert len(measured) == 1
    assert found.choices == measured[0][0].choices
    (kept,) = own_budgets("device", found)
    assert kept.holds is False
