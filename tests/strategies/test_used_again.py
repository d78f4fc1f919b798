"""What may be used again after a search and what may not, and settings of the trainer that a search cannot keep."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from nni.nas.evaluator.pytorch import Classification
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from nni.nas.space import RawFormatModelSpace
from torch import Tensor, nn

from nni_proxyless import ProxylessNAS
from nni_proxyless.errors import InputError, SpaceError
from nni_proxyless.strategies.nni_strategies import LatencyDARTS, RandomSearch
from tests import toy
from tests.strategies.test_self_check import QUIET


def evaluator(**settings: Any) -> Any:
    train, val = toy.loaders()
    return Classification(
        train_dataloaders=train, val_dataloaders=val, num_classes=2, max_epochs=1, **{**QUIET, **settings}
    )


def search(strategy: Any, space: ModelSpace, of: Any) -> Any:
    torch.manual_seed(0)
    strategy(RawFormatModelSpace(space, of), SequentialExecutionEngine())
    return strategy


@pytest.mark.parametrize("first", [LatencyDARTS, ProxylessNAS])
def test_a_space_is_searched_once(first: Any) -> None:
    space = toy.Features()
    search(first(), space, evaluator())
    for kind in (ProxylessNAS, LatencyDARTS):
        with pytest.raises(SpaceError, match=r"this Features has been searched before, .*; create a new one for each"):
            search(kind(), space, evaluator())


def test_a_trainer_searches_once() -> None:
    of = evaluator()
    search(ProxylessNAS(), toy.Features(), of)
    with pytest.raises(InputError, match="the Trainer of the evaluator has trained for 1 epochs before"):
        search(ProxylessNAS(), toy.Features(), of)


def test_a_strategy_can_be_pickled_after_its_search() -> None:
    strategy = search(ProxylessNAS(latency=toy.table(), budget_ms=5.4, finalists=4), toy.Features(), evaluator())
    again = pickle.loads(pickle.dumps(strategy))
    assert again.export_architecture() == strategy.export_architecture()
    assert again.compared == strategy.compared


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gradient_clip_val": 1.0}, r"Trainer\(gradient_clip_val=1.0\) does not clip in a search"),
        ({"accumulate_grad_batches": 2}, r"Trainer\(accumulate_grad_batches=2\) cannot be used in a search"),
    ],
)
def test_settings_of_the_steps_are_refused_where_the_search_takes_the_steps(
    settings: dict[str, Any], message: str
) -> None:
    for kind in (ProxylessNAS, LatencyDARTS):
        with pytest.raises(InputError, match=message):
            search(kind(), toy.Features(), evaluator(**settings))
    search(RandomSearch(best_of=2), toy.Features(), evaluator(**settings))  # Lightning takes its steps


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_finalists_are_compared_and_trained_in_the_precision_of_the_search(precision: str) -> None:
    strategy = ProxylessNAS(finalists=3, finalist_steps=2, seed=0)
    search(strategy, toy.Features(), evaluator(precision=precision))
    assert len(strategy.compared) == 3
    assert sum(finalist.trained_steps > 0 for finalist in strategy.compared) > 1


class Ordered(ModelSpace):
    def __init__(self, *names: str) -> None:
        super().__init__()
        made = {"keep": nn.Identity(), "linear": nn.Linear(4, 4), "more": nn.Linear(4, 4)}
        self.layer = LayerChoice({name: made[name] for name in names}, label="layer")
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (ProxylessNAS, ("linear", "keep")),
        (ProxylessNAS, ("keep", "linear", "more")),
        (LatencyDARTS, ("linear", "keep")),
    ],
)
def test_a_checkpoint_of_other_candidates_is_refused(kind: Any, names: tuple[str, ...], tmp_path: Path) -> None:
    """Probabilities are stored by position, so those of candidates in another order would be exchanged."""
    settings: dict[str, Any] = {"default_root_dir": str(tmp_path), "enable_checkpointing": True}
    first = search(kind(), Ordered("keep", "linear"), evaluator(**settings))
    second = kind()
    second.initialize(RawFormatModelSpace(Ordered(*names), evaluator(**settings)), SequentialExecutionEngine())
    second.load_state_dict(first.state_dict())
    with pytest.raises(InputError, match="the checkpoint is of another model space: for choice 'layer' it has"):
        second.run()


def test_an_architecture_is_exported_for_a_budget_that_is_a_number() -> None:
    strategy = search(ProxylessNAS(latency=toy.table()), toy.Features(), evaluator())
    assert toy.latency_ms(strategy.export_architecture(budget_ms=3).choices) <= 3
    for wrong in ("3", True, -1.0):
        with pytest.raises(InputError, match="budget_ms must be a number greater than 0, in milliseconds, got"):
            strategy.export_architecture(budget_ms=wrong)
        with pytest.raises(InputError, match="budget_ms must be a number greater than 0, in milliseconds, got"):
            strategy.export_front(budget_ms=wrong)
