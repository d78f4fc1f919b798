"""The trial command: one search with the parameters of NNI's manager."""

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
from ..errors import InputError
from ..files import write_atomically, write_json
from ..search.recipe import Recipe
from .channel import ManagerChannel, link_tensorboard
from .watchdog import end_with_the_manager

if TYPE_CHECKING:
    from ..deploy.retrain import RetrainRecord
    from ..search.recorder import Record


_log = logging.getLogger(__name__)
Task = Literal["search", "retrain"]
TASKS: dict[str, type[Recipe] | type[RetrainRecipe]] = {"search": Recipe, "retrain": RetrainRecipe}
_PARAMETERS = "parameters.json"
_ALIVE = "alive.lock"
_NEEDED = ("recipe.yml", "checkpoint.ckpt")
# A table of a search, weights of a retraining; the records, which no epoch writes again where the last one was over.
# The checkpoint comes last: a copy that was cut off is none.
_INTERRUPTED = (
    "latency_table.yml", "weights.pt", "history.csv", "probabilities.csv", "pruned.csv", "finalists.csv", "cost.json",
    *_NEEDED,
)  # fmt: skip


def run_trial(recipe_path: Path, task: Task = "search") -> None:
    """Ask for parameters, search or train, report.

    Args:
        recipe_path: The recipe that the parameters override.
        task: `search`, or `retrain`: whose recipe it is.

    Raises:
        InputError: It runs outside of NNI, or recipe and parameters are not good.
    """
    if "NNI_TRIAL_JOB_ID" not in os.environ:
        raise InputError(f"'trial' is the command that NNI's manager starts; by hand use: nni-proxyless {task}")
    output = Path(os.environ["NNI_OUTPUT_DIR"])
    if os.environ.get("LOCAL_RANK", "0") != "0":
        _help(recipe_path, output)
        return
    end_with_the_manager()
    channel = ManagerChannel()  # before torch is imported
    recipe = TASKS[task].load(recipe_path, channel.parameters)
    alive = filelock.FileLock(output / _ALIVE)
    alive.acquire()  # until this process ends, however it does
    adopt_interrupted(output, channel.parameters)
    write_json(output / _PARAMETERS, channel.parameters)
    (output / "tensorboard").mkdir(parents=True, exist_ok=True)
    link_tensorboard(output)
    final: dict[str, Any] = {}

    def report(record: Record | RetrainRecord, number: int | None) -> None:
        if number is None:
            final.update(record.metrics())
        else:
            channel.intermediate(record.metrics(), number)

    comes_back = os.environ.get("NNI_PLATFORM") == "local"  # from elsewhere no file does
    if isinstance(recipe, Recipe):
        from ..search.prepare import prepare
        from ..search.run import run_search

        architecture = run_search(prepare(recipe), output, report, channel.parameters)
        if not comes_back:
            final["architecture"] = architecture.candidate_names
            final["measured_latency_ms"] = architecture.measured_latency_ms
            _log.info("architecture: %s", json.dumps(architecture.to_dict()))
    else:
        from ..deploy.retrain import prepare_retraining, run_retraining

        card = run_retraining(prepare_retraining(recipe), output, report, channel.parameters)
        if not comes_back:
            _log.info("model card: %s", json.dumps(card))
    channel.final(final)


def adopt_interrupted(output: Path, parameters: Mapping[str, Any]) -> Path | None:
    """Take over what a trial with the same parameters had come to when it crashed, on a service with a shared folder.

    NNI gives a trial that is tried once more a folder of its own, so it would begin anew.

    Args:
        output: This trial's folder; those of the others lie beside it.
        parameters: What the manager sent.

    Returns:
        The folder whose checkpoint was copied, if there is one.
    """
    if (output / "checkpoint.ckpt").exists():
        return None  # resumed: its own
    found = [
        folder
        for path in output.parent.glob(f"*/{_PARAMETERS}")
        if (folder := path.parent) != output
        and all((folder / name).is_file() for name in _NEEDED)
        and not (folder / "architecture.json").exists()
        and _same(path, parameters)
        and _is_dead(folder)
    ]
    if not found:
        return None
    newest = max(found, key=lambda folder: (folder / "checkpoint.ckpt").stat().st_mtime)
    for name in _INTERRUPTED:
        if not (newest / name).is_file():
            continue
        write_atomically(output / name, partial(shutil.copyfile, newest / name))
    _log.info("a trial with the same parameters has crashed in %s", newest)
    return newest


def _same(path: Path, parameters: Mapping[str, Any]) -> bool:
    try:
        return bool(json.loads(path.read_text(encoding="utf-8")) == dict(parameters))
    except (OSError, ValueError):
        return False


def _is_dead(folder: Path) -> bool:
    try:
        with filelock.FileLock(folder / _ALIVE, timeout=0):
            return True
    except filelock.Timeout:
        return False


def _help(recipe_path: Path, output: Path) -> None:
    """What a further process of a trial on several devices does: the same search, without a line to the manager."""
    recipe = Recipe.load(recipe_path, json.loads((output / _PARAMETERS).read_text(encoding="utf-8")))

    from ..search.prepare import prepare
    from ..search.run import run_search

    run_search(prepare(recipe), output)
