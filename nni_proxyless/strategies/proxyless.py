"""`ProxylessNAS`, the search as an NNI one-shot strategy. It connects the supernet, the objective and the trainer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import nni.nas.strategy  # noqa: F401  imported first: otherwise NNI's import cycle leaves stubs for DARTS and ENAS
import torch
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.oneshot.pytorch.profiler import ExpectationProfilerPenalty
from nni.nas.oneshot.pytorch.strategy import MutationHook
from torch import nn

from ..decoding.constraint import open_candidates
from ..errors import InputError
from ..latency.table import LatencyTable
from ..supernet.candidates import labels_of
from ..supernet.gated import Gate, make_gates, mutate_choice
from ..supernet.gated_cells import mutate_cell
from ..supernet.gated_nasbench101 import mutate_nasbench101
from ..supernet.gated_nds import keep_weights, mutate_stage, prepare_nds
from ..supernet.gated_values import GatedPolicy, mutate_value
from ..supernet.pruning import free_pruned
from ..supernet.regions import place_regions
from ..supernet.unsupported import check_all_are_used, refuse_unsupported
from ..training.cpu_kernels import accelerate
from .arch_settings import ArchSettings
from .evaluator_checks import share_paths, the_loader
from .halving import Halving
from .latency_aware import LatencyAwareStrategy
from .lightning_module import ProxylessLightningModule
from .objective import get_objective
from .penalty import DifferentiablePenalty
from .search_objective import SearchObjective
from .stated_budgets import StatedBudgets


class ProxylessNAS(LatencyAwareStrategy):
    """ProxylessNAS (Cai, Zhu, Han, ICLR 2019) for any NNI model space.

    The space may have LayerChoices, InputChoices, Repeats, cells and choices of values (docs/nni.md).

    It can be used wherever NNI takes a one-shot strategy, as in `NasExperiment(space, evaluator, strategy).run()`. It
    only needs a latency table and a budget: `ProxylessNAS(latency=table, budget_ms=40)`. The defaults are the same as
    in recipes.

    Args:
        latency: Latency table of the target device, or several by the name of the target; `None` to search for accuracy
            alone.
        budget_ms: Latency budget in milliseconds. With the objective `budget`, which is the default if there is a
            budget, the exported network is within the budget. For other objectives, the budget is only the reference.
        budget_fraction: Latency budget as a fraction of the largest network's latency, above 0 and at most 1.
        budgets: Budgets by the name of a target, in milliseconds, or of a quantity: `parameters`, `multiply_adds`,
            `file_size` and `peak_memory`, the latter two also with `_int8`, in bytes. A limit is a number, or a string
            such as `256KiB` or `60%`, a part of the largest network's value. The exported network is within all of
            them. A single table is the target `latency`.
        target: Name of the own target among several tables, whose latency results state. Default: the first target
            with a budget, or else the first one.
        counts: Table of `measure_model_space`, such as one of the backend `flops`, for budgets of `parameters`,
            `multiply_adds` and `peak_memory` in a space of your own. Default: the first such table of `latency`.
        penalty: Penalty of NNI, or a dictionary of its arguments: `profiler`, `baseline` and optionally `scale`,
            `nonlinear` and `aggregate`. The profiler may be any ExpressionProfiler (FLOPs, parameters or your own).
            Unlike in NNI, the penalty has a gradient. It can be combined with `latency`.
        gradient_clip_val: Largest norm of the weights' gradients, to which they are clipped; `None` for no clipping.
        log_prob_every_n_step: Number of weight steps between two logs of the path probabilities.
        seed: Seed of the path sampler. Default: the initial seed of torch's generator.
        channels_last: Whether convolutions on the CPU use channels_last, in which a step takes a third less time. A
            network that cannot run in channels_last, because it uses `Tensor.view` on images, keeps its memory format.
        mutation_hooks: Mutation hooks of NNI, which run before the built-in ones.
        arch_betas: Pair of `arch_beta1` and `arch_beta2`.
        **settings: Settings of the architecture's training, the fields of `ArchSettings`, which follow.

    Examples:
        The model space `space`, the Lightning evaluator `evaluator` and the latency table `table` are given:

        >>> from nni.nas.experiment import NasExperiment
        >>> strategy = ProxylessNAS(latency=table, budget_ms=4.0)
        >>> NasExperiment(space, evaluator, strategy).run()
        True
        >>> architecture = strategy.export_architecture(target="phone")
        >>> architecture.predicted_latency_ms <= 4.0
        True

    Raises:
        InputError: An argument is unknown or out of range, or no network is within the budgets according to the tables.
            The message says what is allowed.
        MissingOperatorError: The table lacks operators of the space. This is raised when the experiment starts.
    """

    strategy_name: ClassVar[str] = "proxyless"

    def __init__(
        self,
        *,
        latency: LatencyTable | Mapping[str, LatencyTable] | None = None,
        budget_ms: float | None = None,
        budget_fraction: float | None = None,
        budgets: Mapping[str, Any] | None = None,
        target: str | None = None,
        counts: LatencyTable | None = None,
        penalty: dict[str, Any] | ExpectationProfilerPenalty | None = None,
        gradient_clip_val: float | None = None,
        log_prob_every_n_step: int = 10,
        seed: int | None = None,
        channels_last: bool = True,
        mutation_hooks: list[MutationHook] | None = None,
        arch_betas: tuple[float, float] | None = None,
        **settings: Any,
    ) -> None:
        of_nni = {key: settings.pop(key) for key in ("model_space", "engine") if key in settings}
        if arch_betas is not None:
            if given := {"arch_beta1", "arch_beta2"} & set(settings):
                raise InputError(
                    f"arch_betas sets both betas, got {' and '.join(sorted(given))} too; give only one form"
                )
            settings["arch_beta1"], settings["arch_beta2"] = arch_betas
        self.arch = ArchSettings.checked(settings)
        stated = StatedBudgets.of(latency, budget_ms, budget_fraction, budgets, target=target, counts=counts)
        has_budget = stated.any
        self.objective_name = self.arch.objective_name(has_budget)
        if self.objective_name == "budget" and not has_budget:
            raise InputError("objective budget needs budget_ms= in milliseconds, or budget_fraction=")
        if self.arch.finalist_epochs and self.arch.num_finalists(has_budget) == 1:
            raise InputError("finalist_epochs needs finalists of at least 2, because it trains the finalists")
        if self.arch.finalist_steps and self.arch.num_finalists(has_budget) == 1:
            raise InputError("finalist_steps needs finalists of at least 2, because it trains the finalists")
        if log_prob_every_n_step < 1:
            raise InputError(f"log_prob_every_n_step must be a whole number from 1, got {log_prob_every_n_step!r}")
        if stated.limits and self.objective_name != "budget":
            raise InputError(f"budgets= needs the objective budget, got {self.objective_name}; leave objective= out")
        if self.objective_name != "budget":
            stated = StatedBudgets.of(
                latency, budget_ms, budget_fraction, budgets, target=target, counts=counts, hard=False
            )
        super().__init__(
            stated=stated,
            finalists=self.arch.num_finalists(has_budget),
            finalists_required=self.arch.finalists is not None or self.arch.finalist_steps > 0,
            mutation_hooks=mutation_hooks,
            **of_nni,
        )
        self.penalty = None if penalty is None else DifferentiablePenalty.of(penalty)
        self.gradient_clip_val = gradient_clip_val
        self.log_prob_every_n_step = log_prob_every_n_step
        self.seed = seed
        self.channels_last = channels_last
        self._gates: dict[str, Gate] = {}
        if self.arch.finalist_steps:
            self._selection.halving = Halving(self.arch.finalist_steps, gradient_clip_val)

    @property
    def latency_weight(self) -> float:
        """Configured weight of the latency. The objective `budget` ignores it and adjusts its own weight."""
        return self.arch.latency_weight

    def mutate_model(self, model: ModelSpace) -> ModelSpace:
        """Turn a model space into a supernet, in place; see NNI's `OneShotStrategy.mutate_model`."""
        self._gates = make_gates(labels_of(model))
        self.apply_table(model)
        if self.arch.prune_below is not None:
            most = max(gate.num_candidates for gate in self._gates.values())
            if self.arch.prune_below * most >= 1:
                raise InputError(
                    f"prune_below must be below 1/{most}, as there are layers of {most} candidates, got "
                    f"{self.arch.prune_below}"
                )
        if self._constraints and "fair" in (self.arch.warmup_sampling, self.arch.weight_sampling):
            raise InputError(
                f"{type(model).__name__} has constraints, so not every candidate can take its turn; set "
                "warmup_sampling and weight_sampling to random"
            )
        if self._constraints and self.arch.prune_below is not None:
            raise InputError(f"{type(model).__name__} has constraints, which pruning ignores; leave prune_below out")
        self._exclude_candidates()
        prepare_nds(model, self._gates)
        supernet = super().mutate_model(model)
        if any(constraint.combine == "max" for constraint in self.constraints):
            free_pruned(supernet)
        check_all_are_used(supernet, self._candidates)
        accelerate(supernet)
        place_regions(supernet)
        keep_weights(supernet)
        return supernet

    def _exclude_candidates(self) -> None:
        """Prune the candidates that exceed a budget of the kind `max`, such as peak memory, whatever else is chosen."""
        maxima = [constraint for constraint in self.constraints if constraint.combine == "max"]
        if maxima:
            uniform = {label: gate.probs().detach() for label, gate in self._gates.items()}
            for label, kept in open_candidates(uniform, maxima).items():
                gate = self._gates[label]
                gate.prune(sorted(set(range(gate.num_candidates)) - set(kept.tolist())))

    def default_mutation_hooks(self) -> list[MutationHook]:
        """Return the hook that gates choices, and the hook that rejects everything no other hook has handled."""
        return [mutate_cell, mutate_nasbench101, mutate_stage, mutate_choice, mutate_value, refuse_unsupported]

    def run_hook(self, hook: MutationHook, name: str, module: nn.Module, memo: dict[str, Any]) -> Any:
        """Run a mutation hook, with the gates in its memo."""
        memo.update(self._gates)
        return hook(module, name, memo, {"mixed_op_sampling": GatedPolicy})

    def configure_oneshot_module(self, training_module: Any) -> ProxylessLightningModule:
        """Create the Lightning module that trains the weights and the architecture."""
        return ProxylessLightningModule(
            training_module,
            gates_by_label=self._gates,
            objective=SearchObjective(
                get_objective(self.objective_name),
                self.reference_ms(),
                self._candidates,
                self._costs,
                self.penalty,
                tuple(constraint for constraint in self.constraints if constraint.combine == "sum"),
            ),
            arch=self.arch,
            limit_ms=self.limit_ms,
            export=self.decoded_choices,
            finalists=self.finalists,
            constraints=self._constraints,
            sampling_seed=torch.initial_seed() % 2**63 if self.seed is None else self.seed,
            gradient_clip_val=self.gradient_clip_val,
            log_prob_every_n_step=self.log_prob_every_n_step,
            channels_last=self.channels_last,
        )

    def _check_ranks(self, trainer: Any) -> None:
        share_paths(trainer)

    def check_epoch(self, trainer: Any, *, last: bool) -> None:
        super().check_epoch(trainer, last=last)
        module: ProxylessLightningModule = self.oneshot_module
        for text in module.check_epoch(last=last):
            self._warn(text)

    def train_dataloader(
        self, train_dataloader_fn: Callable[[], Any], val_dataloader_fn: Callable[[], Any]
    ) -> dict[str, Any]:
        """Combine both loaders: NNI's training loader trains the weights, its validation loader the architecture."""
        return {
            "train": the_loader(train_dataloader_fn(), "train_dataloaders"),
            "val": the_loader(val_dataloader_fn(), "val_dataloaders"),
        }

    def val_dataloader(self, train_dataloader_fn: Callable[[], Any], val_dataloader_fn: Callable[[], Any]) -> None:
        """Return no loader, because the validation loader trains the architecture."""
        return None

    def path_probs(self) -> dict[str, torch.Tensor]:
        """Return the path probabilities of each label at temperature 1, shape (num_candidates,), float64.

        The temperature does not change which of two architectures is more likely, so decoding does not depend on it.
        """
        return {label: torch.softmax(gate.alpha.detach().double(), 0) for label, gate in self._gates.items()}

    def expected_latency_ms(self) -> float | None:
        """Compute E[latency] at the current temperature in milliseconds; `None` without a table."""
        module: ProxylessLightningModule = self.oneshot_module
        return module.expected_latency_ms()

    def mean_entropy(self) -> float:
        """Compute the mean entropy of the layers at the current temperature, in nats."""
        module: ProxylessLightningModule = self.oneshot_module
        return module.mean_entropy()

    def _temperature(self) -> float:
        module: ProxylessLightningModule = self.oneshot_module
        return module.temperature

    def progress(self) -> dict[str, float]:
        """Return further columns of the search's history. The keys are the same after each epoch."""
        module: ProxylessLightningModule = self.oneshot_module
        weights = [f"weight_{constraint.name}" for constraint in module.objective.constraints]
        return {
            "latency_weight": module.latency_weight,
            "temperature": module.temperature,
            "arch_learning_rate": module.arch_rate,
            "pruned": len(module.pruned),
            **self._progress_of_constraints(),
            **dict(zip(weights, module.constraint_weights, strict=True)),
        }


def _show_settings() -> None:
    """Make `help(ProxylessNAS)` and editors show the fields of `ArchSettings` as arguments."""
    signature = inspect.signature(ProxylessNAS.__init__)
    named = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    named += [
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.annotation)
        for key, field in ArchSettings.model_fields.items()
    ]
    ProxylessNAS.__init__.__signature__ = signature.replace(parameters=named)  # type: ignore[attr-defined]
    described = "\n".join(
        f"        {key}: {' '.join((field.description or '').split())}"
        for key, field in ArchSettings.model_fields.items()
    )
    marker = "the fields of `ArchSettings`, which follow.\n"
    ProxylessNAS.__doc__ = (ProxylessNAS.__doc__ or "").replace(marker, f"{marker}{described}\n")


_show_settings()
