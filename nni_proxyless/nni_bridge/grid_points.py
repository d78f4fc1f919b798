"""The grid points of the tuner `LatencyBudget`: their trials, and which trial each needs next. Imports nothing of NNI.

A grid point is one combination of the search space's values, without the latency weight.
"""

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
MAX_GRID_POINTS = 10_000


@dataclass
class Trial:
    """One set of parameters that the tuner has given to NNI.

    Attributes:
        parameters: Parameters that the trial receives.
        state: `running`, `done` or `failed`.
        crashes: Number of times that the trial ended without a result.
        metrics: Final result of the trial; `None` until there is one.
    """

    parameters: dict[str, Any]
    state: str = "running"
    crashes: int = 0
    metrics: dict[str, float] | None = None


@dataclass
class GridPoint:
    """One combination of the search space's values. The state file of the tuner has these attributes as keys.

    Attributes:
        values: Parameter names and values, without the latency weight.
        tuned: Whether the latency weight has to be found.
        trials: Trials of the grid point, in the order in which they were given to NNI.
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
    """The tuner's arguments.

    Attributes:
        tolerance: Largest relative deviation of the expected latency from the budget at which a grid point is done.
        max_trials_per_cell: Maximum number of trials with a result at one grid point.
        weight_key: Name of the parameter that holds the latency weight.
        weights: Range in which the latency weight is searched.
        one_trial: Strategies that need no latency weight, and therefore one trial.
    """

    tolerance: float = 0.05
    max_trials_per_cell: int = 6
    weight_key: str = "latency_weight"
    weights: WeightRange = field(default_factory=WeightRange)
    one_trial: tuple[str, ...] = ("proxyless", "random")


def parse_search_space(space: Mapping[str, Any], rules: Rules) -> list[GridPoint]:
    """Make all grid points of a search space of `choice`s, with the last key changing fastest.

    Raises:
        ValueError: The space is not a mapping of choices, has too many grid points or contains the latency weight. The
            message says what is allowed.
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
    if number > MAX_GRID_POINTS:
        raise ValueError(
            f"LatencyBudget: the search space has {number} grid points; at most {MAX_GRID_POINTS} are allowed"
        )
    points = []
    for combination in itertools.product(*choices.values()):
        values = dict(zip(choices, combination, strict=True))
        points.append(GridPoint(values, needs_weight(values, rules)))
    return points


def needs_weight(values: Mapping[str, Any], rules: Rules) -> bool:
    """Whether the tuner has to find the latency weight of a grid point.

    No weight is needed with the objective `budget`. The strategies in `rules.one_trial` need none either, unless the
    objective is `add_linear` or `mul_log`; `random` ignores these two objectives.
    """
    if values.get("objective") == "budget":
        return False
    if values.get("strategy", "proxyless") in rules.one_trial:
        return values.get("objective") in ("add_linear", "mul_log") and values.get("strategy") != "random"
    return True


def ratio_of(values: Mapping[str, Any], metrics: Mapping[str, Any]) -> float | None:
    """Ratio of expected latency to budget; `None` if the metrics and the values do not determine it."""
    ratio = metrics.get(RATIO_KEY)
    if ratio is None and values.get("budget_ms") and metrics.get(EXPECTED_KEY) is not None:
        ratio = float(metrics[EXPECTED_KEY]) / float(values["budget_ms"])
    if not isinstance(ratio, (int, float)) or isinstance(ratio, bool) or not math.isfinite(ratio) or ratio <= 0:
        return None
    return float(ratio)


def distance_to_budget(values: Mapping[str, Any], metrics: Mapping[str, Any]) -> float:
    """|log(expected latency / budget)|; infinite if the ratio is not known."""
    ratio = ratio_of(values, metrics)
    return math.inf if ratio is None else abs(math.log(ratio))


def tried(point: GridPoint, rules: Rules) -> list[tuple[float, float]]:
    """Weight and ratio of expected latency to budget of each finished trial that has both."""
    pairs = []
    for trial in point.done:
        ratio = ratio_of(point.values, trial.metrics or {})
        weight = trial.parameters.get(rules.weight_key)
        if ratio is not None and isinstance(weight, (int, float)) and weight > 0:
            pairs.append((float(weight), ratio))
    return pairs


def next_parameters(point: GridPoint, points: Sequence[GridPoint], rules: Rules) -> dict[str, Any] | None:
    """Choose the parameters of a grid point's next trial.

    Args:
        point: The grid point.
        points: All grid points; the search for the weight starts from that of the nearest one.
        rules: The tuner's arguments.

    Returns:
        The parameters, or `None` if the grid point is done, waits for a running trial or is given up.
    """
    if point.running:
        return None
    last = point.trials[-1] if point.trials else None
    if last is not None and last.state == "failed":
        return dict(last.parameters) if last.crashes == 1 else None
    if not point.tuned:
        return None if point.done else dict(point.values)
    if len(point.done) >= rules.max_trials_per_cell:
        return None
    pairs = tried(point, rules)
    if len(pairs) < len(point.done):
        return None  # without the latency of every result, no direction for the weight is known
    weight = next_weight(pairs, rules.tolerance, rules.weights, _start(point, points, rules))
    if weight is None or any(math.isclose(weight, known) for known, _ in pairs):
        return None
    return {**point.values, rules.weight_key: weight}


def _start(point: GridPoint, points: Sequence[GridPoint], rules: Rules) -> float | None:
    """The best weight of the nearest grid point that has one, to start the search from.

    Only grid points that differ in nothing but seed and budget count. Those with the same budget are nearest, followed
    by the others in order of the logarithmic difference of their budgets.
    """

    def distance(other: GridPoint) -> tuple[int, float] | None:
        different = [key for key in point.values if point.values[key] != other.values.get(key)]
        if other is point or not other.tuned or not set(different) <= {"seed", "budget_ms", "budget_fraction"}:
            return None
        far = 0.0
        for key in ("budget_ms", "budget_fraction"):
            if key in different:
                far += abs(math.log(float(point.values[key]) / float(other.values[key])))
        return int(far > 0), far

    ranked = []
    for other in points:
        apart, found = distance(other), best_ratio(tried(other, rules))
        if apart is not None and found is not None:
            ranked.append((apart, found[0]))
    return min(ranked)[1] if ranked else None


def find_grid_point(points: Sequence[GridPoint], parameters: Mapping[str, Any], rules: Rules) -> GridPoint | None:
    """The grid point that parameters belong to, whatever their latency weight; `None` if there is none."""
    values = _key({key: value for key, value in parameters.items() if key != rules.weight_key})
    return next((point for point in points if _key(point.values) == values), None)


def same_parameters(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return _key(a) == _key(b)


def _key(parameters: Mapping[str, Any]) -> str:
    return json.dumps(parameters, sort_keys=True, default=str)


def summary(points: Sequence[GridPoint], rules: Rules) -> list[dict[str, Any]]:
    """One row for each grid point: its values, the metrics of its chosen trial, and the outcome."""
    rows = []
    for point in points:
        trial = chosen(point, rules)
        metrics = (trial.metrics or {}) if trial else {}
        ratio = ratio_of(point.values, metrics)
        if trial is None:
            outcome = "failed" if any(t.state == "failed" for t in point.trials) else "no result"
        elif not point.tuned:
            outcome = "one trial"
        else:
            met = ratio is not None and abs(ratio - 1.0) <= rules.tolerance
            outcome = "met" if met else f"nearest of {len(point.done)}"
        rows.append(
            {
                **point.values,
                rules.weight_key: trial.parameters.get(rules.weight_key, "") if trial else "",
                "accuracy": metrics.get("default", ""),
                "latency_ms": metrics.get("latency_ms", ""),
                "expected_over_budget": "" if ratio is None else ratio,
                "trials": len(point.trials),
                "outcome": outcome,
            }
        )
    return rows


def chosen(point: GridPoint, rules: Rules) -> Trial | None:
    """The trial that represents a grid point: of several, the one whose expected latency is nearest to the budget."""
    done = point.done
    if not point.tuned or not done:
        return done[-1] if done else None
    return min(done, key=lambda trial: distance_to_budget(point.values, trial.metrics or {}))
