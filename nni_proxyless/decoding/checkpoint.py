"""Checkpoint of a search, which can be decoded on any machine with any latency table, without NNI."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DamagedFileError, InputError, shown
from ..files import results_folder
from ..files.nearby import did_you_mean, try_folders_with
from ..files.writing import write_csv
from ..latency.costs import SpaceCosts
from ..latency.table import LatencyTable
from ..network.architecture import Architecture
from ..network.space_spec import SpaceSpec
from ..network.torch_file import check_kind, fault_of, read_torch_file
from .budgets import Limit, check_names, constraints_of, unlimited_quantity
from .constraint import limits_and_values
from .distribution import ArchitectureDistribution
from .pareto_front import LIKELIHOOD, FrontNetwork, pareto_front

if TYPE_CHECKING:  # files are checked without torch
    from .knapsack import FrontPoint

CHECKPOINT_KEY = "nni_proxyless"
CHECKPOINT_SCHEMA = "nni-proxyless/checkpoint@1"


@dataclass(frozen=True)
class SearchCheckpoint:
    """Space and distribution of a search, read from its checkpoint.

    Attributes:
        spec: Description of the space.
        distribution: Distribution over architectures that the search had learnt.
    """

    spec: SpaceSpec
    distribution: ArchitectureDistribution

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SearchCheckpoint:
        """Read a `checkpoint.ckpt`, or the one in a folder of results. Nothing in the file is executed.

        Raises:
            InputError: There is no such file, it is not a checkpoint of a search, or the space of the search does not
                describe its operators.
        """
        path = checkpoint_file(path)
        try:
            content = read_torch_file(path)
        except DamagedFileError as reason:
            raise _no_checkpoint(path) from reason
        state = content.get(CHECKPOINT_KEY) if isinstance(content, Mapping) else None
        if not isinstance(state, Mapping) or state.get("schema") != CHECKPOINT_SCHEMA:
            raise InputError(
                f"{path} is not a checkpoint of a search: it lacks '{CHECKPOINT_KEY}' of {CHECKPOINT_SCHEMA}"
            )
        if state.get("space") is None:
            raise InputError(
                f"{path} is of a space that does not describe its operators; decode it in Python with "
                "strategy.export_architecture(table=…)"
            )
        spec = SpaceSpec.from_dict(_mapping(state["space"], f"{path}: space"), f"{path}: space")
        return cls(spec, _distribution(state, spec, path))

    def for_table(
        self,
        table: LatencyTable | None,
        limits: Sequence[Limit] = (),
        tables: Mapping[str, LatencyTable] | None = None,
    ) -> ArchitectureDistribution:
        """Return the distribution with the costs of a table, and within budgets.

        Args:
            table: Latency table; `None` for no costs.
            limits: Budgets that all decoded architectures are within.
            tables: Latency tables of the targets that the budgets name.

        Raises:
            InputError: The table is not in milliseconds.
            MissingOperatorError: The table lacks operators of the space.
        """
        latencies = {name: self._costs(other) for name, other in (tables or {}).items()}
        costs = None if table is None else self._costs(table)
        return replace(self.distribution, costs=costs, constraints=constraints_of(limits, latencies, self.spec))

    def _costs(self, table: LatencyTable) -> SpaceCosts:
        if table.unit != "ms":
            raise InputError(f"decoding needs a table in ms, got one in {table.unit}")
        return table.costs(self.spec)

    def decode_within(
        self, tables: Mapping[str, LatencyTable], limits: Sequence[Limit], **details: Any
    ) -> Architecture:
        """Return the most likely architecture that is within all budgets.

        Args:
            tables: Latency tables by target. The predicted latency is that of the first one.
            limits: Budgets; see `decoding.budgets`.
            **details: Further fields of `Architecture`.

        Raises:
            InputError: There is no such target or quantity, or no architecture is within all budgets. The message names
                the budgets that conflict.
            MissingOperatorError: A table lacks operators of the space.
        """
        distribution = self.for_table(next(iter(tables.values()), None), limits, tables)
        return within_budgets(self.spec, distribution, distribution.most_likely(), **details)

    def front(
        self, names: Sequence[str], tables: Mapping[str, LatencyTable], limits: Sequence[Limit] = ()
    ) -> list[FrontNetwork]:
        """Find the exact front in some quantities, within budgets; see `pareto_front`.

        Args:
            names: Quantities: `likelihood`, names of `tables`, or those of `decoding.budgets`.
            tables: Latency tables by target.
            limits: Budgets.

        Raises:
            InputError: There is no such target or quantity, no architecture is within all budgets, or the front is too
                large.
            MissingOperatorError: A table lacks operators of the space.
        """
        costs = [name for name in names if name != LIKELIHOOD]
        check_names([Limit(name) for name in costs], tables)
        latencies = {name: self._costs(table) for name, table in tables.items()}
        within = constraints_of(limits, latencies, self.spec)
        free = [unlimited_quantity(name, latencies, self.spec) for name in costs]
        return pareto_front(self.distribution.probs, names, [*within, *free])

    def decode(self, table: LatencyTable | None = None, budget_ms: float | None = None, **details: Any) -> Architecture:
        """Return the most likely architecture, within a budget if one is given.

        Args:
            table: Latency table of any device.
            budget_ms: Largest allowed latency in milliseconds; needs a table.
            **details: Further fields of `Architecture`.

        Raises:
            InputError: There is a budget without a table, or no architecture is within the budget.
            MissingOperatorError: The table lacks operators of the space.
        """
        distribution = self.distribution if table is None else self.for_table(table)
        choices = distribution.most_likely(budget_ms)
        predicted = None if distribution.costs is None else distribution.costs.of(choices)
        return Architecture.of_space(self.spec, choices, budget_ms=budget_ms, predicted_latency_ms=predicted, **details)


def within_budgets(
    spec: SpaceSpec, distribution: ArchitectureDistribution, choices: Mapping[str, Any], **details: Any
) -> Architecture:
    """Create an architecture that states its predicted latency, and the limit and value of each budget."""
    return Architecture.of_space(
        spec,
        choices,
        predicted_latency_ms=None if distribution.costs is None else distribution.costs.of(choices),
        budgets=limits_and_values(distribution.constraints, choices),
        **details,
    )


def checkpoint_file(path: str | os.PathLike[str]) -> Path:
    """Return the checkpoint that a path or its folder stands for, checked as far as that is possible without torch.

    Raises:
        InputError: There is no such file, or it is not a checkpoint.
    """
    path = Path(path)
    give = "give a checkpoint.ckpt or the folder of a search's results"
    if path.is_dir():
        folder, path = path, path / results_folder.CHECKPOINT
        if not path.exists():
            there = try_folders_with(folder, results_folder.CHECKPOINT, give)
            raise InputError(f"there is no checkpoint {path}; {there}")
    if not path.exists():
        raise InputError(f"there is no checkpoint {path}{did_you_mean(path) or f'; {give}'}")
    try:
        check_kind(path)
    except DamagedFileError as reason:
        raise _no_checkpoint(path) from reason
    except InputError as reason:
        raise InputError(f"{reason}; {give}") from reason
    return path


def _no_checkpoint(path: Path) -> InputError:
    return InputError(f"{path} is not a checkpoint of a search, or it is damaged; give the checkpoint.ckpt of a search")


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{what} must be a mapping, got {shown(value)}; the checkpoint is damaged")
    return value


def _distribution(state: Mapping[str, Any], spec: SpaceSpec, path: Path) -> ArchitectureDistribution:
    """Check that a checkpoint has a finite α for each candidate of the space, or -inf for a pruned one."""
    import torch
    from torch import Tensor

    alpha = _mapping(state.get("alpha"), f"{path}: alpha")
    candidates = _mapping(state.get("candidates"), f"{path}: candidates")
    wanted = {layer.label: layer.names for layer in spec.layers}
    for key, found in (("alpha", alpha), ("candidates", candidates)):
        if set(found) != set(wanted):
            raise InputError(
                f"{path}: '{key}' must have the {len(wanted)} layers of space '{spec.name}', got {shown(list(found))}"
            )
    probs, names = {}, {}
    for label, own in wanted.items():
        listed, values, where = candidates[label], alpha[label], f"{path}: layer {label}"
        if not isinstance(listed, (list, tuple)) or tuple(listed) != own:
            raise InputError(f"{where}: the candidates must be {', '.join(own)}, got {shown(listed)}")
        if not isinstance(values, Tensor) or tuple(values.shape) != (len(own),) or not values.is_floating_point():
            got = f"{values.dtype} of shape {tuple(values.shape)}" if isinstance(values, Tensor) else shown(values)
            raise InputError(f"{where}: α must be {len(own)} floats, one for each candidate, got {got}")
        if (fault := fault_of(values, pruned=True)) is not None:
            raise InputError(f"{where}: α {fault}")
        names[label], probs[label] = own, torch.softmax(values.double(), 0)
        if not bool(probs[label].isfinite().all()):
            raise InputError(f"{where}: α is -inf for every candidate, so none is left")
    return ArchitectureDistribution(names, probs)


def write_fronts(path: Path, fronts: Mapping[str, list[FrontPoint]]) -> Path:
    """Write fronts as CSV with the columns `table`, `latency_ms`, `log_likelihood`, and a column for each layer."""
    rows = [
        {"table": name, "latency_ms": point.latency_ms, "log_likelihood": point.log_likelihood, **point.choices}
        for name, points in fronts.items()
        for point in points
    ]
    return write_csv(path, list(rows[0]), rows)
