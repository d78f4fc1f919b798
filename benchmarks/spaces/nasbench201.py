"""How well a search ranks the networks of NAS-Bench-201, by their published accuracies.

    python -m benchmarks.spaces.nasbench201 --table nasbench201.db --data ../shared/data/cifar10 [--seeds 0 1 2]

Each seed is a search in the space of NNI's hub with the evaluator `Classification`. The script prints the correlation
of the networks' probabilities, and of the finalists' accuracies with shared weights, with the published accuracies, and
looks up the exported network. The columns are described in `Outcome`. Each search is a row of the CSV file.

The published accuracies are those of networks with 16 channels and 5 cells, trained on 32 x 32 pixels. With other
arguments, the search has a proxy task, which the method is meant to avoid.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nni.nas.evaluator.pytorch import Classification, DataLoader
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.hub.pytorch import NasBench201
from nni.nas.space import RawFormatModelSpace
from torch.utils.data import TensorDataset

from benchmarks.constants import CACHE, FINALISTS, SPACES_RESULTS
from benchmarks.results_csv import publish
from benchmarks.search_quality.ground_truth.train import Training, make_data
from benchmarks.spaces.nasbench201_table import DATA_SETS, EDGES, NETWORKS, NasBench201Table, Operators
from nni_proxyless import ProxylessNAS
from nni_proxyless.errors import InputError
from nni_proxyless.latency.arrays import spearman

_SETTINGS = ("data_set", "trained", "images", "size", "channels", "cells", "epochs")


@dataclass(frozen=True)
class Outcome:
    """What a search has found, by the published accuracies.

    Attributes:
        networks: Number of networks whose accuracy is published in the table.
        spearman: Rank correlation of the probability of each of these networks and its accuracy.
        finalists: Number of finalists among them.
        finalists_spearman: Rank correlation of the finalists' accuracies with shared weights and their accuracies.
        accuracy: Accuracy of the exported network, in percent.
        regret: How much less that is than the best accuracy, in percentage points.
        percentile: Percentage of the networks that are at most as accurate as the exported one.
    """

    networks: int
    spearman: float
    finalists: int
    finalists_spearman: float
    accuracy: float
    regret: float
    percentile: float


def operators_of(choices: Mapping[str, Any]) -> Operators:
    """Return the operators of a network of the hub's space, in the order of `EDGES`."""
    by_edge = {label.rpartition("/")[2]: choice for label, choice in choices.items()}
    return tuple(by_edge[edge] for edge in EDGES)


def judged(
    table: NasBench201Table,
    log_probs: Mapping[str, Mapping[str, float]],
    finalists: Sequence[tuple[Operators, float]],
    exported: Operators,
) -> Outcome:
    """Compare what a search has learnt with the published accuracies.

    Args:
        table: Published accuracies.
        log_probs: Logarithm of the probability of each operator, by edge.
        finalists: Operators and accuracy with shared weights of each finalist.
        exported: Operators of the exported network.

    Raises:
        KeyError: The table lacks the exported network.
    """
    accuracies = table.accuracies
    likelihoods = [sum(log_probs[edge][name] for edge, name in zip(EDGES, of, strict=True)) for of in accuracies]
    true = np.array(list(accuracies.values()))
    known = [(score, accuracies[of]) for of, score in finalists if of in accuracies]
    found = accuracies[exported]
    return Outcome(
        networks=len(accuracies),
        spearman=spearman(np.array(likelihoods), true),
        finalists=len(known),
        finalists_spearman=spearman(*np.array(known).T) if len(known) > 1 else float("nan"),
        accuracy=found,
        regret=float(true.max()) - found,
        percentile=100 * float(np.mean(true <= found)),
    )


def searched(images: Path, seed: int, options: argparse.Namespace) -> ProxylessNAS:
    """Search the hub's space on the images of an `.npz` file, two thirds of which train the weights."""
    with np.load(images, allow_pickle=False) as file:
        pixels = torch.from_numpy(file["images"]).permute(0, 3, 1, 2).float() / 255
        labels = torch.from_numpy(file["labels"]).long()
    mean, std = pixels.mean((0, 2, 3), keepdim=True), pixels.std((0, 2, 3), keepdim=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))  # the same parts for all seeds
    cut = 2 * len(labels) // 3
    loaders = [
        DataLoader(
            TensorDataset((pixels[part] - mean) / std, labels[part]),
            batch_size=options.batch_size,
            shuffle=True,
            drop_last=True,
        )
        for part in (order[:cut], order[cut:])
    ]
    torch.manual_seed(seed)
    evaluator = Classification(
        learning_rate=options.learning_rate, num_classes=10, train_dataloaders=loaders[0], val_dataloaders=loaders[1],
        max_epochs=options.epochs, enable_checkpointing=False, enable_model_summary=False, logger=False,
        enable_progress_bar=sys.stderr.isatty(),
    )  # fmt: skip
    strategy = ProxylessNAS(seed=seed, finalists=FINALISTS)
    space = NasBench201(stem_out_channels=options.channels, num_modules_per_stack=options.cells, num_labels=10)
    strategy(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
    return strategy


def outcome_of(strategy: ProxylessNAS, table: NasBench201Table) -> Outcome:
    """Look up what a finished search has found."""
    space = strategy.distribution()
    logs = {
        label.rpartition("/")[2]: dict(zip(space.candidates[label], probs.log().tolist(), strict=True))
        for label, probs in strategy.path_probs().items()
    }
    finalists = [(operators_of(one.choices), one.score) for one in strategy.compared]
    return judged(table, logs, finalists, operators_of(strategy.export_architecture().choices))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--table", type=Path, required=True, help="NNI's .db file, or a .csv file")
    parser.add_argument("--data-set", choices=DATA_SETS, default="cifar10", help="data set of the accuracies")
    parser.add_argument(
        "--trained", type=int, choices=(12, 200), default=200, help="epochs of the published accuracies"
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with CIFAR-10's train.tar.xz")
    parser.add_argument("--images", type=int, default=45_000)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--cells", type=int, default=5, help="cells of each of the three stacks")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=0.001)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--results", type=Path, default=SPACES_RESULTS, help="folder of the CSV file")
    options = parser.parse_args()
    try:
        table = NasBench201Table.load(options.table, options.data_set, options.trained)
    except InputError as reason:
        parser.error(str(reason))
    if len(table.accuracies) < NETWORKS:
        sys.stderr.write(f"the table has {len(table.accuracies)} of {NETWORKS} networks; only these are ranked\n")
    images = make_data(
        options.data,
        Training(images=options.images, size=options.size),
        CACHE / f"cifar10-{options.images}-{options.size}.npz",
    )
    for seed in options.seeds:
        start = time.perf_counter()
        strategy = searched(images, seed, options)
        row = {
            "seed": seed,
            **{key: getattr(options, key) for key in _SETTINGS},
            **asdict(outcome_of(strategy, table)),
            "seconds": round(time.perf_counter() - start, 1),
        }  # fmt: skip
        publish("nasbench201", [row], ("torch", "nni"), options.results, append=True)


if __name__ == "__main__":
    main()
