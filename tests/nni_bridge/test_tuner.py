"""The tuner with simulated trials: monotone, noisy, flat, failing, out-of-order, repeated and resumed ones."""

from __future__ import annotations

import csv
import itertools
import json
import math
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nni
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nni_proxyless.nni_bridge.grid_points import Rules, find_grid_point, needs_weight
from nni_proxyless.nni_bridge.tuner import LatencyBudget, manager_jobs
from nni_proxyless.nni_bridge.weight_search import WeightRange, next_weight

SPACE = {
    "target": {"_type": "choice", "_value": ["cpu", "phone"]},
    "strategy": {"_type": "choice", "_value": ["proxyless", "darts"]},
    "budget_ms": {"_type": "choice", "_value": [4.0, 8.0]},
    "seed": {"_type": "choice", "_value": [0, 1]},
}


def space(**choices: list[Any]) -> dict[str, Any]:
    return {key: {"_type": "choice", "_value": values} for key, values in choices.items()}


def device(parameters: dict[str, Any]) -> dict[str, float] | None:
    """Simulate a trial. The expected latency falls from 16 ms towards 2 ms as the weight rises."""
    if parameters["strategy"] == "proxyless":
        ratio = 0.99
    else:
        ratio = (2.0 + 14.0 / (1.0 + 5.0 * parameters["latency_weight"])) / parameters["budget_ms"]
    return {"default": 0.9, "latency_ms": min(ratio, 1.0), "expected_over_budget": ratio}


class Manager:
    """Simulated NNI manager, which requests trials, runs several at a time, and reports their results and ends."""

    def __init__(self, tuner: LatencyBudget, concurrency: int = 1, seed: int = 0) -> None:
        self.tuner = tuner
        self.concurrency = concurrency
        self.random = random.Random(seed)
        self.ids = itertools.count()
        self.waiting: list[tuple[int, dict[str, Any]]] = []
        self.handed: list[dict[str, Any]] = []

    def run(self, trial: Callable[[dict[str, Any]], dict[str, float] | None], limit: int = 500) -> None:
        self.request(self.concurrency)
        while self.waiting and len(self.handed) < limit:
            parameter_id, parameters = self.waiting.pop(self.random.randrange(min(len(self.waiting), self.concurrency)))
            found = trial(parameters)
            if found is not None:
                self.tuner.receive_trial_result(parameter_id, parameters, found)
            self.tuner.trial_end(parameter_id, found is not None)
            self.request(1)

    def request(self, count: int) -> None:
        ids = [next(self.ids) for _ in range(count)]
        for parameter_id, parameters in zip(
            ids, self.tuner.generate_multiple_parameters(ids, st_callback=self.start), strict=False
        ):
            self.start(parameter_id, parameters)

    def start(self, parameter_id: int, parameters: dict[str, Any]) -> None:
        json.dumps(parameters)
        self.waiting.append((parameter_id, parameters))
        self.handed.append(parameters)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("nni_proxyless.nni_bridge.tuner._PATIENCE_S", 0.01)
    monkeypatch.setenv("NNI_CHECKPOINT_DIRECTORY", str(tmp_path))


def made(space: dict[str, Any] = SPACE, **arguments: Any) -> LatencyBudget:
    tuner = LatencyBudget(**arguments)
    tuner.update_search_space(space)
    return tuner


def outcome(tmp_path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((tmp_path / "latency_budget.csv").read_text().splitlines()))


@pytest.mark.parametrize("concurrency", [1, 2, 5])
def test_every_grid_point_meets_its_budget(concurrency: int, tmp_path: Path) -> None:
    manager = Manager(made(max_trials_per_cell=8), concurrency)
    manager.run(device)
    rows = outcome(tmp_path)
    assert len(rows) == 16
    keys = ("target", "strategy", "budget_ms", "seed")
    assert {tuple(row[key] for key in keys) for row in rows} == {
        tuple(map(str, values)) for values in itertools.product(*(SPACE[key]["_value"] for key in keys))
    }
    for row in rows:
        if row["strategy"] == "proxyless":
            assert row["outcome"] == "one trial"
            assert row["trials"] == "1"
        else:
            assert row["outcome"] == "met"
            assert float(row["expected_over_budget"]) == pytest.approx(1.0, abs=0.05)
    with pytest.raises(nni.NoMoreTrialError):
        manager.tuner.generate_parameters(10_000)


def test_neighbours_warm_start() -> None:
    """The second and third seeds start at the weight where the first one ended, so they need only one trial each."""
    manager = Manager(made(space(strategy=["darts"], budget_ms=[6.0], seed=[0, 1, 2]), max_trials_per_cell=8))
    manager.run(device)
    by_seed = [sum(p["seed"] == seed for p in manager.handed) for seed in (0, 1, 2)]
    assert by_seed[0] > 1
    assert by_seed[1:] == [1, 1]


def test_a_neighbouring_budget_warm_starts_too() -> None:
    manager = Manager(made(space(strategy=["darts"], budget_ms=[3.0, 8.0, 8.1], seed=[0]), max_trials_per_cell=9))
    manager.run(device)
    of = {b: [p["latency_weight"] for p in manager.handed if p["budget_ms"] == b] for b in (3.0, 8.0, 8.1)}
    assert of[8.0][0] == of[3.0][-1]
    assert of[8.1][0] == of[8.0][-1]


def test_noise_does_not_keep_it_from_ending(tmp_path: Path) -> None:
    noise = random.Random(1)

    def noisy(parameters: dict[str, Any]) -> dict[str, float]:
        found = device(parameters)
        assert found is not None
        return {**found, "expected_over_budget": found["expected_over_budget"] * noise.uniform(0.8, 1.25)}

    manager = Manager(
        made(space(strategy=["darts"], budget_ms=[3.0, 5.0], seed=[*range(10)]), max_trials_per_cell=6), 2
    )
    manager.run(noisy)
    assert len(manager.handed) <= 20 * 6
    rows = outcome(tmp_path)
    assert all(row["outcome"] == "met" or int(row["trials"]) <= 6 for row in rows)
    assert sum(row["outcome"] == "met" for row in rows) >= 10


@pytest.mark.parametrize(("ratio", "end"), [(2.0, 100.0), (0.5, 1e-3)])
def test_a_flat_answer_ends_at_the_end_of_the_range(ratio: float, end: float) -> None:
    manager = Manager(made(space(strategy=["darts"], budget_ms=[4.0]), max_trials_per_cell=50))
    manager.run(lambda parameters: {"default": 0.5, "expected_over_budget": ratio})
    weights = [p["latency_weight"] for p in manager.handed]
    assert weights[-1] == end
    assert len(weights) == len(set(weights)) <= 8


def test_max_trials_per_cell_holds(tmp_path: Path) -> None:
    manager = Manager(made(space(strategy=["darts"], budget_ms=[3.0]), max_trials_per_cell=2, tolerance=1e-6))
    manager.run(device)
    assert len(manager.handed) == 2
    assert outcome(tmp_path)[0]["outcome"] == "nearest of 2"


def test_a_crash_is_tried_once_more(tmp_path: Path) -> None:
    crashed: list[dict[str, Any]] = []

    def crash_first(parameters: dict[str, Any]) -> dict[str, float] | None:
        if parameters not in crashed:
            crashed.append(parameters)
            return None
        return device(parameters)

    manager = Manager(made(space(strategy=["proxyless", "darts"], budget_ms=[6.0])), 2)
    manager.run(crash_first)
    assert all(manager.handed.count(p) == 2 for p in manager.handed)
    assert [row["outcome"] for row in outcome(tmp_path)] == ["one trial", "met"]


def test_a_grid_point_that_crashes_twice_is_given_up_and_the_others_go_on(tmp_path: Path) -> None:
    manager = Manager(made(space(strategy=["darts", "proxyless"], budget_ms=[6.0])))
    manager.run(lambda p: None if p["strategy"] == "darts" else device(p))
    assert [p["strategy"] for p in manager.handed] == ["darts", "proxyless", "darts"]  # the repetition comes last
    assert [row["outcome"] for row in outcome(tmp_path)] == ["failed", "one trial"]


def test_a_crash_that_is_told_late_still_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """NNI requests the next trial in one thread, and reports the crash in another one."""
    monkeypatch.setattr("nni_proxyless.nni_bridge.tuner._PATIENCE_S", 20.0)
    tuner = made(space(strategy=["proxyless"], budget_ms=[6.0]))
    (first,) = tuner.generate_multiple_parameters([0])
    teller = threading.Timer(0.3, lambda: tuner.trial_end(0, False))
    teller.start()
    assert tuner.generate_multiple_parameters([1]) == [first]
    teller.join()


def test_results_that_come_twice_or_late_or_from_elsewhere_do_no_harm(tmp_path: Path) -> None:
    tuner = made(space(strategy=["darts"], budget_ms=[6.0]))
    (parameters,) = tuner.generate_multiple_parameters([0])
    for _ in range(3):
        tuner.receive_trial_result(0, parameters, device(parameters))
    tuner.trial_end(0, True)
    tuner.trial_end(0, False)
    tuner.receive_trial_result(77, {"strategy": "darts", "budget_ms": 99.0}, {"default": 1.0})
    tuner.receive_trial_result(78, "not a mapping", None)
    (following,) = tuner.generate_multiple_parameters([1])
    assert following["latency_weight"] != parameters["latency_weight"]
    points = json.loads((tmp_path / "latency_budget.json").read_text())
    assert [trial["state"] for trial in points[0]["trials"]] == ["done", "running"]


def test_resume_repeats_nothing(tmp_path: Path) -> None:
    """After a resume, finished trials are not repeated, interrupted ones are left to NNI, and all others are run."""
    tuner = made()
    manager = Manager(tuner, 2)
    manager.run(device, limit=9)
    before = list(manager.handed)
    interrupted = [parameters for _, parameters in manager.waiting]
    assert interrupted

    again = LatencyBudget()
    again.load_checkpoint()
    again.update_search_space(SPACE)
    resumed = Manager(again, 2)
    # NNI itself runs the interrupted trials again, and imports their results.
    resumed.request(1)
    again.import_data([{"parameter": p, "value": device(p)} for p in interrupted])
    resumed.run(device)
    assert not [p for p in resumed.handed if p in before]
    points = [{k: v for k, v in p.items() if k != "latency_weight"} for p in before + resumed.handed]
    assert len({json.dumps(point, sort_keys=True) for point in points}) == 16


def test_after_a_resume_the_manager_is_asked_what_became_of_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """NNI never reports the end of trials from before a resume, and drops trials that had not been started."""
    grid = space(strategy=["proxyless"], budget_ms=[1.0, 2.0, 3.0, 4.0])
    made(grid).generate_multiple_parameters([0, 1, 2])
    again = LatencyBudget()
    again.load_checkpoint()
    again.update_search_space(grid)
    jobs = [
        ({"strategy": "proxyless", "budget_ms": 1.0}, "RUNNING"),
        ({"strategy": "proxyless", "budget_ms": 2.0}, "WAITING"),
    ]
    monkeypatch.setattr("nni_proxyless.nni_bridge.tuner.manager_jobs", lambda: jobs)
    # The third trial was handed out but never started, so it is handed out again. The fourth trial is new.
    handed = again.generate_multiple_parameters([3, 4, 5])
    assert [p["budget_ms"] for p in handed] == [3.0, 4.0]
    # The first trial was killed. The second one succeeded, so its result is imported.
    jobs[0] = (jobs[0][0], "USER_CANCELED")
    jobs[1] = (jobs[1][0], "SUCCEEDED")
    again.import_data([{"parameter": jobs[1][0], "value": {"default": 0.9}}])
    handed = again.generate_multiple_parameters([6, 7])
    assert [p["budget_ms"] for p in handed] == [1.0]


def test_a_second_try_that_was_never_started_is_not_a_second_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = space(strategy=["proxyless"], budget_ms=[1.0])
    tuner = made(grid)
    (parameters,) = tuner.generate_multiple_parameters([0])
    tuner.trial_end(0, False)
    assert tuner.generate_multiple_parameters([1]) == [parameters]  # then the manager is killed
    for expected in ([parameters], []):
        again = LatencyBudget()
        again.load_checkpoint()
        again.update_search_space(grid)
        crashes = 1 if expected else 2
        monkeypatch.setattr(
            "nni_proxyless.nni_bridge.tuner.manager_jobs", lambda n=crashes: [(parameters, "USER_CANCELED")] * n
        )
        assert again.generate_multiple_parameters([2]) == expected


def test_a_manager_that_does_not_answer_is_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNI_TUNER_COMMAND_CHANNEL", "ws://localhost:9/tuner")
    assert manager_jobs() is None
    monkeypatch.delenv("NNI_TUNER_COMMAND_CHANNEL")
    assert manager_jobs() is None


def test_earlier_data_is_imported() -> None:
    tuner = made(space(strategy=["proxyless", "darts"], budget_ms=[6.0]))
    known = {"strategy": "darts", "budget_ms": 6.0, "latency_weight": 0.5}
    tuner.import_data(
        [
            {"parameter": known, "value": device(known)},
            {"parameter": {"strategy": "proxyless", "budget_ms": 6.0}, "value": {"default": 0.9}},
            {"parameter": {"something": "else"}, "value": 0.3},
        ]
    )
    manager = Manager(tuner)
    manager.run(lambda parameters: device(parameters))
    assert all(p["strategy"] == "darts" for p in manager.handed)


def test_a_changed_search_space_keeps_what_is_known() -> None:
    tuner = made(space(strategy=["proxyless"], budget_ms=[4.0]))
    manager = Manager(tuner)
    manager.run(device)
    tuner.update_search_space(space(strategy=["proxyless"], budget_ms=[4.0, 8.0]))
    # The open request from before is now fulfilled, although it was not repeated.
    assert [p["budget_ms"] for p in manager.handed] == [4.0, 8.0]


def test_which_grid_points_need_a_weight() -> None:
    rules = Rules()
    assert not needs_weight({"strategy": "proxyless"}, rules)
    assert not needs_weight({}, rules)
    assert not needs_weight({"strategy": "random", "objective": "add_linear"}, rules)
    assert needs_weight({"strategy": "proxyless", "objective": "add_linear"}, rules)
    assert not needs_weight({"strategy": "mine:Own", "objective": "budget"}, rules)
    assert needs_weight({"strategy": "enas"}, rules)


def test_the_budget_in_ms_serves_where_metrics_have_no_ratio() -> None:
    manager = Manager(made(space(strategy=["darts"], budget_ms=[6.0]), max_trials_per_cell=8))

    def plain(parameters: dict[str, Any]) -> dict[str, float]:
        found = device(parameters)
        assert found is not None
        return {"default": 0.9, "expected_latency_ms": found["expected_over_budget"] * 6.0}

    manager.run(plain)
    weight = manager.handed[-1]["latency_weight"]
    assert (2.0 + 14.0 / (1.0 + 5.0 * weight)) / 6.0 == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tolerance": 0}, "tolerance must be a number above 0 and below 1, got 0"),
        ({"tolerance": "5%"}, "tolerance must be a number above 0 and below 1, got '5%'"),
        ({"max_trials_per_cell": 0}, "max_trials_per_cell must be a whole number from 1, got 0"),
        ({"weight_key": ""}, "weight_key must be the name of a parameter, got ''"),
        ({"min_weight": -1}, "min_weight must be a number above 0, got -1"),
        ({"initial_weight": 200.0}, "must rise, got 0.001, 200.0, 100.0"),
        ({"one_trial_strategies": "proxyless"}, "must be a list of names, got 'proxyless'"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="LatencyBudget") as caught:
        LatencyBudget(**arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({}, "must be a mapping of choices"),
        ({"seed": {"_type": "uniform", "_value": [0, 1]}}, "searchSpace.seed must be like"),
        ({"seed": {"_type": "choice", "_value": []}}, "searchSpace.seed must be like"),
        (space(latency_weight=[0.1]), "finds latency_weight itself"),
        (space(seed=[*range(200)], budget_ms=[*range(1, 200)]), "has 39800 grid points; at most 10000"),
    ],
)
def test_search_spaces_are_checked(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="LatencyBudget") as caught:
        made(bad)
    assert message in str(caught.value)


@given(low=st.floats(2e-3, 1.0), high=st.floats(1.01, 40.0), power=st.floats(0.2, 3.0), start=st.floats(1e-3, 100.0))
@settings(max_examples=100, deadline=None)
def test_bisection_finds_the_weight_of_any_falling_curve(low: float, high: float, power: float, start: float) -> None:
    """The weight at which the ratio is 1 lies between `low` and `high`, and is found from any start."""
    meets = math.sqrt(low * high)
    within = WeightRange(start)
    tried: list[tuple[float, float]] = []
    while (weight := next_weight(tried, 0.05, within)) is not None:
        assert within.least <= weight <= within.most
        tried.append((weight, (meets / weight) ** power))
        assert len(tried) < 25
    assert any(abs(ratio - 1.0) <= 0.05 for _, ratio in tried) or (
        # or the weights on both sides differ by less than 5 %
        min(w for w, r in tried if r < 1) / max(w for w, r in tried if r > 1) < 1.05
    )


def test_parameters_find_their_grid_point_whatever_the_weight() -> None:
    tuner = made(space(strategy=["darts"], budget_ms=[4.0, 8.0]))
    point = find_grid_point(tuner._points, {"budget_ms": 8.0, "strategy": "darts", "latency_weight": 3.0}, Rules())
    assert point is not None
    assert point.values["budget_ms"] == 8.0
    assert find_grid_point(tuner._points, {"strategy": "darts"}, Rules()) is None
