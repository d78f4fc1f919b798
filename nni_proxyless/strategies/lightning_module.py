"""Lightning module of a search, which alternates weight steps and architecture steps (paper section 3.2.1)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import nni.nas.strategy  # noqa: F401  imported first: otherwise NNI's import cycle leaves stubs for DARTS and ENAS
import torch
from torch import Tensor, nn, optim

from ..decoding.checkpoint import CHECKPOINT_KEY
from ..errors import InputError
from ..supernet import binary_gates as gates
from ..supernet.binary_gates import PathSample
from ..supernet.constraints import Constraints
from ..supernet.freezing import WeightFreezer
from ..supernet.gated import Gate
from ..supernet.pruning import forget_pruned, free_pruned, keep_pruned, prune_improbable
from ..supernet.space import description_of
from ..training.sgd import check_fused
from .arch_optimizer import make_arch_optimizer
from .arch_schedule import ArchSchedule
from .arch_settings import ArchSettings
from .evaluator_metric import BatchScore
from .evaluator_module import EvaluatorModule
from .evaluator_step import check_depends, check_finite, logging_as, loss_of
from .reinforce_step import ReinforceStep
from .search_objective import SearchObjective
from .search_state import load_search_state, search_state
from .self_check import SelfCheck
from .weight_paths import WeightPaths

_log = logging.getLogger(__name__)


class ProxylessLightningModule(EvaluatorModule):
    """Trains the weights of sampled paths on one part of the data, and the architecture on another part.

    NNI's batches are dictionaries `{"train": …, "val": …}`. The weights are trained on `train`, the gates on `val`.

    Args:
        training_module: Lightning module of the evaluator, whose `training_step` returns the loss.
        gates_by_label: All gates of the supernet by label.
        objective: Objective that combines loss, expected latency and NNI's penalty.
        arch: Settings of the architecture's training.
        limit_ms: Latency that the exported network must not exceed, in milliseconds. If it is set, dual ascent adjusts
            the weight of the latency.
        export: Function that returns the architecture that the search has found so far.
        finalists: Function that returns the finalists, the networks that are compared at the end of the search.
        constraints: Constraints of the space.
        sampling_seed: Seed of the path sampler, which has a separate random number generator.
        gradient_clip_val: Largest norm of the weights' gradients, to which they are clipped; `None` for no clipping.
        log_prob_every_n_step: Number of weight steps between two logs of the path probabilities.
        channels_last: Whether convolutions on the CPU use channels_last.

    Attributes:
        pruned: Pruned paths, each with epoch, label, candidate and the probability that it had.

    Raises:
        RunError: A loss or gradient is not finite during training. The message names the step.
    """

    def __init__(
        self,
        training_module: Any,
        *,
        gates_by_label: Mapping[str, Gate],
        objective: SearchObjective,
        arch: ArchSettings,
        limit_ms: float | None,
        export: Callable[[], Mapping[str, Any]],
        finalists: Callable[[], Sequence[Mapping[str, Any]]],
        constraints: Constraints,
        sampling_seed: int,
        gradient_clip_val: float | None,
        log_prob_every_n_step: int,
        channels_last: bool,
    ) -> None:
        limits = [constraint.limit for constraint in objective.constraints]
        schedule = ArchSchedule(arch, objective.reference_ms, keeps_budget=limit_ms is not None, limits=limits)
        super().__init__(
            training_module,
            arc_learning_rate=schedule.rate,
            gradient_clip_val=gradient_clip_val,
            log_prob_every_n_step=log_prob_every_n_step,
            warmup_epochs=arch.warmup_epochs,
            penalty=objective.penalty,
            channels_last=channels_last,
        )
        # This is a plain dictionary, because the gates are already registered as modules of the supernet.
        self._gates = dict(gates_by_label)
        self.objective = objective
        self.arch = arch
        self.limit_ms = limit_ms
        self.pruned: list[dict[str, Any]] = []
        self._schedule = schedule
        self._paths = WeightPaths(self._gates, arch, sampling_seed, finalists, constraints)
        self._reinforce = ReinforceStep(
            self._gates, objective.costs, objective.reference_ms, arch.reinforce_samples, constraints,
            objective.constraints,
        )  # fmt: skip
        self._score = BatchScore(training_module)
        self._export = export
        self._freezer: WeightFreezer | None = None
        self._compared: list[PathSample] = []
        self._check = SelfCheck(self._gates, arch, schedule, self._score, constraints)
        self._scales_gradients = False

    @property
    def latency_weight(self) -> float:
        """Weight of the latency: the configured λ or b, the current μ of a budget, or 0 if only others have budgets."""
        return self._schedule.latency_weight

    @property
    def constraint_weights(self) -> list[float]:
        """Current weight μ of each further budget."""
        return [multiplier.value for multiplier in self._schedule.further]

    @property
    def temperature(self) -> float:
        """Current softmax temperature τ. It is 1, and falls geometrically at the end of the search."""
        return self._schedule.temperature

    @property
    def arch_rate(self) -> float:
        """Initial learning rate of the architecture's Adam. A derived rate is known once training has begun."""
        return self._schedule.rate

    def export(self) -> dict[str, Any]:
        """Return the architecture that the search has found so far, as an NNI sample."""
        return dict(self._export())

    def path_probs(self) -> dict[str, Tensor]:
        """Return the path probabilities of each label, shape (num_candidates,), differentiable, sorted by label."""
        return {label: gate.probs() for label, gate in self._gates.items()}

    def arch_parameters(self) -> list[nn.Parameter]:
        """Return all architecture parameters, sorted by label."""
        return [gate.alpha for gate in self._gates.values()]

    def configure_architecture_optimizers(self) -> optim.Optimizer:
        """Return Adam. With a first decay rate of 0, the paper's, paths that are not sampled do not move."""
        return make_arch_optimizer(self.arch_parameters(), self.arch, self.arc_learning_rate)

    def on_train_start(self) -> Any:
        result = super().on_train_start()
        check_fused(self.trainer.optimizers)
        self._freezer = self._make_freezer()  # only now are the modules on their device
        self._paths.share(self.trainer.strategy.broadcast)
        self._plan()
        return result

    def _make_freezer(self) -> WeightFreezer:
        return WeightFreezer(self.training_module, running_statistics=self.arch.arch_batch_norm == "running")

    def _plan(self) -> None:
        """Set up everything that depends on the trainer, above all on the length of the search."""
        # If a gradient is not finite, a gradient scaler (precision 16-mixed) skips the step.
        self._scales_gradients = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        candidates = sum(gate.num_candidates for gate in self._gates.values()) / len(self._gates)
        trainer = self.trainer
        self._schedule.plan(trainer.max_epochs, trainer.num_training_batches, candidates, trainer.max_steps)
        if self.arch.finalist_epochs and not (trainer.max_epochs or 0) > 0:
            raise InputError(
                f"finalist_epochs={self.arch.finalist_epochs} needs the number of epochs; set max_epochs of the Trainer"
            )
        if self.arch.arch_learning_rate is None:
            steps = self._schedule.steps or "unknown"
            _log.info("architecture learning rate %.4g, for %s architecture steps", self.arch_rate, steps)
        # A checkpoint of a shared warm-up may come from a search with other settings of the architecture's Adam.
        for group in self.architecture_optimizers().param_groups:
            group.update(betas=self.arch.arch_betas, weight_decay=self.arch.effective_arch_weight_decay)
        self._follow_schedule()

    def _follow_schedule(self) -> None:
        for group in self.architecture_optimizers().param_groups:
            group["lr"] = self._schedule.present_rate
        for gate in self._gates.values():
            gate.temperature = self.temperature

    def on_train_epoch_start(self) -> Any:
        searching = self.trainer.current_epoch > self.warmup_epochs and not self._among_finalists
        if self.arch.prune_below is not None and searching:
            self._prune(self.arch.prune_below)
        return super().on_train_epoch_start()

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Take one weight step and, if it is due, one architecture step; return the loss of the weight step."""
        if self._check.is_due:
            assert self._freezer is not None
            self._check.before_training(
                self.training_module, batch["val"], batch_idx, self._freezer, self.channels_last
            )
        loss = self.weight_step(batch["train"], batch_idx)
        past_warmup = self.trainer.current_epoch >= self.warmup_epochs
        if past_warmup and not self._among_finalists and batch_idx % self.arch.effective_arch_update_every == 0:
            self.architecture_step(batch["val"], batch_idx)
        self.advance_lr_schedulers(batch_idx)
        if batch_idx % self.log_prob_every_n_step == 0:
            self.log_probs(self.export_probs())
        return {"loss": loss.detach()}

    def weight_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Train the weights on one sampled path. No other path is computed."""
        step = self.trainer.fit_loop.epoch_loop.total_batch_idx
        self._paths.draw(step, self.trainer.current_epoch, self.trainer.max_epochs)
        loss = loss_of(self.training_module.training_step(batch, batch_idx))
        loss = self._finite(loss, "loss of the weights", batch_idx)
        self.advance_optimization(loss, batch_idx)
        return loss

    @property
    def _among_finalists(self) -> bool:
        return self._paths.among_finalists(self.trainer.current_epoch, self.trainer.max_epochs)

    @property
    def architecture_steps(self) -> int:
        return self._schedule.step

    def architecture_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Update the architecture parameters. Weights and buffers do not change.

        Returns:
            Value of the objective. With `reinforce`, it is the negative mean reward.
        """
        assert self._freezer is not None, "architecture_step outside of a fit"
        if all(len(gate.kept) == 1 for gate in self._gates.values()):  # pruning has decided everything
            return torch.zeros(())
        if self._schedule.keeps_budgets:
            self._schedule.begin(self.expected_latency_ms(), self.objective.expected_quantities(self.path_probs))
        optimizer = self.architecture_optimizers()
        optimizer.zero_grad()
        step = self._reinforce_step if self.arch.arch_gradient == "reinforce" else self._gate_step
        with self._freezer.frozen(), logging_as(self.training_module, self.log, "arch/"):
            objective = step(batch, batch_idx)
        alphas = self.arch_parameters()
        self.ranks.gradients(alphas)
        moved = [alpha.grad.norm() for alpha in alphas if alpha.grad is not None]
        if moved and not self._scales_gradients:
            self._finite(torch.stack(moved).sum(), "gradient of the architecture", batch_idx)
        before = [alpha.detach().clone() for alpha in alphas]
        optimizer.step()
        if self.arch.arch_gradient == "two_path":
            gates.rescale_pairs(alphas, before, self._compared, self.temperature)
        keep_pruned(self._gates.values(), before)
        keeps_budget = self._schedule.multiplier is not None
        further = self.objective.expected_quantities(self.path_probs)
        self._schedule.advance(self.expected_latency_ms() if keeps_budget else None, further)
        self._follow_schedule()
        if keeps_budget:
            self.log("arch/latency_weight", self.latency_weight)
        for weighted, weight in zip(self.objective.constraints, self.constraint_weights, strict=True):
            self.log(f"arch/weight_{weighted.name}", weight)
        self.log("arch/objective", objective)
        return objective

    def _gate_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Compute the gradients of the gates (eq. 4) for all paths or a pair of paths, as the mean over all draws."""
        draws = self.arch.arch_samples
        total = torch.zeros((), device=self.device)
        compared: list[list[int]] = [[] for _ in self._gates]
        for _ in range(draws):
            self._paths.draw_for_gradient(self.arch.arch_gradient)
            for gate, paths in zip(self._gates.values(), compared, strict=True):
                paths += gate.sample.paths
            loss = loss_of(self.training_module.training_step(batch, batch_idx))
            objective = self.search_objective(self._finite(loss, "loss of the architecture", batch_idx)) / draws
            check_depends(objective, self, batch_idx)
            self.manual_backward(objective)
            total += objective.detach()
        unique = [tuple(dict.fromkeys(paths)) for paths in compared]
        self._compared = [PathSample(paths[0], paths[1:]) for paths in unique]
        return total

    def _reinforce_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Compute the score-function gradient from a batch of sampled networks (section 3.3.2)."""

        def score() -> float:
            found = self._score.of(batch, batch_idx)
            self._finite(torch.tensor(found), "score of a sampled network", batch_idx)
            return found

        objective, mean_reward = self._reinforce.loss(
            score, self.latency_weight, self._paths.generator, self.ranks, self.constraint_weights
        )
        if self.penalty is not None:
            objective, details = self.objective.penalised(objective, self.path_probs())
            self.log_dict(details)
        self.manual_backward(objective)
        self.log("arch/reward", mean_reward)
        return -mean_reward

    def search_objective(self, loss: Tensor) -> Tensor:
        """Combine loss, expected latency and NNI's penalty in one number, differentiable in α (eq. 7)."""
        probs = {label: gates.conditional_probs(gate.logits(), gate.sample) for label, gate in self._gates.items()}
        total, details = self.objective.of(loss, probs, self.latency_weight, self.constraint_weights)
        self.log_dict(details)
        return total

    def expected_latency_ms(self) -> float | None:
        """Compute E[latency] under the current probabilities in milliseconds; `None` without a table."""
        return self.objective.expected_ms(self.path_probs)

    def mean_entropy(self) -> float:
        """Compute the mean entropy of the layers in nats, which shows how undecided the search still is."""
        with torch.no_grad():
            values = [gates.entropy(probs) for probs in self.path_probs().values()]
        return float(torch.stack(values).mean())

    def check_epoch(self, *, last: bool) -> list[str]:
        """Return warnings after an epoch; see `SelfCheck.after_epoch`."""
        return self._check.after_epoch(self.trainer, last=last)

    def _prune(self, bound: float) -> None:
        pruned = prune_improbable(self._gates, bound, self.objective.limits(self.limit_ms))
        self.pruned += [{"epoch": self.trainer.current_epoch, **path} for path in pruned]
        if pruned:
            free_pruned(self.training_module.model)
            weights = [o for o in self.trainer.optimizers if not getattr(o, "is_arch_optimizer", False)]
            # α of pruned paths remain, and so do those of choices inside a pruned path.
            forget_pruned(self.training_module, weights)
            self._freezer = self._make_freezer()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the state that Lightning does not save: plain data and tensors only."""
        super().on_save_checkpoint(checkpoint)
        known = checkpoint.get(CHECKPOINT_KEY, {})  # written by the strategy's callback, which Lightning calls first
        space = description_of(self.training_module.model)
        state = search_state(self._gates, self._paths, self._schedule, self._reinforce.baseline, self.pruned, space)
        checkpoint[CHECKPOINT_KEY] = {**known, **state}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the state of a search.

        Lightning calls this before it loads weights and optimizers. Pruned paths must be removed by then, because their
        weights are missing from the checkpoint.
        """
        super().on_load_checkpoint(checkpoint)
        state = checkpoint[CHECKPOINT_KEY]
        self.pruned = state["pruned"]
        load_search_state(state, self._gates, self._paths, self._schedule, self._reinforce.baseline)
        free_pruned(self.training_module.model)

    def _finite(self, value: Tensor, kind: str, batch_idx: int) -> Tensor:
        return check_finite(value, kind, self, batch_idx)
