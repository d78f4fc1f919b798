"""Loading and checking of everything a search needs: space, data, target and latency table.

Checks that need neither torch nor NNI run before these are imported, because their import takes seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.place import DIGITS, check_place
from ..decoding.budget import BudgetRequest
from ..decoding.budgets import constraints_of
from ..errors import DataError
from ..latency.costs import SpaceCosts
from ..latency.sampling import Progress
from ..latency.table import LatencyTable
from ..network.space_spec import SpaceSpec
from ..strategies.compatibility import check_enas
from .recipe import STRATEGIES, Recipe
from .strategy_name import check_strategy
from .targets import Target

if TYPE_CHECKING:
    from ..data.splits import DataSplits

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """Loaded and checked inputs of a search.

    Attributes:
        recipe: Recipe of the search.
        target: Hardware target.
        spec: Description of the space, with the number of classes of the data.
        table: Latency table of the target.
        splits: Data of the search.
        other_tables: Latency tables of further targets that have a budget, by name.
    """

    recipe: Recipe
    target: Target
    spec: SpaceSpec
    table: LatencyTable
    splits: DataSplits
    other_tables: Mapping[str, LatencyTable] = field(default_factory=dict)


def prepare(recipe: Recipe, *, remeasure: bool = False, progress: Progress | None = None) -> Prepared:
    """Load and check everything a search needs. Only a newly measured latency table is written.

    Args:
        recipe: Recipe of the search.
        remeasure: Whether the latency table is measured again even if a kept one is good.
        progress: Progress callback of the measurement of the latency table.

    Raises:
        InputError: The space, the data, the strategy, the hardware, the target or its latency table is missing or
            invalid.
    """
    table = check_files(recipe)
    if table is not None and recipe.data == "digits":
        check_budget(recipe, table.costs(_space(recipe).with_changes(classes=DIGITS)))
    target = recipe.chosen_target()
    spec, splits = load_recipe_data(recipe)
    check_batches(recipe, splits)
    _log.debug(
        "space %s with %d searched layers; %d images train the weights, %d the architecture, %d are held out",
        spec.name, len(spec.layers), len(splits.weights), len(splits.architecture), len(splits.held_out),
    )  # fmt: skip

    from ..training.trainer import check_hardware
    from .make_strategy import load_strategy

    check_hardware(recipe)
    if recipe.strategy not in STRATEGIES:
        load_strategy(recipe.strategy)
    if table is None:  # the measurement takes minutes
        table = target.latency_table(spec, remeasure=remeasure, accept=recipe.accept_tables, progress=progress)
    _log.debug("target %s: latency table of %s, %s, %s", target.name, table.device.name, table.backend, table.date)
    table.costs(spec)
    targets, others = recipe.parse_targets(), {}
    for name in recipe.other_targets:
        others[name] = targets[name].latency_table(
            spec, remeasure=remeasure, accept=recipe.accept_tables, progress=progress
        )
        others[name].costs(spec)
    return Prepared(recipe, target, spec, table, splits, others)


def check_files(recipe: Recipe) -> LatencyTable | None:
    """Check the target, the strategy, the space and the place of the data of a recipe, without torch and NNI.

    Returns:
        The latency table that the target names; `None` if its backend measures the table.

    Raises:
        InputError: One of them is missing or invalid.
    """
    table = recipe.chosen_target().given_table(accept=recipe.accept_tables)
    targets = recipe.parse_targets()
    for name in recipe.other_targets:
        targets[name].given_table(accept=recipe.accept_tables)
    check_strategy(recipe.strategy)
    if recipe.strategy == "enas":
        check_enas()
    spec = _space(recipe)
    check_place(recipe.data, spec.input_shape, _data_dir(recipe), recipe.download)
    if table is not None and recipe.data == "digits":
        table.costs(spec.with_changes(classes=DIGITS))
    return table


def check_budget(
    recipe: Recipe, costs: SpaceCosts, spec: SpaceSpec | None = None, latencies: Mapping[str, SpaceCosts] | None = None
) -> None:
    """Check that a network of the space is within the recipe's budgets, unless a budget is only a reference.

    Args:
        recipe: Recipe of a search.
        costs: Latency table of its target, applied to its space.
        spec: Description of its space. Without it, only the latency budget of the target is checked.
        latencies: Latency tables of all targets that have a budget, applied to its space.

    Raises:
        InputError: No network is within the budgets.
    """
    hard = recipe.strategy != "proxyless" or recipe.objective in (None, "budget")
    request = BudgetRequest.of(recipe.budget_ms, recipe.budget_fraction, hard=hard)
    if request is not None:
        request.resolve(costs)
    if recipe.budgets and spec is not None:
        import torch

        from ..decoding.constraints import likeliest_satisfying

        uniform = {label: torch.full((len(of),), 1.0 / len(of)) for label, of in costs.candidates.items()}
        likeliest_satisfying(uniform, constraints_of(recipe.limits(), latencies or {}, spec))


def _space(recipe: Recipe) -> SpaceSpec:
    spec = SpaceSpec.from_yaml(recipe.space, Path(recipe.folder))
    return spec.with_changes(
        width_mult=recipe.width_mult, input_size=recipe.input_size, input_channels=recipe.input_channels
    )


def _data_dir(recipe: Recipe) -> Path | None:
    return None if recipe.data_dir is None else recipe.resolve(recipe.data_dir)


def check_batches(recipe: Recipe, splits: DataSplits) -> None:
    """Check that each part of the data has enough images for a batch.

    Raises:
        DataError: A batch is larger than its part of the data.
    """
    batches = {"weights": ("batch_size", recipe.batch_size)}
    batches["architecture"] = (
        ("arch_batch_size", recipe.arch_batch_size) if recipe.arch_batch_size else batches["weights"]
    )
    for part, (key, batch) in batches.items():
        images = len(getattr(splits, part)) // recipe.ranks
        if images < batch:
            raise DataError(
                f"{key} {batch} is larger than the {part} part of the data ({images} images"
                f"{' for each device' if recipe.ranks > 1 else ''}); choose a smaller one"
            )


def load_recipe_data(recipe: Recipe) -> tuple[SpaceSpec, DataSplits]:
    """Load the space and the data that a recipe names. The space gets the number of classes of the data.

    Raises:
        SpaceError: There is no such space, or its description is invalid.
        DataError: The data set does not exist, its folder is missing or empty, it is too small, or the weights of the
            classes do not fit it.
    """
    from ..data.class_sizes import class_weights
    from ..data.splits import load_splits

    spec = _space(recipe)
    splits = load_splits(
        recipe.data,
        spec.input_shape,
        data_dir=_data_dir(recipe),
        download=recipe.download,
        arch_fraction=recipe.arch_fraction,
        held_out_fraction=recipe.held_out_fraction,
        seed=recipe.seed,
        settings=recipe,
        folder=recipe.folder,
    )
    class_weights(recipe.class_weights, splits.weights_labels, splits.class_names)  # refuses wrong ones
    return spec.with_changes(classes=splits.num_classes), splits
