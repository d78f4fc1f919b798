"""Check and load what a search needs: recipe to space, data, target and latency table."""

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
    """A search whose input has been checked and loaded, before anything is trained.

    Attributes:
        recipe: All settings.
        target: The hardware target.
        spec: The space, with the data's number of classes.
        table: The target's latency table.
        splits: The data.
    """

    recipe: Recipe
    target: Target
    spec: SpaceSpec
    table: LatencyTable
    splits: DataSplits


def prepare(recipe: Recipe) -> Prepared:
    """Load and check everything a search needs; writes nothing but a newly measured table.

    Raises:
        InputError: The space, the data, the target or its table is at fault.
    """
    target = recipe.chosen_target()
    spec, splits = load_recipe_data(recipe)
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
    table = target.latency_table(spec)
    table.costs(spec)
    return Prepared(recipe, target, spec, table, splits)


def load_recipe_data(recipe: Recipe) -> tuple[SpaceSpec, DataSplits]:
    """The space that a recipe names, with as many classes as its data have, and the data.

    Raises:
        SpaceError: There is no such space, or it is not well formed.
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
