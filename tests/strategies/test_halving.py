"""Successive halving of finalists, in a space whose best network only wins after it has been trained alone."""

from __future__ import annotations

import copy
import csv
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from nni.nas.evaluator.pytorch import Classification, DataLoader, Lightning, LightningModule, Trainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.experiment import NasExperiment
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from nni.nas.space import RawFormatModelSpace
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from nni_proxyless import ProxylessNAS
from nni_proxyless.errors import InputError
from nni_proxyless.search.prepared import prepare
from nni_proxyless.search.recipe import Recipe
from nni_proxyless.search.run import run_search
from nni_proxyless.strategies import halving
from nni_proxyless.strategies.finalist import Finalist, best
from nni_proxyless.strategies.halving import Halving, rounds_of

QUIET: dict[str, Any] = {
    "enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False, "logger": False,
}  # fmt: skip
RATE = 0.02  # of Adam
STEPS = 60


class Fixed(nn.Module):
    """Knows a rule from the start, and learns nothing: logits of ±`strength` with the sign of one feature."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength
        self.unused = nn.Parameter(torch.zeros(()))  # a search takes a gradient of every path

    def forward(self, x: Tensor) -> Tensor:
        return self.strength * x[:, :1].sign() * torch.tensor([-1.0, 1.0]) + 0.0 * self.unused


class Learns(nn.Module):
    """Guesses at the start, and learns everything within a few dozen steps."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, 2))
        self.layers[2].weight.data.zero_()
        self.layers[2].bias.data = torch.tensor([0.1, -0.1])

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


class Space(ModelSpace):
    """Maps features of shape (batch, 2) to logits of shape (batch, 2), with a batch-norm before the choice."""

    def __init__(self, candidates: int = 2) -> None:
        super().__init__()
        made: dict[str, nn.Module] = {"fixed": Fixed(1.0), "learns": Learns(16)}
        made |= {f"weak{n}": Fixed(-1.0 - n) for n in range(candidates - 2)}
        self.norm = nn.BatchNorm1d(2, affine=False)
        self.choice = LayerChoice(made, label="rule")

    def forward(self, x: Tensor) -> Tensor:
        return self.choice(self.norm(x))  # type: ignore[no-any-return]


def data(seed: int, count: int = 512) -> TensorDataset:
    """Class 1 inside a ring. The sign of the first feature tells it in 3 of 4 cases."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 2, generator=generator)
    y = (x[:, 1] + 1.5 * x[:, 0].abs() > 1).long()
    flip = torch.rand(count, generator=generator) < 0.75
    x[:, 0] = torch.where(flip, x[:, 0].abs() * (2 * y - 1), x[:, 0])
    return TensorDataset(x, y)


def evaluator(epochs: int = 1) -> Any:
    """Two batches an epoch, in a fixed order, so that the search itself trains next to nothing."""
    return Classification(
        train_dataloaders=DataLoader(data(0), batch_size=256),
        val_dataloaders=DataLoader(data(1), batch_size=256),
        num_classes=2, learning_rate=RATE, max_epochs=epochs, **QUIET,
    )  # fmt: skip


def run(strategy: Any, space: ModelSpace, made: Any) -> Any:
    torch.manual_seed(0)
    strategy(RawFormatModelSpace.from_model(space, made), SequentialExecutionEngine())
    return strategy


def searched(candidates: int = 2, made: Any = None, **settings: Any) -> Any:
    torch.manual_seed(0)
    return run(ProxylessNAS(seed=0, finalists=candidates, **settings), Space(candidates), made or evaluator())


def test_the_network_that_only_wins_after_training_is_found() -> None:
    plain, halved = searched(), searched(finalist_steps=STEPS)
    assert halved.compared
    assert plain.decoded_choices() == {"rule": "fixed"}
    assert halved.decoded_choices() == {"rule": "learns"}
    by_name = {finalist.choices["rule"]: finalist for finalist in halved.compared}
    assert by_name["learns"].score < by_name["fixed"].score == by_name["fixed"].trained_score
    assert by_name["learns"].trained_score > by_name["fixed"].trained_score
    assert {finalist.trained_steps for finalist in halved.compared} == {STEPS}
    assert [(f.choices, f.score, f.ranked_by) for f in plain.compared] == [
        (f.choices, f.score, f.ranked_by) for f in halved.compared
    ]
    assert {finalist.trained_score for finalist in plain.compared} == {None}
    assert halved.best_choices(None) == [{"rule": "learns"}, {"rule": "fixed"}]


def test_the_training_is_that_of_plain_pytorch() -> None:
    """Train a copy with the same batches by hand: Adam, half of its rate, a half cosine to 0."""
    found = searched(finalist_steps=STEPS)
    network: Any = copy.deepcopy(found.supernet.freeze({"rule": "learns"}))
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    batches = list(DataLoader(data(0), batch_size=256))
    network.train()
    for step in range(STEPS):
        x, y = batches[step % 2]
        optimizer.param_groups[0]["lr"] = 0.5 * RATE * (1 + math.cos(math.pi * step / STEPS)) / 2
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    norm = network.norm
    norm.reset_running_stats()
    norm.momentum = None
    with torch.no_grad():
        for x, _ in batches:
            network(x)
        network.eval()
        x, y = data(1).tensors
        accuracy = float((network(x).argmax(1) == y).float().mean())
    (trained,) = [f for f in found.compared if f.choices["rule"] == "learns"]
    assert trained.trained_score == pytest.approx(accuracy, abs=1e-6)


def test_half_of_the_networks_are_dropped_in_each_round() -> None:
    assert rounds_of(64) == [8, 4, 2]
    assert rounds_of(5) == [5, 3, 2]
    assert rounds_of(2) == [2]
    assert rounds_of(1) == []
    assert Halving(10).total(64) == 140
    found = searched(5, finalist_steps=STEPS)
    steps = {finalist.choices["rule"]: finalist.trained_steps for finalist in found.compared}
    assert steps["learns"] == steps["fixed"] == 3 * STEPS
    assert sorted(steps.values()) == [STEPS, STEPS, 2 * STEPS, 3 * STEPS, 3 * STEPS]
    assert sum(steps.values()) == Halving(STEPS).total(5)
    assert found.decoded_choices() == {"rule": "learns"}


def test_only_the_best_finalists_are_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(halving, "NETWORKS", 2)
    found = searched(5, finalist_steps=10)
    trained = [finalist for finalist in found.compared if finalist.trained_steps]
    ranked = sorted(found.compared, key=lambda finalist: -finalist.ranked_by)
    assert {id(finalist) for finalist in trained} == {id(finalist) for finalist in ranked[:2]}


def test_nothing_else_changes() -> None:
    states, random_numbers = [], []
    for steps in (0, STEPS):
        made = evaluator()
        found = searched(made=made, finalist_steps=steps)
        random_numbers.append(torch.rand(3))
        (weights,) = [o for o in made.trainer.optimizers if not getattr(o, "is_arch_optimizer", False)]
        optimizer = weights.state_dict()
        states.append((found.supernet.state_dict(), optimizer["state"], [g["lr"] for g in optimizer["param_groups"]]))
        assert found.supernet.training
        assert all(p.grad is None or steps == 0 for p in found.supernet.parameters())
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
    assert torch.equal(*random_numbers)


class OwnModule(LightningModule):
    """User's evaluator with dictionaries as batches, SGD with momentum and a schedule, and a metric of its own."""

    def __init__(self, diverges: bool = False) -> None:
        super().__init__()
        self.diverges = diverges

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)  # type: ignore[no-any-return]

    def training_step(self, batch: dict[str, Tensor], _index: int) -> dict[str, Tensor]:
        logits = self(batch["x"])
        self.log("seen", float(len(logits)))
        broken = self.diverges and logits.requires_grad and logits.abs().max() > 1.0
        return {"loss": nn.functional.cross_entropy(logits, batch["y"]) * (math.nan if broken else 1.0)}

    def validation_step(self, batch: dict[str, Tensor], _index: int) -> None:
        self.log("val_acc", (self(batch["x"]).argmax(1) == batch["y"]).float().mean())

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), 1.0, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1)]


class DictData(torch.utils.data.Dataset[dict[str, Tensor]]):
    def __init__(self, seed: int) -> None:
        self.x, self.y = data(seed).tensors

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.x[index], "y": self.y[index]}


def own_evaluator(diverges: bool = False, **settings: Any) -> Any:
    return Lightning(
        OwnModule(diverges),
        Trainer(max_epochs=1, **QUIET, **settings),
        train_dataloaders=DataLoader(DictData(0), batch_size=256),
        val_dataloaders=DataLoader(DictData(1), batch_size=256),
    )


@pytest.mark.parametrize("settings", [{}, {"precision": "bf16-mixed"}], ids=str)
def test_an_experiment_of_nni_with_any_evaluator(settings: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    strategy = ProxylessNAS(seed=0, finalists=2, finalist_steps=STEPS, gradient_clip_val=1.0)
    experiment = NasExperiment(Space(), own_evaluator(**settings), strategy)
    experiment.config.experiment_working_directory = str(tmp_path)
    assert experiment.run()
    assert experiment.export_top_models(formatter="dict") == [{"rule": "learns"}]


def test_a_training_that_diverges_loses(caplog: pytest.LogCaptureFixture) -> None:
    found = searched(made=own_evaluator(diverges=True), finalist_steps=STEPS)
    by_name = {finalist.choices["rule"]: finalist for finalist in found.compared}
    assert by_name["learns"].trained_score == -math.inf
    assert found.decoded_choices() == {"rule": "fixed"}
    assert "the loss of a finalist is nan in step" in caplog.text


def test_the_best_finalist_is_the_one_that_is_left() -> None:
    def finalist(name: str, ranked_by: float, steps: int = 0, score: float | None = None) -> Finalist:
        return Finalist({"rule": name}, 0.0, 0.5, ranked_by, None, None, trained_steps=steps, trained_score=score)

    assert best([finalist("a", 0.1), finalist("b", 0.3), finalist("c", 0.3)]).choices == {"rule": "b"}
    rows = [finalist("a", 0.9), finalist("b", 0.1, 5, 0.99), finalist("c", 0.2, 10, 0.5), finalist("d", 0.1, 10, 0.6)]
    assert best(rows).choices == {"rule": "d"}
    assert best([*rows[:3], finalist("d", 0.1, 10, math.nan)]).choices == {"rule": "c"}


@pytest.mark.parametrize("steps", [-1, 2.5, True])
def test_wrong_numbers_of_steps_are_refused(steps: Any) -> None:
    with pytest.raises(InputError, match="finalist_steps must be a whole number from 0"):
        ProxylessNAS(finalists=2, finalist_steps=steps)


def test_halving_needs_finalists(recipe_file: Path) -> None:
    for arguments in ({}, {"finalists": 1}):
        with pytest.raises(InputError, match="finalist_steps needs finalists of at least 2"):
            ProxylessNAS(finalist_steps=5, **arguments)
    for key, value in (("strategy", "darts"), ("share_search", True)):
        with pytest.raises(InputError, match="finalist_steps needs proxyless without share_search, got"):
            Recipe.load(recipe_file, {"finalists": 2, "finalist_steps": 5, key: value})


@pytest.mark.slow
def test_a_recipe_records_what_happened_and_an_interrupted_one_begins_anew(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"epochs": 3, "warmup_epochs": 1, "finalists": 5, "share_warmup": False}
    outputs = {name: recipe_file.parent / name for name in ("plain", "halved", "interrupted")}

    def search(name: str, **more: Any) -> list[dict[str, str]]:
        run_search(prepare(Recipe.load(recipe_file, {**settings, **more})), outputs[name])
        with (outputs[name] / "finalists.csv").open(encoding="utf-8") as file:
            return list(csv.DictReader(file))

    plain = search("plain")
    halved = search("halved", finalist_steps=4)
    assert [row["trained_steps"] for row in plain if "trained_steps" in row] == []
    assert sorted(int(row["trained_steps"]) for row in halved) == [4, 4, 8, 12, 12]
    assert all(0 <= float(row["trained_accuracy"]) <= 1 for row in halved)
    for row, other in zip(plain, halved, strict=True):
        assert row == {key: other[key] for key in row}
    weights = [
        torch.load(outputs[name] / "checkpoint.ckpt", weights_only=True)["state_dict"] for name in ("plain", "halved")
    ]
    torch.testing.assert_close(*weights, rtol=0, atol=0)  # entangled weights overlap, and are restored all the same

    original, calls = Halving._train, []

    def stopped(self: Any, *arguments: Any) -> bool:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, *arguments)

    monkeypatch.setattr(Halving, "_train", stopped)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        search("interrupted", finalist_steps=4)
    assert not (outputs["interrupted"] / "architecture.json").exists()
    assert search("interrupted", finalist_steps=4) == halved
    assert '"finalist_steps": 40' in (outputs["halved"] / "cost.json").read_text()
    assert "finalist_steps" not in (outputs["plain"] / "cost.json").read_text()
