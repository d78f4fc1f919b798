"""The Lightning module of a search by gradients: weight steps and architecture steps in turn (paper section 3.2.1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import nni.nas.strategy  # noqa: F401  first: or NNI's import cycle leaves stubs instead of its DARTS and ENAS
import torch
from nni.nas.oneshot.pytorch.differentiable import DartsLightningModule
from nni.nas.oneshot.pytorch.profiler import ExpectationProfilerPenalty
from torch import Tensor, nn, optim

from . import gates
from .errors import RunError
from .latency.costs import SpaceCosts
from .objective import Objective
from .supernet import ArchGradient, Gate, WeightFreezer, probs_by_candidate


class ProxylessLightningModule(DartsLightningModule):
    """Trains the weights of sampled paths on one part of the data, the architecture on another.

    It takes NNI's batches `{"train": …, "val": …}`: weights learn from `train`, gates from `val`.

    A loss that is not finite stops the search with a RunError that says in which step it first appeared.

    Args:
        training_module: The evaluator's Lightning module; its `training_step` gives the loss.
        gates_by_label: All gates of the supernet.
        costs: Latencies of all candidates, or none for a search without latency.
        objective: Joins loss and expected latency.
        reference_ms: The latency that the expected one is compared with, in milliseconds.
        latency_weight: How much it counts.
        arch_gradient: `two_path` or `full`.
        arch_learning_rate: Rate of Adam on the architecture parameters.
        arch_update_every: Weight steps for each architecture step.
        warmup_epochs: Epochs of weight steps only.
        sampling_seed: Seed of the path sampler, which is its own: the same paths whatever else draws numbers.
        penalty: NNI's own penalty, added with a gradient.
        gradient_clip_val: Clips the gradients of weights.
        log_prob_every_n_step: How often path probabilities are logged.
    """

    def __init__(
        self,
        training_module: Any,
        *,
        gates_by_label: Mapping[str, Gate],
        costs: SpaceCosts | None,
        objective: Objective,
        reference_ms: float,
        latency_weight: float,
        arch_gradient: ArchGradient,
        arch_learning_rate: float,
        arch_update_every: int,
        warmup_epochs: int,
        sampling_seed: int,
        penalty: ExpectationProfilerPenalty | None,
        gradient_clip_val: float | None,
        log_prob_every_n_step: int,
    ) -> None:
        super().__init__(
            training_module,
            arc_learning_rate=arch_learning_rate,
            gradient_clip_val=gradient_clip_val,
            log_prob_every_n_step=log_prob_every_n_step,
            warmup_epochs=warmup_epochs,
            penalty=penalty,
        )
        # A plain dict: the gates are registered in the supernet, once.
        self._gates = dict(gates_by_label)
        self.costs = costs
        self.objective = objective
        self.reference_ms = reference_ms
        self.latency_weight = latency_weight
        self.arch_gradient: ArchGradient = arch_gradient
        self.arch_update_every = arch_update_every
        self._sampler = torch.Generator().manual_seed(sampling_seed)
        self._freezer: WeightFreezer | None = None

    def path_probs(self) -> dict[str, Tensor]:
        """Label to path probabilities, shape (num_candidates,), differentiable, in sorted order of labels."""
        return {label: gate.probs() for label, gate in self._gates.items()}

    def arch_parameters(self) -> list[nn.Parameter]:
        """All architecture parameters, in sorted order of labels."""
        return [gate.alpha for gate in self._gates.values()]

    def configure_architecture_optimizers(self) -> optim.Optimizer:
        """Adam with betas (0, 0.999) and no decay (paper section 4.1): paths not sampled do not move."""
        parameters = self.arch_parameters()
        if not parameters:
            raise ValueError("the model space has no choices: there is nothing to search")
        return optim.Adam(parameters, lr=self.arc_learning_rate, betas=(0.0, 0.999), weight_decay=0.0)

    def on_train_start(self) -> Any:
        self._freezer = WeightFreezer(self.training_module)  # now that modules are on their device
        return super().on_train_start()

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """One weight step and, when it is due, one architecture step.

        Returns:
            The weight step's loss.
        """
        loss = self.weight_step(batch["train"], batch_idx)
        past_warmup = self.trainer.current_epoch >= self.warmup_epochs
        if past_warmup and batch_idx % self.arch_update_every == 0:
            self.architecture_step(batch["val"], batch_idx)
        self.advance_lr_schedulers(batch_idx)
        if batch_idx % self.log_prob_every_n_step == 0:
            self.log_probs(self.export_probs())
        return {"loss": loss.detach()}

    def weight_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Train the weights of one sampled path; no other path is computed."""
        for gate in self._gates.values():
            gate.draw_path(self._sampler)
        loss = self._finite(
            _loss_of(self.training_module.training_step(batch, batch_idx)), "loss of the weights", batch_idx
        )
        self.advance_optimization(loss, batch_idx, self.gradient_clip_val)
        return loss

    def architecture_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Update the architecture parameters; weights and buffers stay as they are.

        Returns:
            The objective's value.
        """
        assert self._freezer is not None, "architecture_step outside of a fit"
        optimizer = self.architecture_optimizers()
        for gate in self._gates.values():
            gate.draw_for_gradient(self.arch_gradient, self._sampler)
        with self._freezer.frozen(), self._logging_as("arch/"):
            loss = _loss_of(self.training_module.training_step(batch, batch_idx))
            objective = self.search_objective(self._finite(loss, "loss of the architecture", batch_idx))
            optimizer.zero_grad()
            self.manual_backward(objective)
        moved = [alpha.grad.norm() for alpha in self.arch_parameters() if alpha.grad is not None]
        if moved:
            self._finite(torch.stack(moved).sum(), "gradient of the architecture", batch_idx)
        before = [gate.alpha.detach().clone() for gate in self._gates.values()]
        optimizer.step()
        if self.arch_gradient == "two_path":
            for gate, alpha in zip(self._gates.values(), before, strict=True):
                gates.rescale_pair(gate.alpha, alpha, gate.sample)
        self.log("arch/objective", objective.detach())
        return objective.detach()

    def search_objective(self, loss: Tensor) -> Tensor:
        """Loss, expected latency and NNI's penalty in one number, differentiable in the architecture (eq. 7)."""
        probs = {label: gates.conditional_probs(gate.alpha, gate.sample) for label, gate in self._gates.items()}
        if self.costs is not None:
            expected_ms = self.costs.expected(probs)
            self.log("arch/expected_latency_ms", expected_ms.detach())
            loss = self.objective(loss, expected_ms, self.reference_ms, self.latency_weight)
        if self.penalty is not None:
            distribution = {
                label: probs_by_candidate(gate.candidates, list(probs[label].unbind()))
                for label, gate in self._gates.items()
            }
            loss, details = self.penalty(loss, distribution)
            self.log_dict({f"penalty/{key}": _number(value) for key, value in details.items()})
        return loss

    def expected_latency_ms(self) -> float | None:
        """E[latency] in milliseconds under the present probabilities, if the search has a table."""
        if self.costs is None:
            return None
        with torch.no_grad():
            return float(self.costs.expected(self.path_probs()))

    def mean_entropy(self) -> float:
        """Mean entropy of the layers in nats: how undecided the search still is."""
        with torch.no_grad():
            values = [gates.entropy(probs) for probs in self.path_probs().values()]
        return float(torch.stack(values).mean())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["path_sampler"] = self._sampler.get_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._sampler.set_state(checkpoint["path_sampler"])

    def _finite(self, value: Tensor, kind: str, batch_idx: int) -> Tensor:
        if not bool(torch.isfinite(value)):
            raise RunError(
                f"the {kind} became {value.item()} in epoch {self.trainer.current_epoch + 1}, step {batch_idx + 1}; "
                "lower the learning rate or set gradient_clip_val"
            )
        return value

    @contextmanager
    def _logging_as(self, prefix: str) -> Iterator[None]:
        """What the evaluator logs in an architecture step is named apart from its weight steps."""
        module = self.training_module
        plain = module.log
        module.log = lambda name, *args, **kwargs: self.log(prefix + name, *args, **kwargs)
        try:
            yield
        finally:
            module.log = plain


def _loss_of(result: Any) -> Tensor:
    loss = result["loss"] if isinstance(result, Mapping) else result
    if not isinstance(loss, Tensor):
        raise TypeError(f"the evaluator's training_step must return a loss tensor, got {type(loss).__name__}")
    return loss


def _number(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else float(value)
