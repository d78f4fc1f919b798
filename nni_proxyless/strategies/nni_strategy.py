"""Base of NNI's strategies with a latency table, a budget and decoding within the budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import nni.nas.strategy  # noqa: F401  imported first: otherwise NNI's import cycle leaves stubs for DARTS and ENAS
from nni.mutable import CategoricalMultiple
from nni.nas.nn.pytorch import Cell, ModelSpace
from nni.nas.oneshot.pytorch.supermodule.sampling import PathSamplingRepeat

from ..errors import InputError, SpaceError, UnsupportedSpaceError
from ..latency.table import LatencyTable
from ..supernet.candidates import labels_of
from ..supernet.constraints import Constraints
from ..supernet.unsupported import check_all_are_used
from ..training.cpu_kernels import accelerate
from .arch_settings import ArchSettings
from .latency_aware import LatencyAwareStrategy
from .objective import get_objective
from .stated_budgets import StatedBudgets


class NniStrategy(LatencyAwareStrategy):
    """Adds a latency table, a budget and decoding within the budget to a strategy of NNI.

    Args:
        latency: Latency table of the target device, or several by the name of the target.
        budget_ms: Latency budget in milliseconds. The exported network is within the budget, and the budget is the
            reference latency of the objective.
        budget_fraction: Latency budget as a fraction of the largest network's latency.
        budgets: Budgets by target or quantity; see `ProxylessNAS`. The exported network is within all of them. Only the
            latency of the own target is in the objective.
        target: Name of the own target among several tables; see `ProxylessNAS`.
        objective: Objective of strategies with a gradient: `add_linear`, which is the default, or `mul_log`.
        latency_weight: Weight of the latency: λ of `add_linear`, or the exponent of `mul_log` or of ENAS's reward. The
            tuner `LatencyBudget` finds the weight that meets a budget.
        finalists: Number of most likely architectures that are compared at the end of the search; 1 compares none.
        **kwargs: Arguments of the NNI strategy.

    Raises:
        InputError: `penalty` is given, the objective is `budget`, or an argument is out of range.
    """

    def __init__(
        self,
        *,
        latency: LatencyTable | Mapping[str, LatencyTable] | None = None,
        budget_ms: float | None = None,
        budget_fraction: float | None = None,
        budgets: Mapping[str, Any] | None = None,
        target: str | None = None,
        objective: str | None = None,
        latency_weight: float = 0.1,
        finalists: int = 1,
        **kwargs: Any,
    ) -> None:
        if kwargs.get("penalty") is not None:
            raise InputError(
                f"{type(self).__name__} has its own latency term; give latency_weight= instead of penalty="
            )
        if objective == "budget":
            raise InputError(
                "objective budget adjusts its own weight, which only ProxylessNAS supports; use add_linear or mul_log"
            )
        settings = ArchSettings.checked({"objective": objective, "latency_weight": latency_weight})
        super().__init__(
            stated=StatedBudgets.of(latency, budget_ms, budget_fraction, budgets, target=target),
            finalists=finalists,
            **kwargs,
        )
        self._objective = get_objective(objective or "add_linear")
        self.latency_weight = settings.latency_weight

    def mutate_model(self, model: ModelSpace) -> ModelSpace:
        """Turn a model space into NNI's supernet, in place.

        Raises:
            SpaceError: NNI's strategy cannot search a choice of the space.
        """
        mutables = labels_of(model)
        self._check_inputs(mutables)
        for constraint in Constraints.in_space(mutables).of:
            raise UnsupportedSpaceError(
                f"{type(model).__name__} has the constraint '{constraint.label}', which {type(self).__name__} does not "
                "keep; use ProxylessNAS"
            )
        check_cells(model, type(self).__name__)
        self.apply_table(model)
        supernet = super().mutate_model(model)
        for module in supernet.modules():
            if type(module) is PathSamplingRepeat:
                module.__class__ = RepeatFromZero
        check_all_are_used(supernet, self._candidates)
        return accelerate(supernet)

    def _check_inputs(self, mutables: Mapping[str, Any]) -> None:
        """Check whether NNI's strategy can choose as many inputs as each InputChoice wants."""

    def configure_oneshot_module(self, training_module: Any) -> Any:
        """Create NNI's Lightning module, and make it export the decoded architecture."""
        module = super().configure_oneshot_module(training_module)
        module.export = self.decoded_choices
        return module

    def progress(self) -> dict[str, float]:
        """Return further columns of the search's history."""
        return {**super().progress(), "latency_weight": self.latency_weight}


class RepeatFromZero(PathSamplingRepeat):
    """Sampled Repeat whose depth may be 0, at which NNI's fails."""

    def forward(self, x: Any) -> Any:
        return x if self._sampled == 0 else super().forward(x)


def check_cells(model: ModelSpace, strategy: str) -> None:
    """Check that NNI's supernet computes what the networks of each Cell do.

    NNI's supernet returns all nodes of a Cell, and makes the operators of a factory as if each was the first of its
    node, whatever the networks do.

    Args:
        model: Model space that is not mutated yet.
        strategy: Name of the strategy in the message.

    Raises:
        UnsupportedSpaceError: The supernet computes something else for a cell, which the message names.
    """
    for name, module in model.named_modules():
        if isinstance(module, Cell) and (module.merge_op == "loose_end" or module.op_candidates_factory is not None):
            what = "merge_op='loose_end'" if module.merge_op == "loose_end" else "a factory of operators"
            raise UnsupportedSpaceError(
                f"module '{name}' is a Cell with {what}, of which {strategy} trains other networks than it exports; "
                "use ProxylessNAS"
            )


def check_number_of_inputs(mutables: Mapping[str, Any], strategy: str, several: bool = False) -> None:
    """Check that NNI's supernet can choose as many inputs as each InputChoice of a space needs.

    Args:
        mutables: Mapping from labels to mutables.
        strategy: Name of the strategy in the message.
        several: Whether the supernet can choose several inputs, if their number is fixed.

    Raises:
        SpaceError: An InputChoice chooses another number of inputs. The message names its label.
    """
    for label, mutable in mutables.items():
        if not isinstance(mutable, CategoricalMultiple) or mutable.n_chosen == 1:
            continue
        if mutable.n_chosen is None or not several:
            raise SpaceError(
                f"InputChoice '{label}' has n_chosen={mutable.n_chosen}, which {strategy} cannot search; set "
                f"n_chosen={'a number' if several else 1}, or use ProxylessNAS"
            )
