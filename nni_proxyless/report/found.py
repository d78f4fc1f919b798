"""What `search` prints, and a trial logs, of the network that was found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .kept_budgets import own_budgets

if TYPE_CHECKING:
    from ..network.architecture import Architecture
    from ..search.recipe import Recipe


def found_lines(architecture: Architecture, recipe: Recipe) -> list[str]:
    """Describe a network in a line with target, accuracy and latency, and a line for each budget.

    Args:
        architecture: Network that the search has found.
        recipe: Recipe of the search.
    """
    predicted, measured = architecture.predicted_latency_ms, architecture.measured_latency_ms
    latency = "" if predicted is None else f", predicted {predicted:.4g} ms"
    latency += ", not measured" if measured is None else f", measured {measured:.4g} ms"
    accuracy = f"accuracy {architecture.metrics['default']:.4f}" if "default" in architecture.metrics else "no accuracy"
    budgets = own_budgets(recipe.target, architecture, hard=recipe.keeps_budget)
    return [f"{recipe.target}: {accuracy}{latency}", *(f"budget {kept}" for kept in budgets)]
