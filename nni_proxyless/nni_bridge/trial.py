"""The trial command: runs one search or retraining with the parameters that NNI's manager sends.

`nni_bridge.channel` receives the parameters and sends the metrics.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import filelock

from ..deploy.retrain_recipe import RetrainRecipe
from ..errors import InputError, RecipeError, RunError
from ..files import results_folder
from ..files.writing import read_mapping, write_atomically, write_json
from ..search.recipe import Recipe
from ..training.ranks import is_main_process, own_processes
from .channel import ManagerChannel, link_tensorboard
from .offered import check_offered, find_offers
from .watchdog import end_with_the_manager

if TYPE_CHECKING:
    from ..deploy.retrain import RetrainRecord
    from ..search.epoch_callback import Record


_log = logging.getLogger(__name__)
Task = Literal["search", "retrain"]
TASKS: dict[str, type[Recipe] | type[RetrainRecipe]] = {"search": Recipe, "retrain": RetrainRecipe}
_PARAMETERS = "parameters.json"
_PARAMETERS_SOURCE = "parameters from NNI's manager"
_ALIVE = "alive.lock"
_OTHER_ENDS_S = 60.0  # a trial ends within seconds after its manager


def run_trial(recipe_path: Path, task: Task = "search") -> None:
    """Request parameters from NNI's manager, run the search or retraining, and report its results to the manager.

    Args:
        recipe_path: Path of the recipe; the parameters override its settings.
        task: Kind of the recipe: `search` or `retrain`.

    Raises:
        InputError: The command was not started by NNI, the recipe or the parameters are invalid, or the manager has
            sent parameters that neither the search space nor the recipe offers.
        RunError: The manager has no parameters, or the training failed.
    """
    missing = [name for name in ("NNI_TRIAL_JOB_ID", "NNI_OUTPUT_DIR") if not os.environ.get(name)]
    if missing:
        raise InputError(
            f"{missing[0]} is not set: 'trial' is the command that NNI's manager starts; "
            f"by hand use: nni-proxyless {task}"
        )
    output = Path(os.environ["NNI_OUTPUT_DIR"])
    end_with_the_manager()
    if not is_main_process():
        _help(recipe_path, task, output)
        return
    with own_processes():
        _run_main_process(recipe_path, task, output)


def _run_main_process(recipe_path: Path, task: Task, output: Path) -> None:
    content = read_mapping(recipe_path, "recipe", RecipeError)
    channel = ManagerChannel()  # before torch is imported
    parameters = check_offered(channel.parameters, find_offers(output, recipe_path), TASKS[task], content)
    recipe = TASKS[task].load(recipe_path, parameters, _PARAMETERS_SOURCE)
    if recipe.num_nodes > 1:
        raise RecipeError(f"a trial runs on one machine, got num_nodes: {recipe.num_nodes}; set it to 1")
    alive = filelock.FileLock(output / _ALIVE)
    try:
        alive.acquire(timeout=_OTHER_ENDS_S)  # released when this process ends, even if it is killed
    except filelock.Timeout as reason:
        raise RunError(f"another process runs this trial in {output}; end it before the trial is resumed") from reason
    adopt_interrupted(output, parameters)
    write_json(output / _PARAMETERS, parameters)
    (output / results_folder.TENSORBOARD).mkdir(parents=True, exist_ok=True)
    link_tensorboard(output)
    final: dict[str, Any] = {}

    def report(record: Record | RetrainRecord, number: int | None) -> None:
        if number is None:
            final.update(record.metrics())
        else:
            channel.intermediate(record.metrics(), number)

    comes_back = os.environ.get("NNI_PLATFORM") == "local"  # other training services return no files
    if isinstance(recipe, Recipe):
        from ..report.found import found_lines
        from ..search.prepared import prepare
        from ..search.run import run_search

        architecture = run_search(prepare(recipe), output, report, parameters)
        for line in found_lines(architecture, recipe):
            _log.info("%s", line)
        if not comes_back:
            final["architecture"] = architecture.candidate_names
            final["measured_latency_ms"] = architecture.measured_latency_ms
            _log.info("architecture: %s", json.dumps(architecture.to_dict()))
    else:
        from ..deploy.retrain import prepare_retraining, run_retraining

        card = run_retraining(prepare_retraining(recipe), output, report, parameters)
        if not comes_back:
            _log.info("model card: %s", json.dumps(card))
    channel.final(final)


def adopt_interrupted(output: Path, parameters: Mapping[str, Any]) -> Path | None:
    """Copy the checkpoint of a crashed trial with the same parameters, so that this trial continues from it.

    When the tuner repeats a crashed trial, NNI gives the repetition a new folder. Without the copy, it would start from
    the first epoch. This works only where the folders of all trials are on the same file system.

    Args:
        output: Folder of this trial; the folders of the other trials are beside it.
        parameters: Parameters that the manager sent.

    Returns:
        The folder whose files were copied, or `None` if there is none.
    """
    if (output / results_folder.CHECKPOINT).exists():
        return None  # this trial was resumed and has its own checkpoint
    found = [
        folder
        for path in output.parent.glob(f"*/{_PARAMETERS}")
        if (folder := path.parent) != output
        and all((folder / name).is_file() for name in results_folder.NEEDED_TO_RESUME)
        and not (folder / results_folder.ARCHITECTURE).exists()
        and _same(path, parameters)
        and _is_dead(folder)
    ]
    if not found:
        return None
    newest = max(found, key=lambda folder: (folder / results_folder.CHECKPOINT).stat().st_mtime)
    for name in results_folder.IN_PROGRESS:
        if not (newest / name).is_file():
            continue
        write_atomically(output / name, partial(shutil.copyfile, newest / name))
    _log.info("continuing the trial with the same parameters that crashed in %s", newest)
    return newest


def _same(path: Path, parameters: Mapping[str, Any]) -> bool:
    try:
        return bool(read_mapping(path, "parameters", InputError) == dict(parameters))
    except InputError:
        return False


def _is_dead(folder: Path) -> bool:
    try:
        with filelock.FileLock(folder / _ALIVE, timeout=0):
            return True
    except filelock.Timeout:
        return False


def _help(recipe_path: Path, task: Task, output: Path) -> None:
    """Run an additional process of a trial that uses several devices: the same training, without the manager."""
    parameters = read_mapping(output / _PARAMETERS, "parameters", InputError)
    recipe = TASKS[task].load(recipe_path, parameters, _PARAMETERS_SOURCE)
    if isinstance(recipe, RetrainRecipe):
        from ..deploy.retrain import prepare_retraining, run_retraining

        run_retraining(prepare_retraining(recipe), output)
        return

    from ..search.prepared import prepare
    from ..search.run import run_search

    run_search(prepare(recipe), output)
