"""The tuner `LatencyBudget`: works through target × strategy × budget × seed, strategies compared at the same latency.

```yaml
tuner:
  name: LatencyBudget
  classArgs: {tolerance: 0.05, max_trials_per_cell: 6}
```

A strategy with the objective `budget` needs one trial for each cell. For others the latency weight is found by
bisection on its logarithm, warm-started from neighbouring budgets.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nni
import requests
from nni.tuner import Tuner

from ..files import write_csv, write_json
from .grid_points import Cell, Rules, Trial, find_cell, next_parameters, parse_search_space, same_parameters, summary
from .weight_search import WeightRange

_log = logging.getLogger(__name__)
_JOURNAL = "latency_budget.json"
_SUMMARY = "latency_budget.csv"
_CRASHED = {"FAILED", "USER_CANCELED", "SYS_CANCELED", "EARLY_STOPPED"}
# A crash is told on another thread than the request for the trial that comes after it.
_PATIENCE_S = 5.0


class LatencyBudget(Tuner):
    """NNI tuner; see the module. Arguments are `classArgs` of an nnictl config.

    Args:
        tolerance: A cell is done when the expected latency is within this part of its budget.
        max_trials_per_cell: Trials at most in which a cell's weight is looked for.
        weight_key: The parameter that holds the weight.
        initial_weight: The weight to begin with where no neighbour has one.
        min_weight: The smallest weight.
        max_weight: The largest.
        one_trial_strategies: Strategies that need no weight.

    Raises:
        ValueError: An argument is of a wrong type or out of range; the message says what is allowed.
    """

    def __init__(
        self,
        tolerance: float = 0.05,
        max_trials_per_cell: int = 6,
        weight_key: str = "latency_weight",
        initial_weight: float = 0.1,
        min_weight: float = 1e-3,
        max_weight: float = 100.0,
        one_trial_strategies: list[str] | None = None,
    ) -> None:
        _number("tolerance", tolerance, 0.0, 1.0)
        if not isinstance(max_trials_per_cell, int) or isinstance(max_trials_per_cell, bool) or max_trials_per_cell < 1:
            raise ValueError(
                f"LatencyBudget: max_trials_per_cell must be a whole number from 1, got {max_trials_per_cell!r}"
            )
        if not isinstance(weight_key, str) or not weight_key:
            raise ValueError(f"LatencyBudget: weight_key must be the name of a parameter, got {weight_key!r}")
        for name, value in (("min_weight", min_weight), ("initial_weight", initial_weight), ("max_weight", max_weight)):
            _number(name, value, 0.0, float("inf"))
        if not min_weight <= initial_weight <= max_weight:
            raise ValueError(
                "LatencyBudget: min_weight, initial_weight and max_weight must rise, got "
                f"{min_weight!r}, {initial_weight!r}, {max_weight!r}"
            )
        rules = Rules(tolerance, max_trials_per_cell, weight_key, WeightRange(initial_weight, min_weight, max_weight))
        if one_trial_strategies is not None:
            if not isinstance(one_trial_strategies, list) or not all(isinstance(n, str) for n in one_trial_strategies):
                raise ValueError(
                    f"LatencyBudget: one_trial_strategies must be a list of names, got {one_trial_strategies!r}"
                )
            rules = Rules(
                rules.tolerance, rules.max_trials_per_cell, weight_key, rules.weights, tuple(one_trial_strategies)
            )
        super().__init__()
        self._rules = rules
        self._cells: list[Cell] = []
        self._trials: dict[int, Trial] = {}
        self._unused_ids: list[int] = []
        self._send: Callable[[int, dict[str, Any]], None] | None = None
        self._told = False
        self._before_resume: list[Trial] = []
        # NNI calls trial_end on one thread and all else on another.
        self._changed = threading.Condition()

    def update_search_space(self, search_space: Mapping[str, Any]) -> None:
        """Take a search space; of one that is changed in between, cells that stay keep what is known of them."""
        with self._changed:
            cells = parse_search_space(search_space, self._rules)
            for cell in cells:
                before = find_cell(self._cells, cell.values, self._rules)
                if before is not None:
                    cell.trials = before.trials
            self._cells = cells
            self._told = False
            self._keep()
            self._use_left_over()

    def generate_multiple_parameters(self, parameter_id_list: list[int], **kwargs: Any) -> list[dict[str, Any]]:
        """Parameters for as many trials as can be said now; the others are sent when results have come in."""
        with self._changed:
            self._send = kwargs.get("st_callback")
            self._ask_the_manager()
            handed: list[dict[str, Any]] = []
            for number, parameter_id in enumerate(parameter_id_list):
                parameters = self._next(parameter_id)
                if parameters is None:
                    self._unused_ids += parameter_id_list[number:]
                    break
                handed.append(parameters)
            self._keep()
            self._tell()
            return handed

    def generate_parameters(self, parameter_id: int, **kwargs: Any) -> dict[str, Any]:
        """As NNI defines it, for one trial.

        Raises:
            nni.NoMoreTrialError: Nothing is left, or nothing can be said before a running trial has ended.
        """
        found = self.generate_multiple_parameters([parameter_id], **kwargs)
        if not found:
            raise nni.NoMoreTrialError("nothing is left, or nothing can be said before a running trial has ended")
        return found[0]

    def receive_trial_result(self, parameter_id: int, parameters: Any, value: Any, **kwargs: Any) -> None:
        """Take a result; one that comes twice, late or for parameters of another search space does no harm."""
        with self._changed:
            self._record(parameters, value)
            self._keep()
            self._use_left_over()
            self._tell()
            self._changed.notify_all()

    def trial_end(self, parameter_id: int, success: bool, **kwargs: Any) -> None:
        """A trial that ended without a result is tried once more with the same parameters."""
        with self._changed:
            trial = self._trials.get(parameter_id)
            if trial is not None and trial.state == "running" and not success:
                trial.state = "failed"
                trial.crashes += 1
                _log.warning(
                    "LatencyBudget: trial %s ended without a result%s", trial.parameters,
                    "; it is tried once more" if trial.crashes == 1 else " again; its cell is given up",
                )  # fmt: skip
            self._keep()
            self._use_left_over()
            self._tell()
            self._changed.notify_all()

    def import_data(self, data: list[Any]) -> None:
        """Take results of earlier experiments, and, after `nnictl resume`, of this one."""
        with self._changed:
            for record in data:
                self._record(record.get("parameter"), record.get("value"))
            self._keep()
            self._use_left_over()
            self._tell()

    def load_checkpoint(self) -> None:
        """What this experiment knew before it was stopped; NNI starts its interrupted trials again by itself."""
        path = self._folder()
        if path is None or not (path / _JOURNAL).is_file():
            return
        known = json.loads((path / _JOURNAL).read_text(encoding="utf-8"))
        with self._changed:
            self._cells = [
                Cell(entry["values"], entry["tuned"], [Trial(**trial) for trial in entry["trials"]]) for entry in known
            ]
            self._before_resume = [t for cell in self._cells for t in cell.trials if t.state == "running"]
        _log.info("LatencyBudget: going on with %d cells", len(self._cells))

    def save_checkpoint(self) -> None:
        """Written at each change already: the manager may be killed at any moment."""

    def _ask_the_manager(self) -> None:
        """What NNI does not tell of trials from before a resume: that they crashed, or were never started."""
        jobs = manager_jobs() if self._before_resume else None
        if jobs is None:
            return
        for trial in list(self._before_resume):
            statuses = [status for parameters, status in jobs if same_parameters(parameters, trial.parameters)]
            if trial.state == "running" and not statuses:
                for cell in self._cells:  # it was still waiting when the manager was killed
                    cell.trials = [other for other in cell.trials if other is not trial]
            elif trial.state == "running" and not set(statuses) - _CRASHED:
                trial.state = "failed"
                trial.crashes = len(statuses)  # no more than before if the second one was still waiting
            if trial.state != "running" or not statuses:
                self._before_resume.remove(trial)

    def _next(self, parameter_id: int) -> dict[str, Any] | None:
        """The first cell that needs a trial gets one. Waits a little for a crash that has not been told yet."""
        end = time.monotonic() + _PATIENCE_S
        while True:
            for cell in self._cells:
                parameters = next_parameters(cell, self._cells, self._rules)
                if parameters is None:
                    continue
                last = cell.trials[-1] if cell.trials else None
                if last is not None and last.state == "failed":
                    last.state = "running"
                    trial = last
                else:
                    trial = Trial(parameters)
                    cell.trials.append(trial)
                self._trials[parameter_id] = trial
                return dict(parameters)
            left = end - time.monotonic()
            if left <= 0 or not any(cell.running for cell in self._cells):
                return None
            self._changed.wait(left)

    def _use_left_over(self) -> None:
        """Send trials for requests that could not be met when they were made."""
        while self._unused_ids and self._send is not None:
            parameters = None
            if any(next_parameters(cell, self._cells, self._rules) is not None for cell in self._cells):
                parameters = self._next(self._unused_ids[0])
            if parameters is None:
                return
            parameter_id = self._unused_ids.pop(0)
            self._keep()
            self._send(parameter_id, parameters)

    def _record(self, parameters: Any, value: Any) -> None:
        metrics = {"default": value} if isinstance(value, (int, float)) else value
        cell = find_cell(self._cells, parameters, self._rules) if isinstance(parameters, Mapping) else None
        if cell is None or not isinstance(metrics, Mapping):
            _log.info("LatencyBudget: a result of no cell of this search space is left out: %s", parameters)
            return
        trial = next((t for t in cell.trials if same_parameters(t.parameters, parameters)), None)
        if trial is None:
            trial = Trial(dict(parameters))
            cell.trials.append(trial)
        trial.state = "done"
        trial.metrics = {str(k): float(v) for k, v in metrics.items() if isinstance(v, (int, float))}

    def _tell(self) -> None:
        """Log the summary, once, when nothing is left."""
        left = any(c.running or next_parameters(c, self._cells, self._rules) is not None for c in self._cells)
        if self._told or left or not any(cell.trials for cell in self._cells):
            return
        self._told = True
        rows = summary(self._cells, self._rules)
        columns = list(dict.fromkeys(key for row in rows for key in row))
        shown = [[_shown(row.get(column, "")) for column in columns] for row in rows]
        widths = [max(map(len, column)) for column in zip(columns, *shown, strict=True)]
        table = [columns, *shown]
        lines = ["  ".join(word.ljust(n) for word, n in zip(line, widths, strict=True)).rstrip() for line in table]
        _log.info("LatencyBudget: nothing is left\n%s", "\n".join(lines))
        folder = self._folder()
        if folder is not None:
            write_csv(folder / _SUMMARY, columns, rows)

    def _keep(self) -> None:
        folder = self._folder()
        if folder is not None:
            write_json(folder / _JOURNAL, [asdict(cell) for cell in self._cells])

    def _folder(self) -> Path | None:
        path = os.environ.get("NNI_CHECKPOINT_DIRECTORY")
        return Path(path) if path and os.path.isdir(path) else None


def manager_jobs() -> list[tuple[dict[str, Any], str]] | None:
    """Parameters and status of each trial job, as NNI's manager knows them; none where it does not answer."""
    channel = os.environ.get("NNI_TUNER_COMMAND_CHANNEL", "")
    if not channel.startswith("ws://"):
        return None
    try:
        answer = requests.get(f"http://{channel[5:].rsplit('/', 1)[0]}/api/v1/nni/trial-jobs", timeout=10)
        jobs = answer.json()
        return [(json.loads(of)["parameters"], job["status"]) for job in jobs for of in job["hyperParameters"][:1]]
    except (requests.RequestException, ValueError, KeyError, TypeError) as reason:
        _log.warning("LatencyBudget: NNI's manager does not say which trials it has: %s", reason)
        return None


def _number(name: str, value: object, above: float, below: float) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not above < value < below:
        bounds = f"above {above:g}" + (f" and below {below:g}" if below != float("inf") else "")
        raise ValueError(f"LatencyBudget: {name} must be a number {bounds}, got {value!r}")


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
