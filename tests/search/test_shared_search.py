"""One search for several targets and budgets: it is trained once, and each target sees its own milliseconds."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from sklearn.metrics import balanced_accuracy_score

from nni_proxyless.cli.entry import main
from nni_proxyless.cli.forecast_time import Load, LoadWatch
from nni_proxyless.latency import LatencyTable
from nni_proxyless.network.architecture import Architecture
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.nni_bridge import forecast as experiments
from nni_proxyless.search import forecast
from nni_proxyless.search.epoch_callback import EpochCallback, Record
from nni_proxyless.search.prepared import prepare
from nni_proxyless.search.recipe import Recipe
from nni_proxyless.search.run import run_search
from nni_proxyless.search.shared_search import epochs_done, shared_folder
from nni_proxyless.search.shared_weights import SharedWeightComparison
from nni_proxyless.training.step_probe import Timing
from tests.helpers import table_of

PAIRS = (("device", 0.95), ("device", 0.85), ("board", 0.95))
EPOCHS = 3


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def board_of(spec: SpaceSpec) -> LatencyTable:
    """A board with other ratios of latencies than `table_of`: the operators in the opposite order."""
    table = table_of(spec)
    costs = list(table.operators.values())[::-1]
    return replace(table, operators=dict(zip(table.operators, costs, strict=True)))


@pytest.fixture
def recipes(recipe_file: Path) -> Iterator[Any]:
    """Function that makes the recipe of a target and a budget of its own; all of them share one search."""
    folder = recipe_file.parent
    board_of(SpaceSpec.from_yaml(folder / "tiny.yml")).save(folder / "board.yml")
    content = {**yaml.safe_load(recipe_file.read_text()), "epochs": EPOCHS, "warmup_epochs": 1, "share_search": True}
    content |= {"finalists": 6, "targets": {"device": {"table": "table.yml"}, "board": {"table": "board.yml"}}}

    def make(target: str, fraction: float | None = None, **more: Any) -> Recipe:
        changed = {**content, "target": target, "budget_fraction": fraction, **more}
        recipe_file.write_text(yaml.safe_dump({key: value for key, value in changed.items() if value is not None}))
        return Recipe.load(recipe_file)

    return make


class Reports(list[tuple[Record, int | None]]):
    """What a trial would send to NNI's manager."""

    def __call__(self, record: Record, number: int | None) -> None:
        self.append((record, number))


def expected_by_hand(output: Path, table: LatencyTable, epoch: int) -> float:
    """Expected latency: fixed + Σ_layers Σ_i p_i F(o_i), from the files of a result."""
    costs = table.costs(Architecture.load(output / "architecture.json").require_spec())
    total = costs.fixed
    for row in read(output / "probabilities.csv"):
        if row["epoch"] == str(epoch):
            of = dict(zip(costs.candidates[row["layer"]], costs.layers[row["layer"]], strict=True))
            total += float(row["probability"]) * of[row["candidate"]]
    return total


def test_one_search_serves_all_targets_and_budgets(
    recipes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs, reports = {}, {}
    evaluated = []
    accuracy = SharedWeightComparison.accuracy

    def counted(self: SharedWeightComparison, choices: Any) -> float:
        evaluated.extend([] if " ".join(choices.values()) in self._accuracies else [" ".join(choices.values())])
        return accuracy(self, choices)

    monkeypatch.setattr(SharedWeightComparison, "accuracy", counted)
    for target, fraction in PAIRS:
        output = outputs[target, fraction] = tmp_path / f"{target}-{fraction}"
        told = reports[target, fraction] = Reports()
        prepared = prepare(recipes(target, fraction))
        architecture = run_search(prepared, output, told)
        assert architecture.budget_ms is not None
        assert architecture.predicted_latency_ms is not None
        assert architecture.predicted_latency_ms <= architecture.budget_ms
        assert Architecture.load(output / "architecture.json").target == target
        assert len(read(output / "finalists.csv")) == 6
        assert Recipe.load(output / "recipe.yml").budget_fraction == fraction
    # Each finalist was evaluated once, whichever targets compare it.
    compared = [row["architecture"] for output in outputs.values() for row in read(output / "finalists.csv")]
    assert sorted(evaluated) == sorted(set(compared))
    assert len(evaluated) < len(compared)
    # Without what the others have evaluated, the last one gets the same, to the last digit.
    folder = shared_folder(prepared)
    (folder / "accuracies.json").unlink()
    run_search(prepared, tmp_path / "again")
    assert len(evaluated) == len(set(compared)) + 6
    for name in ("architecture.json", "finalists.csv", "history.csv", "weights.pt"):
        assert (tmp_path / "again" / name).read_bytes() == (output / name).read_bytes()
    # Accuracies with other weights are of no use.
    checkpoint = torch.load(folder / "checkpoint.ckpt", weights_only=True)
    checkpoint["state_dict"]["training_module._model.classifier.linear.weight"] *= 2
    torch.save(checkpoint, folder / "checkpoint.ckpt")
    run_search(prepared, tmp_path / "other")
    assert len(evaluated) == len(set(compared)) + 12
    # The search itself ran once: all results have its checkpoint, and its loss knew no device.
    assert len({(output / "checkpoint.ckpt").read_bytes() for output in outputs.values()}) == 1
    assert len({(output / "cost.json").read_text() for output in outputs.values()}) == 1
    for (target, fraction), output in outputs.items():
        table = LatencyTable.load(tmp_path / {"device": "table.yml", "board": "board.yml"}[target])
        found = Architecture.load(output / "architecture.json")
        assert found.budget_ms is not None
        history = read(output / "history.csv")
        assert [row["epoch"] for row in history] == ["1", "2", "3"]
        assert {float(row["latency_weight"]) for row in history} == {0.0}
        for number, row in enumerate(history, start=1):
            expected = expected_by_hand(output, table, number)
            assert float(row["expected_latency_ms"]) == pytest.approx(expected)
            assert float(row["expected_over_budget"]) == pytest.approx(expected / found.budget_ms)
        # The last row is that of the network that was found, as in a search of its own.
        assert float(history[-1]["latency_ms"]) == found.predicted_latency_ms
        assert float(history[-1]["default"]) == found.metrics["default"]
        # NNI's manager gets each epoch once, with the target's milliseconds, and the result once.
        told = reports[target, fraction]
        assert [number for _, number in told] == [0, 1, 2, None]
        assert len({tuple(record.known()) for record, _ in told}) == 1
        for (record, _), row in zip(told, history, strict=False):
            assert record.expected_latency_ms == float(row["expected_latency_ms"])
        assert told[-1][0].latency_ms == found.predicted_latency_ms
        columns = list(history[0])
        assert columns[:7] == [
            "epoch", "default", "latency_ms", "expected_latency_ms", "entropy", "train_loss", "expected_over_budget",
        ]  # fmt: skip
        assert columns[-2:] == ["seconds", "warnings"]
    device, board = (read(outputs[pair] / "history.csv") for pair in PAIRS[1:])
    assert device[0]["latency_ms"] != board[0]["latency_ms"]
    assert [row["entropy"] for row in device] == [row["entropy"] for row in board]


def test_other_budgets_have_columns_as_in_a_search_of_their_own(recipes: Any, tmp_path: Path) -> None:
    budgets = {"device": "90%", "board": "95%", "parameters": "90%", "peak_memory": "100%"}
    run_search(prepare(recipes("device", budgets=budgets)), tmp_path / "shared")
    run_search(prepare(recipes("device", budgets=budgets, share_search=False)), tmp_path / "own")
    shared, own = (read(tmp_path / name / "history.csv") for name in ("shared", "own"))
    assert [key for key in own[0] if not key.startswith("weight_")] == list(shared[0])
    board = LatencyTable.load(tmp_path / "board.yml")
    for number, row in enumerate(shared, start=1):
        assert float(row["expected_board"]) == pytest.approx(expected_by_hand(tmp_path / "shared", board, number))
    found = Architecture.load(tmp_path / "shared" / "architecture.json")
    for name in ("board", "parameters", "peak_memory"):
        assert float(shared[-1][f"decoded_{name}"]) == found.budgets[name]["value"] <= found.budgets[name]["limit"]


def test_another_target_continues_an_interrupted_search(
    recipes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What it reports and logs has its own milliseconds, also those of epochs that the first target trained."""
    whole = EpochCallback._record

    def interrupted(self: EpochCallback, trainer: Any, epoch: int) -> None:
        if epoch == 3:
            raise KeyboardInterrupt
        whole(self, trainer, epoch)

    prepared = prepare(recipes("device", 0.9))
    with monkeypatch.context() as patched:
        patched.setattr(EpochCallback, "_record", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_search(prepared, tmp_path / "device")
    prepared = prepare(recipes("board", 0.9))
    assert epochs_done(prepared) == 2
    told = Reports()
    caplog.set_level("INFO", logger="nni_proxyless")
    run_search(prepared, tmp_path / "board", told)
    assert epochs_done(prepared) == 3
    assert [number for _, number in told] == [2, None]
    board = LatencyTable.load(tmp_path / "board.yml")
    by_hand = [expected_by_hand(tmp_path / "board", board, number) for number in (1, 2, 3)]
    assert told[0][0].expected_latency_ms == pytest.approx(by_hand[2])
    history = read(tmp_path / "board" / "history.csv")
    assert [float(row["expected_latency_ms"]) for row in history] == pytest.approx(by_hand)
    (logged,) = re.findall(r"epoch 3/3: .*\(expected ([\d.]+)\)", caplog.text)
    assert float(logged) == pytest.approx(by_hand[2], abs=6e-4)


def test_balanced_accuracy_where_classes_differ_in_size(recipes: Any, tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    kept = np.flatnonzero((digits.target != 3) | (np.cumsum(digits.target == 3) <= 60))
    images = (digits.images[kept] * 15.9).astype(np.uint8)
    np.savez(tmp_path / "unequal.npz", images=images[..., None], labels=digits.target[kept])
    recipe = recipes("device", 0.9, data="arrays", data_dir="unequal.npz", class_weights="balanced")
    prepared = prepare(recipe)
    told = Reports()
    output = tmp_path / "out"
    found = run_search(prepared, output, told)
    network = found.build()
    network.load_state_dict(torch.load(output / "weights.pt", weights_only=True))
    network.eval()
    pairs = [prepared.splits.held_out[i] for i in range(len(prepared.splits.held_out))]
    with torch.no_grad():
        guesses = network(torch.stack([image for image, _ in pairs])).argmax(1).tolist()
    by_hand = balanced_accuracy_score([int(label) for _, label in pairs], guesses)
    assert found.metrics["balanced_accuracy"] == pytest.approx(by_hand)
    assert found.metrics["balanced_accuracy"] != found.metrics["default"]
    assert float(read(output / "history.csv")[-1]["balanced_accuracy"]) == found.metrics["balanced_accuracy"]
    assert len({tuple(record.known()) for record, _ in told}) == 1
    assert "balanced_accuracy" in told[0][0].known()
    # So does a comparison of finalists from the finished search.
    from nni_proxyless.search.shared_weights import decode_finalists

    (decoded,) = decode_finalists(output, {"phone": prepared.table}, found.budget_ms or 0.0, 6).values()
    assert decoded.metrics == {key: found.metrics[key] for key in ("default", "balanced_accuracy")}


def made_up_timings(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, search = Timing(1.0, 1.0, 1.0, 5), Timing(3.0, 3.0, 3.0, 7)
    evaluation, finalist = Timing(10.0, 10.0, 10.0, 0), Timing(4.0, 4.0, 4.0, 0)
    monkeypatch.setattr(
        forecast, "_timed", lambda _, *, warmup, cycle=1: (weights if warmup else search, evaluation, finalist)
    )
    monkeypatch.setattr(LoadWatch, "read", lambda _: Load(threads=1, other_cores=0.0, cores=2))


def test_a_forecast_counts_the_shared_search_once(
    recipes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up_timings(monkeypatch)
    # 8 steps in each epoch, one of warm-up and two of search, an evaluation after each; then 6 finalists
    training, comparison = 8 * (1.0 + 2 * 3.0) + 3 * 10, 6 * 4.0
    prepared = prepare(recipes("device", 0.9))
    before = forecast.forecast_search(prepared)
    assert before is not None
    assert before.done == 0
    assert before.total.mean == pytest.approx(training + comparison)

    of_all = [recipes(target, fraction, seed=seed) for seed in (0, 1) for target, fraction in PAIRS]
    both = experiments.forecast_experiment(of_all, len(of_all))
    assert both is not None
    assert (both.shared, both.kinds) == (2, 1)  # a search for each seed
    assert both.total.mean == pytest.approx(2 * training + 6 * comparison)
    several = [recipes("device", 0.9), recipes("device", 0.9, finalists=2), recipes("device", 0.9, share_search=False)]
    mixed = experiments.forecast_experiment(several, 3)
    assert mixed is not None
    assert (mixed.shared, mixed.kinds) == (1, 3)
    assert mixed.total.mean == pytest.approx(2 * training + 2 * comparison + 2 * 4.0)

    run_search(prepared, tmp_path / "out")
    after = forecast.forecast_search(prepare(recipes("board", 0.9)))
    assert after is not None
    assert after.done == EPOCHS
    assert after.training.mean == 0
    assert after.total.mean == pytest.approx(comparison)
    both = experiments.forecast_experiment(of_all, len(of_all))
    assert both is not None
    assert both.total.mean == pytest.approx(training + 6 * comparison)


def test_a_dry_run_names_the_shared_search(
    recipes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made_up_timings(monkeypatch)
    recipes("device", 0.9)

    def told() -> str:
        with pytest.raises(SystemExit) as ended:
            main(["search", str(tmp_path / "recipe.yml"), "--output", str(tmp_path / "out"), "--dry-run"])
        assert ended.value.code == 0
        return capsys.readouterr().out

    first = told()
    assert "shared      one search for all targets and budgets, to be trained: " in first
    # 86 s of training and 24 s of comparison, half as long again beside a program on both cores, rounded
    assert re.search(r"time        1 min 50 s to 2 min 4\d s", first)
    assert re.search(r"\n +the comparison of finalists takes 24 s of that\n", first)
    assert (
        "each further target or budget of this recipe only adds the comparison of its finalists, except those" in first
    )
    assert re.search(r"memory      about \d+ MiB", first)
    assert not (tmp_path / "out").exists()
    run_search(prepare(recipes("board", 0.9)), tmp_path / "board")
    recipes("device", 0.9)
    again = told()
    folder = re.search(r"one search for all targets and budgets, trained before: (\S+)", again)
    assert folder is not None
    assert json.loads((Path(folder[1]) / "cost.json").read_text())["epochs"] == EPOCHS
    assert "time        24 s to 36 s" in again
