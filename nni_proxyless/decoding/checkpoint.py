"""Checkpoint of a search, which can be decoded on any machine with any latency table, without NNI."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import results_folder
from ..errors import DamagedFileError, InputError
from ..files import write_csv
from ..latency.table import LatencyTable
from ..network.architecture import Architecture
from ..network.space_spec import SpaceSpec
from ..network.torch_file import read_torch_file
from .distribution import ArchitectureDistribution
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
            InputError: There is no such file, it is no checkpoint of a search, or the space of the search does not
                describe its operators.
        """
        path = Path(path)
        path = path / results_folder.CHECKPOINT if path.is_dir() else path
        if not path.is_file():
            raise InputError(
                f"there is no checkpoint {path}; give a checkpoint.ckpt or the folder of a search's results"
            )
        try:
            content = read_torch_file(path)
        except DamagedFileError as reason:
            raise InputError(
                f"{path} is no checkpoint of a search, or it is damaged; give the checkpoint.ckpt of a search"
            ) from reason
        state = content.get(CHECKPOINT_KEY) if isinstance(content, Mapping) else None
        if not isinstance(state, Mapping) or state.get("schema") != CHECKPOINT_SCHEMA:
            raise InputError(f"{path} is no checkpoint of a search: it lacks '{CHECKPOINT_KEY}' of {CHECKPOINT_SCHEMA}")
        if state.get("space") is None:
            raise InputError(
                f"{path} is of a space that does not describe its operators; decode it in Python with "
                "strategy.export_architecture(table=…)"
            )
        try:
            probs = {label: torch.softmax(alpha.double(), 0) for label, alpha in state["alpha"].items()}
            candidates = {label: tuple(names) for label, names in state["candidates"].items()}
            return cls(SpaceSpec.from_dict(state["space"]), ArchitectureDistribution(candidates, probs))
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError) as reason:
            raise InputError(f"{path} is damaged: its '{CHECKPOINT_KEY}' holds no distribution") from reason

    def for_table(self, table: LatencyTable) -> ArchitectureDistribution:
        """Return the distribution with the costs of a table.

        Raises:
            InputError: The table is not in milliseconds.
            MissingOperatorError: The table lacks operators of the space.
        """
        if table.unit != "ms":
            raise InputError(f"decoding needs a table in ms, got one in {table.unit}")
        return self.distribution.with_costs(table.costs(self.spec))

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


def write_fronts(path: Path, fronts: Mapping[str, list[FrontPoint]]) -> Path:
    """Write fronts as CSV with the columns `table`, `latency_ms`, `log_likelihood`, and a column for each layer."""
    rows = [
        {"table": name, "latency_ms": point.latency_ms, "log_likelihood": point.log_likelihood, **point.choices}
        for name, points in fronts.items()
        for point in points
    ]
    return write_csv(path, list(rows[0]), rows)
