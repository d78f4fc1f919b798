"""What a search had come to, read from its checkpoint: for decoding anywhere, with any table, without NNI."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..files import write_csv
from ..latency.costs import SpaceCosts
from ..latency.table import LatencyTable
from ..network.architecture import Architecture
from ..network.space_spec import SpaceSpec
from .distribution import most_likely
from .knapsack import FrontPoint, front, most_likely_within

CHECKPOINT_KEY = "nni_proxyless"
CHECKPOINT_SCHEMA = "nni-proxyless/checkpoint@1"


@dataclass(frozen=True)
class SearchCheckpoint:
    """The distribution over architectures that a search had come to.

    Attributes:
        spec: The space.
        probs: Label to path probabilities, shape (num_candidates,), float64; 0 where a path was pruned.
        candidates: Label to candidate names, in the same order.
    """

    spec: SpaceSpec
    probs: Mapping[str, Tensor]
    candidates: Mapping[str, tuple[str, ...]]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SearchCheckpoint:
        """Read a `checkpoint.ckpt`, or that of a folder of results. Nothing in the file is executed.

        Raises:
            InputError: There is no such file, it is no checkpoint of a search, or of a space that does not describe
                itself.
        """
        path = Path(path)
        path = path / "checkpoint.ckpt" if path.is_dir() else path
        if not path.is_file():
            raise InputError(
                f"there is no checkpoint {path}; give a checkpoint.ckpt or the folder of a search's results"
            )
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as reason:  # whatever an unpickler makes of a file that is something else
            raise InputError(
                f"{path} is no checkpoint of a search, or it is damaged; give the checkpoint.ckpt of a search"
            ) from reason
        state = content.get(CHECKPOINT_KEY) if isinstance(content, Mapping) else None
        if not isinstance(state, Mapping) or state.get("schema") != CHECKPOINT_SCHEMA:
            raise InputError(f"{path} is no checkpoint of a search: it lacks '{CHECKPOINT_KEY}' of {CHECKPOINT_SCHEMA}")
        if state["space"] is None:
            raise InputError(
                f"{path} is of a space that does not describe its operators; decode it in Python with "
                "strategy.export_architecture(table=…)"
            )
        return cls(
            SpaceSpec.from_dict(state["space"]),
            {label: torch.softmax(alpha.double(), 0) for label, alpha in state["alpha"].items()},
            {label: tuple(names) for label, names in state["candidates"].items()},
        )

    def decode(self, table: LatencyTable | None = None, budget_ms: float | None = None, **details: Any) -> Architecture:
        """The most likely architecture, within a budget by a table.

        Args:
            table: Of any device.
            budget_ms: In milliseconds; needs a table.
            **details: Further fields of `Architecture`.

        Raises:
            InputError: There is a budget without a table, or no architecture is within it.
            MissingOperatorError: The table lacks operators of the space.
        """
        if table is None:
            if budget_ms is not None:
                raise InputError(f"a budget of {budget_ms:g} ms needs a table")
            choices = most_likely(self.probs, self.candidates)
            return Architecture.of_space(self.spec, choices, **details)
        costs = self.costs(table)
        within = most_likely_within(self.probs, costs, costs.largest if budget_ms is None else budget_ms)
        return Architecture.of_space(
            self.spec, within, budget_ms=budget_ms, predicted_latency_ms=costs.of(within), **details
        )

    def front(self, table: LatencyTable, budget_ms: float | None = None) -> list[FrontPoint]:
        """For every latency the most likely architecture within it; see `decode.front`."""
        return front(self.probs, self.costs(table), budget_ms=budget_ms)

    def costs(self, table: LatencyTable) -> SpaceCosts:
        """A table applied to the space.

        Raises:
            InputError: The table is not in milliseconds.
            MissingOperatorError: It lacks operators of the space.
        """
        if table.unit != "ms":
            raise InputError(f"decoding needs a table in ms, got one in {table.unit}")
        return table.costs(self.spec)


def write_fronts(path: Path, fronts: Mapping[str, list[FrontPoint]]) -> Path:
    """Fronts as CSV: `table`, `latency_ms`, `log_likelihood`, and a column for each layer."""
    rows = [
        {"table": name, "latency_ms": point.latency_ms, "log_likelihood": point.log_likelihood, **point.choices}
        for name, points in fronts.items()
        for point in points
    ]
    return write_csv(path, list(rows[0]), rows)
