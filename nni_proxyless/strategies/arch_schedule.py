"""What changes over a search: rate and temperature of the architecture, and the latency it is to come to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .arch_settings import ARCH_RATES, ArchSettings, default_arch_rate
from .objective import BudgetMultiplier

# Dual ascent over a search of any length: I moves by this if the excess is 1 all along; k as in `BudgetMultiplier`.
MULTIPLIER_TRAVEL = 40.0
MULTIPLIER_GAIN = 10.0
# The part of the search in which the target comes down to the budget.
BUDGET_APPROACH = 0.5


class ArchSchedule:
    """Where a search stands, in architecture steps, and what follows from that.

    Args:
        arch: Settings of the architecture's training.
        reference_ms: Latency that the expected latency is compared with, in milliseconds.
        keeps_budget: Whether `reference_ms` is a budget, whose weight μ dual ascent finds.

    Attributes:
        step: Number of architecture steps so far.
        steps: Number of architecture steps of the whole search; `None` where its length is not known.
        rate: Adam's learning rate before a cosine: that of `arch`, or the one that `plan` derives.
        start_ms: E before the first architecture step, in milliseconds, where a budget is kept.
        multiplier: Controller of μ, where a budget is kept.
    """

    def __init__(self, arch: ArchSettings, reference_ms: float, *, keeps_budget: bool) -> None:
        self._arch = arch
        self._reference_ms = reference_ms
        self.step = 0
        self.steps: int | None = None
        self.rate = arch.arch_learning_rate or ARCH_RATES[0]
        self.multiplier = BudgetMultiplier(0.0, MULTIPLIER_GAIN) if keeps_budget else None
        self.start_ms: float | None = None
        self._searching: int | None = None  # epochs with architecture steps

    def plan(self, epochs: int | None, batches: float, candidates: float) -> None:
        """Derive rates from the length of the search.

        Args:
            epochs: Number of epochs of the whole search, with its warm-up; `None` or below 1 where it is not limited.
            batches: Number of weight steps of an epoch; infinite where it is not known.
            candidates: Mean number of candidates of a layer.
        """
        if epochs is not None and epochs > 0:
            self._searching = epochs - self._arch.warmup_epochs - self._arch.finalist_epochs
            if math.isfinite(batches):
                self.steps = max(1, self._searching * math.ceil(batches / self._arch.effective_arch_update_every))
        if self._arch.arch_learning_rate is None and self.steps is not None:
            self.rate = default_arch_rate(self.steps, candidates, self._arch.arch_gradient)
        if self.multiplier is not None:
            self.multiplier.rate = MULTIPLIER_TRAVEL / (self.steps or 10_000)

    @property
    def temperature(self) -> float:
        """The present temperature τ: 1, and in the last epochs falling geometrically."""
        start = self._sharpening_start
        if start is None or self.steps is None or self.step <= start:
            return 1.0
        return float(self._arch.sharpen_temperature ** ((self.step - start) / (self.steps - start)))

    @property
    def _sharpening_start(self) -> float | None:
        """The step at which the temperature begins to fall."""
        epochs = self._searching
        if self.steps is None or epochs is None or epochs <= 0:
            return None
        sharpening: float | None = self._arch.sharpen_epochs
        if sharpening is None:
            sharpening = 0 if self.multiplier is None else epochs / 4
        return None if sharpening == 0 else float(self.steps * max(0.0, 1.0 - sharpening / epochs))

    @property
    def present_rate(self) -> float:
        """Adam's learning rate in this step."""
        if self._arch.arch_schedule == "cosine" and self.steps is not None:
            return self.rate * 0.5 * (1 + math.cos(math.pi * min(1.0, self.step / self.steps)))
        return self.rate

    @property
    def target_ms(self) -> float:
        """The latency that E should have by now: it approaches the budget in the first half of the search.

        If the budget held at once, latency alone would decide before any path has shown what it is worth.
        """
        if self.start_ms is None or self.start_ms <= self._reference_ms or self.steps is None:
            return self._reference_ms
        way = min(1.0, (self.step + 1) / (BUDGET_APPROACH * self.steps))
        return self.start_ms + way * (self._reference_ms - self.start_ms)

    def advance(self, expected_ms: float | None) -> None:
        """Count an architecture step, and update μ.

        Args:
            expected_ms: E after the step, in milliseconds; needed where a budget is kept.
        """
        if self.multiplier is not None:
            assert expected_ms is not None
            self.multiplier.gain = MULTIPLIER_GAIN / self.temperature
            self.multiplier.update(expected_ms / self.target_ms - 1.0)
        self.step += 1

    def state_dict(self) -> dict[str, Any]:
        """The state that checkpoints hold."""
        return {
            "arch_step": self.step,
            "start_ms": self.start_ms,
            "multiplier": None if self.multiplier is None else self.multiplier.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.step = state["arch_step"]
        self.start_ms = state["start_ms"]
        if self.multiplier is not None and state["multiplier"] is not None:
            self.multiplier.load_state_dict(state["multiplier"])
