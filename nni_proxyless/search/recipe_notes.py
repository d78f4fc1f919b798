"""Values of the settings that a recipe leaves open. This module imports neither NNI nor torch."""

from __future__ import annotations

from pathlib import Path

from ..errors import SpaceError
from ..files.reading import read_mapping
from ..network.space_files import space_file
from .recipe import Recipe


def search_notes(recipe: Recipe) -> dict[str, str]:
    """Explain the settings that are `null` in a recipe: the value that is used, or what it is derived from.

    Args:
        recipe: Recipe of a search.

    Returns:
        Explanations by key.

    Raises:
        SpaceError: The space of the recipe cannot be read.
    """
    space = read_mapping(space_file(recipe.space, Path(recipe.folder)), "space", SpaceError)
    shape = space.get("input")
    notes = {
        "width_mult": f"the space's own: {space.get('width_mult', 1.0)}",
        "input_size": f"the space's own: {shape.get('size') if isinstance(shape, dict) else '?'}",
        "arch_batch_size": f"batch_size: {recipe.batch_size}",
        "threads": "torch's own choice",
        "channels_last": "on the CPU only",
        "gradient_clip_val": "gradients are not clipped",
        "prune_below": "no path is removed",
        "input_channels": "the space's own",
        "data_dir": "none; the data set needs no files",
        "resize": "stretch up to 64 pixels, cover above",
        "crop": "0.875 with cover, 1 with stretch",
        "mean": "those of the data set",
        "std": "those of the data set",
        "augmentation": "that of the data set",
        "flip": "as suits the data set",
        "class_weights": "all classes weigh the same",
    }
    if not recipe.has_budget:
        notes["budget_ms"] = notes["budget_fraction"] = "no budget"
    if recipe.strategy == "proxyless":
        notes |= _of_proxyless(recipe)
    left_open = {key: text for key, text in notes.items() if getattr(recipe, key) is None}
    if not recipe.targets:
        left_open["targets"] = f"the default targets: {', '.join(recipe.described_targets())}"
    return left_open


def _of_proxyless(recipe: Recipe) -> dict[str, str]:
    objective = recipe.objective_name(recipe.has_budget)
    architecture_epochs = recipe.epochs - recipe.warmup_epochs - recipe.finalist_epochs
    return {
        "objective": objective,
        "arch_learning_rate": "derived from the number of architecture steps",
        "arch_weight_decay": f"{recipe.effective_arch_weight_decay:g}, with arch_gradient {recipe.arch_gradient}",
        "arch_update_every": f"{recipe.effective_arch_update_every}, with arch_gradient {recipe.arch_gradient}",
        "sharpen_epochs": f"{architecture_epochs / 4 if objective == 'budget' else 0:g}, with objective {objective}",
        "finalists": f"{recipe.num_finalists(recipe.has_budget)}, with objective {objective}",
    }
