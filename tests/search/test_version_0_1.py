"""Results that version 0.1 recorded are read, decoded and continued.

`tests/recorded/interrupted_0_1` is a search of three epochs that was killed in its last one.
`tests/recorded/quickstart` has finished searches and retrainings.
"""

from __future__ import annotations

import csv
import logging
import shutil
from pathlib import Path

import pytest
import torch

from nni_proxyless.decoding.checkpoint import SearchCheckpoint
from nni_proxyless.latency import LatencyTable
from nni_proxyless.network.architecture import Architecture
from nni_proxyless.search.prepared import Prepared, load_recipe_data
from nni_proxyless.search.recipe import Recipe
from nni_proxyless.search.run import run_search
from tests.helpers import REPOSITORY

RECORDED = REPOSITORY / "tests" / "recorded"
INTERRUPTED = RECORDED / "interrupted_0_1"


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_an_interrupted_search_goes_on_with_its_history(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    output = tmp_path / "out"
    shutil.copytree(INTERRUPTED, output)
    recipe = Recipe.load(output / "recipe.yml")
    table = LatencyTable.load(output / "latency_table.yml")
    spec, splits = load_recipe_data(recipe)
    prepared = Prepared(recipe, recipe.chosen_target(), spec, table, splits)
    numbers: list[int | None] = []
    with caplog.at_level(logging.INFO, logger="nni_proxyless"):
        found = run_search(prepared, output, lambda _record, number: numbers.append(number))
    assert "resuming where the search" in caplog.text
    assert numbers == [2, None]
    before, after = rows(INTERRUPTED / "history.csv"), rows(output / "history.csv")
    assert len(before) == 2
    assert after[:2] == [{**row, "warnings": ""} for row in before]  # a column that version 0.1 did not have
    assert [row["epoch"] for row in after] == ["1", "2", "3"]
    known = rows(INTERRUPTED / "probabilities.csv")
    assert rows(output / "probabilities.csv")[: len(known)] == known
    assert len(rows(output / "finalists.csv")) == 4
    assert found.predicted_latency_ms is not None
    assert found.budget_ms is not None
    assert found.predicted_latency_ms <= found.budget_ms


def test_a_checkpoint_is_decoded() -> None:
    found = SearchCheckpoint.load(INTERRUPTED)
    table = LatencyTable.load(INTERRUPTED / "latency_table.yml")
    state = torch.load(INTERRUPTED / "checkpoint.ckpt", weights_only=True)["nni_proxyless"]
    assert found.decode().choices == {
        label: state["candidates"][label][int(alpha.argmax())] for label, alpha in state["alpha"].items()
    }
    costs = table.costs(found.spec)
    budget = 0.6 * costs.largest
    within = found.decode(table, budget)
    assert within.predicted_latency_ms == pytest.approx(costs.of(within.choices))
    assert costs.of(within.choices) <= budget


@pytest.mark.parametrize("target", ["cpu_torch", "cpu_onnxruntime"])
def test_finished_results_are_read(target: str) -> None:
    folder = RECORDED / "quickstart" / target
    recipe = Recipe.load(folder / "recipe.yml")
    architecture = Architecture.load(folder / "architecture.json")
    costs = LatencyTable.load(folder / "latency_table.yml").costs(architecture.require_spec())
    assert recipe.target == architecture.target == target
    assert architecture.predicted_latency_ms == pytest.approx(costs.of(architecture.choices))
    assert architecture.parameters == sum(p.numel() for p in architecture.build().parameters())
