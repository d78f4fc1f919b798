"""Schedule of a search: the architecture's learning rate and temperature, and the target of the expected latency."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .arch_settings import ARCH_RATES, ArchSettings, default_arch_rate
from .objective import BudgetMultiplier

# Increase of the integral term I of `BudgetMultiplier` over a whole search if the excess were always 1.
MULTIPLIER_TRAVEL = 40.0
# Proportional gain k of `BudgetMultiplier` at temperature 1.
MULTIPLIER_GAIN = 10.0
# Fraction of the search in which the target latency falls to the budget.
BUDGET_APPROACH = 0.5


class ArchSchedule:
    """Counts the architecture steps of a search, and derives from them what changes during the search.

    Args:
        arch: Settings of the architecture's training.
        reference_ms: Reference latency of the objective, in milliseconds.
        keeps_budget: Whether `reference_ms` is a budget, for which dual ascent adjusts the weight μ of the latency.
        limits: Limits of further budgets, in their own units. Each has its own weight.

    Attributes:
        step: Number of architecture steps taken so far.
        steps: Number of architecture steps of the whole search; `None` if its length is unknown.
        rate: Initial learning rate of the architecture's Adam, either that of `arch` or the one that `plan` derives.
        start_ms: Expected latency before the first architecture step, in milliseconds. `None` before that step, and in
            searches without a budget.
        multiplier: Controller of μ; `None` in searches without a latency budget of the own target.
        further: Controllers of the weights of the further budgets.
    """

    def __init__(
        self, arch: ArchSettings, reference_ms: float, *, keeps_budget: bool, limits: Sequence[float] = ()
    ) -> None:
        self._arch = arch
        self._reference_ms = reference_ms
        self.step = 0
        self.steps: int | None = None
        self.rate = arch.arch_learning_rate or ARCH_RATES[0]
        self.multiplier = BudgetMultiplier(0.0, MULTIPLIER_GAIN) if keeps_budget else None
        self.start_ms: float | None = None
        self.further = [BudgetMultiplier(0.0, MULTIPLIER_GAIN) for _ in limits]
        self._limits = tuple(limits)
        self._starts: tuple[float, ...] | None = None
        self._searching: float | None = None  # number of epochs with architecture steps

    def plan(self, epochs: int | None, batches: float, candidates: float, optimizer_steps: int = -1) -> None:
        """Derive the learning rate and the rate of dual ascent from the length of the search.

        Args:
            epochs: Number of epochs of the whole search, including its warm-up; `None` or less than 1 if it is not
                limited.
            batches: Number of weight steps of an epoch; infinite if it is unknown.
            candidates: Mean number of candidates of a layer.
            optimizer_steps: Largest number of steps of both optimizers together, as Lightning's `max_steps` counts
                them; -1 if it is not limited.
        """
        if math.isfinite(batches) and batches > 0:
            self._count_steps(epochs, batches, optimizer_steps)
        if self._arch.arch_learning_rate is None and self.steps is not None:
            self.rate = default_arch_rate(self.steps, candidates, self._arch.arch_gradient)
        for multiplier in self._multipliers:
            multiplier.rate = MULTIPLIER_TRAVEL / (self.steps or 10_000)

    @property
    def _multipliers(self) -> list[BudgetMultiplier]:
        return [*([] if self.multiplier is None else [self.multiplier]), *self.further]

    @property
    def latency_weight(self) -> float:
        """Weight of the latency: the configured λ or b, the current μ of a budget, or 0 if only others have budgets."""
        if self.multiplier is None:
            return 0.0 if self.keeps_budgets else self._arch.latency_weight
        return self.multiplier.value

    @property
    def keeps_budgets(self) -> bool:
        """Whether the search has any budget that it must keep."""
        return bool(self._multipliers)

    def _count_steps(self, epochs: int | None, batches: float, optimizer_steps: int) -> None:
        """Count the epochs and steps of the search that train the architecture, unless its length is not limited."""
        arch = self._arch
        per_epoch = math.ceil(batches / arch.effective_arch_update_every)
        searching = math.inf
        if epochs is not None and epochs > 0:
            searching = float(epochs - arch.warmup_epochs - arch.finalist_epochs)
        if optimizer_steps >= 0:
            left = optimizer_steps - arch.warmup_epochs * batches
            searching = min(searching, max(0.0, left / (batches + per_epoch)))
        if math.isfinite(searching):
            self._searching = searching
            self.steps = max(1, round(searching * per_epoch))

    @property
    def sharpens(self) -> bool:
        """Whether the temperature falls at the end of the search, if its length is known."""
        wanted = self._arch.sharpen_epochs
        return self.keeps_budgets if wanted is None else wanted > 0

    @property
    def temperature(self) -> float:
        """Current softmax temperature τ. It is 1, and falls geometrically at the end of the search."""
        start = self._sharpening_start
        if start is None or self.steps is None or self.step <= start:
            return 1.0
        return float(self._arch.sharpen_temperature ** ((self.step - start) / (self.steps - start)))

    @property
    def _sharpening_start(self) -> float | None:
        """Architecture step at which the temperature starts to fall; `None` if it does not."""
        epochs = self._searching
        if self.steps is None or epochs is None or epochs <= 0:
            return None
        sharpening: float | None = self._arch.sharpen_epochs
        if sharpening is None:
            sharpening = epochs / 4 if self.keeps_budgets else 0
        return None if sharpening == 0 else float(self.steps * max(0.0, 1.0 - sharpening / epochs))

    @property
    def present_rate(self) -> float:
        """Learning rate of the architecture's Adam in the current step."""
        if self._arch.arch_schedule == "cosine" and self.steps is not None:
            return self.rate * 0.5 * (1 + math.cos(math.pi * min(1.0, self.step / self.steps)))
        return self.rate

    @property
    def target_ms(self) -> float:
        """Current target of the expected latency, in milliseconds.

        If the search starts above the budget, the target falls linearly to the budget in the first half of the search.
        If the budget applied from the start, latency alone would decide before the accuracies of the paths differ.
        """
        return self._target(self.start_ms, self._reference_ms)

    def _target(self, start: float | None, limit: float) -> float:
        if start is None or start <= limit or self.steps is None:
            return limit
        way = min(1.0, (self.step + 1) / (BUDGET_APPROACH * self.steps))
        return start + way * (limit - start)

    def begin(self, expected_ms: float | None, expected: Sequence[float] = ()) -> None:
        """Record the expected quantities before the first architecture step. Later calls change nothing.

        Args:
            expected_ms: Expected latency in milliseconds; required if there is a budget for it.
            expected: Expected quantities of the further budgets.
        """
        if self.multiplier is not None and self.start_ms is None:
            self.start_ms = expected_ms
        if self.further and self._starts is None:
            self._starts = tuple(expected)

    def advance(self, expected_ms: float | None, expected: Sequence[float] = ()) -> None:
        """Count an architecture step, and update the weights of all budgets.

        Args:
            expected_ms: Expected latency after the step, in milliseconds; required if there is a budget for it.
            expected: Expected quantities of the further budgets after the step.
        """
        for multiplier in self._multipliers:
            multiplier.gain = MULTIPLIER_GAIN / self.temperature
        if self.multiplier is not None:
            assert expected_ms is not None
            self.multiplier.update(expected_ms / self.target_ms - 1.0)
        starts = self._starts or (None,) * len(self.further)
        for multiplier, value, limit, start in zip(self.further, expected, self._limits, starts, strict=True):
            multiplier.update(value / self._target(start, limit) - 1.0)
        self.step += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the state for checkpoints."""
        return {
            "arch_step": self.step,
            "start_ms": self.start_ms,
            "multiplier": None if self.multiplier is None else self.multiplier.state_dict(),
            "further": [multiplier.state_dict() for multiplier in self.further],
            "starts": self._starts,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        self.step = state["arch_step"]
        self.start_ms = state["start_ms"]
        if self.multiplier is not None and state["multiplier"] is not None:
            self.multiplier.load_state_dict(state["multiplier"])
        saved = state.get("further") or []  # version 0.1 had none
        if len(saved) == len(self.further):
            self._starts = state.get("starts")
            for multiplier, values in zip(self.further, saved, strict=True):
                multiplier.load_state_dict(values)
