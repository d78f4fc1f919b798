"""Evaluation of networks with the weights of a supernet, during a search or from the checkpoint of a finished one."""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from nni.nas.evaluator.pytorch import DataLoader
from nni.nas.nn.pytorch import LayerChoice
from torch import nn

from ..data.class_sizes import differ_in_size
from ..data.names import names_a_function
from ..data.preprocessing_file import read_preprocessing
from ..data.splits import DataSplits
from ..decoding.budgets import Limit
from ..decoding.checkpoint import SearchCheckpoint, within_budgets
from ..decoding.distribution import ArchitectureDistribution
from ..decoding.ranking import rank_values
from ..errors import InputError, clipped
from ..files import results_folder
from ..files.reading import digest
from ..latency import LatencyTable, this_device
from ..network.architecture import Architecture
from ..network.operators import total_activations, total_multiply_adds
from ..network.plain_network import Network
from ..network.space_spec import SpaceSpec
from ..network.torch_file import read_torch_file
from ..progress import work_begins
from ..strategies.exported import installed_versions
from ..strategies.finalist import Finalist, best
from ..strategies.finalists import compare_finalists
from ..supernet.gated import decoded_state
from ..supernet.space import MobileNetV2Space
from ..training.accuracy import Accuracies, Batch, accuracy, evaluate, reestimate_batch_norm
from ..training.kept_batches import MOST_BYTES, KeptBatches
from .kept_accuracies import KeptAccuracies
from .prepared import load_recipe_data
from .recipe import Recipe

_log = logging.getLogger(__name__)
_WEIGHTS = "training_module._model."


def statistics_loader(recipe: Recipe, splits: DataSplits) -> Any:
    """Create the loader of the images on which batch-norm statistics are estimated.

    Its generator is separate, so that validation does not change the order in which the search sees its images.
    """
    return DataLoader(
        splits.statistics,
        batch_size=recipe.batch_size,
        shuffle=True,
        drop_last=True,
        generator=torch.Generator().manual_seed(recipe.seed),
        num_workers=recipe.num_workers,
    )


def finalists_loader(recipe: Recipe, splits: DataSplits) -> Any:
    """Create the loader of the images on which finalists are compared: the architecture part, without augmentation."""
    return DataLoader(splits.finalists, batch_size=recipe.batch_size)


class SharedWeightEvaluator:
    """Builds networks with a supernet's weights and measures their accuracy.

    Args:
        recipe: Recipe of the search.
        splits: Data of the search.
        most_bytes: Largest size of the batches that are kept in memory for the next network: once for those that
            networks are compared on, and once for those of the batch-norm statistics.
    """

    def __init__(self, recipe: Recipe, splits: DataSplits, most_bytes: int = 0) -> None:
        self._recipe = recipe
        self._loader = statistics_loader(recipe, splits)
        self._held_out = DataLoader(splits.held_out, batch_size=recipe.batch_size, num_workers=recipe.num_workers)
        self._statistics = KeptBatches(self._read_statistics, most_bytes)
        self._finalists = KeptBatches(partial(finalists_loader, recipe, splits), most_bytes)

    def _read_statistics(self) -> Iterable[Batch]:
        """Read the batches on which batch-norm statistics are estimated, the same ones each time."""
        batches = min(self._recipe.bn_batches, len(self._loader))
        self._loader.generator.manual_seed(self._recipe.seed)
        return itertools.islice(self._loader, batches) if batches else ()

    def network(self, supernet: nn.Module, architecture: Architecture) -> Network:
        """Build a plain network with the supernet's weights, and re-estimate its batch-norm statistics."""
        network = architecture.build()
        network.load_state_dict(decoded_state(supernet, architecture.choices))
        device = next(supernet.parameters()).device
        network = network.to(device).to(memory_format=torch.channels_last)
        if min(self._recipe.bn_batches, len(self._loader)):
            reestimate_batch_norm(network, self._statistics)
        return network

    def held_out_accuracy(self, network: nn.Module) -> float:
        """Compute the top-1 accuracy on images on which neither the weights nor the architecture were trained."""
        return accuracy(network, self._held_out)

    def held_out_accuracies(self, network: nn.Module) -> Accuracies:
        """Compute all accuracies on these images."""
        return evaluate(network, self._held_out)

    def finalist_accuracy(self, network: nn.Module) -> float:
        """Compute the top-1 accuracy on the architecture part of the data, without augmentation."""
        return accuracy(network, self._finalists)

    def conditions(self) -> dict[str, Any]:
        """Return everything that `finalist_accuracy` depends on besides the weights, such as hashes of the images."""
        return {
            "images": self._finalists.digest(),
            "statistics": self._statistics.digest(),
            "versions": installed_versions(),
            "processor": [this_device().processor, torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()],
        }


def decode_finalists(
    folder: Path, tables: Mapping[str, LatencyTable], budget_ms: float, count: int
) -> dict[str, Architecture]:
    """Select for each latency table the best of the most likely networks within a budget.

    The selection is the same as at the end of a search with that table, if the search used 32-bit floats.

    Args:
        folder: Folder of a search's results, with its checkpoint and its recipe. The recipe's data must be available.
        tables: Latency tables by name.
        budget_ms: Largest allowed latency in milliseconds.
        count: Number of networks that are compared for each table, at least 2.

    Returns:
        Architectures by name of the table. Their metric `default` is the accuracy on held-out images with the
        supernet's weights.

    Raises:
        InputError: `count` is less than 2, the folder lacks a file, the data are missing, or no network is within the
            budget.
        MissingOperatorError: A table lacks operators of the space.
    """
    comparison = _comparison(folder, count)
    distributions = {target: comparison.found.for_table(table) for target, table in tables.items()}
    for distribution in distributions.values():
        distribution.most_likely(budget_ms)  # refuses a budget that no network is within
    work_begins()
    return {
        target: comparison.compare(distribution, target, budget_ms)[0] for target, distribution in distributions.items()
    }


def decode_finalists_within(
    folder: Path, tables: Mapping[str, LatencyTable], limits: Sequence[Limit], count: int
) -> Architecture:
    """Select the best of the most likely networks that are within all budgets.

    Args:
        folder: Folder of a search's results; see `decode_finalists`.
        tables: Latency tables by target. The predicted latency is that of the first one.
        limits: Budgets; see `decoding.budgets`.
        count: Number of networks that are compared, at least 2.

    Returns:
        Architecture; see `decode_finalists`.

    Raises:
        InputError: See `decode_finalists`.
        MissingOperatorError: A table lacks operators of the space.
    """
    comparison = _comparison(folder, count)
    distribution = comparison.found.for_table(next(iter(tables.values()), None), limits, tables)
    distribution.most_likely()  # refuses budgets that no network is within
    work_begins()
    return comparison.compare(distribution, next(iter(tables), None))[0]


def _comparison(folder: Path, count: int) -> SharedWeightComparison:
    if count < 2:
        raise InputError(f"--finalists must be a number from 2, got {count}")
    return SharedWeightComparison(folder, count)


class SharedWeightComparison:
    """Compares the most likely networks of a distribution with the weights and data of a finished search.

    Args:
        folder: Folder of the search's results, with its checkpoint and its recipe.
        count: Number of networks that are compared; 1 compares none, and takes the most likely one.
        own: Whether the user has named the recipe. If so, a function that returns its data may be run.
        keep: Whether other comparisons in this folder use the accuracies too, through a file in it.
        data: Space and data of the recipe if they are loaded already.

    Attributes:
        found: Space and distribution of the search.
    """

    def __init__(
        self,
        folder: Path,
        count: int,
        own: bool = False,
        keep: bool = False,
        data: tuple[SpaceSpec, DataSplits] | None = None,
    ) -> None:
        if not (folder / results_folder.RECIPE).is_file():
            raise InputError(
                f"{folder} has no recipe.yml; --finalists needs the folder of a search's results and its data"
            )
        self.found = SearchCheckpoint.load(folder)
        self._folder = folder
        self._count = count
        recipe = Recipe.load(folder / results_folder.RECIPE)
        if names_a_function(recipe.data) and not own:
            raise InputError(
                f"{folder / results_folder.RECIPE} takes its data from the function {clipped(recipe.data)}, which "
                "--finalists does not run; decode without --finalists"
            )
        recorded = read_preprocessing(folder)
        if recorded is not None and recorded[0].known:  # of the images in the search, which may have changed
            recipe = recipe.model_copy(update={"mean": list(recorded[0].mean), "std": list(recorded[0].std)})
        self._recipe = recipe
        self._spec, self._splits = data or load_recipe_data(self._recipe)
        if self._recipe.threads is not None:
            torch.set_num_threads(self._recipe.threads)
        if self._spec != self.found.spec:
            raise InputError(
                f"{folder / results_folder.RECIPE} and its data are not of the space that {folder} was searched in"
            )
        self._evaluator = SharedWeightEvaluator(self._recipe, self._splits, MOST_BYTES)
        self._keep = keep
        self._accuracies: dict[str, float] = {}

    @cached_property
    def _weights(self) -> MobileNetV2Space:
        return _supernet(self._folder, self.found)

    def compare(
        self, distribution: ArchitectureDistribution, target: str | None, budget_ms: float | None = None
    ) -> tuple[Architecture, list[Finalist], Network]:
        """Compare the most likely networks within the budget and the distribution's constraints.

        Returns:
            The best one, with its accuracies on held-out images; all that were compared, the most likely one first,
            none if there is only one; and the best one as a network with the search's weights.

        Raises:
            InputError: No network is within the budget and the constraints.
        """
        likeliest = distribution.k_most_likely(self._count, budget_ms)
        _ = self._weights  # a checkpoint without weights is refused before the comparison is announced
        name = target or "all budgets"
        _log.info("%s: comparing %d networks on %d images", name, len(likeliest), len(self._splits.finalists))
        if self._keep and len(likeliest) > 1:
            self._share_accuracies(likeliest)
        likelihoods = distribution.log_likelihoods(likeliest)
        networks = [Architecture.of_space(self._spec, choices).operators() for choices in likeliest]
        sizes, activations = [*map(total_multiply_adds, networks)], [*map(total_activations, networks)]
        rank = partial(rank_values, log_likelihoods=likelihoods, multiply_adds=sizes, activations=activations)
        compared = compare_finalists(likeliest, self.accuracy, rank, distribution, sizes) if len(likeliest) > 1 else []
        architecture = within_budgets(
            self._spec,
            distribution,
            best(compared).choices if compared else likeliest[0],
            budget_ms=budget_ms,
            target=target,
            strategy=self._recipe.strategy,
            seed=self._recipe.seed,
        )
        network = self._evaluator.network(self._weights, architecture)
        found = self._evaluator.held_out_accuracies(network)
        metrics = {"default": found.top1}
        if differ_in_size(self._splits.held_out_labels):
            metrics["balanced_accuracy"] = found.balanced
        return replace(architecture, metrics=metrics), compared, network

    def _share_accuracies(self, networks: Sequence[Mapping[str, Any]]) -> None:
        """Evaluate the networks that no other comparison in this folder has evaluated."""
        weights = digest(self._folder / results_folder.CHECKPOINT, "checkpoint", InputError)
        conditions = {"weights": weights, **self._evaluator.conditions()}
        kept = KeptAccuracies(self._folder / results_folder.ACCURACIES, conditions)
        by_name = {Architecture.of_space(self._spec, choices).candidate_names: choices for choices in networks}
        new = [name for name in by_name if name not in kept.known]
        _log.info("%d of them are known from other targets and budgets", len(by_name) - len(new))
        random.Random().shuffle(new)  # so that two processes at a time seldom evaluate the same network
        try:
            for name in new:
                if name not in kept.known:
                    kept.add(name, self.accuracy(by_name[name]))
        finally:
            kept.exchange()
        self._accuracies |= kept.known

    def accuracy(self, choices: Mapping[str, Any]) -> float:
        """Compute the accuracy by which networks are compared, on the architecture part of the data."""
        architecture = Architecture.of_space(self._spec, choices)
        name = architecture.candidate_names
        if name not in self._accuracies:
            self._accuracies[name] = self._evaluator.finalist_accuracy(
                self._evaluator.network(self._weights, architecture)
            )
        return self._accuracies[name]

    def held_out_accuracy(self, choices: Mapping[str, Any]) -> float:
        """Compute the accuracy on images on which neither weights nor architecture were trained."""
        architecture = Architecture.of_space(self._spec, choices)
        return self._evaluator.held_out_accuracy(self._evaluator.network(self._weights, architecture))


def _supernet(folder: Path, found: SearchCheckpoint) -> MobileNetV2Space:
    """Build the space with the weights of a checkpoint. Pruned candidates keep their initial weights."""
    path = folder / results_folder.CHECKPOINT
    content = read_torch_file(path).get("state_dict", {})
    # The checkpoint holds the weights of each candidate separately, so they need not be entangled again.
    supernet = MobileNetV2Space(found.spec, entangled=False)
    begun = supernet.state_dict()
    trained = {key: content[_WEIGHTS + key] for key in begun if _WEIGHTS + key in content}
    distribution = found.distribution
    pruned = tuple(
        f"{name}.{candidate}."
        for name, module in supernet.named_modules()
        if isinstance(module, LayerChoice)
        for candidate, probability in zip(
            distribution.candidates[module.label], distribution.probs[module.label], strict=True
        )
        if probability == 0
    )
    missing = [key for key in begun if key not in trained and not key.startswith(pruned)]
    if missing:
        raise InputError(
            f"{path} lacks weights of the supernet ({missing[0]} and {len(missing) - 1} more); "
            "give the folder of a search's results"
        )
    supernet.load_state_dict({**begun, **trained})
    return supernet
