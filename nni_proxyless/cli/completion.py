"""What the tab key completes besides commands and options: shipped experiments, keys of recipes, and names.

argcomplete calls these functions with the beginning of the word. They import the recipes, and are never called outside
completion.
"""

from __future__ import annotations

import argparse
import glob
import os
from collections.abc import Iterable
from typing import Any

from . import choices


def configs(prefix: str, **_: Any) -> list[str]:
    """Complete a config: a shipped experiment or a file."""
    return [*choices.experiments("config.yml"), *_files(prefix, (".yml", ".yaml"))]


def recipes(prefix: str, **_: Any) -> list[str]:
    """Complete a recipe: a shipped experiment or a file."""
    return [*choices.experiments("recipe.yml"), *_files(prefix, (".yml", ".yaml"))]


def search_settings(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """Complete a setting of a search, `key=value`."""
    from ..search.recipe import Recipe

    named: dict[str, Iterable[str]] = {
        "space": choices.spaces(), "data": choices.DATA, "strategy": choices.STRATEGIES,
        "target": _targets(parsed_args),
    }  # fmt: skip
    return _settings(prefix, Recipe, named)


def retrain_settings(prefix: str, **_: Any) -> list[str]:
    """Complete a setting of a retraining, `key=value`."""
    from ..deploy.retrain_recipe import RetrainRecipe

    return _settings(prefix, RetrainRecipe, {"space": choices.spaces(), "data": choices.DATA})


def one_of(names: Iterable[str]) -> Any:
    """Return a function that completes one of some names."""
    known = list(names)
    return lambda prefix, **_: known


def spaces(prefix: str, **_: Any) -> list[str]:
    """Complete a space: a shipped one or a file."""
    return [*choices.spaces(), *_files(prefix, (".yml", ".yaml"))]


def _settings(prefix: str, settings: Any, named: dict[str, Iterable[str]]) -> list[str]:
    from ..files.settings import closed_choices

    keys: tuple[str, ...] = settings.keys()
    key, found, _ = prefix.partition("=")
    if not found:
        return [f"{name}=" for name in keys]
    return [f"{key}={value}" for value in named.get(key) or closed_choices(settings, key)]


def _targets(parsed: argparse.Namespace) -> list[str]:
    """The targets of the recipe that the command line names, if it can be read."""
    from ..errors import InputError
    from ..files.resources import experiment_file
    from ..search.recipe import Recipe

    try:
        recipe = Recipe.load(experiment_file(str(parsed.recipe), "recipe.yml"))
    except (AttributeError, InputError, OSError):
        return []
    return [str(name) for name in recipe.targets] or ["cpu_torch", "cpu_onnxruntime"]


def _files(prefix: str, endings: tuple[str, ...]) -> list[str]:
    found = glob.glob(f"{glob.escape(prefix)}*")
    return [
        f"{path}/" if os.path.isdir(path) else path for path in found if os.path.isdir(path) or path.endswith(endings)
    ]
