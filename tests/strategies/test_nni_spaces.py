"""NNI's strategies with latency on spaces with InputChoice and Repeat: probabilities, exports and resumption."""

from __future__ import annotations

import itertools
import math
import warnings
from pathlib import Path
from typing import Any

import nni
import pytest
import torch
from nni.nas.evaluator.pytorch import Classification, DataLoader, Lightning, Trainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import Cell, InputChoice, LayerChoice, ModelSpace, Repeat
from nni.nas.space import RawFormatModelSpace
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from nni_proxyless import LatencyProfiler, ProxylessNAS
from nni_proxyless.errors import InputError, LatencyTableError, RunError, SpaceError
from nni_proxyless.latency import Calibration
from nni_proxyless.latency.entries import Choice
from nni_proxyless.strategies.nni_differentiable import depth_probs, input_set_probs
from nni_proxyless.strategies.nni_strategies import (
    LatencyDARTS,
    LatencyENAS,
    LatencyGumbelDARTS,
    LatencyNniProxyless,
    RandomSearch,
)
from tests.helpers import made_up_table
from tests.strategies.test_self_check import QUIET, Empty, Plain

DIFFERENTIABLE = [LatencyDARTS, LatencyGumbelDARTS, LatencyNniProxyless]
ALL = [ProxylessNAS, *DIFFERENTIABLE, LatencyENAS, RandomSearch]


class Inputs(ModelSpace):
    """A choice of inputs after four layers, and a Repeat of one to three blocks."""

    def __init__(self, n_chosen: int | None = 2, depths: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))
        self.one = LayerChoice({"id": nn.Identity(), "tanh": nn.Tanh()}, label="one")
        self.inputs = InputChoice(4, n_chosen, label="inputs")
        self.repeat: Any = (
            Repeat(lambda _: nn.Linear(4, 4), nni.choice("depth", [1, 2, 3])) if depths else nn.Identity()
        )
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.repeat(self.inputs([self.one(layer(x)) for layer in self.layers])))  # type: ignore[no-any-return]


def evaluator(epochs: int = 2, **settings: Any) -> Any:
    data = TensorDataset(torch.randn(64, 4), torch.randint(0, 2, (64,)))
    loaders = [DataLoader(data, batch_size=16) for _ in range(2)]
    return Classification(
        train_dataloaders=loaders[0], val_dataloaders=loaders[1], num_classes=2, max_epochs=epochs,
        **{**QUIET, **settings},
    )  # fmt: skip


def plain(module: Any = None, **settings: Any) -> Lightning:
    data = TensorDataset(torch.randn(64, 4), torch.randint(0, 2, (64,)))
    train, val = [DataLoader(data, batch_size=16) for _ in range(2)]
    trainer = Trainer(max_epochs=1, **{**QUIET, **settings})
    return Lightning(module or Plain(), trainer, train_dataloaders=train, val_dataloaders=val)


def searched(strategy: Any, space: ModelSpace, **settings: Any) -> Any:
    torch.manual_seed(0)
    strategy(RawFormatModelSpace(space, evaluator(**settings)), SequentialExecutionEngine())
    return strategy


def made(kind: Any, **settings: Any) -> Any:
    return kind(**settings, **({"batches_per_update": 2} if kind is LatencyENAS else {}))


@pytest.mark.parametrize("kind", DIFFERENTIABLE)
def test_the_inputs_with_the_largest_alpha_are_exported(kind: Any) -> None:
    strategy = searched(made(kind), Inputs())
    with torch.no_grad():
        strategy._arch_parameters["inputs"].copy_(torch.tensor([0.0, 0.0, 5.0, 6.0]))
    assert strategy.decoded_choices()["inputs"] == [2, 3]
    probs = strategy.path_probs()["inputs"]
    pairs = list(itertools.combinations(range(4), 2))
    # By enumeration: a pair's probability is proportional to exp(α_i + α_j).
    weights = [math.exp(sum((0.0, 0.0, 5.0, 6.0)[i] for i in pair)) for pair in pairs]
    assert probs.tolist() == pytest.approx([weight / sum(weights) for weight in weights])
    (model,) = strategy.list_models()
    assert model.sample["inputs"] == [2, 3]
    assert strategy.export_architecture().choices["inputs"] == [2, 3]


@pytest.mark.parametrize("kind", DIFFERENTIABLE)
def test_each_set_of_inputs_can_be_exported(kind: Any) -> None:
    strategy = searched(made(kind), Inputs())
    for pair in itertools.combinations(range(4), 2):
        with torch.no_grad():
            strategy._arch_parameters["inputs"].copy_(torch.tensor([float(i in pair) for i in range(4)]))
        assert strategy.decoded_choices()["inputs"] == list(pair)


def test_any_number_of_inputs_is_one_input_as_nni_assumes() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NNI's own, which says so
        strategy = searched(LatencyDARTS(), Inputs(None))
    with torch.no_grad():
        strategy._arch_parameters["inputs"].copy_(torch.tensor([0.0, 3.0, 1.0, 2.0]))
    assert strategy.decoded_choices()["inputs"] == [1]
    found = strategy.path_probs()["inputs"]
    assert len(found) == 15
    assert torch.allclose(found[:4], torch.softmax(torch.tensor([0.0, 3.0, 1.0, 2.0]).double(), 0))
    assert float(found[4:].sum()) == 0.0


def test_probabilities_of_sets_and_depths_by_enumeration() -> None:
    alpha = torch.tensor([0.3, -0.2, 1.0], dtype=torch.float64, requires_grad=True)
    sets = [list(s) for s in itertools.combinations(range(3), 2)]
    found = input_set_probs(alpha, sets)
    p = torch.softmax(alpha, 0)
    products = torch.stack([p[list(s)].prod() for s in sets])
    assert torch.allclose(found, products / products.sum())
    assert torch.autograd.gradcheck(lambda a: input_set_probs(a, sets), (alpha,))

    keep = [torch.tensor(v, dtype=torch.float64) for v in (0.9, 0.2, 0.6)]
    by_count = [0.0] * 4
    for picks in itertools.product((0, 1), repeat=3):
        by_count[sum(picks)] += math.prod(
            float(k) if pick else 1 - float(k) for k, pick in zip(keep, picks, strict=True)
        )
    assert depth_probs(keep, [2, 3, 4, 5]).tolist() == pytest.approx(by_count)
    assert depth_probs(keep, [2, 5]).tolist() == pytest.approx(
        [by_count[0] / (by_count[0] + by_count[3]), by_count[3] / (by_count[0] + by_count[3])]
    )


def test_nnis_proxyless_learns_the_blocks_of_a_repeat() -> None:
    strategy = searched(LatencyNniProxyless(arc_learning_rate=0.1), Inputs(1, depths=True), epochs=3)
    assert strategy.warnings == []
    blocks = strategy._blocks_of_repeats()["depth"]
    assert len(blocks) == 2
    assert all(float(alpha.detach().abs().max()) > 0.05 for alpha in blocks)  # NNI starts at a thousandth
    optimizer = strategy.oneshot_module.trainer.optimizers[1]
    assert {id(a) for a in blocks} <= {id(p) for group in optimizer.param_groups for p in group["params"]}
    with torch.no_grad():
        for alpha, first in zip(blocks, (5.0, -5.0), strict=True):  # the first entry is the identity
            alpha.copy_(torch.tensor([0.0, first]))
    assert strategy.decoded_choices()["depth"] == 2
    assert strategy.path_probs()["depth"].argmax() == 1


def costs_of(space: ModelSpace) -> Any:
    costs = {}
    for label, mutable in space.simplify().items():
        values = getattr(mutable, "values", ())
        listed = [[v] for v in values] if label == "inputs" else values
        costs |= {Choice(str(label), str(v)): 0.1 * (1 + n) for n, v in enumerate(listed)}
    return made_up_table(costs, Calibration(1.0, 0.5, 8, 0.0), "tests")


@pytest.mark.parametrize("kind", ALL)
def test_every_strategy_searches_inputs_within_a_budget_and_exports_twice_the_same(kind: Any) -> None:
    table = costs_of(Inputs(1))
    strategy = searched(made(kind, latency=table, budget_ms=0.85), Inputs(1))
    first = strategy.export_architecture()
    assert strategy.export_architecture().choices == first.choices
    assert first.predicted_latency_ms is not None
    assert first.predicted_latency_ms <= 0.85
    (model,) = strategy.list_models()
    assert model.sample == first.choices
    assert Inputs(1).freeze(model.sample)(torch.randn(2, 4)).shape == (2, 2)


def test_numbers_of_inputs_that_nni_cannot_search_are_named() -> None:
    for kind, n_chosen, message in (
        (LatencyENAS, 2, "InputChoice 'inputs' has n_chosen=2, which LatencyENAS cannot search; set n_chosen=1"),
        (LatencyENAS, None, "InputChoice 'inputs' has n_chosen=None, which LatencyENAS cannot search"),
        (
            RandomSearch,
            None,
            "InputChoice 'inputs' has n_chosen=None, which RandomSearch cannot search; set n_chos",
        ),
    ):
        with pytest.raises(SpaceError, match=message):
            made(kind).mutate_model(Inputs(n_chosen))


def test_random_search_draws_sets_of_inputs() -> None:
    strategy = searched(RandomSearch(best_of=6), Inputs(2))
    drawn = [tuple(finalist.choices["inputs"]) for finalist in strategy.compared]
    assert set(drawn) <= set(itertools.combinations(range(4), 2))
    assert len(set(drawn)) > 1


@pytest.mark.parametrize("kind", ALL)
def test_an_empty_space_is_refused_by_every_strategy(kind: Any) -> None:
    with pytest.raises(SpaceError, match="Empty has no choice with two candidates"):
        made(kind).mutate_model(Empty(False))


@pytest.mark.parametrize("kind", [ProxylessNAS, LatencyDARTS, RandomSearch])
def test_a_choice_that_no_module_reads_is_refused_by_every_strategy(kind: Any) -> None:
    class Width(Inputs):
        def __init__(self) -> None:
            super().__init__(1)
            self.width = nni.choice("width", [8, 16])
            self.add_mutable(self.width)

    with pytest.raises(SpaceError, match="no module of Width depends on the choice 'width'"):
        made(kind).mutate_model(Width())


def test_enas_takes_the_evaluators_own_metric_or_loss() -> None:
    """NNI's own evaluator logs `val_acc`; another one may only have a loss, of which the lowest is the best."""
    strategy = searched(made(LatencyENAS), Inputs(1))
    logged = strategy.oneshot_module.trainer.callback_metrics
    assert float(logged["reward"]) == float(logged["val_acc"])

    class OfLoss(Plain):
        def validation_step(self, batch: Any, _index: int) -> None:
            self.log("val_loss", nn.functional.cross_entropy(self.model(batch[0]), batch[1]))

    of_loss = plain(OfLoss())
    strategy = made(LatencyENAS)
    strategy(RawFormatModelSpace(Inputs(1), of_loss), SequentialExecutionEngine())
    logged = strategy.oneshot_module.trainer.callback_metrics
    assert float(logged["reward"]) == pytest.approx(-float(logged["val_loss"]))


@pytest.mark.parametrize("kind", ALL)
def test_a_search_goes_on_from_its_checkpoint_with_the_same_probabilities(kind: Any, tmp_path: Path) -> None:
    settings = {"default_root_dir": str(tmp_path), "enable_checkpointing": True}
    depths = kind is not LatencyENAS
    first = made(kind)
    first(RawFormatModelSpace(Inputs(1, depths), plain(**settings)), SequentialExecutionEngine())
    second = made(kind)
    second.initialize(RawFormatModelSpace(Inputs(1, depths), plain(**settings)), SequentialExecutionEngine())
    second.load_state_dict(first.state_dict())
    second.run()
    for label, probs in first.path_probs().items():
        assert torch.allclose(probs, second.path_probs()[label]), label
    assert second.decoded_choices() == first.decoded_choices()


@pytest.mark.parametrize("kind", DIFFERENTIABLE)
def test_a_choice_that_has_not_moved_is_named(kind: Any) -> None:
    strategy = searched(made(kind, warmup_epochs=1), Inputs(1), epochs=1)
    (warning,) = [w for w in strategy.warnings if "did not change" in w]
    assert "'inputs', 'one'" in warning


def test_several_devices_are_refused_for_nnis_strategies() -> None:
    strategy = LatencyDARTS()
    space = RawFormatModelSpace(Inputs(1), evaluator(accelerator="cpu", devices=2, strategy="ddp"))
    with pytest.raises(InputError, match="LatencyDARTS searches on one device, got a Trainer with 2; set devices=1"):
        strategy.initialize(space, SequentialExecutionEngine())


def test_a_fitted_table_may_have_labels_with_slashes() -> None:
    """Labels of NNI's hub contain slashes, as those of NasBench201's cell do."""
    from nni.nas.hub.pytorch import NasBench201

    space = NasBench201()
    table = costs_of(space)
    assert any("/" in str(label) for label in space.simplify())
    profiler = LatencyProfiler(space, table)
    sample = {label: mutable.values[-1] for label, mutable in space.simplify().items()}
    expected = 0.5 + sum(0.1 * len(mutable.values) for mutable in space.simplify().values())
    assert profiler.profile(sample) == pytest.approx(expected)
    other = costs_of(Inputs(1))
    with pytest.raises(LatencyTableError, match=r"has layer '?one"):
        LatencyProfiler(space, other)


def test_the_reward_of_a_negative_score_falls_with_the_latency_too() -> None:
    from nni_proxyless.strategies.reinforce import reward

    assert reward(-2.0, 80.0, 20.0, 0.5) == pytest.approx(-4.0)
    assert reward(-2.0, 5.0, 20.0, 0.5) == pytest.approx(-1.0)
    assert reward(-2.0, None, 1.0, 0.5) == -2.0


def test_cells_are_refused_where_they_would_not_be_decoded() -> None:
    class Cells(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            operators = {"id": lambda *_: nn.Identity(), "tanh": lambda *_: nn.Tanh()}
            self.cell = Cell(operators, num_nodes=1, num_ops_per_node=1, num_predecessors=1, label="c")

    with pytest.raises(SpaceError, match="module 'cell' is a Cell, which LatencyDARTS does not decode"):
        LatencyDARTS().mutate_model(Cells())


@pytest.mark.parametrize("kind", [LatencyENAS, RandomSearch])
def test_cells_whose_supernet_in_nni_is_another_network_are_refused(kind: Any) -> None:
    class Cells(ModelSpace):
        def __init__(self, **settings: Any) -> None:
            super().__init__()
            self.cell = Cell(num_nodes=2, label="c", **settings)

    operators = {"id": nn.Identity(), "tanh": nn.Tanh()}
    for settings, message in (
        (
            {"op_candidates": operators, "merge_op": "loose_end"},
            "module 'cell' is a Cell with merge_op='loose_end', of wh",
        ),
        (
            {"op_candidates": {"id": lambda *_: nn.Identity(), "tanh": lambda *_: nn.Tanh()}},
            "Cell with a factory of oper",
        ),
    ):
        with pytest.raises(SpaceError, match=message):
            kind().mutate_model(Cells(**settings))
    kind().mutate_model(Cells(op_candidates=operators))


@pytest.mark.parametrize("kind", [LatencyENAS, RandomSearch])
def test_a_repeat_of_no_block_is_searched_by_strategies_that_sample(kind: Any) -> None:
    """NNI's own fail with an empty AssertionError as soon as they sample a depth of 0."""

    class Depths(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.repeat = Repeat(lambda _: nn.Linear(4, 4), (0, 2), label="depth")
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.repeat(x))  # type: ignore[no-any-return]

    strategy = searched(made(kind), Depths(), epochs=1)
    assert strategy.export_architecture().choices["depth"] in (0, 1, 2)
    x = torch.randn(3, 4)
    supernet = strategy.supernet
    supernet.repeat.resample({"depth": 0})
    torch.testing.assert_close(supernet(x), supernet.head(x))


def test_random_search_keeps_its_filter() -> None:
    strategy = searched(RandomSearch(best_of=4, filter=lambda sample: sample["inputs"] != [0]), Inputs(1))
    assert strategy.compared
    assert all(finalist.choices["inputs"] != [0] for finalist in strategy.compared)
    sampled = {tuple(strategy.oneshot_module.resample()["inputs"]) for _ in range(50)}
    assert sampled == {(1,), (2,), (3,)}


def test_enas_says_what_it_has_not_learnt() -> None:
    class Constant(Plain):
        def validation_step(self, _batch: Any, _index: int) -> None:
            self.log("val_acc", 0.5)

    strategy = LatencyENAS()
    strategy(RawFormatModelSpace(Inputs(1), plain(Constant())), SequentialExecutionEngine())
    never, equal = strategy.warnings
    assert never.startswith(
        "ENAS's controller was never updated: it has sampled 4 networks, and batches_per_update is 20"
    )
    assert equal.startswith("all networks that were sampled had the same score in the whole search")
    with pytest.raises(RunError, match="ended in its warm-up of 1 epochs"):
        LatencyENAS(warmup_epochs=1)(RawFormatModelSpace(Inputs(1), plain()), SequentialExecutionEngine())
