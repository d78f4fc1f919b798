"""What networks are worth with the weights of a supernet: of a running search, or of one that is long over."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from nni.nas.evaluator.pytorch import DataLoader
from nni.nas.nn.pytorch import LayerChoice
from torch import nn

from ..data.splits import DataSplits
from ..decoding.checkpoint import SearchCheckpoint
from ..decoding.distribution import log_likelihoods
from ..decoding.knapsack import likeliest_within
from ..decoding.ranking import rank_values
from ..errors import InputError
from ..latency import LatencyTable
from ..network.architecture import Architecture
from ..network.plain_network import Network
from ..supernet.gated import decoded_state
from ..supernet.space import MobileNetV2Space
from ..training.accuracy import accuracy, reestimate_batch_norm
from .recipe import Recipe

_log = logging.getLogger(__name__)
_WEIGHTS = "training_module._model."


class Judge:
    """Builds networks with a supernet's weights and judges them.

    Args:
        recipe: Of the search.
        splits: Its data.
    """

    def __init__(self, recipe: Recipe, splits: DataSplits) -> None:
        self._recipe = recipe
        common = {"batch_size": recipe.batch_size, "num_workers": recipe.num_workers}
        # A seed of its own: validation must not change the order in which the search sees its images.
        self._statistics = DataLoader(
            splits.statistics,
            shuffle=True,
            drop_last=True,
            generator=torch.Generator().manual_seed(recipe.seed),
            **common,
        )
        self._held_out = DataLoader(splits.held_out, **common)
        self._finalists = DataLoader(splits.finalists, batch_size=recipe.batch_size)

    def network(self, supernet: nn.Module, architecture: Architecture) -> Network:
        """A network of its own, with the supernet's weights and batch-norm statistics of its own."""
        network = architecture.build()
        network.load_state_dict(decoded_state(supernet, architecture.choices))
        device = next(supernet.parameters()).device
        network = network.to(device).to(memory_format=torch.channels_last)
        batches = min(self._recipe.bn_batches, len(self._statistics))
        self._statistics.generator.manual_seed(self._recipe.seed)
        reestimate_batch_norm(network, itertools.islice(self._statistics, batches))
        return network

    def on_held_out(self, network: nn.Module) -> float:
        """Top-1 accuracy on images that neither weights nor architecture have learnt from."""
        return accuracy(network, self._held_out)

    def as_finalist(self, network: nn.Module) -> float:
        """Top-1 accuracy on the architecture part of the data, without augmentation."""
        return accuracy(network, self._finalists)


def decode_finalists(
    folder: Path, tables: Mapping[str, LatencyTable], budget_ms: float, count: int
) -> dict[str, Architecture]:
    """For each table the best of the likeliest networks within a budget, as a search for it would have chosen.

    Args:
        folder: Results of a search: `checkpoint.ckpt` and `recipe.yml`. Its data must be at hand.
        tables: Name to table.
        budget_ms: In milliseconds.
        count: How many of each table's likeliest networks are compared, at least 2.

    Returns:
        Name to architecture; its metric `default` is the accuracy on held-out images with the supernet's weights.

    Raises:
        InputError: The folder lacks a file, the data are missing, or no network is within the budget.
        MissingOperatorError: A table lacks operators of the space.
    """
    from .prepare import load_recipe_data

    if count < 2:
        raise InputError(f"--finalists must be a number from 2, got {count}")
    if not (folder / "recipe.yml").is_file():
        raise InputError(f"{folder} has no recipe.yml; --finalists needs the folder of a search's results and its data")
    found = SearchCheckpoint.load(folder)
    recipe = Recipe.load(folder / "recipe.yml")
    spec, splits = load_recipe_data(recipe)
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    if spec != found.spec:
        raise InputError(f"{folder / 'recipe.yml'} and its data are not of the space that {folder} was searched in")
    supernet, judge = _supernet(folder, found), Judge(recipe, splits)
    known: dict[str, float] = {}

    def shared(architecture: Architecture) -> float:
        name = architecture.candidate_names
        if name not in known:
            known[name] = judge.as_finalist(judge.network(supernet, architecture))
        return known[name]

    decoded = {}
    for target, table in tables.items():
        costs = found.costs(table)
        likeliest = likeliest_within(found.probs, costs, budget_ms, count)
        _log.info("%s: comparing %d networks on %d images", target, len(likeliest), len(splits.finalists))
        listed = [
            Architecture.of_space(
                spec, choices, budget_ms=budget_ms, predicted_latency_ms=costs.of(choices), target=target
            )
            for choices in likeliest
        ]
        ranks = rank_values(
            likeliest,
            [shared(one) for one in listed],
            log_likelihoods(found.probs, found.candidates, likeliest),
            [one.multiply_adds for one in listed],
        )
        best = listed[ranks.index(max(ranks))]
        decoded[target] = replace(
            best,
            strategy=recipe.strategy,
            seed=recipe.seed,
            metrics={"default": judge.on_held_out(judge.network(supernet, best))},
        )
    return decoded


def _supernet(folder: Path, found: SearchCheckpoint) -> MobileNetV2Space:
    """The space with the weights of a checkpoint; candidates that were pruned keep what they begin with."""
    content = torch.load(folder / "checkpoint.ckpt", map_location="cpu", weights_only=True)["state_dict"]
    supernet = MobileNetV2Space(found.spec)
    begun = supernet.state_dict()
    trained = {key: content[_WEIGHTS + key] for key in begun if _WEIGHTS + key in content}
    pruned = tuple(
        f"{name}.{candidate}."
        for name, module in supernet.named_modules()
        if isinstance(module, LayerChoice)
        for candidate, probability in zip(found.candidates[module.label], found.probs[module.label], strict=True)
        if probability == 0
    )
    missing = [key for key in begun if key not in trained and not key.startswith(pruned)]
    if missing:
        raise InputError(
            f"{folder / 'checkpoint.ckpt'} lacks weights of the supernet ({missing[0]} and {len(missing) - 1} more); "
            "give the folder of a search's results"
        )
    supernet.load_state_dict({**begun, **trained})
    return supernet
