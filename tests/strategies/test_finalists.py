"""Final selection for any evaluator, space and strategy. All ways of exporting return the selected architecture."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torchmetrics
from nni.nas.evaluator.pytorch import DataLoader, Lightning, LightningModule, Regression, Trainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.experiment import NasExperiment
from nni.nas.nn.pytorch import InputChoice, LayerChoice, ModelSpace, Repeat
from nni.nas.space import RawFormatModelSpace
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from nni_proxyless import ProxylessNAS
from nni_proxyless.decoding.distribution import ArchitectureDistribution
from nni_proxyless.errors import InputError, SpaceError
from nni_proxyless.strategies.finalist import best
from nni_proxyless.strategies.finalists import compare_finalists
from nni_proxyless.strategies.network_score import NetworkScore, choose_metric
from nni_proxyless.strategies.nni_strategies import (
    LatencyDARTS,
    LatencyENAS,
    LatencyGumbelDARTS,
    LatencyNniProxyless,
    RandomSearch,
)
from nni_proxyless.strategies.search_warnings import equal_scores
from nni_proxyless.supernet.single_path import single_path
from tests import toy

QUIET = {
    "enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False, "logger": False,
}  # fmt: skip
STRATEGIES: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "proxyless": (ProxylessNAS, {"seed": 0}),
    "darts": (LatencyDARTS, {}),
    "gumbel_darts": (LatencyGumbelDARTS, {}),
    "nni_proxyless": (LatencyNniProxyless, {}),
    "enas": (LatencyENAS, {"reward_metric_name": "val_acc", "batches_per_update": 2}),
    "random": (RandomSearch, {"best_of": 4}),
}


class Mixed(ModelSpace):
    """Space with all kinds of choices and a batch-norm, which maps (batch, 6) to (batch, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = LayerChoice(
            {"wide": nn.Linear(6, 8), "deep": nn.Sequential(nn.Linear(6, 8), nn.Tanh())}, label="a"
        )
        self.norm = nn.BatchNorm1d(8)
        self.repeat = Repeat(lambda _: nn.Linear(8, 8), (1, 3), label="depth")
        self.inputs = InputChoice(2, 1, label="input")
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.first(x))
        return self.last(self.drop(self.inputs([self.repeat(y), y])))  # type: ignore[no-any-return]


def classes(seed: int, count: int = 96) -> TensorDataset:
    x = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, (x[:, 0] > 0).long())


def loaders() -> dict[str, Any]:
    return {
        "train_dataloaders": DataLoader(classes(0), batch_size=24, shuffle=True),
        "val_dataloaders": DataLoader(classes(1), batch_size=24),
    }


class OwnModule(LightningModule):
    """User's own evaluator with dictionaries as batches. Its validation returns a loss, and logs a metric if asked."""

    def __init__(self, logs: str | None = None) -> None:
        super().__init__()
        self.logs = logs

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)  # type: ignore[no-any-return]

    def training_step(self, batch: dict[str, Tensor], _index: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch["x"]), batch["y"])

    def validation_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        if self.logs:
            self.log(self.logs, (self(batch["x"]).argmax(1) == batch["y"]).float().mean())
        return self.training_step(batch, index)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), 0.02)


class DictData(torch.utils.data.Dataset[dict[str, Tensor]]):
    def __init__(self, seed: int) -> None:
        self.x, self.y = classes(seed).tensors

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.x[index], "y": self.y[index]}


def own_evaluator(logs: str | None = None) -> Any:
    return Lightning(
        OwnModule(logs),
        Trainer(max_epochs=1, **QUIET),
        train_dataloaders=DataLoader(DictData(0), batch_size=24),
        val_dataloaders=DataLoader(DictData(1), batch_size=24),
    )


def run(strategy: Any, space: ModelSpace, evaluator: Any) -> Any:
    torch.manual_seed(0)
    strategy(RawFormatModelSpace.from_model(space, evaluator), SequentialExecutionEngine())
    return strategy


def by_hand(strategy: Any, sample: Mapping[str, Any], data: TensorDataset, statistics: TensorDataset) -> float:
    """Compute the accuracy of a frozen copy with plain PyTorch, after its batch-norm statistics were re-estimated."""
    network: Any = copy.deepcopy(strategy.supernet.freeze(dict(sample))).eval()  # `freeze` shares modules
    for norm in [m for m in network.modules() if isinstance(m, nn.BatchNorm1d)]:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    x, y = statistics.tensors
    with torch.no_grad():
        for part in torch.split(x, 24):
            network(part)
        network.eval()
        x, y = data.tensors
        return float((network(x).argmax(1) == y).float().mean())


@pytest.mark.parametrize("kind", ["proxyless", "darts", "gumbel_darts", "nni_proxyless", "random"])
def test_a_single_path_of_any_supernet_computes_what_the_frozen_model_does(kind: str) -> None:
    make, settings = STRATEGIES[kind]
    torch.manual_seed(0)
    space = Mixed()
    strategy = make(**settings)
    supernet = strategy.mutate_model(space).eval()
    x = torch.randn(5, 6)
    for first, depth, chosen in itertools.product(("wide", "deep"), (1, 2, 3), ([0], [1])):
        sample = {"a": first, "depth": depth, "input": chosen}
        frozen: Any = supernet.freeze(sample).eval()
        with single_path(supernet, sample), torch.no_grad():
            torch.testing.assert_close(supernet(x), frozen(x), rtol=0, atol=0)
    assert not any("forward" in module.__dict__ for module in supernet.modules())  # the supernet was restored


def test_scores_are_those_of_networks_on_their_own_and_nothing_changes() -> None:
    strategy = run(ProxylessNAS(finalists=1, seed=0), Mixed(), toy_like_evaluator())
    module = strategy.oneshot_module.training_module
    module.train()
    modes = [part.training for part in module.modules()]
    before = {key: value.clone() for key, value in module.state_dict().items()}
    random_state = torch.get_rng_state()
    score = NetworkScore(
        module,
        lambda: DataLoader(classes(1), batch_size=24),
        lambda: DataLoader(classes(0), batch_size=24),
        statistics_batches=4,
    )
    for first, depth in itertools.product(("wide", "deep"), (1, 3)):
        sample = {"a": first, "depth": depth, "input": [0]}
        assert score.of(sample) == pytest.approx(by_hand(strategy, sample, classes(1), classes(0)), abs=1e-6)
    assert str(score.metric) == "val_acc (higher is better)"
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert [part.training for part in module.modules()] == modes
    assert strategy.supernet.norm.momentum == 0.1


def toy_like_evaluator(epochs: int = 1) -> Any:
    from nni.nas.evaluator.pytorch import Classification

    return Classification(num_classes=2, learning_rate=0.02, max_epochs=epochs, **loaders(), **QUIET)


def test_nas_experiment_compares_the_likeliest_networks_within_the_budget(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a recipe, 64 finalists are compared by default as well, and all ways of exporting return the best one."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    strategy = ProxylessNAS(latency=toy.table(), budget_ms=5.4, seed=0)
    experiment = NasExperiment(toy.Features(), toy.evaluator(3), strategy)
    assert experiment.run(port=None)
    within = [
        dict(zip(toy.COSTS, picks, strict=True))
        for picks in itertools.product(*(of for of in toy.COSTS.values()))
        if toy.latency_ms(dict(zip(toy.COSTS, picks, strict=True))) <= 5.4
    ]
    assert len(strategy.compared) == min(64, len(within))
    assert all(dict(finalist.choices) in within for finalist in strategy.compared)
    likelihoods = [finalist.log_likelihood for finalist in strategy.compared]
    assert likelihoods == sorted(likelihoods, reverse=True)
    assert likelihoods == pytest.approx(strategy.distribution().log_likelihoods([f.choices for f in strategy.compared]))
    assert len({finalist.score for finalist in strategy.compared}) > 10
    ranked = strategy.rank([f.choices for f in strategy.compared], [f.score for f in strategy.compared])
    best = dict(strategy.compared[int(np.argmax(ranked))].choices)
    exported = strategy.export_architecture()
    assert dict(exported.choices) == best
    assert exported.predicted_latency_ms == pytest.approx(toy.latency_ms(best))
    assert experiment.export_top_models(formatter="dict") == [best]
    assert [model.sample for model in strategy.list_models()] == [best]
    assert strategy.oneshot_module.export() == best
    three = experiment.export_top_models(3, formatter="dict")
    assert three[0] == best
    assert len({str(sample) for sample in three}) == 3
    values = {str(dict(f.choices)): f.ranked_by for f in strategy.compared}
    assert [values[str(sample)] for sample in three] == sorted(values.values(), reverse=True)[:3]


@pytest.mark.parametrize(
    ("logs", "metric"),
    [
        ("val_acc", "val_acc (higher is better)"),
        ("val_wer", "val_wer (lower is better)"),
        (None, "loss (lower is better)"),
    ],
)
def test_any_evaluator_gives_its_own_metric_or_its_loss(
    logs: str | None, metric: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="nni_proxyless"):
        strategy = run(ProxylessNAS(finalists=6, seed=0), Mixed(), own_evaluator(logs))
    assert f"networks are compared by {metric}" in caplog.text
    assert len(strategy.compared) == 6
    assert strategy.export_architecture().choices == max(strategy.compared, key=lambda f: f.ranked_by).choices
    sign = 1 if "higher" in metric else -1
    assert all(sign * finalist.score >= 0 for finalist in strategy.compared)


def test_regression_is_compared_by_its_error() -> None:
    class Line(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.layer = LayerChoice({"linear": nn.Linear(6, 1), "zero": Zero()}, label="layer")
            self.bias = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) + self.bias  # type: ignore[no-any-return]

    class Zero(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 0.0 * x[:, :1]

    def data(seed: int) -> TensorDataset:
        x = torch.randn(256, 6, generator=torch.Generator().manual_seed(seed))
        return TensorDataset(x, x[:, :1] * 2.0)

    evaluator = Regression(
        learning_rate=0.05, max_epochs=3, **QUIET,
        train_dataloaders=DataLoader(data(0), batch_size=16), val_dataloaders=DataLoader(data(1), batch_size=16),
    )  # fmt: skip
    strategy = run(ProxylessNAS(finalists=2, seed=0), Line(), evaluator)
    scores = {finalist.choices["layer"]: finalist.score for finalist in strategy.compared}
    assert scores["zero"] == pytest.approx(-4.0, rel=0.2)  # the variance of the target
    assert scores["zero"] < scores["linear"] <= 0.0
    assert strategy.export_architecture().choices == {"layer": "linear"}


def test_a_datamodule_brings_its_loaders() -> None:
    class Data(pl.LightningDataModule):
        def train_dataloader(self) -> Any:
            return DataLoader(classes(0), batch_size=24)

        def val_dataloader(self) -> Any:
            return DataLoader(classes(1), batch_size=24)

    import nni
    from nni.nas.evaluator.pytorch import Classification

    evaluator = Classification(num_classes=2, max_epochs=1, datamodule=nni.trace(Data)(), **QUIET)
    strategy = run(ProxylessNAS(finalists=4, seed=0), Mixed(), evaluator)
    assert len(strategy.compared) == 4
    sample = strategy.compared[0].choices
    score = NetworkScore(strategy.oneshot_module.training_module, Data().val_dataloader, Data().train_dataloader)
    assert score.of(sample) == pytest.approx(strategy.compared[0].score, abs=0.1)


@pytest.mark.parametrize("kind", sorted(STRATEGIES))
def test_every_strategys_models_are_within_the_budget_and_equal_twice(kind: str) -> None:
    """NNI's own exports would ignore the budget, and those of Proxyless, ENAS and random search would be random."""
    make, settings = STRATEGIES[kind]
    strategy = run(make(latency=toy.table(), budget_ms=2.5, **settings), toy.Features(), toy.evaluator(2))
    first, second = ([model.sample for model in strategy.list_models()] for _ in range(2))
    assert first == second
    assert len(first) == 1
    assert toy.latency_ms(first[0]) <= 2.5
    exported = strategy.export_architecture()
    assert dict(exported.choices) == first[0] == strategy.oneshot_module.export()
    assert exported.predicted_latency_ms == pytest.approx(toy.latency_ms(first[0]))
    several = [model.sample for model in strategy.list_models(limit=3)]
    assert several[0] == first[0]
    assert all(toy.latency_ms(sample) <= 2.5 for sample in several)
    assert len({str(sample) for sample in several}) == len(several) == 3


@pytest.mark.parametrize("kind", ["darts", "nni_proxyless", "enas"])
def test_nnis_strategies_compare_finalists_if_told(kind: str) -> None:
    make, settings = STRATEGIES[kind]
    strategy = run(make(finalists=5, **settings), Mixed(), toy_like_evaluator(2))
    assert len(strategy.compared) == 5
    assert strategy.export_architecture().choices == max(strategy.compared, key=lambda f: f.ranked_by).choices


def test_a_search_ended_by_steps_compares_too() -> None:
    evaluator = Lightning(
        OwnModule("val_acc"),
        Trainer(max_steps=6, **QUIET),
        train_dataloaders=DataLoader(DictData(0), batch_size=24),
        val_dataloaders=DataLoader(DictData(1), batch_size=24),
    )
    assert len(run(ProxylessNAS(finalists=3, seed=0), Mixed(), evaluator).compared) == 3


def test_metrics_are_told_by_torchmetrics_and_by_names() -> None:
    module = nn.Module()
    assert choose_metric({"val_loss": 1.0, "val_acc": 0.5}, module).name == "val_acc"
    assert choose_metric({"val_loss": 1.0, "valid/mIoU": 0.5}, module).name == "valid/mIoU"
    assert not choose_metric({"val_rmse": 1.0, "val_loss": 0.5}, module).higher_is_better
    assert choose_metric({"val_rmse": 1.0, "val_loss": 0.5}, module).name == "val_rmse"
    module.metrics = nn.ModuleDict({"strange": torchmetrics.MeanSquaredError()})
    found = choose_metric({"val_strange": 1.0, "val_loss": 2.0}, module)
    assert (found.name, found.higher_is_better) == ("val_strange", False)
    with pytest.raises(InputError, match=r"logs no metric and returns no loss.*it logs val_thing.*finalists=1"):
        choose_metric({"val_thing": 1.0}, nn.Module())


def test_an_empty_validation_loader_is_refused() -> None:
    strategy = run(ProxylessNAS(finalists=1, seed=0), Mixed(), toy_like_evaluator())
    score = NetworkScore(strategy.oneshot_module.training_module, list, lambda: [])
    with pytest.raises(InputError, match="the validation loader has no batch"):
        score.of({"a": "wide", "depth": 1, "input": [0]})


def test_a_module_that_is_no_single_path_is_named() -> None:
    from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule

    class Odd(BaseSuperNetModule):
        pass

    message = r"'0' is a Odd, which cannot be run as part of a single network.*finalists=1"
    with pytest.raises(SpaceError, match=message), single_path(nn.Sequential(Odd()), {}):
        pytest.fail("it was run")


@pytest.mark.parametrize(
    ("name", "higher"),
    [
        ("val_top1_error", False), ("val_dice_loss", False), ("val_iou_loss", False), ("precision_loss", False),
        ("val_top5_err", False), ("val_top5", True), ("val_f1score", True), ("val/Acc@1", True), ("val_ap", True),
        ("valAccuracy", True), ("val_mAP50", True), ("r2", True),
    ],
)  # fmt: skip
def test_the_words_of_a_name_say_which_direction_is_better(name: str, higher: bool) -> None:
    means = {name: 0.5} if "err" in name else {"val_loss": 1.0, name: 0.5}
    found = choose_metric(means, nn.Module())
    assert (found.name, found.higher_is_better) == ("val_loss" if "loss" in name and not higher else name, higher)


class WithObject(OwnModule):
    """Logs a torchmetrics object, which training updates too."""

    def __init__(self) -> None:
        super().__init__()
        self.measure = torchmetrics.classification.MulticlassAccuracy(num_classes=2, average="micro")

    def training_step(self, batch: dict[str, Tensor], _index: int) -> Tensor:
        self.measure(self(batch["x"]), batch["y"])
        return nn.functional.cross_entropy(self(batch["x"]), batch["y"])

    def validation_step(self, batch: dict[str, Tensor], dataloader_idx: int) -> None:  # type: ignore[override]
        self.measure.update(self(batch["x"]), batch["y"])
        self.log("val_measure", self.measure)


class AtTheEnd(OwnModule):
    """Logs its metric only at the end of validation, and takes the index of the loader."""

    def validation_step(self, batch: dict[str, Tensor], index: int, dataloader_idx: int) -> None:  # type: ignore[override]
        assert dataloader_idx == 0
        self.hits = [] if index == 0 else self.hits
        self.hits += (self(batch["x"]).argmax(1) == batch["y"]).tolist()

    def on_validation_epoch_end(self) -> None:
        self.log_dict({"val_hit_accuracy": sum(self.hits) / len(self.hits)})


@pytest.mark.parametrize(
    ("kind", "metric"),
    [(WithObject, "val_measure (higher is better)"), (AtTheEnd, "val_hit_accuracy (higher is better)")],
)
def test_metrics_of_the_whole_validation_are_those_of_networks_on_their_own(kind: type[Any], metric: str) -> None:
    evaluator = Lightning(
        kind(), Trainer(max_epochs=1, **QUIET), train_dataloaders=DataLoader(DictData(0), batch_size=24),
        val_dataloaders=DataLoader(DictData(1), batch_size=24),
    )  # fmt: skip
    strategy = run(ProxylessNAS(finalists=1, seed=0), Mixed(), evaluator)
    module = strategy.oneshot_module.training_module
    kept = getattr(module, "measure", None)
    before = None if kept is None else (kept._update_count, kept.tp.clone())
    score = NetworkScore(
        module, lambda: DataLoader(DictData(1), batch_size=24), lambda: DataLoader(DictData(0), batch_size=24),
        statistics_batches=4,
    )  # fmt: skip
    for first, depth in itertools.product(("wide", "deep"), (1, 3)):
        sample = {"a": first, "depth": depth, "input": [0]}
        assert score.of(sample) == pytest.approx(by_hand(strategy, sample, classes(1), classes(0)), abs=1e-5)
    assert str(score.metric) == metric
    if kept is not None and before is not None:
        assert kept._update_count == before[0]
        assert torch.equal(kept.tp, before[1])


def test_the_trainers_limit_of_validation_batches_is_kept() -> None:
    strategy = run(ProxylessNAS(finalists=1, seed=0), Mixed(), toy_like_evaluator())
    sample = {"a": "wide", "depth": 1, "input": [0]}
    part = TensorDataset(*(tensor[:48] for tensor in classes(1).tensors))
    for limit in (2, 0.5):
        score = NetworkScore(
            strategy.oneshot_module.training_module,
            lambda: DataLoader(classes(1), batch_size=24),
            lambda: DataLoader(classes(0), batch_size=24),
            statistics_batches=4,
            limit=limit,
        )
        assert score.of(sample) == pytest.approx(by_hand(strategy, sample, part, classes(0)), abs=1e-6)


def test_a_score_that_is_not_finite_only_counts_as_the_worst() -> None:
    candidates = {"layer": ("a", "b", "c")}
    distribution = ArchitectureDistribution(candidates, {"layer": torch.tensor([0.4, 0.3, 0.3])})
    given = {"a": math.nan, "b": 0.2, "c": 0.9}
    found = compare_finalists(
        [{"layer": name} for name in given],
        lambda choices: given[choices["layer"]],
        lambda _architectures, scores: list(scores),
        distribution,
        None,
    )
    assert [finalist.ranked_by for finalist in found] == [0.2, 0.2, 0.9]
    assert math.isnan(found[0].score)
    assert best(found).choices == {"layer": "c"}
    # The likelihood, which also counts, makes up for no score, nor does a place at the front.
    only = compare_finalists(
        [{"layer": "a"}, {"layer": "b"}], lambda choices: given[choices["layer"]], lambda *_: [5.0, 0.2], distribution,
        None,
    )  # fmt: skip
    assert best(only).choices == {"layer": "b"}
    assert equal_scores([math.nan, 0.2]) is None
    assert "of all 2 finalists are infinite or not numbers" in str(equal_scores([math.nan, math.inf]))


def test_a_comparison_that_fails_ends_only_a_search_that_asks_for_it(caplog: pytest.LogCaptureFixture) -> None:
    class Fails(LightningModule):
        def training_step(self, batch: Any, _index: int) -> Tensor:
            return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

        def validation_step(self, batch: Any, index: int) -> None:
            raise ValueError("no validation here")

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.02)

    def evaluator() -> Any:
        data = [DataLoader(toy.feature_data(seed), batch_size=64) for seed in (0, 1)]
        trainer = Trainer(max_epochs=1, **QUIET)
        return Lightning(Fails(), trainer, train_dataloaders=data[0], val_dataloaders=data[1])

    with pytest.raises(ValueError, match="no validation here"):
        run(ProxylessNAS(latency=toy.table(), budget_ms=5.4, finalists=4), toy.Features(), evaluator())
    assert "could not be compared" not in caplog.text
    strategy = run(ProxylessNAS(latency=toy.table(), budget_ms=5.4, seed=0), toy.Features(), evaluator())
    assert "could not be compared, so the most likely one is exported" in caplog.text
    assert "ValueError: no validation here" in caplog.text
    assert strategy.compared == []
    assert strategy.decoded_choices() == strategy.distribution().most_likely(5.4)
