"""`ProxylessNAS`: the search as an NNI one-shot strategy. Wiring only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Literal

import nni.nas.strategy  # noqa: F401  first: or NNI's import cycle leaves stubs instead of its DARTS and ENAS
import torch
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.oneshot.pytorch.profiler import ExpectationProfilerPenalty
from nni.nas.oneshot.pytorch.strategy import MutationHook, OneShotStrategy, no_default_hook
from torch import nn

from .architecture import Architecture
from .decode import most_likely, most_likely_within
from .errors import InputError
from .gradient import ProxylessLightningModule
from .latency.costs import SpaceCosts
from .latency.table import LatencyTable
from .objective import get_objective
from .penalty import DifferentiablePenalty
from .space import describe_space, require_description
from .supernet import ArchGradient, Gate, check_arch_gradient, make_gates, mutate_choice


class ProxylessNAS(OneShotStrategy):
    """ProxylessNAS (Cai, Zhu, Han, ICLR 2019) for any NNI model space of LayerChoice, InputChoice and Repeat.

    Use it wherever NNI takes a one-shot strategy, as in `NasExperiment(space, evaluator, strategy).run()`.

    Args:
        latency: Table of the target device; none for a search for accuracy alone.
        budget_ms: Latency to aim at, in milliseconds: the reference of the objective. Without it the reference is
            the expected latency before the search.
        objective: `add_linear`, CE + λ (E / ref - 1), or `mul_log`, CE · (log E / log ref)^b.
        latency_weight: λ or b of the objective.
        arch_gradient: `two_path` (two paths in memory at a time) or `full` (all, the others without a graph).
        arch_learning_rate: Rate of Adam on the architecture parameters.
        arch_update_every: Weight steps for each architecture step.
        warmup_epochs: Epochs of weight steps only.
        penalty: NNI's penalty, or a dictionary with `profiler`, `baseline` and optionally `scale`, `nonlinear`,
            `aggregate`: any ExpressionProfiler (FLOPs, parameters, your own), with a gradient; may be combined
            with `latency`.
        gradient_clip_val: Clips the gradients of weights.
        log_prob_every_n_step: How often path probabilities are logged.
        seed: Seed of the path sampler; drawn from torch's if not given.
        mutation_hooks: NNI's own: called before the built-in ones.

    Raises:
        InputError: An argument is out of range; the message says what is allowed.
        MissingOperatorError: The table lacks operators of the space (when the experiment starts).
    """

    def __init__(
        self,
        *,
        latency: LatencyTable | None = None,
        budget_ms: float | None = None,
        objective: Literal["add_linear", "mul_log"] = "add_linear",
        latency_weight: float = 0.1,
        arch_gradient: ArchGradient = "two_path",
        arch_learning_rate: float = 1e-3,
        arch_update_every: int = 1,
        warmup_epochs: int = 0,
        penalty: dict[str, Any] | ExpectationProfilerPenalty | None = None,
        gradient_clip_val: float | None = None,
        log_prob_every_n_step: int = 10,
        seed: int | None = None,
        mutation_hooks: list[MutationHook] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(mutation_hooks=mutation_hooks, **kwargs)
        _at_least("latency_weight", latency_weight, 0.0)
        _above("arch_learning_rate", arch_learning_rate, 0.0)
        _whole("arch_update_every", arch_update_every, 1)
        _whole("warmup_epochs", warmup_epochs, 0)
        _whole("log_prob_every_n_step", log_prob_every_n_step, 1)
        if budget_ms is not None:
            _above("budget_ms", budget_ms, 0.0)
            if latency is None:
                raise InputError(f"budget_ms={budget_ms} needs latency=, the table of the device it is meant for")
        if latency is not None and latency.unit != "ms":
            raise InputError(
                f"latency= needs a table in ms, got one in {latency.unit}; give it as "
                "penalty={'profiler': LatencyProfiler(space, table), 'baseline': …} instead"
            )
        self.latency = latency
        self.budget_ms = budget_ms
        self.objective_name = objective
        self.latency_weight = latency_weight
        self.arch_gradient = check_arch_gradient(arch_gradient)
        self.arch_learning_rate = arch_learning_rate
        self.arch_update_every = arch_update_every
        self.warmup_epochs = warmup_epochs
        self.penalty = None if penalty is None else DifferentiablePenalty.of(penalty)
        self.gradient_clip_val = gradient_clip_val
        self.log_prob_every_n_step = log_prob_every_n_step
        self.seed = seed
        self._objective = get_objective(objective)
        self._gates: dict[str, Gate] = {}
        self._costs: SpaceCosts | None = None

    def mutate_model(self, model: ModelSpace) -> ModelSpace:
        """Make a supernet of a model space, in place; see NNI's `OneShotStrategy.mutate_model`."""
        self._gates = make_gates(model.simplify())
        if self.latency is not None:
            self._costs = self.latency.costs(require_description(model, "latency="))
        return super().mutate_model(model)

    def default_mutation_hooks(self) -> list[MutationHook]:
        return [mutate_choice, no_default_hook]

    def run_hook(self, hook: MutationHook, name: str, module: nn.Module, memo: dict[str, Any]) -> Any:
        memo.update(self._gates)
        return hook(module, name, memo, {})

    def configure_oneshot_module(self, training_module: Any) -> ProxylessLightningModule:
        reference_ms = self.budget_ms
        if reference_ms is None and self._costs is not None:
            with torch.no_grad():
                start = {label: gate.probs() for label, gate in self._gates.items()}
                reference_ms = float(self._costs.expected(start))
        return ProxylessLightningModule(
            training_module,
            gates_by_label=self._gates,
            costs=self._costs,
            objective=self._objective,
            reference_ms=reference_ms if reference_ms is not None else 1.0,
            latency_weight=self.latency_weight,
            arch_gradient=self.arch_gradient,
            arch_learning_rate=self.arch_learning_rate,
            arch_update_every=self.arch_update_every,
            warmup_epochs=self.warmup_epochs,
            sampling_seed=torch.initial_seed() % 2**63 if self.seed is None else self.seed,
            penalty=self.penalty,
            gradient_clip_val=self.gradient_clip_val,
            log_prob_every_n_step=self.log_prob_every_n_step,
        )

    def train_dataloader(
        self, train_dataloader_fn: Callable[[], Any], val_dataloader_fn: Callable[[], Any]
    ) -> dict[str, Any]:
        """Both loaders at once: NNI's training loader for weights, its validation loader for the architecture."""
        return {"train": train_dataloader_fn(), "val": val_dataloader_fn()}

    def val_dataloader(self, train_dataloader_fn: Callable[[], Any], val_dataloader_fn: Callable[[], Any]) -> None:
        return None

    def most_likely_choices(self) -> dict[str, Any]:
        """Label to the most likely candidate, as an NNI sample; changes nothing."""
        probs = {label: gate.probs() for label, gate in self._gates.items()}
        return most_likely(probs, {label: gate.candidates for label, gate in self._gates.items()})

    def export_architecture(self, *, budget_ms: float | None = None, **details: Any) -> Architecture:
        """The most likely architecture, with its predicted latency if the search has a table.

        Args:
            budget_ms: If given, the most likely one of those within this latency by the table, in milliseconds.
            **details: Further fields of `Architecture`: `target`, `metrics`, `seed` and so on.

        Raises:
            InputError: There is a budget but no table, or no architecture is that fast.
        """
        if budget_ms is None:
            choices = self.most_likely_choices()
        elif self._costs is None:
            raise InputError(f"budget_ms={budget_ms} needs a search with latency=, the table of the device")
        else:
            probs = {label: gate.probs() for label, gate in self._gates.items()}
            choices = most_likely_within(probs, self._costs, budget_ms)
        known: dict[str, Any] = {
            "strategy": "proxyless",
            "budget_ms": self.budget_ms if budget_ms is None else budget_ms,
            "predicted_latency_ms": None if self._costs is None else self._costs.of(choices),
            "versions": {name: version(name) for name in ("nni-proxyless", "nni", "torch", "pytorch-lightning")},
        }
        spec = describe_space(self.supernet)
        if spec is not None:
            return Architecture.of_space(spec, choices, **{**known, **details})
        candidates = {label: list(gate.candidates) for label, gate in self._gates.items()}
        digest = hashlib.sha256(json.dumps(candidates, sort_keys=True, default=str).encode()).hexdigest()[:16]
        return Architecture(type(self.supernet).__qualname__, digest, choices, **{**known, **details})


def _at_least(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise InputError(f"{name} must be at least {least:g}, got {value!r}")


def _above(name: str, value: float, bound: float) -> None:
    if not value > bound:
        raise InputError(f"{name} must be greater than {bound:g}, got {value!r}")


def _whole(name: str, value: int, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{name} must be a whole number from {least}, got {value!r}")
