"""A small space in which the best network within each budget is known by enumeration.

The class is the sign of a weighted sum of four features. For each feature, the network keeps it, adds noise to it, or
drops it. The cost of keeping a feature does not follow its weight.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from typing import Any

import torch
from nni.nas.evaluator.pytorch import Classification, DataLoader
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from nni_proxyless.latency import Calibration, LatencyTable
from nni_proxyless.latency.entries import Choice
from tests.helpers import made_up_table

WORTH = (3.0, 2.2, 1.6, 1.2)
COSTS: dict[str, dict[str, float]] = {
    "f0": {"drop": 0.1, "blur": 0.9, "keep": 3.0},
    "f1": {"drop": 0.1, "blur": 0.6, "keep": 1.0},
    "f2": {"drop": 0.1, "blur": 1.4, "keep": 2.4},
    "f3": {"drop": 0.1, "blur": 0.4, "keep": 0.9},
}
FIXED_MS = 1.0


def feature_data(seed: int, count: int = 1024) -> TensorDataset:
    x = torch.randn(count, len(WORTH), generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, (x @ torch.tensor(WORTH) > 0).long())


class Drop(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 0.0 * x


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> None:
        return None


class Blur(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1.5 * torch.randn_like(x)


class Features(ModelSpace):
    """Space of networks that map features of shape (batch, 4) to logits of shape (batch, 2)."""

    def __init__(self) -> None:
        super().__init__()
        for label in COSTS:
            self.add_module(label, LayerChoice({"drop": Drop(), "blur": Blur(), "keep": nn.Identity()}, label=label))
        self.linear = nn.Linear(len(COSTS), 2)

    def forward(self, x: Tensor) -> Tensor:
        parts = [getattr(self, label)(x[:, i : i + 1]) for i, label in enumerate(COSTS)]
        return self.linear(torch.cat(parts, 1))  # type: ignore[no-any-return]


def table() -> LatencyTable:
    """Make a latency table by label, like one that was fitted to whole networks."""
    costs = {Choice(label, name): cost for label, of in COSTS.items() for name, cost in of.items()}
    return made_up_table(costs, Calibration(1.0, FIXED_MS, 8, 0.0), "tests.toy.Features")


def latency_ms(choices: Mapping[str, str]) -> float:
    return FIXED_MS + sum(COSTS[label][name] for label, name in choices.items())


@functools.cache
def accuracies() -> dict[tuple[str, ...], float]:
    """Train every network alone, and return the accuracies by the networks' candidates."""
    found = {}
    for picks in itertools.product(*(of for of in COSTS.values())):
        torch.manual_seed(0)
        network: Any = Features().freeze(dict(zip(COSTS, picks, strict=True)))
        x, y = feature_data(0).tensors
        optimizer = torch.optim.Adam(network.parameters(), 0.1)
        for _ in range(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x), y).backward()
            optimizer.step()
        x, y = feature_data(1, 20_000).tensors
        with torch.no_grad():
            found[picks] = float((network(x).argmax(1) == y).float().mean())
    return found


def loaders() -> list[DataLoader]:
    return [
        DataLoader(feature_data(seed), batch_size=64, shuffle=True, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 1)
    ]


def evaluator(epochs: int) -> Any:
    train, val = loaders()
    return Classification(
        train_dataloaders=train,
        val_dataloaders=val,
        num_classes=2,
        learning_rate=0.02,
        max_epochs=epochs,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        logger=False,
    )
