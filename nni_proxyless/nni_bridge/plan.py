"""The plan of an experiment: an nnictl config, its recipe and its search space, checked before anything starts."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from .. import results_folder
from ..deploy.retrain_recipe import RetrainRecipe
from ..errors import InputError, unknown_name
from ..files import read_mapping
from ..search.earlier import check_same_recipe
from ..search.recipe import Recipe
from .grid_points import Rules
from .manager import gpus_seen_by_nni
from .registration import CLASS as TUNER_CLASS
from .registration import TUNER
from .trial import TASKS

MAX_COMBINATIONS_CHECKED = 1000
_LIMITS = ("maxExperimentDuration", "maxTrialDuration")


@dataclass(frozen=True)
class Plan:
    """A config that has been checked.

    Attributes:
        config: Path of the config.
        recipe_path: Path of the recipe that the trial command names.
        recipes: Recipes with the parameters of the search space, one for each combination. If there are more than
            `MAX_COMBINATIONS_CHECKED` combinations, only as many as are needed to include each value.
        trials: Expected number of trials: the number of combinations, limited by the config's `maxTrialNumber`.
        survives: Whether the tuner goes on with the remaining trials after `nnictl resume`.
        limits: Limits of time that the config sets: `maxExperimentDuration` and `maxTrialDuration`, by name.
        varied: Keys of the search space.
    """

    config: Path
    recipe_path: Path
    recipes: tuple[Recipe | RetrainRecipe, ...]
    trials: int
    survives: bool = True
    limits: Mapping[str, str] = field(default_factory=dict)
    varied: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return self.config.resolve().parent.name

    @property
    def results(self) -> Path:
        """Folder in which results are collected by default."""
        return Path("results") / self.name


def check_config(path: Path) -> Plan:
    """Check a config, its recipe and its search space before anything is started.

    Raises:
        InputError: One of the three is invalid; the message says where.
    """
    content = read_mapping(path, "config", InputError)
    command = content.get("trialCommand")
    if not isinstance(command, str):
        raise InputError(f"config {path}: 'trialCommand' must be a text, got {command!r}")
    words = shlex.split(command)
    if "--recipe" not in words[:-1]:
        raise InputError(f"config {path}: trialCommand must be 'nni-proxyless trial --recipe FILE', got '{command}'")
    folder = path.resolve().parent / str(content.get("trialCodeDirectory", "."))
    recipe_path = folder / words[words.index("--recipe") + 1]
    space = content.get("searchSpace")
    if space is None and isinstance(content.get("searchSpaceFile"), str):
        space = read_mapping(path.resolve().parent / content["searchSpaceFile"], "search space", InputError)
    if not isinstance(space, Mapping):
        raise InputError(f"config {path}: 'searchSpace' must be a mapping, got {space!r}")
    values = {key: _values(path, key, described) for key, described in space.items()}
    task = words[words.index("--task") + 1] if "--task" in words[:-1] else "search"
    if task not in TASKS:
        raise InputError(f"config {path}: " + unknown_name("task", task, TASKS))
    recipes = []
    for chosen in _combinations(values):
        recipe = TASKS[task].load(recipe_path, chosen)
        if isinstance(recipe, Recipe):
            recipe.chosen_target()
        recipes.append(recipe)
    service = content.get("trainingService")
    platform = service.get("platform") if isinstance(service, Mapping) else None
    if platform != "local":
        raise InputError(
            f"config {path}: 'run' measures and collects on this machine, so trainingService.platform must be 'local', "
            f"got {platform!r}; start other services with: nnictl create --config {path}"
        )
    _check_gpus(path, content, service)
    most = content.get("maxTrialNumber")
    trials = math.prod(map(len, values.values()))
    return Plan(
        path,
        recipe_path,
        tuple(recipes),
        min(trials, most) if isinstance(most, int) else trials,
        survives=_survives(content.get("tuner")),
        limits={key: str(content[key]) for key in _LIMITS if content.get(key) is not None},
        varied=frozenset(values),
    )


def _survives(tuner: object) -> bool:
    """Whether a tuner goes on with the remaining trials after `nnictl resume`. NNI's own ones start over."""
    if not isinstance(tuner, Mapping):
        return False
    return tuner.get("name") == TUNER or tuner.get("className") == TUNER_CLASS


def _check_gpus(path: Path, content: Mapping[str, Any], service: object) -> None:
    """Check that NNI finds a GPU if its trials ask for one. NNI itself only says so in the manager's log."""
    wanted = content.get("trialGpuNumber")
    if wanted is None and isinstance(service, Mapping):
        wanted = service.get("trialGpuNumber")
    found = gpus_seen_by_nni() if isinstance(wanted, int) and wanted > 0 else 0
    if isinstance(wanted, int) and wanted > found:
        raise InputError(
            f"config {path}: trialGpuNumber is {wanted}, but NNI finds {found or 'no'} GPU{'s' if found > 1 else ''} "
            "on this machine (nvidia-smi must work); set trialGpuNumber: 0 to search on the CPU"
        )


def _combinations(values: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    """All combinations of the values.

    If there are more than `MAX_COMBINATIONS_CHECKED`, only the combination of all first values is returned, and those
    that differ from it in one value.
    """
    if math.prod(map(len, values.values())) <= MAX_COMBINATIONS_CHECKED:
        return [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]
    first = {key: listed[0] for key, listed in values.items()}
    return [first, *({**first, key: value} for key, listed in values.items() for value in listed[1:])]


def _values(path: Path, key: str, described: object) -> list[Any]:
    if isinstance(described, Mapping) and described.get("_type") == "choice":
        values = described.get("_value")
        if isinstance(values, list) and values:
            return values
    if isinstance(described, Mapping) and isinstance(described.get("_value"), list) and "_type" in described:
        return list(described["_value"][:1])  # a range such as uniform: its lower bound stands for all values
    raise InputError(f"config {path}: searchSpace.{key} must be like {{_type: choice, _value: […]}}, got {described!r}")


def check_results(plan: Plan) -> None:
    """Check that the default folder of the results holds none of another recipe, which would be replaced.

    Raises:
        InputError: It does. The message names the keys that differ.
    """
    varied = {*plan.varied, Rules().weight_key}
    for path in sorted(plan.results.glob(f"**/{results_folder.RECIPE}")):
        if path.parent.name == "retrained":  # made by the command `retrain`, which `run` leaves alone
            continue
        hint = "choose another folder with --results, or replace them with --overwrite"
        check_same_recipe(path.parent, plan.recipes, hint, ignored=varied)
