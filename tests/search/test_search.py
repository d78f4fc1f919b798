"""Searches from a recipe: interruption, shared warm-up, several processes, precision and pruning."""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from nni_proxyless import Architecture
from nni_proxyless.cli.entry import main
from nni_proxyless.decoding.ranking import add_weighted_criteria, additive_fit
from nni_proxyless.deploy.retrain import load_architecture
from nni_proxyless.deploy.retrain_recipe import RetrainRecipe
from nni_proxyless.errors import InputError
from nni_proxyless.latency import LatencyTable
from nni_proxyless.network.operators import total_activations
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.nni_bridge.trial import adopt_interrupted
from nni_proxyless.nni_bridge.tuner import LatencyBudget
from nni_proxyless.search.epoch_callback import EpochCallback
from nni_proxyless.search.prepared import prepare
from nni_proxyless.search.recipe import Recipe
from nni_proxyless.search.run import run_search
from nni_proxyless.search.shared_weights import decode_finalists
from nni_proxyless.search.warmup import shared_warmup
from nni_proxyless.strategies.lightning_module import ProxylessLightningModule
from nni_proxyless.supernet.binary_gates import path_probs
from tests.helpers import REPOSITORY, table_of
from tests.warm import WarmProcess, run_warm, warm_python

# Columns that may differ between two runs of the same search. All others must be equal.
CLOCK = {"seconds"}


def searched(recipe_file: Path, name: str, **settings: Any) -> tuple[Architecture, Path]:
    output = recipe_file.parent / name
    return run_search(prepare(Recipe.load(recipe_file, settings)), output), output


def history(folder: Path) -> list[dict[str, str]]:
    rows = csv.DictReader((folder / "history.csv").read_text().splitlines())
    return [{key: value for key, value in row.items() if key not in CLOCK} for row in rows]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "weights.pt", weights_only=True)  # type: ignore[no-any-return]


def same(first: Path, second: Path) -> None:
    """Check that two results have the same history, architecture and weights, to the last bit."""
    assert history(first) == history(second)
    assert (
        Architecture.load(first / "architecture.json").choices
        == Architecture.load(second / "architecture.json").choices
    )
    one, other = weights(first), weights(second)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("gradient", ["two_path", "full", "reinforce"])
def test_a_search_that_is_interrupted_goes_on_as_if_it_had_not_been(
    gradient: str, recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"arch_gradient": gradient, "prune_below": 0.05, "share_warmup": False, "reinforce_samples": 3}
    if gradient == "full":
        settings |= {"warmup_sampling": "fair", "weight_sampling": "fair", "entangle_weights": False}
    if gradient == "two_path":
        settings |= {"finalists": 3, "finalist_epochs": 2}
    searched(recipe_file, "whole", **settings)
    assert (recipe_file.parent / "whole" / "pruned.csv").is_file()
    original = EpochCallback._record
    # The search is killed before it writes a checkpoint: in the warm-up, after it, and after paths have been pruned.
    for epoch in (1, 3, 5):

        def stop(self: Any, trainer: Any, number: int, epoch: int = epoch) -> None:
            original(self, trainer, number)
            if number == epoch + 1:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(EpochCallback, "_record", stop)
            with pytest.raises(Killed):
                searched(recipe_file, "parts", **settings)
    _, output = searched(recipe_file, "parts", **settings)
    same(recipe_file.parent / "whole", output)
    pruned = [(recipe_file.parent / name / "pruned.csv").read_text() for name in ("whole", "parts")]
    assert pruned[0] == pruned[1]


def test_the_history_is_kept_under_the_name_of_version_0_1(recipe_file: Path) -> None:
    """A search that version 0.1 began continues with its history. So the name must not follow the class."""
    _, output = searched(recipe_file, "out", epochs=3)
    content = torch.load(output / "checkpoint.ckpt", weights_only=True)
    assert len(content["callbacks"]["Recorder"]["rows"]) == 3
    assert content["nni_proxyless"]["space"]["schema"] == "nni-proxyless/space@1"


def test_a_folder_of_another_recipe_is_begun_anew(recipe_file: Path) -> None:
    searched(recipe_file, "out", epochs=3)
    _, output = searched(recipe_file, "out", epochs=3, seed=1)
    assert [row["epoch"] for row in history(output)] == ["1", "2", "3"]
    _, fresh = searched(recipe_file, "fresh", epochs=3, seed=1, share_warmup=False)
    same(output, fresh)


def test_a_trial_that_crashed_at_the_very_end_is_taken_over_with_its_records(recipe_file: Path) -> None:
    """A trial crashes after its last epoch, but before its result. The second attempt has no epoch left to record."""
    trials = recipe_file.parent / "trials"
    _, crashed = searched(recipe_file, "trials/crashed", finalists=2)
    parameters = {"target": "fake"}
    (crashed / "parameters.json").write_text(json.dumps(parameters))
    whole = recipe_file.parent / "whole"
    shutil.copytree(crashed, whole)
    (crashed / "architecture.json").unlink()
    (trials / "again").mkdir()
    assert adopt_interrupted(trials / "again", parameters) == crashed
    _, again = searched(recipe_file, "trials/again", finalists=2)
    same(whole, again)
    for name in ("probabilities.csv", "cost.json", "finalists.csv"):
        assert (again / name).read_bytes() == (whole / name).read_bytes()


def test_a_finished_search_is_not_trained_again(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, output = searched(recipe_file, "out")
    rows = history(output)
    monkeypatch.setattr(EpochCallback, "_record", lambda *_: pytest.fail("trained again"))
    second, _ = searched(recipe_file, "out")
    assert second.choices == first.choices
    assert history(output) == rows


def command(recipe_file: Path, *words: str) -> list[str]:
    return [str(Path(sys.executable).parent / "nni-proxyless"), "search", str(recipe_file), *words]


@pytest.mark.slow
def test_kill_9_at_random_moments(recipe_file: Path) -> None:
    whole, parts = recipe_file.parent / "whole", recipe_file.parent / "parts"
    words = ["nni-proxyless", "search", str(recipe_file), "share_warmup=false", "--output"]
    assert run_warm([*words, str(whole)], recipe_file.parent).returncode == 0
    draw = random.Random(0)
    kills = 0
    while kills < 2:
        process = WarmProcess([*words, str(parts)], recipe_file.parent)
        # The kill waits for the next checkpoint, so that every run trains before it.
        before = (parts / "checkpoint.ckpt").stat().st_mtime if (parts / "checkpoint.ckpt").exists() else 0.0
        while process.poll() is None and not (
            (parts / "checkpoint.ckpt").exists() and (parts / "checkpoint.ckpt").stat().st_mtime > before
        ):
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 0.5))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    assert kills >= 2
    assert run_warm([*words, str(parts)], recipe_file.parent).returncode == 0
    same(whole, parts)


def test_searches_that_agree_on_the_warmup_train_it_once(recipe_file: Path) -> None:
    """The searches have different budgets and gradients, but the same data, space, seed and schedule."""
    _, first = searched(recipe_file, "first", budget_fraction=0.95)
    assert [row["epoch"] for row in history(first)] == ["1", "2", "3", "4", "5", "6"]
    other = {"budget_fraction": 0.8, "arch_gradient": "full", "arch_beta1": 0.5, "arch_weight_decay": 0.001}
    _, second = searched(recipe_file, "second", **other)
    assert [row["epoch"] for row in history(second)] == ["3", "4", "5", "6"]
    _, alone = searched(recipe_file, "alone", **other, share_warmup=False)
    assert history(second) == history(alone)[2:]
    assert all(torch.equal(a, b) for a, b in zip(weights(second).values(), weights(alone).values(), strict=True))
    _, another = searched(recipe_file, "another", learning_rate=0.2)
    assert next(row["epoch"] for row in history(another)) == "1"


def test_the_same_search_again_begins_its_history_behind_the_warmup(recipe_file: Path) -> None:
    searched(recipe_file, "first")
    numbers: list[int | None] = []
    again = recipe_file.parent / "again"
    run_search(prepare(Recipe.load(recipe_file)), again, lambda _record, number: numbers.append(number))
    assert [row["epoch"] for row in history(again)] == ["3", "4", "5", "6"]
    assert numbers == [0, 1, 2, 3, None]  # NNI expects numbers from 0 without gaps


def test_concurrent_searches_wait_for_the_warmup() -> None:
    order: list[str] = []
    began = threading.Event()

    def train() -> None:
        with shared_warmup({"seed": 1}) as warmup:
            assert not warmup.found
            began.set()
            time.sleep(0.3)
            order.append("trained")
            warmup.save(lambda path: path.write_text("weights"))

    def wait() -> None:
        began.wait()
        with shared_warmup({"seed": 1}) as warmup:
            order.append("found" if warmup.found else "not found")

    threads = [threading.Thread(target=task) for task in (train, wait)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert order == ["trained", "found"]
    with shared_warmup({"seed": 2}) as warmup:
        assert not warmup.found


def test_a_warmup_that_fails_is_left_to_the_next() -> None:
    with pytest.raises(RuntimeError), shared_warmup({"seed": 3}) as warmup:
        raise RuntimeError("out of memory")
    with shared_warmup({"seed": 3}) as warmup:
        assert not warmup.found
        warmup.save(lambda path: path.write_text("weights"))
    with shared_warmup({"seed": 3}) as warmup:
        assert warmup.found


RANKS = """
import sys, torch
from pathlib import Path
from nni_proxyless.search.epoch_callback import EpochCallback
from nni_proxyless.search.prepared import prepare
from nni_proxyless.search.recipe import Recipe
from nni_proxyless.search.run import run_search

folder = Path(sys.argv[1])
seen = []
original = EpochCallback.on_train_epoch_end

def watched(self, trainer, module):
    # Before anything is shared at the end of the epoch.
    state = {k: v.clone() for k, v in module.named_parameters()}
    seen.append({"rank": trainer.global_rank, "state": state, "losses": torch.stack(self._losses)})
    original(self, trainer, module)

EpochCallback.on_train_epoch_end = watched
run_search(prepare(Recipe.load(folder / "recipe.yml", {
    "devices": 2, "accelerator": "cpu", "batch_size": 64, "epochs": 4, "prune_below": 0.02,
    "arch_gradient": sys.argv[2],
})), folder / "out")
torch.save(seen, folder / f"rank{seen[0]['rank']}.pt")
"""


@pytest.mark.slow
@pytest.mark.parametrize("gradient", ["two_path", "reinforce"])
def test_two_ranks_stay_identical(gradient: str, recipe_file: Path) -> None:
    """Two processes (gloo) train on different images, but always have the same paths, weights and α."""
    script = recipe_file.parent / "ranks.py"
    script.write_text(RANKS)
    words = ["python", "-W", "ignore", str(script), str(recipe_file.parent), gradient]
    environment = {**warm_python(recipe_file.parent), "PYTHONPATH": str(REPOSITORY)}
    done = run_warm(words, recipe_file.parent, environment)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(recipe_file.parent / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert len(first) == len(second) == 4
    for one, other in zip(first, second, strict=True):
        assert not torch.equal(one["losses"], other["losses"])  # each rank has its own images
        for key, value in one["state"].items():
            assert torch.equal(value, other["state"][key]), key
    moved = [key for key in first[0]["state"] if key in first[-1]["state"]]
    assert any(not torch.equal(first[0]["state"][key], first[-1]["state"][key]) for key in moved if "alpha" in key)
    rows = history(recipe_file.parent / "out")
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    Architecture.load(recipe_file.parent / "out" / "architecture.json").build()


@pytest.mark.slow
def test_the_command_on_two_devices_prints_once(recipe_file: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "LOCAL_RANK"}
    done = subprocess.run(
        command(
            recipe_file, "devices=2", "accelerator=cpu", "epochs=3",
            "--output", str(recipe_file.parent / "out"),
        ),
        capture_output=True, text=True, check=False, timeout=600, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("results:") == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "bf16-mixed", "gradient_clip_val": 0.5},
        {"channels_last": False},
        {"gradient_clip_val": 0.5, "label_smoothing": 0.1, "decay_norm_bias": False},
        {"arch_batch_size": 32, "arch_update_every": 2, "arch_schedule": "cosine"},
        {"objective": "add_linear", "budget_fraction": None, "latency_weight": 0.3},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_settings_of_real_training(settings: dict[str, Any], recipe_file: Path) -> None:
    architecture, output = searched(recipe_file, "out", **settings, share_warmup=False)
    rows = history(output)
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    assert architecture.metrics["default"] > 0.3  # random guessing among ten classes would reach 0.1


def test_what_the_hardware_lacks_is_said(recipe_file: Path) -> None:
    with pytest.raises(InputError, match="precision 16-mixed needs CUDA"):
        searched(recipe_file, "out", precision="16-mixed", accelerator="cpu")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="accelerator gpu, but PyTorch sees no CUDA device"):
            searched(recipe_file, "out", accelerator="gpu")
    with pytest.raises(InputError, match=r"no network of this space takes 0\.001 ms or less; the fastest takes"):
        searched(recipe_file, "out", budget_fraction=None, budget_ms=0.001)


def test_pruned_candidates_are_gone_and_the_budget_still_holds(recipe_file: Path) -> None:
    architecture, output = searched(recipe_file, "out", prune_below=0.15, epochs=10, budget_fraction=0.8)
    pruned = list(csv.DictReader((output / "pruned.csv").read_text().splitlines()))
    assert pruned
    assert all(float(row["probability"]) < 0.15 for row in pruned)
    assert all(architecture.choices[row["label"]] != row["candidate"] for row in pruned)
    assert architecture.predicted_latency_ms is not None
    assert architecture.budget_ms is not None
    assert architecture.predicted_latency_ms <= architecture.budget_ms
    state = torch.load(output / "checkpoint.ckpt", weights_only=True)
    alpha = state["nni_proxyless"]["alpha"]
    for row in pruned:
        names = state["nni_proxyless"]["candidates"][row["label"]]
        assert path_probs(alpha[row["label"]])[names.index(row["candidate"])] == 0
        assert not any(f".{row['candidate']}." in key and row["label"] in key for key in state["state_dict"])
    left = [key for key in state["state_dict"] if ".k" in key]
    assert left


@pytest.mark.parametrize("strategy", ["proxyless", "darts"])
def test_the_best_of_the_likeliest_networks_is_exported(strategy: str, recipe_file: Path) -> None:
    """The finalists are the most likely networks within the budget, by the path probabilities of the last epoch."""
    architecture, output = searched(recipe_file, "out", strategy=strategy, finalists=5, epochs=3)
    with (output / "finalists.csv").open(encoding="utf-8") as file:
        finalists = list(csv.DictReader(file))
    with (output / "probabilities.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["epoch"] == "3"]
    labels = list(architecture.choices)
    probs = {(row["layer"], row["candidate"]): float(row["probability"]) for row in rows}
    names = [[candidate for layer, candidate in probs if layer == label] for label in labels]
    # They are those at temperature 1. The entropy follows from p^(1 / τ), as docs/nni.md says.
    last = history(output)[-1]
    tau = float(last["temperature"])
    assert (tau < 1) == (strategy == "proxyless")
    layers = [
        np.array([probs[label, name] for name in of]) ** (1 / tau) for label, of in zip(labels, names, strict=True)
    ]
    entropies = [-float((p / p.sum() * np.log(p / p.sum())).sum()) for p in layers]
    assert float(last["entropy"]) == pytest.approx(np.mean(entropies), rel=1e-2, abs=1e-4)  # the file rounds
    spec = architecture.require_spec()
    costs = LatencyTable.load(output / "latency_table.yml").costs(spec)
    assert architecture.budget_ms is not None
    likelihood = {}
    for picks in itertools.product(*names):
        choices = dict(zip(labels, picks, strict=True))
        if costs.of(choices) <= architecture.budget_ms:
            likelihood[" ".join(choices[layer.label] for layer in spec.layers)] = math.prod(
                probs[layer, candidate] for layer, candidate in choices.items()
            )
    likeliest = sorted(likelihood, key=likelihood.__getitem__, reverse=True)[:5]
    assert [row["architecture"] for row in finalists] == likeliest
    chosen = [dict(enumerate(row["architecture"].split())) for row in finalists]
    logs = [math.log(likelihood[name]) for name in likeliest]
    assert [float(row["log_likelihood"]) for row in finalists] == pytest.approx(logs)
    order = [layer.label for layer in spec.layers]
    networks = [
        Architecture.of_space(spec, dict(zip(order, row["architecture"].split(), strict=True))) for row in finalists
    ]
    assert [int(row["multiply_adds"]) for row in finalists] == [network.multiply_adds for network in networks]
    sizes = [math.log(network.multiply_adds) for network in networks]
    activations = [math.log(total_activations(network.operators())) for network in networks]
    fitted = additive_fit(chosen, [float(row["accuracy"]) for row in finalists])
    ranked = add_weighted_criteria(fitted, (logs, 0.15), (sizes, 0.3), (activations, 0.5))
    assert [float(row["ranked_by"]) for row in finalists] == pytest.approx(ranked)
    best = finalists[ranked.index(max(ranked))]
    assert architecture.candidate_names == best["architecture"]
    assert architecture.predicted_latency_ms == pytest.approx(float(best["latency_ms"]))


def test_the_last_epochs_train_the_finalists_alone(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = ProxylessLightningModule.weight_step
    trained: dict[int, list[str]] = {}

    def watched(self: Any, batch: Any, batch_idx: int) -> Any:
        loss = original(self, batch, batch_idx)
        names = " ".join(str(gate.candidates[gate.sample.active]) for gate in self._gates.values())
        trained.setdefault(self.trainer.current_epoch, []).append(names)
        return loss

    monkeypatch.setattr(ProxylessLightningModule, "weight_step", watched)
    architecture, output = searched(recipe_file, "out", arch_update_every=1, finalists=3, finalist_epochs=2)
    with (output / "finalists.csv").open(encoding="utf-8") as file:
        finalists = {row["architecture"] for row in csv.DictReader(file)}
    assert list(architecture.choices) == sorted(architecture.choices)  # `names` has the order of the gates
    assert len(finalists) == 3
    last = Counter(trained[4] + trained[5])
    assert set(last) == finalists
    assert max(last.values()) - min(last.values()) <= 2  # only the first and the last round may be incomplete
    assert len(set(trained[3])) > 3
    with (output / "probabilities.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    by_epoch = [[row["probability"] for row in rows if row["epoch"] == str(epoch)] for epoch in range(3, 7)]
    assert by_epoch[0] != by_epoch[1] == by_epoch[2] == by_epoch[3]
    cost = json.loads((output / "cost.json").read_text())
    assert cost["architecture_steps"] == 2 * len(trained[0])
    assert cost["weight_steps"] == 6 * len(trained[0])


def test_finalist_epochs_are_refused_without_finalists_or_epochs_to_search_in(recipe_file: Path) -> None:
    with pytest.raises(InputError, match="finalist_epochs needs finalists of at least 2"):
        searched(recipe_file, "out", finalists=1, finalist_epochs=2)
    with pytest.raises(InputError, match="got 2 and 4 'finalist_epochs' of 6"):
        searched(recipe_file, "out", finalists=3, finalist_epochs=4)


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"budget_fraction": 1.0}, 64),
        ({"objective": "add_linear"}, None),
        ({"strategy": "darts"}, None),
        ({"finalists": 3}, 3),
    ],
)
def test_how_many_finalists_are_compared(settings: dict[str, Any], count: int | None, recipe_file: Path) -> None:
    """By default, finalists are only compared with the objective `budget`, because their accuracy ignores latency."""
    _, output = searched(recipe_file, "out", **{"finalists": None, "epochs": 3, **settings})
    compared = output / "finalists.csv"
    assert (len(compared.read_text(encoding="utf-8").splitlines()) - 1 if compared.exists() else None) == count


def test_records_hold_expected_and_decoded_latency(recipe_file: Path) -> None:
    architecture, output = searched(recipe_file, "out")
    table = LatencyTable.load(recipe_file.parent / "table.yml")
    rows = history(output)
    assert {
        "latency_ms",
        "expected_latency_ms",
        "entropy",
        "latency_weight",
        "temperature",
        "arch_learning_rate",
    } <= set(rows[0])
    assert float(rows[0]["temperature"]) == 1.0
    assert float(rows[-1]["temperature"]) == pytest.approx(0.1)
    costs = table.costs(architecture.require_spec())
    assert architecture.budget_ms == pytest.approx(0.87 * costs.largest)
    assert float(rows[-1]["latency_ms"]) == pytest.approx(costs.of(architecture.choices))
    assert all(float(row["latency_ms"]) <= 0.87 * costs.largest for row in rows)
    # After sharpening, almost all of the probability is on the decoded network.
    assert float(rows[-1]["expected_latency_ms"]) == pytest.approx(float(rows[-1]["latency_ms"]), rel=0.05)


def test_a_loss_that_is_not_finite_is_left_out_and_named(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradients are finite in this test, so only the mean of the losses tells."""
    monkeypatch.setattr(
        EpochCallback, "on_train_batch_end", lambda self, *_: self._losses.append(torch.tensor(math.nan))
    )
    sent: list[dict[str, float]] = []
    prepared = prepare(Recipe.load(recipe_file, {"epochs": 2, "warmup_epochs": 0}))
    architecture = run_search(prepared, recipe_file.parent / "out", lambda record, _: sent.append(record.metrics()))
    read = Architecture.load(recipe_file.parent / "out" / "architecture.json")
    assert read.metrics == architecture.metrics == sent[-1]
    assert set(read.metrics) >= {"default", "latency_ms", "entropy"}
    assert all("train_loss" not in metrics for metrics in sent)
    assert "train_loss is nan, so it is left out of the results" in read.warnings
    warnings = [row["warnings"] for row in history(recipe_file.parent / "out")]
    assert ["train_loss is nan" in text for text in warnings] == [True, False]


def test_weight_decay_exempts_norms_and_biases() -> None:
    from torch import nn

    from nni_proxyless.training.image_classification import ImageClassification

    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    module = ImageClassification(
        learning_rate=0.1, momentum=0.9, weight_decay=0.01, label_smoothing=0.0, total_steps=10, decay_norm_bias=False
    )
    module.set_model(network)
    optimizer = module.configure_optimizers()["optimizer"]
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {name: decay[id(p)] for name, p in network.named_parameters()} == {
        "0.weight": 0.01, "0.bias": 0.0, "1.weight": 0.0, "1.bias": 0.0, "3.weight": 0.01, "3.bias": 0.0,
    }  # fmt: skip


def test_reports_are_numbered_without_gaps(recipe_file: Path) -> None:
    numbers: list[int | None] = []
    prepared = prepare(Recipe.load(recipe_file, {"epochs": 3}))
    report: Callable[[Any, int | None], None] = lambda _record, number: numbers.append(number)  # noqa: E731
    run_search(prepared, recipe_file.parent / "out", report)
    assert numbers == [0, 1, 2, None]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"arch_gradient": "two_path", "entangle_weights": False, "prune_below": 0.15, "arch_learning_rate": 0.3},
        {"strategy": "gumbel_darts", "epochs": 3},
        {"seed": 1, "bn_batches": 2},
    ],
)
def test_finalists_of_a_search_that_is_over(settings: dict[str, Any], recipe_file: Path) -> None:
    """Decoding a finished search selects the same network as the search. A smaller budget yields a faster network."""
    architecture, output = searched(recipe_file, "out", finalists=8, **settings)
    table = LatencyTable.load(recipe_file.parent / "table.yml")
    assert architecture.budget_ms is not None
    again = decode_finalists(output, {"device": table}, architecture.budget_ms, 8)["device"]
    assert again.choices == architecture.choices
    assert again.metrics["default"] == architecture.metrics["default"]
    assert again.predicted_latency_ms == pytest.approx(architecture.predicted_latency_ms)
    smaller = 0.9 * architecture.budget_ms
    other = decode_finalists(output, {"one": table, "other": table}, smaller, 8)
    assert other["one"].predicted_latency_ms is not None
    assert other["one"].predicted_latency_ms <= smaller
    assert other["one"].choices == other["other"].choices


def test_decode_from_a_checkpoint(recipe_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command decodes the search's own result, other tables and fronts from a checkpoint, and rejects bad input."""
    architecture, output = searched(recipe_file, "out")
    decoded, front = recipe_file.parent / "decoded", recipe_file.parent / "front.csv"

    def decode(*words: str) -> subprocess.CompletedProcess[str]:
        return run_warm(["nni-proxyless", "decode", *words], recipe_file.parent)

    table = str(recipe_file.parent / "table.yml")
    budget = str(architecture.budget_ms)
    done = decode(str(output), "--table", table, "--budget-ms", budget, "--out", str(decoded), "--front", str(front))
    assert done.returncode == 0, done.stderr
    again = Architecture.load(decoded / "table.json")
    assert again.choices == architecture.choices
    assert again.predicted_latency_ms == pytest.approx(architecture.predicted_latency_ms)
    rows = list(csv.DictReader(front.read_text().splitlines()))
    assert rows[-1]["table"] == "table"
    assert {label: rows[-1][label] for label in again.choices} == again.choices
    within = ("--table", table, "--budget-ms", budget)
    assert decode(str(output)).returncode == 0
    for words, message in (
        ((str(output), "--table", table, "--budget-ms", "0.01"), "no network of this space takes 0.01 ms or less"),
        ((str(output), "--budget-ms", "3"), "--budget-ms needs --table: a budget needs a latency table"),
        ((str(output), "--front", "f.csv"), "--front needs --table"),
        ((str(output), "--finalists", "8"), "--finalists needs --table and --budget-ms"),
        ((str(output), *within, "--finalists", "1"), "--finalists must be a whole number from 2 to 10000, got 1"),
        ((str(output), "--table", table, "--budget-ms", "0.01", "--finalists", "4"), "takes 0.01 ms or less"),
        ((str(output / "checkpoint.ckpt"), *within, "--finalists", "4"), "has no recipe.yml"),
        ((str(output), "--table", table, table), "two tables are called table"),
        ((str(recipe_file),), "is not a checkpoint of a search, or it is damaged"),
        ((str(recipe_file.parent / "nowhere"),), "there is no checkpoint"),
        ((str(output / "weights.pt"),), "is not a checkpoint of a search: it lacks"),
    ):
        capsys.readouterr()
        with pytest.raises(SystemExit) as refused:
            main(["decode", *words])
        error = capsys.readouterr().err
        assert refused.value.code == 2, error
        assert message in error
        assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize("folder", sorted((REPOSITORY / "experiments").iterdir()), ids=lambda folder: folder.name)
def test_shipped_experiments_are_well_formed(folder: Path) -> None:
    config = yaml.safe_load((folder / "config.yml").read_text())
    choices = {key: described["_value"] for key, described in config["searchSpace"].items()}
    cells = [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]
    assert config["maxTrialNumber"] >= len(cells)
    for cell in cells:
        if "--task retrain" in config["trialCommand"]:
            load_architecture(RetrainRecipe.load(folder / "recipe.yml", cell))
            continue
        recipe = Recipe.load(folder / "recipe.yml", cell)
        assert recipe.chosen_target().name == cell["target"]
        SpaceSpec.from_yaml(recipe.space)
    assert (folder / "README.md").is_file()
    tuner = LatencyBudget(**config["tuner"].get("classArgs", {}))
    tuner.update_search_space(config["searchSpace"])
    assert len(tuner._points) == len(cells)


def test_the_papers_recipe_runs_on_made_up_images(tmp_path: Path) -> None:
    """Run the recipe of experiments/imagenet on made-up images, with small images, few channels and two epochs."""
    shutil.copy(REPOSITORY / "experiments" / "imagenet" / "recipe.yml", tmp_path)
    draw = torch.Generator().manual_seed(0)
    for number in range(2):
        folder = tmp_path / "imagenet" / "train" / f"class{number}"
        folder.mkdir(parents=True)
        for image in range(40):
            pixels = torch.randint(0, 255, (40, 40, 3), generator=draw, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(folder / f"{image}.png")
    small = {
        "width_mult": 0.1, "input_size": 32, "batch_size": 8, "epochs": 2, "warmup_epochs": 1, "num_workers": 0,
        "arch_fraction": 0.2, "held_out_fraction": 0.2, "bn_batches": 1,
    }  # fmt: skip
    recipe = Recipe.load(tmp_path / "recipe.yml", small)
    spec = SpaceSpec.from_yaml(recipe.space).with_changes(width_mult=0.1, input_size=32, classes=2)
    table = table_of(spec)  # its networks take more than 1 ms, as mul_log requires
    table.save(tmp_path / "mobile.yml")
    architecture = run_search(prepare(recipe.model_copy(update={"target": "mobile"})), tmp_path / "out")
    assert architecture.require_spec().name == "mobilenetv2_imagenet"
    assert len(architecture.choices) == 21
    assert [row["epoch"] for row in history(tmp_path / "out")] == ["1", "2"]
