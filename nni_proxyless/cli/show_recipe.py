"""`--show-recipe`: prints all settings as a command will use them, and where each comes from."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ..files.provenance import Layer, annotated
from ..files.reading import read_mapping

if TYPE_CHECKING:
    from ..deploy.retrain_recipe import RetrainRecipe
    from ..nni_bridge.plan import Plan
    from ..search.recipe import Recipe


def show_search(recipe: Recipe, path: Path, settings: Mapping[str, Any], output: Path) -> None:
    """Print the recipe of a search."""
    from ..search.recipe_notes import search_notes

    layers = recipe.with_replaced(recipe.file_layers(path, settings, "command line"))[0]
    head = [f"recipe file: {path}", f"results of the search: {output.resolve()}"]
    sys.stdout.write(annotated(recipe, layers, search_notes(recipe), head))


def show_retraining(
    recipe: RetrainRecipe, architecture: str, settings: Mapping[str, Any], file: Path | None, output: Path
) -> None:
    """Print the recipe of a retraining."""
    layers, _ = type(recipe).layers_of(architecture, settings, file, "command line")
    head = [layers[0].name] if len(layers) > 1 else []
    head.append(f"results of the retraining: {output.resolve()}")
    sys.stdout.write(annotated(recipe, layers, recipe.notes(), head))


def show_experiment(plan: Plan, results: Path) -> None:
    """Print the recipe of an experiment's first trial, with the values that the other trials have."""
    from ..errors import InputError, RecipeError
    from ..nni_bridge.plan import search_space
    from ..search.recipe import Recipe
    from ..search.recipe_notes import search_notes

    config = read_mapping(plan.config, "config", InputError)
    space = search_space(plan.config, config)
    first = plan.recipes[0]
    varied = {key: value for key, value in first.to_dict().items() if key in plan.varied}
    written = Layer("recipe file", read_mapping(plan.recipe_path, "recipe", RecipeError))
    layers = first.with_replaced([written, Layer("searchSpace", varied)])[0]
    notes = search_notes(first) if isinstance(first, Recipe) else first.notes()
    for key in varied:
        values = yaml.safe_dump(space[key]["_value"], default_flow_style=True, width=10_000).strip()
        notes[key] = f"{space[key]['_type']} {values}"
    tuner = config.get("tuner")
    named = (tuner.get("name") or tuner.get("className")) if isinstance(tuner, Mapping) else None
    kind = "search" if isinstance(first, Recipe) else "retraining"
    several = f", the first of {len(plan.recipes)} different ones" if len(plan.recipes) > 1 else ""
    head = [
        f"config: {plan.config}",
        f"recipe file: {plan.recipe_path}",
        f"results of the experiment: {results.resolve()}",
        f"trials: {plan.trials}{' at most' if plan.ends else ', or more'}; tuner: {named or 'not named'}; "
        f"trialConcurrency: {config.get('trialConcurrency', 1)}",
        f"recipe of a trial ({kind}){several}:",
    ]
    sys.stdout.write(annotated(first, layers, notes, head))
