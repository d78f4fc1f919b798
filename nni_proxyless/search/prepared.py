"""Loading and checking of everything a search needs: space, data, target and latency table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..data.splits import DataSplits, load_splits
from ..errors import DataError
from ..latency import LatencyTable
from ..network.space_spec import SpaceSpec
from .recipe import Recipe
from .targets import Target


@dataclass(frozen=True)
class Prepared:
    """Loaded and checked inputs of a search.

    Attributes:
        recipe: Recipe of the search.
        target: Hardware target.
        spec: Description of the space, with the number of classes of the data.
        table: Latency table of the target.
        splits: Data of the search.
    """

    recipe: Recipe
    target: Target
    spec: SpaceSpec
    table: LatencyTable
    splits: DataSplits


def prepare(recipe: Recipe, *, remeasure: bool = False) -> Prepared:
    """Load and check everything a search needs. Only a newly measured latency table is written.

    Args:
        recipe: Recipe of the search.
        remeasure: Whether the latency table is measured again even if a kept one is good.

    Raises:
        InputError: The space, the data, the target or its latency table is missing or invalid.
    """
    target = recipe.chosen_target()
    spec, splits = load_recipe_data(recipe)
    check_batches(recipe, splits)
    table = target.latency_table(spec, remeasure=remeasure, accept=recipe.accept_tables)
    table.costs(spec)
    return Prepared(recipe, target, spec, table, splits)


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
        images = len(getattr(splits, part)) // recipe.devices
        if images < batch:
            raise DataError(
                f"{key} {batch} is larger than the {part} part of the data ({images} images"
                f"{' for each device' if recipe.devices > 1 else ''}); choose a smaller one"
            )


def load_recipe_data(recipe: Recipe) -> tuple[SpaceSpec, DataSplits]:
    """Load the space and the data that a recipe names. The space gets the number of classes of the data.

    Raises:
        SpaceError: There is no such space, or its description is invalid.
        DataError: The data set does not exist, its folder is missing or empty, or it is too small.
    """
    spec = SpaceSpec.from_yaml(recipe.space, Path(recipe.folder))
    spec = spec.with_changes(width_mult=recipe.width_mult, input_size=recipe.input_size)
    splits = load_splits(
        recipe.data,
        spec.input_shape,
        data_dir=None if recipe.data_dir is None else recipe.resolve(recipe.data_dir),
        download=recipe.download,
        arch_fraction=recipe.arch_fraction,
        held_out_fraction=recipe.held_out_fraction,
        seed=recipe.seed,
    )
    return spec.with_changes(classes=splits.num_classes), splits
