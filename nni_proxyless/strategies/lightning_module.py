"""The Lightning module of a search: weight steps and architecture steps in turn (paper section 3.2.1)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import nni.nas.strategy  # noqa: F401  first: or NNI's import cycle leaves stubs instead of its DARTS and ENAS
import torch
import torch.distributed
from nni.nas.oneshot.pytorch.differentiable import DartsLightningModule
from nni.nas.oneshot.pytorch.profiler import ExpectationProfilerPenalty
from torch import Tensor, nn, optim

from ..decoding.checkpoint import CHECKPOINT_KEY, CHECKPOINT_SCHEMA
from ..errors import RunError
from ..latency.costs import SpaceCosts
from ..supernet import gates
from ..supernet.entangling import entangle
from ..supernet.freezing import WeightFreezer
from ..supernet.gated import Gate, probs_by_candidate
from ..supernet.gates import PathSample
from ..supernet.pruning import forget_pruned, free_pruned, prune_improbable
from ..training.sgd import check_fused
from .arch_schedule import ArchSchedule
from .arch_settings import ArchSettings
from .objective import Objective
from .reinforce import Baseline, reward, surrogate, top1
from .weight_paths import WeightPaths

_log = logging.getLogger(__name__)


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
        latency_weight: How much it counts; at first, where there is a `budget_ms`.
        arch: How the architecture is trained.
        budget_ms: What the decoded network may take, in milliseconds: the weight is then found by dual ascent.
        export: Gives the choices that the search has come to.
        finalists: Gives the networks that are compared at the end of the search.
        description: Plain data on the space, kept in checkpoints.
        sampling_seed: Seed of the path sampler, which is its own: the same paths whatever else draws numbers.
        penalty: NNI's own penalty, added with a gradient.
        gradient_clip_val: Clips the gradients of weights, by their norm.
        log_prob_every_n_step: How often path probabilities are logged.

    Attributes:
        pruned: What was pruned: epoch, label, candidate, and the probability it had.
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
        arch: ArchSettings,
        budget_ms: float | None,
        export: Callable[[], Mapping[str, Any]],
        finalists: Callable[[], Sequence[Mapping[str, Any]]],
        description: Mapping[str, Any] | None,
        sampling_seed: int,
        penalty: ExpectationProfilerPenalty | None,
        gradient_clip_val: float | None,
        log_prob_every_n_step: int,
    ) -> None:
        schedule = ArchSchedule(arch, reference_ms, keeps_budget=budget_ms is not None)
        super().__init__(
            training_module,
            arc_learning_rate=schedule.rate,
            gradient_clip_val=gradient_clip_val,
            log_prob_every_n_step=log_prob_every_n_step,
            warmup_epochs=arch.warmup_epochs,
            penalty=penalty,
        )
        # A plain dict: the gates are registered in the supernet, once.
        self._gates = dict(gates_by_label)
        self.costs = costs
        self.objective = objective
        self.reference_ms = reference_ms
        self._latency_weight = latency_weight
        self.arch = arch
        self.budget_ms = budget_ms
        self.pruned: list[dict[str, Any]] = []
        self._schedule = schedule
        self._paths = WeightPaths(self._gates, arch, sampling_seed, finalists)
        self._baseline = Baseline()
        self._export = export
        self._description = dict(description) if description else None
        self._freezer: WeightFreezer | None = None
        self._compared: list[PathSample] = []
        self._ranks = 1
        self._scales_gradients = False

    @property
    def latency_weight(self) -> float:
        """λ or b as given, or the present μ of a budget."""
        multiplier = self._schedule.multiplier
        return self._latency_weight if multiplier is None else multiplier.value

    @property
    def temperature(self) -> float:
        """τ of this moment: 1, and in the last epochs falling geometrically."""
        return self._schedule.temperature

    @property
    def arch_rate(self) -> float:
        """Rate of the architecture's Adam, before a cosine, once training has begun."""
        return self._schedule.rate

    def export(self) -> dict[str, Any]:
        """The choices that the search has come to; changes nothing."""
        return dict(self._export())

    def path_probs(self) -> dict[str, Tensor]:
        """Label to path probabilities, shape (num_candidates,), differentiable, in sorted order of labels."""
        return {label: gate.probs() for label, gate in self._gates.items()}

    def arch_parameters(self) -> list[nn.Parameter]:
        """All architecture parameters, in sorted order of labels."""
        return [gate.alpha for gate in self._gates.values()]

    def configure_architecture_optimizers(self) -> optim.Optimizer:
        """Adam with betas (0, 0.999) and no decay by default (paper section 4.1): paths not sampled do not move."""
        parameters = self.arch_parameters()
        if not parameters:
            raise ValueError("the model space has no choices: there is nothing to search")
        on_cpu = all(parameter.device.type == "cpu" for parameter in parameters)
        return optim.Adam(
            parameters,
            lr=self.arc_learning_rate,
            betas=self.arch.betas,
            weight_decay=self.arch.weight_decay,
            foreach=not on_cpu,  # many small tensors: all at once,
            fused=on_cpu,  # or, three times as fast there, each with one kernel
        )

    def on_fit_start(self) -> Any:
        entangle(self.training_module.model)  # of an evaluator that knows nothing of it
        return super().on_fit_start()

    def on_train_start(self) -> Any:
        check_fused(self.trainer.optimizers)
        self._freezer = self._make_freezer()  # now that modules are on their device
        self._plan()
        return super().on_train_start()

    def _make_freezer(self) -> WeightFreezer:
        return WeightFreezer(self.training_module, running_statistics=self.arch.batch_norm == "running")

    def _plan(self) -> None:
        """How many architecture steps there will be, and what follows from that."""
        self._ranks = self.trainer.world_size
        # A scaler (16-mixed) handles gradients that are not finite itself, by skipping the step.
        self._scales_gradients = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        candidates = sum(gate.num_candidates for gate in self._gates.values()) / len(self._gates)
        self._schedule.plan(self.trainer.max_epochs, self.trainer.num_training_batches, candidates)
        if self.arch.learning_rate is None:
            steps = self._schedule.steps or "unknown"
            _log.info("architecture learning rate %.4g, for %s architecture steps", self.arch_rate, steps)
        # Whatever a checkpoint of a shared warm-up says of another search's architecture optimizer.
        for group in self.architecture_optimizers().param_groups:
            group.update(betas=self.arch.betas, weight_decay=self.arch.weight_decay)
        self._follow_schedule()

    def _follow_schedule(self) -> None:
        for group in self.architecture_optimizers().param_groups:
            group["lr"] = self._schedule.present_rate
        temperature = self.temperature
        for gate in self._gates.values():
            gate.temperature = temperature

    def on_train_epoch_start(self) -> Any:
        searching = self.trainer.current_epoch > self.warmup_epochs and not self._among_finalists
        if self.arch.prune_below is not None and searching:
            self._prune(self.arch.prune_below)
        return super().on_train_epoch_start()

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """One weight step and, when it is due, one architecture step.

        Returns:
            The weight step's loss.
        """
        loss = self.weight_step(batch["train"], batch_idx)
        past_warmup = self.trainer.current_epoch >= self.warmup_epochs
        if past_warmup and not self._among_finalists and batch_idx % self.arch.update_every == 0:
            self.architecture_step(batch["val"], batch_idx)
        self.advance_lr_schedulers(batch_idx)
        if batch_idx % self.log_prob_every_n_step == 0:
            self.log_probs(self.export_probs())
        return {"loss": loss.detach()}

    def weight_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Train the weights of one sampled path; no other path is computed."""
        epoch = self.trainer.current_epoch
        self._paths.draw(epoch * int(self.trainer.num_training_batches) + batch_idx, epoch, self.trainer.max_epochs)
        loss = self._finite(
            _loss_of(self.training_module.training_step(batch, batch_idx)), "loss of the weights", batch_idx
        )
        self.advance_optimization(loss, batch_idx)
        return loss

    @property
    def _among_finalists(self) -> bool:
        return self._paths.among_finalists(self.trainer.current_epoch, self.trainer.max_epochs)

    def advance_optimization(
        self,
        loss: Tensor,
        batch_idx: int,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """NNI's, but for gradients that are averaged over ranks, and clipped after a scaler has unscaled them."""
        optimizers = self.optimizers()
        listed = optimizers if isinstance(optimizers, list) else [optimizers]
        weights = [o for o in listed if not getattr(o, "is_arch_optimizer", False)]
        if len(weights) != 1:
            raise ValueError(f"the evaluator must have one optimizer, got {len(weights)}")
        module, epoch = self.training_module, self.trainer.current_epoch
        module.optimizer_zero_grad(epoch, batch_idx, weights[0])
        self.manual_backward(loss)
        self._average_gradients([p for group in weights[0].param_groups for p in group["params"]])
        module.optimizer_step(epoch, batch_idx, weights[0])

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        if self.gradient_clip_val is not None and not getattr(optimizer, "is_arch_optimizer", False):
            self.training_module.configure_gradient_clipping(optimizer, self.gradient_clip_val, "norm")

    @property
    def architecture_steps(self) -> int:
        """Architecture steps so far."""
        return self._schedule.step

    def architecture_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Update the architecture parameters; weights and buffers stay as they are.

        Returns:
            The objective's value.
        """
        assert self._freezer is not None, "architecture_step outside of a fit"
        keeps_budget = self._schedule.multiplier is not None
        if keeps_budget and self._schedule.start_ms is None:
            self._schedule.start_ms = self.expected_latency_ms()
        optimizer = self.architecture_optimizers()
        optimizer.zero_grad()
        step = self._reinforce_step if self.arch.gradient == "reinforce" else self._gate_step
        with self._freezer.frozen(), self._logging_as("arch/"):
            objective = step(batch, batch_idx)
        alphas = self.arch_parameters()
        self._average_gradients(alphas)
        moved = [alpha.grad.norm() for alpha in alphas if alpha.grad is not None]
        if moved and not self._scales_gradients:
            self._finite(torch.stack(moved).sum(), "gradient of the architecture", batch_idx)
        before = [alpha.detach().clone() for alpha in alphas]
        optimizer.step()
        if self.arch.gradient == "two_path":
            gates.rescale_pairs(alphas, before, self._compared, self.temperature)
        with torch.no_grad():
            for gate, alpha in zip(self._gates.values(), before, strict=True):
                gate.alpha.masked_fill_(alpha == -torch.inf, -torch.inf)  # decay would make NaN of a pruned one
        self._schedule.advance(self.expected_latency_ms() if keeps_budget else None)
        self._follow_schedule()
        if keeps_budget:
            self.log("arch/latency_weight", self.latency_weight)
        self.log("arch/objective", objective)
        return objective

    def _gate_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Gradients of the gates (eq. 4), of all paths or of a pair; of several draws, the mean."""
        draws = self.arch.samples
        total = torch.zeros((), device=self.device)
        compared: list[list[int]] = [[] for _ in self._gates]
        for _ in range(draws):
            for gate, paths in zip(self._gates.values(), compared, strict=True):
                gate.draw_for_gradient(self.arch.gradient, self._paths.generator)
                paths += gate.sample.paths
            loss = _loss_of(self.training_module.training_step(batch, batch_idx))
            objective = self.search_objective(self._finite(loss, "loss of the architecture", batch_idx)) / draws
            self.manual_backward(objective)
            total += objective.detach()
        unique = [tuple(dict.fromkeys(paths)) for paths in compared]
        self._compared = [PathSample(paths[0], paths[1:]) for paths in unique]
        return total

    def _reinforce_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Score-function gradient from a batch of sampled networks (section 3.3.2)."""
        inputs, labels = batch
        accuracies, latencies, samples = [], [], []
        for _ in range(self.arch.reinforce_samples):
            for gate in self._gates.values():
                gate.draw_for_gradient("reinforce", self._paths.generator)
            samples.append([gate.sample for gate in self._gates.values()])
            with torch.no_grad():
                outputs = self.training_module(inputs)
            self._finite(outputs.sum(), "output in an architecture step", batch_idx)
            accuracies.append(top1(outputs, labels))
            choices = {label: gate.candidates[gate.sample.active] for label, gate in self._gates.items()}
            latencies.append(None if self.costs is None else self.costs.of(choices))
        known = self._averaged(torch.tensor(accuracies, dtype=torch.float32, device=self.device)).tolist()
        rewards = torch.tensor(
            [
                reward(accuracy, latency, self.reference_ms, self.latency_weight)
                for accuracy, latency in zip(known, latencies, strict=True)
            ],
            device=self.device,
        )
        likelihoods = torch.stack([self._log_likelihood(paths) for paths in samples])
        objective = surrogate(likelihoods, rewards, self._baseline.update(rewards))
        if self.penalty is not None:
            objective = self._penalised(objective, {label: gate.probs() for label, gate in self._gates.items()})
        self.manual_backward(objective)
        self.log("arch/reward", rewards.mean())
        return -rewards.mean()

    def _log_likelihood(self, paths: Sequence[PathSample]) -> Tensor:
        terms = [
            gates.log_likelihood(gate.logits(), path) for gate, path in zip(self._gates.values(), paths, strict=True)
        ]
        return torch.stack(terms).sum()

    def search_objective(self, loss: Tensor) -> Tensor:
        """Loss, expected latency and NNI's penalty in one number, differentiable in the architecture (eq. 7)."""
        probs = {label: gates.conditional_probs(gate.logits(), gate.sample) for label, gate in self._gates.items()}
        if self.costs is not None:
            expected_ms = self.costs.expected(probs)
            self.log("arch/expected_latency_ms", expected_ms.detach())
            loss = self.objective(loss, expected_ms, self.reference_ms, self.latency_weight)
        return loss if self.penalty is None else self._penalised(loss, probs)

    def _penalised(self, loss: Tensor, probs: Mapping[str, Tensor]) -> Tensor:
        assert self.penalty is not None
        distribution = {
            label: probs_by_candidate(gate.candidates, list(probs[label].unbind()))
            for label, gate in self._gates.items()
        }
        total, details = self.penalty(loss, distribution)
        self.log_dict({f"penalty/{key}": _number(value) for key, value in details.items()})
        return total  # type: ignore[no-any-return]

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

    def _prune(self, bound: float) -> None:
        pruned = prune_improbable(self._gates, bound, self.costs, self.budget_ms)
        self.pruned += [{"epoch": self.trainer.current_epoch, **path} for path in pruned]
        if pruned:
            free_pruned(self.training_module.model)
            weights = [o for o in self.trainer.optimizers if not getattr(o, "is_arch_optimizer", False)]
            forget_pruned(self.training_module, weights)  # α stay, also those of choices inside a pruned path
            self._freezer = self._make_freezer()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what Lightning does not know of; plain data and tensors only."""
        checkpoint[CHECKPOINT_KEY] = {
            **checkpoint.get(CHECKPOINT_KEY, {}),  # a callback's come first
            "schema": CHECKPOINT_SCHEMA,
            "space": self._description,
            "alpha": {label: gate.alpha.detach().cpu().clone() for label, gate in self._gates.items()},
            "candidates": {label: list(gate.candidates) for label, gate in self._gates.items()},
            "path_sampler": self._paths.generator.get_state(),
            "pruned": self.pruned,
            "baseline": self._baseline.state_dict(),
            **self._schedule.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Called before weights and optimizers are loaded, which lack what was pruned."""
        state = checkpoint[CHECKPOINT_KEY]
        self._paths.generator.set_state(state["path_sampler"].cpu())
        self.pruned = state["pruned"]
        self._baseline.load_state_dict(state["baseline"])
        self._schedule.load_state_dict(state)
        with torch.no_grad():
            for label, gate in self._gates.items():
                gate.alpha.copy_(state["alpha"][label])
        free_pruned(self.training_module.model)

    def _average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Mean over ranks. All have sampled the same paths, so the same parameters have gradients everywhere."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self._ranks == 1 or not gradients:
            return
        flat = self._averaged(torch.cat([g.flatten() for g in gradients]))
        for gradient, mean in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def _averaged(self, values: Tensor) -> Tensor:
        if self._ranks > 1:
            torch.distributed.all_reduce(values)
            values = values / self._ranks
        return values

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
