"""A search learns from every kind of candidate, or says what is wrong: at its start, while it runs, or at its end."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import nni
import pytest
import torch
import torch.utils.data
from nni.nas.evaluator.pytorch import DataLoader, Lightning, LightningModule, Regression, Trainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, Repeat
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from nni.nas.space import RawFormatModelSpace
from pytorch_lightning import LightningDataModule
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import IterableDataset, TensorDataset

from nni_proxyless import ProxylessNAS
from nni_proxyless.errors import InputError, RunError, SpaceError
from nni_proxyless.strategies.search_warnings import differing_ranks
from tests import toy

QUIET = {
    "enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False, "logger": False,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Pair:
    """Frozen, so that it can only be rebuilt, not changed."""

    value: Tensor
    more: dict[str, Tensor]
    name: str = "pair"


class Opaque:
    def __init__(self, value: Tensor) -> None:
        self.value = value


OUTPUTS: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]] = {
    "tensor": (lambda x: x, lambda y: y),
    "dataclass": (lambda x: Pair(x, {"twice": 2 * x}), lambda y: y.more["twice"] + y.value),
    "dataclass in a list": (lambda x: [Pair(x, {})], lambda y: y[0].value),
    "complex": (lambda x: torch.complex(x, 2 * x), lambda y: y.imag),
    "complex and an index": (lambda x: (x.to(torch.complex64), torch.arange(3)), lambda y: y[0].real),
    "object": (Opaque, lambda y: y.value),
    "object in a dict": (lambda x: {"a": x, "b": Opaque(x)}, lambda y: y["a"]),
    "integers": (lambda x: (x > 0).long(), lambda y: y.float()),
}


class Wrapped(nn.Module):
    def __init__(self, keep: bool, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.keep, self.wrap = keep, wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(x if self.keep else 0.0 * x)


class Signs(ModelSpace):
    """The class is the sign of the first feature, which one of two candidates drops."""

    def __init__(self, kind: str = "tensor") -> None:
        super().__init__()
        wrap, self.unwrap = OUTPUTS[kind]
        self.layer = LayerChoice({"drop": Wrapped(False, wrap), "keep": Wrapped(True, wrap)}, label="layer")
        self.linear = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.unwrap(self.layer(x)))  # type: ignore[no-any-return]


def signs(seed: int, count: int = 256) -> TensorDataset:
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, (x[:, 0] > 0).long())


class Plain(LightningModule):
    """Evaluator that logs nothing but its loss."""

    def training_step(self, batch: Any, _index: int) -> Tensor:
        return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), 0.05)


def search(
    space: ModelSpace, module: Any = None, *, loaders: Any = None, trainer: Any = None, **settings: Any
) -> ProxylessNAS:
    torch.manual_seed(0)
    train, val = loaders or (DataLoader(signs(0), batch_size=32), DataLoader(signs(1), batch_size=32))
    trainer = Trainer(**{"max_epochs": 4, **QUIET, **(trainer or {})})
    evaluator = Lightning(module or Plain(), trainer, train_dataloaders=train, val_dataloaders=val)
    strategy = ProxylessNAS(seed=0, **settings)
    strategy(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
    return strategy


@pytest.mark.parametrize("gradient", ["full", "two_path"])
@pytest.mark.parametrize("kind", ["tensor", "dataclass", "dataclass in a list", "complex", "complex and an index"])
def test_candidates_of_every_structure_are_learnt(kind: str, gradient: Any) -> None:
    strategy = search(Signs(kind), arch_gradient=gradient, arch_learning_rate=0.2)
    assert strategy.path_probs()["layer"][1] > 0.8
    assert strategy.warnings == []


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("object", "candidate 'drop': returns an object of type Opaque"),
        ("object in a dict", "candidate 'drop': returns an object of type Opaque"),
        ("integers", "candidate 'drop': returns a int64 tensor of shape (32, 4), which has no gradient"),
    ],
)
def test_outputs_without_gradients_are_refused_by_layer_and_type(kind: str, what: str) -> None:
    with pytest.raises(SpaceError) as raised:
        search(Signs(kind), trainer={"max_epochs": 1})
    assert str(raised.value).startswith("choice 'layer': candidate 'drop' returns ")
    assert what.split("returns ", 1)[1] in str(raised.value)


class Candidates(ModelSpace):
    def __init__(self, candidates: dict[str, Any]) -> None:
        super().__init__()
        self.first = LayerChoice({"a": nn.Linear(4, 4), "b": nn.Identity()}, label="first")
        self.second = LayerChoice(candidates, label="second")
        self.linear = nn.LazyLinear(2)

    def forward(self, x: Tensor) -> Tensor:
        y: Any = self.second(self.first(x)[:, None])
        return self.linear((y[0] if isinstance(y, tuple) else y).flatten(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        (
            {"wide": nn.Linear(4, 16), "narrow": nn.Linear(4, 8)},
            "choice 'second': candidate 'wide' returns a tensor of shape (32, 1, 16), but candidate 'narrow' returns a "
            "tensor of shape (32, 1, 8)",
        ),
        (
            {"wide": nn.Linear(4, 16), "one": nn.Linear(4, 1)},
            "candidate 'one' returns a tensor of shape (32, 1, 1)",
        ),
        (
            {"lstm": nn.LSTM(4, 3, batch_first=True), "gru": nn.GRU(4, 3, batch_first=True)},
            "choice 'second': candidate 'lstm' returns tuple(a tensor of shape (32, 1, 3), tuple(a tensor of shape",
        ),
        ({"some": nn.Identity(), "none": None}, "candidate 'none' of choice 'second' is None"),
        ({"some": nn.Identity(), "none": toy.Nothing()}, "candidate 'none' returns None, which has no gradient"),
    ],
)
def test_candidates_that_cannot_be_exchanged_are_named_before_training(candidates: Any, message: str) -> None:
    steps = []

    class Counts(Plain):
        def optimizer_step(self, *_: Any, **__: Any) -> None:
            steps.append(1)

    with pytest.raises(SpaceError) as raised:
        search(Candidates(candidates), Counts(), trainer={"max_epochs": 1})
    assert message in str(raised.value)
    assert not steps


def test_reinforce_compares_no_outputs_so_shapes_may_differ() -> None:
    class Pooled(Candidates):
        def forward(self, x: Tensor) -> Tensor:
            return self.linear(self.second(self.first(x)[:, None]).mean(2))  # type: ignore[no-any-return]

    space = Pooled({"wide": nn.Linear(4, 16), "narrow": nn.Linear(4, 8)})
    strategy = search(space, trainer={"max_epochs": 1}, arch_gradient="reinforce")
    assert strategy.decoded_choices()["second"] in ("wide", "narrow")


def test_the_check_before_training_changes_nothing() -> None:
    """The paths, the weights and the random numbers of a search are the same with and without it."""
    found = []
    for skip in (False, True):
        torch.manual_seed(0)
        space = Signs()
        strategy = ProxylessNAS(seed=0)
        evaluator = Lightning(
            Plain(), Trainer(max_epochs=1, **QUIET),
            train_dataloaders=DataLoader(signs(0), batch_size=32, shuffle=True),
            val_dataloaders=DataLoader(signs(1), batch_size=32, shuffle=True),
        )  # fmt: skip
        strategy.initialize(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
        strategy.oneshot_module._check.is_due = not skip
        strategy.run()
        found.append([space.linear.weight.detach().clone(), strategy.path_probs()["layer"], torch.rand(1)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


# --- spaces with nothing to search, or with choices that no module reads ---


class Empty(ModelSpace):
    def __init__(self, single: bool) -> None:
        super().__init__()
        self.layer = LayerChoice([nn.Identity()], label="layer") if single else nn.Identity()
        self.linear = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.layer(x))  # type: ignore[no-any-return]


@pytest.mark.parametrize("single", [False, True])
def test_a_space_without_a_choice_is_refused(single: bool) -> None:
    with pytest.raises(SpaceError, match="Empty has no choice with two candidates, so there is nothing to search"):
        search(Empty(single), prune_below=0.01)


def test_a_choice_that_no_module_reads_is_refused() -> None:
    class Width(Signs):
        def __init__(self) -> None:
            super().__init__()
            self.width = nni.choice("width", [8, 16])
            self.add_mutable(self.width)

    with pytest.raises(SpaceError, match="no module of Width depends on the choice 'width'"):
        search(Width())


def test_a_search_whose_paths_are_all_pruned_ends_well() -> None:
    strategy = search(
        Signs(),
        trainer={"max_epochs": 8},
        prune_below=0.45,
        arch_learning_rate=1.0,
        sharpen_epochs=1,
        arch_update_every=1,
    )
    assert strategy.decoded_choices() == {"layer": "keep"}
    assert len(strategy._gates["layer"].kept) == 1


# --- evaluators and loaders ---


class Endless(IterableDataset):  # type: ignore[type-arg]
    """Data without a length."""

    def __iter__(self) -> Any:
        x, y = signs(0).tensors
        return iter(zip(x, y, strict=True))


def test_loaders_without_a_length_are_searched_with_a_warning() -> None:
    loaders = [torch.utils.data.DataLoader(Endless(), batch_size=32) for _ in range(2)]
    strategy = search(Signs(), loaders=loaders, arch_learning_rate=0.2)
    assert strategy.path_probs()["layer"][1] > 0.8
    (warning,) = strategy.warnings
    assert warning.startswith("the length of the search is not known, so the architecture's learning rate")


def test_a_validation_loader_without_a_batch_is_refused() -> None:
    loaders = (DataLoader(signs(0), batch_size=32), DataLoader(signs(1, 16), batch_size=32, drop_last=True))
    with pytest.raises(InputError, match="val_dataloaders of the evaluator has no batch to train the architecture"):
        search(Signs(), loaders=loaders)


def test_a_search_without_a_step_of_the_architecture_fails() -> None:
    with pytest.raises(RunError, match="ended in its warm-up of 4 epochs, so no architecture was searched"):
        search(Signs(), warmup_epochs=4)


def test_optimizers_that_cannot_be_stepped_are_refused() -> None:
    class Closure(Plain):
        def configure_optimizers(self) -> Any:
            return torch.optim.LBFGS(self.parameters())

    class Plateau(Plain):
        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), 0.1)
            scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"}}

    class Two(Plain):
        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD([p], 0.1) for p in self.model.linear.parameters()]

    class Manual(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

    for module, message in (
        (Closure(), "Closure uses LBFGS, which needs the loss several times"),
        (Plateau(), "Plateau uses ReduceLROnPlateau, which needs a validation metric"),
        (Two(), "configure_optimizers must return one optimizer for a search, got 2"),
        (Manual(), "Manual sets automatic_optimization=False"),
    ):
        with pytest.raises(InputError, match=message):
            search(Signs(), module)


def test_a_module_that_logs_dictionaries_and_has_hooks_is_searched() -> None:
    called: set[str] = set()

    class Logs(Plain):
        def training_step(self, batch: Any, index: int) -> Any:
            loss = super().training_step(batch, index)
            self.log_dict({"train_loss": loss, "twice": 2 * loss})
            return {"loss": loss}

        def on_before_zero_grad(self, _optimizer: Any) -> None:
            called.add("on_before_zero_grad")

        def transfer_batch_to_device(self, batch: Any, device: Any, index: int) -> Any:
            called.add("transfer_batch_to_device")
            assert len(batch) == 2
            return super().transfer_batch_to_device(batch, device, index)

        def on_after_batch_transfer(self, batch: Any, _index: int) -> Any:
            called.add("on_after_batch_transfer")
            assert isinstance(batch[0], Tensor)
            return batch

        def configure_callbacks(self) -> Any:
            called.add("configure_callbacks")
            return []

    strategy = search(Signs(), Logs(), arch_learning_rate=0.2)
    assert strategy.path_probs()["layer"][1] > 0.8
    assert len(called) == 4
    logged = strategy.oneshot_module.trainer.callback_metrics
    assert {"train_loss", "twice", "arch/train_loss", "arch/twice"} <= logged.keys()


def test_callbacks_that_wait_for_a_validation_metric_are_named() -> None:
    class Logs(Plain):
        def training_step(self, batch: Any, index: int) -> Any:
            loss = super().training_step(batch, index)
            self.log("train_loss", loss)
            return loss

    trainer = {"callbacks": [ModelCheckpoint(monitor="val_loss"), EarlyStopping(monitor="train_loss")]}
    strategy = search(Signs(), Logs(), trainer={**trainer, "enable_checkpointing": True, "max_epochs": 2})
    (warning,) = strategy.warnings
    assert warning.startswith("ModelCheckpoint('val_loss') does nothing: validation_step does not run during a search")
    assert "train_loss" in warning


def test_callbacks_of_the_package_lightning_are_refused() -> None:
    foreign = type("Timer", (), {"__module__": "lightning.pytorch.callbacks.timer"})()
    evaluator = Lightning(
        Plain(), Trainer(max_epochs=1, **QUIET),
        train_dataloaders=DataLoader(signs(0)), val_dataloaders=DataLoader(signs(1)),
    )  # fmt: skip
    evaluator.trainer.callbacks.append(foreign)
    with pytest.raises(InputError, match="callback Timer comes from the package lightning"):
        ProxylessNAS().initialize(RawFormatModelSpace(Signs(), evaluator), SequentialExecutionEngine())


def test_steps_may_take_entries_out_of_a_batch_and_need_gradients_of_the_input() -> None:
    class Adversarial(Plain):
        def training_step(self, batch: Any, _index: int) -> Tensor:
            x, labels = batch.pop("x").requires_grad_(), batch.pop("labels")
            loss = nn.functional.binary_cross_entropy_with_logits(self.model(x), labels)
            (gradient,) = torch.autograd.grad(loss, x)
            self.log_dict(dictionary={"size": gradient.abs().mean()})
            return nn.functional.binary_cross_entropy_with_logits(self.model(x + 0.01 * gradient.sign()), labels)

    loaders = [DataLoader(of_dictionaries(i), batch_size=32) for i in range(2)]
    strategy = search(Signs(), Adversarial(), loaders=loaders, trainer={"max_epochs": 1})
    assert strategy.oneshot_module.architecture_steps > 0


def test_predictions_that_an_evaluator_collects_are_those_of_one_network() -> None:
    """Some evaluators collect predictions in a list, clear it when validation starts, and log at its end."""
    sizes: list[int] = []

    class Collects(Plain):
        def on_validation_epoch_start(self) -> None:
            self.hits: list[Tensor] = []

        def validation_step(self, batch: Any, _index: int) -> None:
            self.hits.append((self.model(batch[0]).argmax(1) == batch[1]).float())

        def on_validation_epoch_end(self) -> None:
            hits = torch.cat(self.hits)
            sizes.append(len(hits))
            self.log("val_acc", hits.mean())

    strategy = search(Signs(), Collects(), finalists=2)
    assert sizes == [256, 256]
    assert max(f.score for f in strategy.compared) > 0.9


def test_a_list_of_one_loader_is_that_loader_and_several_are_refused() -> None:
    train, val = (DataLoader(signs(i), batch_size=32) for i in range(2))
    strategy = search(Signs(), loaders=([train], [val]), arch_learning_rate=0.2)
    assert strategy.path_probs()["layer"][1] > 0.8
    with pytest.raises(InputError, match="val_dataloaders must be one loader for a search, got 2; join their data"):
        search(Signs(), loaders=(train, [val, val]))


def test_a_datamodule_is_searched_twice_and_its_hooks_get_single_batches() -> None:
    class Data(LightningDataModule):
        def train_dataloader(self) -> Any:
            return DataLoader(signs(0), batch_size=32)

        def val_dataloader(self) -> Any:
            return DataLoader(signs(1), batch_size=32)

        def on_after_batch_transfer(self, batch: Any, _index: int) -> Any:
            x, y = batch
            assert isinstance(x, Tensor)
            return x, y

    data = Data()
    for _ in range(2):
        torch.manual_seed(0)
        evaluator = Lightning(Plain(), Trainer(max_epochs=4, **QUIET), datamodule=data)
        strategy = ProxylessNAS(seed=0, arch_learning_rate=0.2, finalists=2)
        strategy(RawFormatModelSpace(Signs(), evaluator), SequentialExecutionEngine())
        assert strategy.decoded_choices() == {"layer": "keep"}
        assert len(strategy.compared) == 2


@pytest.mark.parametrize("trainer", [{"max_epochs": 0}, {"limit_train_batches": 0}])
def test_a_fit_without_a_step_is_no_search(trainer: Any) -> None:
    with pytest.raises(RunError, match="the search has ended before its first epoch"):
        search(Signs(), trainer=trainer)


def test_a_mutation_hook_may_use_a_gate_directly() -> None:
    class Weighted(BaseSuperNetModule):
        def __init__(self, choice: Any, gate: Any) -> None:
            super().__init__()
            self.label, self.gate = choice.label, gate

        def forward(self, x: Tensor) -> Tensor:
            drop, keep = self.gate.probs()
            return drop * 0.0 * x + keep * x

        def resample(self, memo: Any) -> Any:
            return {}

        def export(self, memo: Any) -> Any:
            return {}

        def export_probs(self, memo: Any) -> Any:
            return {}

    def hook(module: Any, _name: str, memo: Any, _kwargs: Any) -> Any:
        return (Weighted(module, memo[module.label]), True) if type(module) is LayerChoice else None

    strategy = search(Signs(), mutation_hooks=[hook], arch_learning_rate=0.2)
    assert strategy.path_probs()["layer"][1] > 0.6
    assert strategy.warnings == []


def test_a_metric_that_is_logged_at_the_end_of_an_epoch_may_be_monitored() -> None:
    class Logs(Plain):
        def on_train_epoch_end(self) -> None:
            self.log("late", 1.0)

    strategy = search(Signs(), Logs(), trainer={"callbacks": [EarlyStopping(monitor="late", patience=9)]})
    assert strategy.warnings == []


# --- the length of a search ---


def test_max_steps_gives_the_search_its_length() -> None:
    """Lightning counts the steps of both optimizers: 60 of the weights and 30 of the architecture."""
    strategy = search(
        toy.Features(), loaders=toy.loaders(), trainer={"max_steps": 90, "max_epochs": -1},
        latency=toy.table(), budget_ms=5.4, finalists=1,
    )  # fmt: skip
    module = strategy.oneshot_module
    assert module.architecture_steps == pytest.approx(30, abs=1)
    assert module.temperature == pytest.approx(0.1, rel=0.2)
    assert not any("length" in warning or "ended" in warning for warning in strategy.warnings)


def test_a_search_of_unknown_length_says_that_it_does_not_sharpen() -> None:
    strategy = search(
        toy.Features(), loaders=toy.loaders(), trainer={"max_time": {"seconds": 2}, "max_epochs": -1},
        latency=toy.table(), budget_ms=5.4, finalists=1,
    )  # fmt: skip
    assert strategy.oneshot_module.temperature == 1.0
    (warning,) = strategy.warnings
    assert "so the softmax temperature does not fall" in warning
    assert "set max_epochs or max_steps" in warning


def test_a_search_that_is_stopped_early_says_so() -> None:
    class Stops(EarlyStopping):
        def __init__(self) -> None:
            super().__init__(monitor="none", strict=False)
            self.monitor = None  # type: ignore[assignment]

        def on_train_epoch_end(self, trainer: Any, _module: Any) -> None:
            trainer.should_stop = trainer.current_epoch == 1

        def on_validation_end(self, trainer: Any, _module: Any) -> None:
            return

    strategy = search(
        toy.Features(), loaders=toy.loaders(), trainer={"max_epochs": 8, "callbacks": [Stops()]},
        latency=toy.table(), budget_ms=5.4, finalists=1,
    )  # fmt: skip
    (warning,) = strategy.warnings
    assert warning.startswith("the search ended after 16 of 64 planned architecture steps, at a temperature of 1")


def test_finalist_epochs_need_the_number_of_epochs() -> None:
    with pytest.raises(InputError, match="finalist_epochs=1 needs the number of epochs"):
        search(
            toy.Features(), loaders=toy.loaders(), trainer={"max_steps": 20, "max_epochs": -1},
            latency=toy.table(), budget_ms=5.4, finalist_epochs=1,
        )  # fmt: skip


# --- what the search finds wrong with itself ---


class Detached(ModelSpace):
    """The loss depends on one choice only; the output of the other one is detached."""

    def __init__(self, both: bool) -> None:
        super().__init__()
        self.loud = LayerChoice({"drop": toy.Drop(), "keep": nn.Identity()}, label="loud")
        self.mute = LayerChoice({"drop": toy.Drop(), "keep": nn.Identity()}, label="mute")
        self.both = both
        self.linear = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        loud = self.loud(x)
        parts = [loud.detach() if self.both else loud, self.mute(x).detach()]
        return self.linear(torch.cat(parts, 1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("gradient", ["full", "two_path"])
def test_a_choice_without_a_gradient_is_named_in_the_first_epoch_and_at_the_end(gradient: Any) -> None:
    strategy = search(Detached(both=False), arch_gradient=gradient)
    first, last = strategy.warnings
    assert first.startswith(
        "the loss had no gradient for choice 'mute' in the first epoch that trains the architecture"
    )
    assert last.startswith(
        "the loss had no gradient for choice 'mute' in the whole search, so nothing was learnt about"
    )
    assert strategy.export_architecture().warnings == (first, last)
    with pytest.raises(RunError, match="the loss of epoch 1, step 1 does not depend on any choice"):
        search(Detached(both=True), arch_gradient=gradient)


def test_a_search_that_learns_of_the_latency_alone_fails_at_its_end() -> None:
    class Blind(toy.Features):
        def forward(self, x: Tensor) -> Tensor:
            for label in toy.COSTS:
                getattr(self, label)(x[:, :1])
            return self.linear(x)  # type: ignore[no-any-return]

    with pytest.raises(RunError, match="the loss had no gradient for any choice in 8 architecture steps"):
        search(Blind(), loaders=toy.loaders(), trainer={"max_epochs": 1}, latency=toy.table(), budget_ms=5.4)


def test_finalists_with_equal_scores_are_no_choice() -> None:
    class Constant(Plain):
        def validation_step(self, _batch: Any, _index: int) -> None:
            self.log("val_acc", 0.5)

    strategy = search(Signs(), Constant(), finalists=2)
    assert "all 2 finalists have the same score, 0.5" in strategy.warnings[0]


def test_a_budget_above_the_largest_network_has_no_effect() -> None:
    largest = toy.FIXED_MS + sum(max(of.values()) for of in toy.COSTS.values())
    for budget_ms, warned in ((largest, True), (0.99 * largest, False)):
        strategy = ProxylessNAS(latency=toy.table(), budget_ms=budget_ms)
        strategy.mutate_model(toy.Features())
        assert bool(strategy.warnings) is warned
    strategy = ProxylessNAS(latency=toy.table(), budget_fraction=1.0)  # that is what the user asked for
    strategy.mutate_model(toy.Features())
    assert strategy.warnings == []


# --- REINFORCE with other rewards than the top-1 accuracy ---


class Dropping(ModelSpace):
    """One candidate drops the input of a linear layer, the other one keeps it."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.layer = LayerChoice({"drop": toy.Drop(), "keep": nn.Identity()}, label="layer")
        self.linear = nn.Linear(4, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.layer(x))  # type: ignore[no-any-return]


def regression_data(seed: int) -> TensorDataset:
    x = torch.randn(256, 4, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, 3 * x[:, :1] - 7)


class Binary(Plain):
    """One output and binary cross-entropy; the metric is the evaluator's own."""

    def training_step(self, batch: Any, _index: int) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(self.model(batch[0])[:, 0], batch[1].float())

    def validation_step(self, batch: Any, _index: int) -> None:
        self.log("val_acc", ((self.model(batch[0])[:, 0] > 0) == (batch[1] > 0)).float().mean())


class OfDictionaries(Plain):
    """Dictionaries as batches and outputs, and two labels for each image."""

    def training_step(self, batch: Any, _index: int) -> dict[str, Tensor]:
        outputs = {"logits": self.model(batch["x"])}
        return {"loss": nn.functional.binary_cross_entropy_with_logits(outputs["logits"], batch["labels"])}


def of_dictionaries(seed: int) -> list[dict[str, Tensor]]:
    x = signs(seed).tensors[0]
    labels = torch.stack([x[:, 0] > 0, x[:, 1] > 0], 1).float()
    return [{"x": a, "labels": b} for a, b in zip(x, labels, strict=True)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("task", ["regression", "binary", "dictionaries", "loss alone"])
def test_reinforce_learns_by_the_evaluators_own_metric_or_loss(task: str, seed: int) -> None:
    data: Callable[[int], Any] = {"regression": regression_data, "dictionaries": of_dictionaries}.get(task, signs)
    space: Any = Dropping(1) if task in ("regression", "binary") else Signs()
    modules: dict[str, Any] = {"binary": Binary(), "dictionaries": OfDictionaries(), "loss alone": Plain()}
    loaders = [DataLoader(data(10 * seed + i), batch_size=32) for i in range(2)]
    settings: dict[str, Any] = {"arch_gradient": "reinforce", "arch_learning_rate": 0.1}
    if task == "regression":
        torch.manual_seed(seed)
        rest = {"learning_rate": 0.05, "max_epochs": 6, **QUIET}
        evaluator = Regression(train_dataloaders=loaders[0], val_dataloaders=loaders[1], **rest)
        strategy = ProxylessNAS(seed=seed, **settings)
        strategy(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
    else:
        strategy = search(space, modules[task], loaders=loaders, trainer={"max_epochs": 6}, **settings)
    assert strategy.path_probs()["layer"][1] > 0.75
    assert strategy.warnings == []


def test_reinforce_without_a_reward_is_refused_before_training() -> None:
    class Silent(Plain):
        def training_step(self, batch: Any, index: int) -> Tensor:
            loss = super().training_step(batch, index)
            assert not self.trainer.optimizers[0].state, "a weight step came first"
            return loss

        def validation_step(self, _batch: Any, _index: int) -> None:
            return

    with pytest.raises(InputError, match=r"logs no metric and returns no loss .* or use a strategy with a gradient"):
        search(Signs(), Silent(), arch_gradient="reinforce")


def test_reinforce_says_when_all_networks_have_the_same_score() -> None:
    class Constant(Plain):
        def validation_step(self, _batch: Any, _index: int) -> None:
            self.log("val_acc", 0.5)

    strategy = search(Signs(), Constant(), arch_gradient="reinforce")
    assert [warning.split(" so ")[0] for warning in strategy.warnings] == [
        "all networks that were sampled had the same score in the first epoch that trains the architecture,",
        "all networks that were sampled had the same score in the whole search,",
    ]


def test_a_choice_inside_another_ones_candidate_is_heard() -> None:
    class Nested(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            inner = LayerChoice({"tanh": nn.Tanh(), "relu": nn.ReLU()}, label="inner")
            self.outer = LayerChoice({"inner": inner, "keep": nn.Identity()}, label="outer")
            self.repeat = Repeat(lambda _: nn.Linear(4, 4), nni.choice("depth", [1, 2]))
            self.linear = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(self.repeat(self.outer(x)))  # type: ignore[no-any-return]

    assert search(Nested()).warnings == []


def test_ranks_that_have_searched_for_themselves_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    other = torch.tensor([0.1, 0.3])

    def all_reduce(mine: Tensor, operation: Any) -> None:
        least = operation == torch.distributed.ReduceOp.MIN
        mine.copy_(torch.minimum(mine, other) if least else torch.maximum(mine, other))

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    assert differing_ranks([torch.tensor([0.1, 0.3])], 2) is None
    assert "differ between the 2 ranks" in str(differing_ranks([torch.tensor([0.1, 0.2])], 2))
    assert differing_ranks([torch.tensor([0.1, 0.2])], 1) is None


class OfSequences(Plain):
    def training_step(self, batch: Any, _index: int) -> Tensor:
        x, targets, lengths = batch
        scores = self.model(x).log_softmax(2).transpose(0, 1)
        frames = torch.full((len(x),), x.shape[1], dtype=torch.long)
        return nn.functional.ctc_loss(scores, targets, frames, lengths)


def sequences(seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(1, 4, (128, 3), generator=generator)
    frames = nn.functional.one_hot(torch.repeat_interleave(targets, 3, 1), 4).float()
    return TensorDataset(3 * frames, targets, torch.full((128,), 3))


@pytest.mark.parametrize("gradient", ["full", "two_path", "reinforce"])
def test_sequences_with_a_ctc_loss_are_searched(gradient: Any) -> None:
    loaders = [DataLoader(sequences(i), batch_size=16) for i in range(2)]
    settings = {"arch_gradient": gradient, "arch_learning_rate": 0.1}
    strategy = search(Dropping(4), OfSequences(), loaders=loaders, trainer={"max_epochs": 6}, **settings)
    assert strategy.path_probs()["layer"][1] > 0.75
