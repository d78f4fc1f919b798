"""`--dry-run`: says what a command would measure, train and write, and how long that takes. It writes nothing.

The time is not guessed: a few real steps are run on this machine, and their mean is scaled to the whole training.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import DataError
from ..files import results_folder
from ..progress import duration, shows_bars, write_above_bars
from .forecast_time import LoadWatch, time_lines
from .streams import cleaned
from .terminal import painted, write_styled

if TYPE_CHECKING:
    from ..deploy.retrain_recipe import RetrainRecipe
    from ..files.settings import Settings
    from ..nni_bridge.plan import Plan
    from ..search.prepared import Prepared
    from ..search.recipe import Recipe

_log = logging.getLogger("nni_proxyless")
_R = TypeVar("_R", bound="Settings")
_DOWNLOAD = "to be downloaded, so the images are not counted and the time is not forecast"
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
    report = _Report()
    _search(report, recipe, path, output, remeasure=remeasure)
    report.print()


def dry_run_retraining(recipe: RetrainRecipe, output: Path) -> None:
    """Say what a retraining would do.

    Raises:
        InputError: The retraining would refuse its input.
    """
    report = _Report()
    _retraining(report, recipe, output)
    report.print()


def dry_run_experiment(plan: Plan, results: Path, port: int | None) -> None:
    """Say what an experiment would do.

    Raises:
        InputError: NNI, or a trial, would refuse its input.
    """
    report = _Report()
    _experiment(report, plan, results, port)
    report.print()


def dry_run_export(out: Path, files: Sequence[str], tables: Sequence[Any], images: str, *, measure: bool) -> None:
    """Say what an export would write."""
    report = _Report()
    there = [name for name in files if (out / name).exists()]
    report.say("writes", f"{out.resolve()}: {', '.join(files)}{f'; replaces {len(there)} of them' if there else ''}")
    report.say("checks", f"each file against PyTorch on {images}")
    named = ", ".join(f"{table.device.name} ({table.backend})" for table in tables) or "no latency table"
    report.say("measures", f"each file here, and compares with {named}" if measure else "nothing")
    report.print()


def _search(report: _Report, recipe: Recipe, path: Path, output: Path, *, remeasure: bool) -> None:
    from ..search.forecast import forecast_search, stand_in_table, without_budget_in_ms
    from ..search.make_strategy import load_strategy
    from ..search.prepared import Prepared, check_batches
    from ..search.recipe import STRATEGIES
    from ..search.table_plan import plan_table

    if recipe.strategy not in STRATEGIES:
        load_strategy(recipe.strategy)
    report.say("search", f"{path}, strategy {recipe.strategy}")
    target = recipe.chosen_target()
    loaded = _data(recipe, report)
    if loaded is None:
        return
    spec, splits = loaded
    check_batches(recipe, splits)
    report.say(
        "data",
        f"{recipe.data}: {len(splits.weights)} images train the weights, {len(splits.architecture)} the architecture, "
        f"{len(splits.held_out)} are held out; {splits.num_classes} classes",
    )
    choices = len(spec.layers)
    report.say("space", f"{spec.name}, images of {' x '.join(map(str, spec.input_shape))}, {choices} searched layers")
    table = plan_table(target, spec, remeasure=remeasure, accept=recipe.accept_tables)
    report.say("target", f"{target.name}: {table.text}")
    if table.measurement:
        report.say("", f"time of the measurement: {table.measurement}")
    if table.table is not None:
        from ..nni_bridge.preflight import check_budget

        costs = table.table.costs(spec)
        latencies = {target.name: costs}
        for name in recipe.other_targets:
            other = recipe.parse_targets()[name]
            planned = plan_table(other, spec, remeasure=remeasure, accept=recipe.accept_tables)
            report.say("target", f"{name}: {planned.text}")
            if planned.table is not None:
                latencies[name] = planned.table.costs(spec)
        known = {target.name, *recipe.other_targets} == set(latencies)
        check_budget(recipe, costs, spec if known else None, latencies)
        report.say("", f"networks of this space take {costs.smallest:.4g} to {costs.largest:.4g} ms")
    report.say("budget", _budget(recipe))
    done = _writes(recipe, report, output, _FILES, (results_folder.CHECKPOINT, results_folder.LATENCY_TABLE))
    real = table.table is not None
    prepared = Prepared(
        recipe if real else without_budget_in_ms(recipe), target, spec, table.table or stand_in_table(spec), splits
    )
    if recipe.share_search:
        _shared(report, prepared)
    watch = report.time()
    found = forecast_search(prepared, done)
    if found is None:
        several = recipe.ranks > 1
        report.say("time", f"not known: {'it trains on several devices' if several else 'an epoch has too few steps'}")
        return
    done = found.done
    report.say("epochs", f"{recipe.epochs} of {found.steps} steps{f', of which {done} are done' if done else ''}")
    report.takes(time_lines(found.total, watch.read(), found.total.count))
    kinds = [("a step of the weights", found.warmup_step), ("a step of the search", found.search_step)]
    kinds += [("an evaluation", found.evaluation)]
    report.say("", ", ".join(f"{name} {one.mean:.3g} s" for name, one in kinds if one is not None))
    if found.comparison.mean:
        report.say("", f"the comparison of finalists takes {duration(found.comparison.mean)} of that")
    if recipe.share_search:
        report.say(
            "", "each further target or budget of this recipe only adds the comparison of its finalists, except those"
        )
        report.say("", "that have been compared already")
    report.say("", _NOT_INCLUDED)
    _memory(report)


def _shared(report: _Report, prepared: Prepared) -> None:
    from ..search.shared_search import epochs_done, shared_folder

    done = epochs_done(prepared)
    state = "to be trained" if done == 0 else f"continues after epoch {done}"
    if done == prepared.recipe.epochs:
        state = "trained before"
    report.say("shared", f"one search for all targets and budgets, {state}: {shared_folder(prepared)}")


def _retraining(report: _Report, recipe: RetrainRecipe, output: Path) -> None:
    from ..deploy.forecast import forecast_retraining
    from ..deploy.retrain import prepare_retraining

    prepared = prepare_retraining(_at_hand(recipe))
    architecture, splits = prepared.architecture, prepared.splits
    report.say("network", f"{recipe.architecture}: {architecture.parameters:,} parameters")
    held = f"{len(splits.held_out)} are held out"
    test = "no test images" if splits.test is None else f"{len(splits.test)} test images"  # type: ignore[arg-type]
    report.say(
        "data", f"{recipe.data}: {len(splits.training)} images train, {held}, {test}; {splits.num_classes} classes"
    )
    files = (results_folder.MODEL_CARD, results_folder.ARCHITECTURE, results_folder.WEIGHTS, results_folder.HISTORY)
    done = _writes(recipe, report, output, files, (results_folder.CHECKPOINT, results_folder.WEIGHTS))
    watch = report.time()
    found = forecast_retraining(prepared)
    if found is None:
        several = recipe.ranks > 1
        report.say("time", f"not known: {'it trains on several devices' if several else 'an epoch has too few steps'}")
        return
    report.say("epochs", f"{recipe.epochs} of {found.steps} steps{f', of which {done} are done' if done else ''}")
    left = found.total.times((recipe.epochs - done) / recipe.epochs)
    report.takes(time_lines(left, watch.read(), found.total.count))
    report.say(
        "", f"a step {found.step.mean:.3g} s, a validation {found.evaluation.mean:.3g} s; not included: the start"
    )
    _memory(report)


def _experiment(report: _Report, plan: Plan, results: Path, port: int | None) -> None:
    from ..files.reading import read_mapping
    from ..nni_bridge.forecast import forecast_experiment
    from ..nni_bridge.preflight import check_recipes
    from ..search.table_plan import plan_table

    report.say("experiment", f"{plan.config}, web UI on {f'port {port}' if port else 'the first free port from 8080'}")
    more = "" if plan.ends else "; it ends only when it is interrupted"
    varied = ", ".join(sorted(plan.varied)) if plan.trials > 1 else ""
    report.say("trials", f"{plan.trials}{f', which differ in {varied}' if varied else ''}{more}")
    targets = set()
    budgets: dict[str, list[str]] = {}  # different ones, by target
    try:
        for recipe, spec in check_recipes([_at_hand(recipe) for recipe in plan.recipes]):
            of_target = budgets.setdefault(recipe.target, [])
            if (budget := _budget(recipe)) not in of_target:
                of_target.append(budget)
            if (recipe.target, spec.content_hash) not in targets:
                targets.add((recipe.target, spec.content_hash))
                table = plan_table(recipe.chosen_target(), spec, remeasure=True, accept=recipe.accept_tables)
                report.say("target", f"{recipe.target}: {table.text}")
                if table.measurement:
                    report.say("", f"time of the measurement: {table.measurement}")
    except DataError:
        if not any(recipe.download for recipe in plan.recipes):
            raise
        report.say("data", _DOWNLOAD)
        return
    for name, of_target in budgets.items():
        report.say("budget", f"{name}: {'; '.join(of_target)}")
    existing = "whose earlier results it replaces" if any(results.glob("**/recipe.yml")) else "a new folder"
    report.say("writes", f"{results.resolve()}, {existing}: a folder for each trial, and summary.csv")
    watch = report.time()
    found = forecast_experiment([_at_hand(recipe) for recipe in plan.recipes], plan.trials)
    if found is None:
        report.say("time", "not known: a trial trains on several devices, or its epochs have too few steps")
        return
    report.takes(time_lines(found.total, watch.read(), found.steps, " for all trials, one after the other"))
    config = read_mapping(plan.config, "config", DataError)
    if config.get("trialConcurrency", 1) != 1:
        more = "they take less time if the machine has enough cores"
        report.say("", f"{config['trialConcurrency']} trials run at a time (trialConcurrency); {more}")
    if found.shared:
        plural = "search is" if found.shared == 1 else "searches are"
        report.say("", f"{found.shared} {plural} shared; each trial adds at most the comparison of its finalists")
    if found.timed < found.kinds:
        report.say("", f"{found.timed} of {found.kinds} kinds of trials were timed; their mean is used for the others")
    report.say("", _NOT_INCLUDED.replace("the start", "the start of NNI and of each trial"))
    _memory(report)


def _data(recipe: Recipe, report: _Report) -> Any:
    """Load the data of a search without downloading them; `None` if they would have to be downloaded."""
    from ..search.prepared import load_recipe_data

    try:
        return load_recipe_data(_at_hand(recipe))
    except DataError:
        if not recipe.download:
            raise
    report.say("data", _DOWNLOAD)
    return None


def _at_hand(recipe: _R) -> _R:
    """Return a recipe that downloads nothing."""
    return recipe.model_copy(update={"download": False})


def _budget(recipe: Recipe) -> str:
    if recipe.budgets:
        return ", ".join(map(str, recipe.limits()))
    if recipe.budget_ms is not None:
        return f"{recipe.budget_ms:g} ms"
    if recipe.budget_fraction is not None:
        return f"{recipe.budget_fraction:g} of the largest network's latency"
    return "none"


def _writes(recipe: Settings, report: _Report, output: Path, files: Sequence[str], needed: Sequence[str]) -> int:
    """Say where the results go, and return how many epochs of an interrupted run are done."""
    from ..files.reading import read_rows
    from ..training.resume import is_interrupted

    done, state = 0, "new folder"
    if is_interrupted(recipe, output, needed):
        history = output / results_folder.HISTORY
        done = len(read_rows(history, "history", DataError)) if history.is_file() else 0
        state = f"continues after epoch {done}"
    elif (output / results_folder.RECIPE).is_file():
        state = "replaces the results there"
    elif output.is_dir():
        state = "there is such a folder"
    report.say("writes", f"{output.resolve()} ({state}): {', '.join(files)} and others")
    return done


def _memory(report: _Report) -> None:
    """Say how much memory the steps have taken. A training takes as much, apart from larger networks that it draws."""
    from ..training.step_probe import memory_so_far

    found = memory_so_far()
    gpu = "" if found.gpu_mib is None else f", and {found.gpu_mib:.0f} MiB of the GPU"
    if found.process_mib:
        report.say("memory", f"about {found.process_mib:.0f} MiB{gpu}, from the same steps")


class _Report:
    """The lines of a dry run. They are printed at the end, so that nothing is printed if the input is refused."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, str]] = []

    def say(self, word: str, text: str) -> None:
        """Add a line that begins with a word, or goes on with the line before."""
        self._rows.append((word, text))

    def time(self) -> LoadWatch:
        """Say on a terminal that steps are being timed, since that takes some seconds, and watch the load meanwhile."""
        if shows_bars():
            write_above_bars("running some steps to time them")
        return LoadWatch()

    def takes(self, lines: Sequence[str]) -> None:
        """Add the lines that say how long something takes."""
        for number, line in enumerate(lines):
            self.say("" if number else "time", line)

    def print(self) -> None:
        """Write all lines to the standard output."""
        first = painted("dry run: nothing is started, and nothing is written", "bold", sys.stdout)
        rows = [f"{painted(word.ljust(10), 'cyan', sys.stdout)}  {cleaned(text)}" for word, text in self._rows]
        write_styled("".join(f"{line}\n" for line in (first, *rows)))
        sys.stdout.flush()
