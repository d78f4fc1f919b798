"""All eleven model spaces of NNI's hub are searched, and the networks compute what the supernet does."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nni_proxyless.nni_spaces.space_latency import measure_model_space
from tests.helpers import REPOSITORY
from tests.nni_spaces.spaces import ComputedBackend, cost_ms
from tests.strategies.hub_spaces import GRADIENTS, SPACES, row, searched

# One space of each kind, with one gradient in turn. All other pairs are slow.
KINDS = ("MobileNetV3Space", "AutoFormer", "NasBench101", "ENAS", "NasBench201")
IN_TURN = [(name, GRADIENTS[number % len(GRADIENTS)]) for number, name in enumerate(KINDS)]
PAIRS = [
    pytest.param(name, gradient, marks=[] if (name, gradient) in IN_TURN else pytest.mark.slow)
    for name in SPACES
    for gradient in GRADIENTS
]


@pytest.mark.parametrize(("name", "gradient"), PAIRS)
def test_each_space_of_the_hub_is_searched_with_each_gradient(name: str, gradient: Any) -> None:
    """A space for which this fails must not have `yes` in the table of docs/nni.md."""
    searched(name, gradient)
    assert row(name, SPACES[name]) in (REPOSITORY / "docs" / "nni.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "gradient"), [("ENAS", "two_path"), ("NasBench101", "full")])
def test_cells_keep_budgets_in_milliseconds_and_parameters(name: str, gradient: Any) -> None:
    space, size = SPACES[name].make(), SPACES[name].size
    table = measure_model_space(space, (3, size, size), ComputedBackend())
    costs = table.own_costs()
    assert table.composition is not None
    parameters = table.composition.counts("parameters")
    budget = 0.8 * costs.smallest + 0.2 * costs.largest
    most = int(0.5 * parameters.smallest + 0.5 * parameters.largest)
    strategy = searched(name, gradient, latency=table, budget_ms=budget, budgets={"parameters": most})
    found = strategy.export_architecture()
    network: Any = SPACES[name].make().freeze(dict(found.choices)).eval()
    true = cost_ms(network, torch.randn(1, 3, size, size))
    assert found.predicted_latency_ms is not None
    assert 0 < found.predicted_latency_ms <= budget
    assert sum(p.numel() for p in network.parameters()) == found.budgets["parameters"]["value"] <= most
    assert found.predicted_latency_ms == pytest.approx(true, rel=0.2)  # additions between modules are not counted


def test_the_table_of_the_documentation_has_all_spaces() -> None:
    text = (REPOSITORY / "docs" / "nni.md").read_text(encoding="utf-8")
    assert [name for name, space in SPACES.items() if row(name, space) not in text] == []
