"""`ProxylessNAS`: the search as an NNI one-shot strategy. Wiring only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import nni.nas.strategy  # noqa: F401  first: or NNI's import cycle leaves stubs instead of its DARTS and ENAS
import torch
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.oneshot.pytorch.profiler import ExpectationProfilerPenalty
from nni.nas.oneshot.pytorch.strategy import MutationHook, no_default_hook
from torch import nn

from ..errors import InputError, unknown_name
from ..latency.table import LatencyTable
from ..supernet.gated import ArchGradient, Gate, check_arch_gradient, make_gates, mutate_choice
from ..training.cpu_kernels import accelerate
from .arch_settings import BATCH_NORMS, ArchSettings
from .latency_aware import LatencyAwareStrategy
from .lightning_module import ProxylessLightningModule
from .objective import get_objective
from .penalty import DifferentiablePenalty

SCHEDULES = ("constant", "cosine")
WARMUP_SAMPLINGS = ("random", "fair")
WEIGHT_SAMPLINGS = ("probable", "fair")
FINALISTS = 64


class ProxylessNAS(LatencyAwareStrategy):
    """ProxylessNAS (Cai, Zhu, Han, ICLR 2019) for any NNI model space of LayerChoice, InputChoice and Repeat.

    Use it wherever NNI takes a one-shot strategy, as in `NasExperiment(space, evaluator, strategy).run()`.

    Args:
        latency: Table of the target device; none for a search for accuracy alone.
        budget_ms: What the network may take, in milliseconds. With the objective `budget` the exported network is
            within it; for the others it is the reference, which without it is the expected latency before the search.
        budget_fraction: The same as a part of the largest network's latency, between 0 and 1.
        objective: `budget`, CE + μ (E / T - 1) with μ by dual ascent, `add_linear`, CE + λ (E / ref - 1), or `mul_log`,
            CE · (log E / log ref)^b. If not given: `budget` where there is a budget, else `add_linear`.
        latency_weight: λ or b of the objective, and the exponent w of `reinforce`; `budget` finds its own.
        arch_gradient: `two_path` (two paths in memory at a time; the paper's), `full` (all, the others without a graph;
            with `arch_update_every=2` it costs as much and finds better networks, so recipes default to that) or
            `reinforce` (sampled networks, rewarded with accuracy × (ref / latency)^w; needs an evaluator whose batches
            are images and labels and whose module returns logits).
        arch_learning_rate: Rate of Adam on the architecture parameters; derived from the number of architecture steps
            if not given (`arch_settings.default_arch_rate`), and logged.
        arch_betas: Of Adam; the paper's by default.
        arch_weight_decay: Of Adam; the paper's by default, recipes have 0.001 with `full`.
        arch_schedule: `constant` rate, or `cosine` to 0.
        arch_update_every: Weight steps for each architecture step.
        arch_samples: Times that an architecture step of `two_path` or `full` draws paths, one after the other; its
            gradient is their mean.
        arch_batch_norm: Statistics that batch-norm uses in architecture steps: those of the `batch`, as in the paper's
            code, or the `running` ones.
        reinforce_samples: Networks sampled in each step of `reinforce`.
        warmup_epochs: Epochs of weight steps only.
        warmup_sampling: `random`, or `fair`: in the warm-up, the candidates of a layer take turns (FairNAS).
        weight_sampling: Paths of the weight steps after the warm-up: `probable`, drawn from the path probabilities as
            in the paper, or `fair`, so that the weights of all candidates go on being trained alike.
        sharpen_epochs: Epochs at the end in which the temperature of the path probabilities falls, so that the search
            ends decided. If not given: the last quarter of the epochs after the warm-up with `budget`, else none.
        sharpen_temperature: What the temperature falls to, from 1.
        prune_below: Paths whose probability has fallen below are removed for good when an epoch begins, and their
            memory is freed; never so many that the budget could not be met. None by default.
        finalists: How many of the most likely architectures within the budget a search of `nni-proxyless` compares at
            its end, each with the supernet's weights on the architecture part of the data; the best one by these
            accuracies, smoothed over all of them, and a little by likelihood and, with `budget`, multiply-adds, is
            exported. 1 exports the most likely one. If not given: 64 with `budget`, else 1, as accuracies know nothing
            of latency.
        finalist_epochs: Last epochs, in which the architecture parameters stay as they are and weight steps train those
            networks alone, in turn (as GreedyNAS trains promising paths, You et al. 2020).
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

    strategy_name: ClassVar[str] = "proxyless"

    def __init__(
        self,
        *,
        latency: LatencyTable | None = None,
        budget_ms: float | None = None,
        budget_fraction: float | None = None,
        objective: Literal["add_linear", "mul_log", "budget"] | None = None,
        latency_weight: float = 0.1,
        arch_gradient: ArchGradient = "two_path",
        arch_learning_rate: float | None = None,
        arch_betas: tuple[float, float] = (0.0, 0.999),
        arch_weight_decay: float = 0.0,
        arch_schedule: Literal["constant", "cosine"] = "constant",
        arch_update_every: int = 1,
        arch_samples: int = 1,
        arch_batch_norm: Literal["batch", "running"] = "batch",
        reinforce_samples: int = 8,
        warmup_epochs: int = 0,
        warmup_sampling: Literal["random", "fair"] = "random",
        weight_sampling: Literal["probable", "fair"] = "probable",
        sharpen_epochs: int | None = None,
        sharpen_temperature: float = 0.1,
        prune_below: float | None = None,
        finalists: int | None = None,
        finalist_epochs: int = 0,
        penalty: dict[str, Any] | ExpectationProfilerPenalty | None = None,
        gradient_clip_val: float | None = None,
        log_prob_every_n_step: int = 10,
        seed: int | None = None,
        mutation_hooks: list[MutationHook] | None = None,
        **kwargs: Any,
    ) -> None:
        has_budget = budget_ms is not None or budget_fraction is not None
        if objective is None:
            objective = "budget" if has_budget else "add_linear"
        super().__init__(
            latency=latency,
            budget_ms=budget_ms,
            budget_fraction=budget_fraction,
            keeps_budget=objective == "budget",
            finalists=(FINALISTS if objective == "budget" else 1) if finalists is None else finalists,
            mutation_hooks=mutation_hooks,
            **kwargs,
        )
        if objective == "budget" and not has_budget:
            raise InputError("objective budget needs budget_ms= in milliseconds, or budget_fraction=")
        _at_least("latency_weight", latency_weight, 0.0)
        _at_least("arch_weight_decay", arch_weight_decay, 0.0)
        if arch_learning_rate is not None:
            _above("arch_learning_rate", arch_learning_rate, 0.0)
        for beta in arch_betas:
            if not 0.0 <= beta < 1.0:
                raise InputError(f"arch_betas must be from 0 to below 1, got {arch_betas!r}")
        if arch_schedule not in SCHEDULES:
            raise InputError(unknown_name("arch_schedule", arch_schedule, SCHEDULES))
        _whole("arch_update_every", arch_update_every, 1)
        _whole("arch_samples", arch_samples, 1)
        if arch_batch_norm not in BATCH_NORMS:
            raise InputError(unknown_name("arch_batch_norm", arch_batch_norm, BATCH_NORMS))
        _whole("reinforce_samples", reinforce_samples, 2)
        _whole("warmup_epochs", warmup_epochs, 0)
        if warmup_sampling not in WARMUP_SAMPLINGS:
            raise InputError(unknown_name("warmup_sampling", warmup_sampling, WARMUP_SAMPLINGS))
        if weight_sampling not in WEIGHT_SAMPLINGS:
            raise InputError(unknown_name("weight_sampling", weight_sampling, WEIGHT_SAMPLINGS))
        if sharpen_epochs is not None:
            _whole("sharpen_epochs", sharpen_epochs, 0)
        if not 0.0 < sharpen_temperature <= 1.0:
            raise InputError(f"sharpen_temperature must be above 0 and at most 1, got {sharpen_temperature!r}")
        if prune_below is not None and not 0.0 < prune_below < 1.0:
            raise InputError(f"prune_below must be between 0 and 1, got {prune_below!r}")
        _whole("finalist_epochs", finalist_epochs, 0)
        if finalist_epochs and self._num_finalists == 1:
            raise InputError("finalist_epochs needs finalists= of at least 2: it trains those")
        _whole("log_prob_every_n_step", log_prob_every_n_step, 1)
        self.objective_name = objective
        self.latency_weight = latency_weight
        self.sharpen_epochs = sharpen_epochs
        self.arch = ArchSettings(
            gradient=check_arch_gradient(arch_gradient),
            learning_rate=arch_learning_rate,
            betas=(float(arch_betas[0]), float(arch_betas[1])),
            weight_decay=arch_weight_decay,
            schedule=arch_schedule,
            update_every=arch_update_every,
            warmup_epochs=warmup_epochs,
            warmup_sampling=warmup_sampling,
            weight_sampling=weight_sampling,
            finalist_epochs=finalist_epochs,
            reinforce_samples=reinforce_samples,
            samples=arch_samples,
            batch_norm=arch_batch_norm,
            sharpen_epochs=sharpen_epochs,
            sharpen_temperature=sharpen_temperature,
            prune_below=prune_below,
        )
        self.penalty = None if penalty is None else DifferentiablePenalty.of(penalty)
        self.gradient_clip_val = gradient_clip_val
        self.log_prob_every_n_step = log_prob_every_n_step
        self.seed = seed
        self._objective = get_objective(objective)
        self._gates: dict[str, Gate] = {}

    def mutate_model(self, model: ModelSpace) -> ModelSpace:
        """Make a supernet of a model space, in place; see NNI's `OneShotStrategy.mutate_model`."""
        self._gates = make_gates(model.simplify())
        if self.arch.prune_below is not None:
            most = max(gate.num_candidates for gate in self._gates.values())
            if self.arch.prune_below * most >= 1:
                raise InputError(
                    f"prune_below must be below 1/{most}, as there are layers of {most} candidates, got "
                    f"{self.arch.prune_below}"
                )
        self.apply_table(model)
        return accelerate(super().mutate_model(model))

    def default_mutation_hooks(self) -> list[MutationHook]:
        return [mutate_choice, no_default_hook]

    def run_hook(self, hook: MutationHook, name: str, module: nn.Module, memo: dict[str, Any]) -> Any:
        memo.update(self._gates)
        return hook(module, name, memo, {})

    def configure_oneshot_module(self, training_module: Any) -> ProxylessLightningModule:
        return ProxylessLightningModule(
            training_module,
            gates_by_label=self._gates,
            costs=self._costs,
            objective=self._objective,
            reference_ms=self.reference_ms(),
            latency_weight=self.latency_weight,
            arch=self.arch,
            budget_ms=self.budget_ms if self._keeps_budget else None,
            export=self.decoded_choices,
            finalists=self.finalists,
            description=self._description,
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

    def path_probs(self) -> dict[str, torch.Tensor]:
        """Label to path probabilities at temperature 1, shape (num_candidates,), float64; changes nothing.

        The temperature changes no comparison of two architectures, so nothing that is decoded depends on it.
        """
        return {label: torch.softmax(gate.alpha.detach().double(), 0) for label, gate in self._gates.items()}

    def expected_latency_ms(self) -> float | None:
        """E[latency] in milliseconds at the present temperature, if there is a table."""
        module: ProxylessLightningModule = self.oneshot_module
        return module.expected_latency_ms()

    def mean_entropy(self) -> float:
        """Mean entropy of the layers in nats, at the present temperature."""
        module: ProxylessLightningModule = self.oneshot_module
        return module.mean_entropy()

    def progress(self) -> dict[str, float]:
        module: ProxylessLightningModule = self.oneshot_module
        return {
            "latency_weight": module.latency_weight,
            "temperature": module.temperature,
            "arch_learning_rate": module.arch_rate,
            "pruned": len(module.pruned),
        }


def _at_least(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise InputError(f"{name} must be at least {least:g}, got {value!r}")


def _above(name: str, value: float, bound: float) -> None:
    if not value > bound:
        raise InputError(f"{name} must be greater than {bound:g}, got {value!r}")


def _whole(name: str, value: int, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{name} must be a whole number from {least}, got {value!r}")
