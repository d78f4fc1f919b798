"""The plan of an experiment: an nnictl config, its recipe and its search space, checked before anything starts."""

from __future__ import annotations

import logging
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import product, takewhile
from pathlib import Path
from typing import Any

from ..deploy.retrain_recipe import RetrainRecipe
from ..errors import InputError, RecipeError, unknown_name
from ..files import results_folder
from ..files.layers import Layer
from ..files.reading import read_mapping, user_path
from ..search.earlier import check_same_recipe
from ..search.prepared import check_files as check_search
from ..search.recipe import Recipe
from .algorithms import check_algorithms, check_size, ends_by_itself, is_own
from .config_values import DURATIONS, check_values
from .grid_points import Rules
from .manager import gpus_seen_by_nni
from .search_space import parse_dimensions
from .trial import TASKS

_log = logging.getLogger(__name__)
MAX_COMBINATIONS_CHECKED = 1000
_OF_TRIAL = ("--recipe", "--task", "--debug", "--verbose", "--quiet")
_COMMANDS = ("nni-proxyless", "nni_proxyless")  # the console script, and the package after `python -m`
# Keys of recipes that decide which files a trial needs.
_OF_FILES = (
    "target", "targets", "accept_tables", "strategy", "space", "width_mult", "input_size", "data", "data_dir",
    "download", "architecture", "inherit", "budgets", "input_channels", "teacher",
)  # fmt: skip
_OPERATORS = ("&&", "||", ";", "|", "&")  # of a shell, after which another command begins


@dataclass(frozen=True)
class Plan:
    """A config that has been checked.

    Attributes:
        config: Path of the config.
        recipe_path: Path of the recipe that the trial command names.
        recipes: Recipes with the parameters of the search space, one for each combination. If there are more than
            `MAX_COMBINATIONS_CHECKED` combinations, only as many as are needed to include each value.
        trials: Expected number of trials: the number of combinations, limited by the config's `maxTrialNumber`.
        survives: Whether the tuner continues with the remaining trials after `nnictl resume`.
        limits: Limits of time that the config sets: `maxExperimentDuration` and `maxTrialDuration`, by name.
        varied: Keys of the search space.
        ends: Whether the experiment ends by itself.
    """

    config: Path
    recipe_path: Path
    recipes: tuple[Recipe | RetrainRecipe, ...]
    trials: int
    survives: bool = True
    limits: Mapping[str, str] = field(default_factory=dict)
    varied: frozenset[str] = frozenset()
    ends: bool = True

    @property
    def name(self) -> str:
        return self.config.resolve().parent.name

    @property
    def results(self) -> Path:
        """Folder in which results are collected by default."""
        return Path("results") / self.name


def check_config(path: Path) -> Plan:
    """Check a config, its recipe and its search space before anything is started; `check_tuner` checks the tuner.

    Raises:
        InputError: One of the three is invalid; the message says where.
    """
    source = f"config {path}"
    content = read_mapping(path, "config", InputError)
    recipe_path, task = _trial_command(path, content)
    dimensions = parse_dimensions(search_space(path, content), source)
    values = {key: dimension.values for key, dimension in dimensions.items()}
    check_values(source, path.resolve().parent, content)
    most = content.get("maxTrialNumber")
    points = math.prod(map(len, values.values()))
    trials = points if most is None else min(points, most)
    limited = any(content.get(key) is not None for key in ("maxTrialNumber", "maxExperimentDuration"))
    check_size(source, content.get("tuner"), points, limited=limited)
    written = read_mapping(recipe_path, "recipe", RecipeError)
    file = Layer("recipe file", written, f"recipe {recipe_path}")

    def recipe_of(chosen: Mapping[str, Any]) -> Recipe | RetrainRecipe:
        return _recipe(task, recipe_path, [file, Layer("searchSpace", chosen, f"{source}: searchSpace")])

    recipes = [recipe_of(chosen) for chosen in _combinations(values)]
    first = {key: listed[0] for key, listed in values.items()}
    for key, dimension in dimensions.items():
        for value in dimension.probes:
            recipe_of({**first, key: value})
    for line in TASKS[task].with_replaced([file, Layer("searchSpace", first, f"{source}: searchSpace")])[1]:
        _log.info("%s", line)
    service = content.get("trainingService")
    platform = service.get("platform") if isinstance(service, Mapping) else None
    if platform != "local":
        raise InputError(
            f"{source}: 'run' measures and collects on this machine, so trainingService.platform must be 'local', "
            f"got {platform!r:.100}; start other services with: nnictl create --config {path}"
        )
    _check_gpus(path, content, service)
    return Plan(
        path,
        recipe_path,
        tuple(recipes),
        trials,
        survives=_survives(content.get("tuner")),
        limits={key: str(content[key]) for key in DURATIONS if content.get(key) is not None},
        varied=frozenset(values),
        ends=ends_by_itself(content, finite=all(dimension.finite for dimension in dimensions.values())),
    )


def check_tuner(plan: Plan) -> None:
    """Check that the tuner, and the assessor if there is one, of a checked config start and accept its search space.

    Raises:
        InputError: One of them does not; the message says why.
    """
    content = read_mapping(plan.config, "config", InputError)
    space = search_space(plan.config, content)
    keys = type(plan.recipes[0]).keys()
    check_algorithms(f"config {plan.config}", content, plan.config.resolve().parent, space, keys)


def _trial_command(path: Path, content: Mapping[str, Any]) -> tuple[Path, str]:
    """Return the path of the recipe that the trial command names, and the kind of the recipe."""
    form = "'nni-proxyless trial --recipe FILE'"
    command = content.get("trialCommand")
    if not isinstance(command, str):
        raise InputError(f"config {path}: 'trialCommand' must be a string, got {command!r:.200}")
    try:
        words = shlex.split(command)
    except ValueError as reason:
        raise InputError(f"config {path}: trialCommand must be {form}, got {command!r:.200} ({reason})") from reason
    words = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    own = _own_arguments(words)
    if "--recipe" not in words[:-1] or (own is not None and own[:1] != ["trial"]):
        raise InputError(
            f"config {path}: trialCommand must be {form}, or your own program that runs it with its "
            f"arguments, got '{command:.200}'"
        )
    for word in own or ():
        if word.startswith("--") and word not in _OF_TRIAL:
            raise InputError(
                f"config {path}: trialCommand must be {form}, perhaps with --task, got the option '{word:.200}'; "
                "settings belong in the recipe or the searchSpace"
            )
    code = content.get("trialCodeDirectory", ".")
    if not isinstance(code, str):
        raise InputError(f"config {path}: 'trialCodeDirectory' must be the path of a folder, got {code!r:.200}")
    folder = path.resolve().parent / user_path(code, "trialCodeDirectory", InputError)
    if not folder.is_dir():
        raise InputError(f"config {path}: trialCodeDirectory {str(folder)[:200]} is not a folder")
    task = words[words.index("--task") + 1] if "--task" in words[:-1] else "search"
    if task not in TASKS:
        raise InputError(f"config {path}: " + unknown_name("task", task[:100], TASKS))
    return folder / words[words.index("--recipe") + 1], task


def _own_arguments(words: list[str]) -> list[str] | None:
    """Return the arguments of this package's command in a trial command; `None` if another program runs it."""
    end = words.index("--recipe") if "--recipe" in words else len(words)
    start = max((i + 1 for i in range(end) if words[i] in _OPERATORS or words[i].endswith(";")), default=0)
    segment = list(takewhile(lambda word: word not in _OPERATORS, words[start:]))
    names = [i for i, word in enumerate(segment[: end - start]) if Path(word).name.removesuffix(".exe") in _COMMANDS]
    if not names:
        misspelt = [i for i, word in enumerate(segment[: end - start]) if get_close_matches(word, _COMMANDS, 1, 0.8)]
        # A program in a folder, or with a suffix, may be a script of the user's.
        names = [i for i in misspelt if segment[i] == Path(segment[i]).stem and "trial" in segment[i:]]
        return [] if names else None
    # A folder or an environment may have the command's name, too.
    called = next((i for i in names if segment[i + 1 : i + 2] == ["trial"]), names[-1])
    return segment[called + 1 :]


def search_space(path: Path, content: Mapping[str, Any]) -> Any:
    """Return the search space of a config, which may be in a file of its own."""
    file = content.get("searchSpaceFile")
    if file is None:
        return content.get("searchSpace")
    if not isinstance(file, str) or content.get("searchSpace") is not None:
        raise InputError(f"config {path}: give either 'searchSpace' or the path of a file as 'searchSpaceFile'")
    return read_mapping(path.resolve().parent / Path(file).expanduser(), "search space", InputError)


def _recipe(task: str, path: Path, layers: Sequence[Layer]) -> Recipe | RetrainRecipe:
    recipe = TASKS[task].from_layers(layers, path.resolve().parent)
    if isinstance(recipe, Recipe):
        recipe.described_target()
    return recipe


def check_files(plan: Plan) -> None:
    """Check the files that the recipes of a plan name, as far as that is possible without torch and NNI.

    Raises:
        InputError: A trial with one of the recipes would fail.
    """
    checked: set[str] = set()
    for recipe in plan.recipes:
        values = recipe.to_dict(absolute=True)
        needed = repr([values.get(key) for key in _OF_FILES])
        if needed not in checked:
            checked.add(needed)
            if isinstance(recipe, Recipe):
                check_search(recipe)
            else:
                recipe.check_files()


def _survives(tuner: object) -> bool:
    """Whether a tuner continues with the remaining trials after `nnictl resume`. NNI's own ones start over."""
    return is_own(tuner)


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


def check_results(plan: Plan, results: Path | None = None) -> None:
    """Check that the folder of the results does not hold those of another recipe, which would be replaced.

    Args:
        plan: Checked config.
        results: Folder in which results are collected; that of the plan by default.

    Raises:
        InputError: The folder holds such results. The message names the keys that differ.
    """
    varied = {*plan.varied, Rules().weight_key}
    for path in sorted((results or plan.results).glob(f"**/{results_folder.RECIPE}")):
        if path.parent.name == "retrained":  # made by the command `retrain`, which `run` leaves alone
            continue
        hint = "choose another folder with --results, or replace them with --overwrite"
        check_same_recipe(path.parent, plan.recipes, hint, ignored=varied)
