"""The cells of a search space that the tuner `LatencyBudget` works through, and what is known of each. No NNI here."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .weight_search import WeightRange, best_ratio, next_weight

RATIO_KEY = "expected_over_budget"
EXPECTED_KEY = "expected_latency_ms"
MAX_CELLS = 10_000


@dataclass
class Trial:
    """One set of parameters that was handed out.

    Attributes:
        parameters: What the trial receives.
        state: `running`, `done` or `failed`.
        crashes: How often it has ended without a result.
        metrics: Its final result.
    """

    parameters: dict[str, Any]
    state: str = "running"
    crashes: int = 0
    metrics: dict[str, float] | None = None


@dataclass
class Cell:
    """One combination of the search space's values.

    Attributes:
        values: Key to value, without the weight.
        tuned: Whether its weight has to be found.
        trials: In the order they were handed out.
    """

    values: dict[str, Any]
    tuned: bool
    trials: list[Trial] = field(default_factory=list)

    @property
    def running(self) -> bool:
        return any(trial.state == "running" for trial in self.trials)

    @property
    def done(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.state == "done"]


@dataclass(frozen=True)
class Rules:
    """How cells are worked through; the tuner's arguments.

    Attributes:
        tolerance: A cell is done when expected latency is within this part of the budget.
        max_trials_per_cell: Trials of a cell at most, those that crashed left out.
        weight_key: The parameter that holds the weight.
        weights: Where weights are looked for.
        one_trial: Strategies that need no weight.
    """

    tolerance: float = 0.05
    max_trials_per_cell: int = 6
    weight_key: str = "latency_weight"
    weights: WeightRange = field(default_factory=WeightRange)
    one_trial: tuple[str, ...] = ("proxyless", "random")


def parse_search_space(space: Mapping[str, Any], rules: Rules) -> list[Cell]:
    """All cells of a search space of `choice`s, the last key changing fastest.

    Raises:
        ValueError: It is not a mapping of choices, is too large or holds the weight; the message says what is allowed.
    """
    if not isinstance(space, Mapping) or not space:
        raise ValueError(f"LatencyBudget: the search space must be a mapping of choices, got {space!r}")
    choices: dict[str, list[Any]] = {}
    for key, described in space.items():
        kind = described.get("_type") if isinstance(described, Mapping) else None
        values = described.get("_value") if isinstance(described, Mapping) else None
        if kind != "choice" or not isinstance(values, list) or not values:
            raise ValueError(
                f"LatencyBudget: searchSpace.{key} must be like {{_type: choice, _value: […]}}, got {described!r}"
            )
        choices[key] = values
    if rules.weight_key in choices:
        raise ValueError(
            f"LatencyBudget finds {rules.weight_key} itself; take it out of the search space, or use GridSearch"
        )
    number = math.prod(map(len, choices.values()))
    if number > MAX_CELLS:
        raise ValueError(f"LatencyBudget: the search space has {number} cells; at most {MAX_CELLS} are allowed")
    cells = []
    for values in itertools.product(*choices.values()):
        cell = dict(zip(choices, values, strict=True))
        cells.append(Cell(cell, needs_weight(cell, rules)))
    return cells


def needs_weight(values: Mapping[str, Any], rules: Rules) -> bool:
    """Whether a cell's weight has to be found, which some strategies and the objective `budget` do by themselves."""
    if values.get("objective") == "budget":
        return False
    if values.get("strategy", "proxyless") in rules.one_trial:
        return values.get("objective") in ("add_linear", "mul_log") and values.get("strategy") != "random"
    return True


def ratio_of(values: Mapping[str, Any], metrics: Mapping[str, Any]) -> float | None:
    """Expected latency over the budget, if the metrics and the cell say so."""
    ratio = metrics.get(RATIO_KEY)
    if ratio is None and values.get("budget_ms") and metrics.get(EXPECTED_KEY) is not None:
        ratio = float(metrics[EXPECTED_KEY]) / float(values["budget_ms"])
    if not isinstance(ratio, (int, float)) or isinstance(ratio, bool) or not math.isfinite(ratio) or ratio <= 0:
        return None
    return float(ratio)


def tried(cell: Cell, rules: Rules) -> list[tuple[float, float]]:
    """Weight and ratio of each of a cell's trials that has a result."""
    pairs = []
    for trial in cell.done:
        ratio = ratio_of(cell.values, trial.metrics or {})
        weight = trial.parameters.get(rules.weight_key)
        if ratio is not None and isinstance(weight, (int, float)) and weight > 0:
            pairs.append((float(weight), ratio))
    return pairs


def next_parameters(cell: Cell, cells: Sequence[Cell], rules: Rules) -> dict[str, Any] | None:
    """What a cell needs next, or none: it is done, waits for a trial, or cannot be mended.

    Args:
        cell: The cell.
        cells: All cells; neighbours tell where to begin.
        rules: How cells are worked through.
    """
    if cell.running:
        return None
    last = cell.trials[-1] if cell.trials else None
    if last is not None and last.state == "failed":
        return dict(last.parameters) if last.crashes == 1 else None
    if not cell.tuned:
        return None if cell.done else dict(cell.values)
    if len(cell.done) >= rules.max_trials_per_cell:
        return None
    pairs = tried(cell, rules)
    if len(pairs) < len(cell.done):
        return None  # a result without latency: there is nothing to go by
    weight = next_weight(pairs, rules.tolerance, rules.weights, _start(cell, cells, rules))
    if weight is None or any(math.isclose(weight, known) for known, _ in pairs):
        return None
    return {**cell.values, rules.weight_key: weight}


def _start(cell: Cell, cells: Sequence[Cell], rules: Rules) -> float | None:
    """The weight found for the cell that differs least: in the seed alone, then in the budget, by its logarithm."""

    def distance(other: Cell) -> tuple[int, float] | None:
        different = [key for key in cell.values if cell.values[key] != other.values.get(key)]
        if other is cell or not other.tuned or not set(different) <= {"seed", "budget_ms", "budget_fraction"}:
            return None
        far = 0.0
        for key in ("budget_ms", "budget_fraction"):
            if key in different:
                far += abs(math.log(float(cell.values[key]) / float(other.values[key])))
        return int(far > 0), far

    ranked = []
    for other in cells:
        apart, found = distance(other), best_ratio(tried(other, rules))
        if apart is not None and found is not None:
            ranked.append((apart, found[0]))
    return min(ranked)[1] if ranked else None


def find_cell(cells: Sequence[Cell], parameters: Mapping[str, Any], rules: Rules) -> Cell | None:
    """The cell that parameters belong to, whatever their weight."""
    values = _key({key: value for key, value in parameters.items() if key != rules.weight_key})
    return next((cell for cell in cells if _key(cell.values) == values), None)


def same_parameters(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return _key(a) == _key(b)


def _key(parameters: Mapping[str, Any]) -> str:
    return json.dumps(parameters, sort_keys=True, default=str)


def summary(cells: Sequence[Cell], rules: Rules) -> list[dict[str, Any]]:
    """A row for each cell: its values, the trial that counts, and how it ended."""
    rows = []
    for cell in cells:
        trial = chosen(cell, rules)
        metrics = (trial.metrics or {}) if trial else {}
        ratio = ratio_of(cell.values, metrics)
        if trial is None:
            outcome = "failed" if any(t.state == "failed" for t in cell.trials) else "no result"
        elif not cell.tuned:
            outcome = "one trial"
        else:
            met = ratio is not None and abs(ratio - 1.0) <= rules.tolerance
            outcome = "met" if met else f"nearest of {len(cell.done)}"
        rows.append(
            {
                **cell.values,
                rules.weight_key: trial.parameters.get(rules.weight_key, "") if trial else "",
                "accuracy": metrics.get("default", ""),
                "latency_ms": metrics.get("latency_ms", ""),
                "expected_over_budget": "" if ratio is None else ratio,
                "trials": len(cell.trials),
                "outcome": outcome,
            }
        )
    return rows


def chosen(cell: Cell, rules: Rules) -> Trial | None:
    """The trial that stands for a cell: the one whose expected latency is nearest to the budget."""
    done = cell.done
    if not cell.tuned or not done:
        return done[-1] if done else None

    def away(trial: Trial) -> float:
        ratio = ratio_of(cell.values, trial.metrics or {})
        return math.inf if ratio is None else abs(math.log(ratio))

    return min(done, key=away)
