"""Small versions of all model spaces in NNI's hub, a search on each of them, and the table of docs/nni.md."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import nni.nas.hub.pytorch as hub
import torch
from nni.nas.evaluator.pytorch import DataLoader, Lightning, Trainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.space import RawFormatModelSpace
from torch.utils.data import TensorDataset

from nni_proxyless import ProxylessNAS
from nni_proxyless.supernet.single_path import single_path
from tests.strategies.test_self_check import QUIET, Plain

GRADIENTS = ("full", "two_path", "reinforce")


@dataclass(frozen=True)
class HubSpace:
    """A space of NNI's hub.

    Attributes:
        make: Function that makes a small version.
        size: Height and width of its images.
        choices: Kinds of choices that it has, for the table.
    """

    make: Callable[[], ModelSpace]
    size: int
    choices: str


def _cells(name: str) -> Callable[[], ModelSpace]:
    return lambda: getattr(hub, name)(width=4, num_cells=3, dataset="cifar")


_LAYERS, _DEPTHS = "layers", "layers, depths"
_ALL, _LOOSE = "cells, widths, depths", "cells with loose ends, widths, depths"
SPACES = {
    "ProxylessNAS": HubSpace(lambda: hub.ProxylessNAS(10, width_mult=0.25), 32, _DEPTHS),
    "MobileNetV3Space": HubSpace(
        lambda: hub.MobileNetV3Space(
            10, (16, 16, 16, 32, 64, 128), (0.5, 1.0), (1.0, 2.0), ("none", "optional", "optional"), [(1, 2), (1, 2)],
            (2, 1, 2, 2, 1, 1), ("hswish",) * 6,
        ),
        32,
        "layers, depths, widths, kernels, expansion ratios",
    ),
    "ShuffleNetSpace": HubSpace(lambda: hub.ShuffleNetSpace(10, channel_search=True), 32, "layers, widths"),
    "AutoFormer": HubSpace(
        lambda: hub.AutoFormer((16, 24), (1.0, 2.0), (1, 2), (1, 2), img_size=32, num_labels=10),
        32,
        "depths, widths, heads, ratios",
    ),
    "NasBench201": HubSpace(lambda: hub.NasBench201(4, 1), 16, _LAYERS),
    "NasBench101": HubSpace(lambda: hub.NasBench101(6, 2, 1, 5, 6), 16, "graphs of at most 9 edges"),
    "NASNet": HubSpace(_cells("NASNet"), 16, _LOOSE),
    "ENAS": HubSpace(_cells("ENAS"), 16, _LOOSE),
    "AmoebaNet": HubSpace(_cells("AmoebaNet"), 16, _LOOSE),
    "PNAS": HubSpace(_cells("PNAS"), 16, _ALL),
    "DARTS": HubSpace(_cells("DARTS"), 16, _ALL),
}  # fmt: skip


def searched(name: str, gradient: Any, **budgets: Any) -> ProxylessNAS:
    """Search a small version of a space for a step of weights and probabilities, and check what it exports.

    Args:
        name: Name of the space.
        gradient: Gradient of the search.
        budgets: Further arguments of the strategy.

    Raises:
        AssertionError: Two exports differ, NNI cannot build the network, or it does not compute what the supernet does.
    """
    space = SPACES[name]
    torch.manual_seed(0)
    # In a graph of NasBench101, the paths that one step compares may be edges that lead nowhere.
    batch, steps, size = 4, 2 if name == "NasBench101" else 1, space.size
    count = batch * steps
    data = TensorDataset(torch.randn(count, 3, size, size), torch.randint(0, 10, (count,)))
    loaders = [DataLoader(data, batch_size=batch) for _ in range(2)]
    trainer = Trainer(max_epochs=1, **QUIET)
    evaluator = Lightning(Plain(), trainer, train_dataloaders=loaders[0], val_dataloaders=loaders[1])
    strategy = ProxylessNAS(
        arch_gradient=gradient, arch_samples=1, reinforce_samples=2, arch_update_every=1, finalists=1, seed=0, **budgets
    )
    model = space.make()
    strategy(RawFormatModelSpace(model, evaluator), SequentialExecutionEngine())
    choices = strategy.export_architecture().choices
    assert strategy.export_architecture().choices == choices
    network: Any = model.freeze(dict(choices)).eval()
    assert space.make().freeze(dict(choices)) is not None
    x = torch.randn(2, 3, size, size)
    with single_path(model.eval(), choices), torch.no_grad():
        torch.testing.assert_close(network(x), model(x))
    (exported,) = strategy.list_models()
    assert {label: exported.sample[label] for label in choices} == choices
    moved = [label for label, probs in strategy.path_probs().items() if float(probs.max() - probs.min()) > 0]
    assert moved
    return strategy


def table() -> str:
    """Run all searches, and return the table of docs/nni.md."""
    lines = ["| space | choices | " + " | ".join(f"`{g}`" for g in GRADIENTS) + " | exported with its weights |"]
    lines.append("|---|---|" + "---|" * len(GRADIENTS) + "---|")
    for name, space in SPACES.items():
        for gradient in GRADIENTS:
            searched(name, gradient)
        lines.append(row(name, space))
    return "\n".join(lines)


def row(name: str, space: HubSpace) -> str:
    """Return the row of a space whose searches have all succeeded."""
    return f"| {name} | {space.choices} | " + "yes | " * len(GRADIENTS) + "yes |"


if __name__ == "__main__":
    print(table(), file=sys.stdout)
