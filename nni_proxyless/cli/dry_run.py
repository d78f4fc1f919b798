"""`--dry-run`: says what a command would measure, train and write, and how long that takes. It writes nothing.

The time is not guessed: a few real steps are run on this machine, and their mean is scaled to the whole training.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import DataError
from ..files import results_folder
from ..progress import duration
from .streams import cleaned
from .terminal import painted, write_styled

if TYPE_CHECKING:
    from ..deploy.retrain_recipe import RetrainRecipe
    from ..files.settings import Settings
    from ..nni_bridge.plan import Plan
    from ..search.recipe import Recipe
    from ..training.step_probe import Timing

_R = TypeVar("_R", "Recipe", "RetrainRecipe")
_DOWNLOAD = "to be downloaded; so neither the images are counted nor the time is forecast"
_NOT_INCLUDED = "not included: the start, the latency table, and the measurement of the network that is found"
_FILES = (
    results_folder.ARCHITECTURE, results_folder.WEIGHTS, results_folder.HISTORY, results_folder.LATENCY_TABLE,
    results_folder.RECIPE, results_folder.CHECKPOINT,
)  # fmt: skip


def dry_run_search(recipe: Recipe, path: Path, output: Path, *, remeasure: bool) -> None:
    """Say what a search would do.

    Raises:
        InputError: The search would refuse its input.
    """
    from ..search.forecast import forecast_search, stand_in_table, without_budget_in_ms
    from ..search.make_strategy import load_strategy
    from ..search.prepared import Prepared, check_batches
    from ..search.recipe import STRATEGIES
    from ..search.table_plan import plan_table

    if recipe.strategy not in STRATEGIES:
        load_strategy(recipe.strategy)
    _say("search", f"{path}, strategy {recipe.strategy}")
    target = recipe.chosen_target()
    loaded = _data(recipe)
    if loaded is None:
        return
    spec, splits = loaded
    check_batches(recipe, splits)
    _say(
        "data",
        f"{recipe.data}: {len(splits.weights)} images train the weights, {len(splits.architecture)} the architecture, "
        f"{len(splits.held_out)} are held out; {splits.num_classes} classes",
    )
    choices = len(spec.layers)
    _say("space", f"{spec.name}, images of {' x '.join(map(str, spec.input_shape))}, {choices} searched layers")
    table = plan_table(target, spec, remeasure=remeasure, accept=recipe.accept_tables)
    _say("target", f"{target.name}: {table.text}")
    if table.measurement:
        _say("", f"time of the measurement: {table.measurement}")
    if table.table is not None:
        from ..nni_bridge.preflight import check_budget

        costs = table.table.costs(spec)
        check_budget(recipe, costs)
        _say("", f"networks of this space take {costs.smallest:.4g} to {costs.largest:.4g} ms")
    _say("budget", _budget(recipe))
    done = _writes(recipe, output, _FILES, (results_folder.CHECKPOINT, results_folder.LATENCY_TABLE))
    real = table.table is not None
    prepared = Prepared(
        recipe if real else without_budget_in_ms(recipe), target, spec, table.table or stand_in_table(spec), splits
    )
    found = forecast_search(prepared, done)
    if found is None:
        several = recipe.devices > 1
        _say("time", f"not known: {'it trains on several devices' if several else 'an epoch has too few steps'}")
        return
    _say("epochs", f"{recipe.epochs} of {found.steps} steps{f', of which {done} are done' if done else ''}")
    _say("time", f"{_range(found.total)}, by {found.total.count} steps that were just run here")
    kinds = [("a step of the weights", found.warmup_step), ("a step of the search", found.search_step)]
    kinds += [("an evaluation", found.evaluation)]
    _say("", ", ".join(f"{name} {one.mean:.3g} s" for name, one in kinds if one is not None))
    if found.comparison.mean:
        _say("", f"the comparison of finalists takes {duration(found.comparison.mean)} of that")
    _say("", _NOT_INCLUDED)


def dry_run_retraining(recipe: RetrainRecipe, output: Path) -> None:
    """Say what a retraining would do.

    Raises:
        InputError: The retraining would refuse its input.
    """
    from ..deploy.forecast import forecast_retraining
    from ..deploy.retrain import prepare_retraining

    prepared = prepare_retraining(_at_hand(recipe))
    architecture, splits = prepared.architecture, prepared.splits
    _say("network", f"{recipe.architecture}: {architecture.parameters:,} parameters")
    held = f"{len(splits.held_out)} are held out"
    test = "no test images" if splits.test is None else f"{len(splits.test)} test images"  # type: ignore[arg-type]
    _say("data", f"{recipe.data}: {len(splits.training)} images train, {held}, {test}; {splits.num_classes} classes")
    files = (results_folder.MODEL_CARD, results_folder.ARCHITECTURE, results_folder.WEIGHTS, results_folder.HISTORY)
    done = _writes(recipe, output, files, (results_folder.CHECKPOINT, results_folder.WEIGHTS))
    found = forecast_retraining(prepared)
    if found is None:
        _say("time", "not known: an epoch has too few steps")
        return
    _say("epochs", f"{recipe.epochs} of {found.steps} steps{f', of which {done} are done' if done else ''}")
    left = found.total.times((recipe.epochs - done) / recipe.epochs)
    _say("time", f"{_range(left)}, by {found.total.count} steps that were just run here")
    _say("", f"a step {found.step.mean:.3g} s, a validation {found.evaluation.mean:.3g} s; not included: the start")


def dry_run_experiment(plan: Plan, results: Path, port: int | None) -> None:
    """Say what an experiment would do.

    Raises:
        InputError: NNI, or a trial, would refuse its input.
    """
    from ..files.reading import read_mapping
    from ..nni_bridge.forecast import forecast_experiment
    from ..nni_bridge.preflight import check_recipes
    from ..search.table_plan import plan_table

    _say("experiment", f"{plan.config}, web UI on {f'port {port}' if port else 'the first free port from 8080'}")
    more = "" if plan.ends else "; it ends only when it is interrupted"
    varied = ", ".join(sorted(plan.varied)) if plan.trials > 1 else ""
    _say("trials", f"{plan.trials}{f', which differ in {varied}' if varied else ''}{more}")
    targets = set()
    try:
        for recipe, spec in check_recipes([_at_hand(recipe) for recipe in plan.recipes]):
            if (recipe.target, spec.content_hash) not in targets:
                targets.add((recipe.target, spec.content_hash))
                table = plan_table(recipe.chosen_target(), spec, remeasure=True, accept=recipe.accept_tables)
                _say("target", f"{recipe.target}: {table.text}")
                if table.measurement:
                    _say("", f"time of the measurement: {table.measurement}")
    except DataError:
        if not any(recipe.download for recipe in plan.recipes):
            raise
        _say("data", _DOWNLOAD)
        return
    existing = f"{'replaces results in' if any(results.glob('**/recipe.yml')) else 'new folder'}"
    _say("writes", f"{results.resolve()} ({existing}), with a folder for each trial, and summary.csv")
    found = forecast_experiment([_at_hand(recipe) for recipe in plan.recipes], plan.trials)
    if found is None:
        _say("time", "not known: a trial trains on several devices, or its epochs have too few steps")
        return
    _say(
        "time", f"{_range(found.total)} for all trials, one after the other, by {found.steps} steps that were just run"
    )
    config = read_mapping(plan.config, "config", DataError)
    if config.get("trialConcurrency", 1) != 1:
        _say("", f"trialConcurrency is {config['trialConcurrency']}: less, as far as the machine has cores for that")
    if found.timed < found.kinds:
        _say("", f"{found.timed} of {found.kinds} kinds of trials were timed; the others count as their mean")
    _say("", _NOT_INCLUDED.replace("the start", "the start of NNI and of each trial"))


def dry_run_export(out: Path, files: Sequence[str], tables: Sequence[Any], images: str, *, measure: bool) -> None:
    """Say what an export would write."""
    there = [name for name in files if (out / name).exists()]
    _say("writes", f"{out.resolve()}: {', '.join(files)}{f'; replaces {len(there)} of them' if there else ''}")
    _say("checks", f"each file against PyTorch on {images}")
    named = ", ".join(f"{table.device.name} ({table.backend})" for table in tables) or "no latency table"
    _say("measures", f"each file here, and compares with {named}" if measure else "nothing")


def _data(recipe: Recipe) -> Any:
    """Load the data of a search without downloading them; `None` if they would have to be downloaded."""
    from ..search.prepared import load_recipe_data

    try:
        return load_recipe_data(_at_hand(recipe))
    except DataError:
        if not recipe.download:
            raise
    _say("data", _DOWNLOAD)
    return None


def _at_hand(recipe: _R) -> _R:
    """Return a recipe that downloads nothing."""
    return recipe.model_copy(update={"download": False})


def _budget(recipe: Recipe) -> str:
    if recipe.budget_ms is not None:
        return f"{recipe.budget_ms:g} ms"
    if recipe.budget_fraction is not None:
        return f"{recipe.budget_fraction:g} of the largest network's latency"
    return "none"


def _writes(recipe: Settings, output: Path, files: Sequence[str], needed: Sequence[str]) -> int:
    """Say where the results go, and return how many epochs of an interrupted run are done."""
    from ..files.reading import read_rows
    from ..training.resume import is_interrupted

    done, state = 0, "new folder"
    if is_interrupted(recipe, output, needed):
        history = output / results_folder.HISTORY
        done = len(read_rows(history, "history", DataError)) if history.is_file() else 0
        state = f"goes on after epoch {done}"
    elif (output / results_folder.RECIPE).is_file():
        state = "replaces the results there"
    elif output.is_dir():
        state = "there is such a folder"
    _say("writes", f"{output.resolve()} ({state}): {', '.join(files)} and others")
    return done


def _range(found: Timing) -> str:
    low, high = duration(found.low), duration(found.high)
    return f"about {duration(found.mean)}" + (f" ({low} to {high})" if low != high else "")


def begin() -> None:
    """Say that this is a dry run."""
    write_styled(f"{painted('dry run: nothing is started, and nothing is written', 'bold', sys.stdout)}\n")


def _say(word: str, text: str) -> None:
    write_styled(f"{painted(word.ljust(10), 'cyan', sys.stdout)}  {cleaned(text)}\n")
    sys.stdout.flush()
