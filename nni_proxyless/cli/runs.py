"""`nni-proxyless run | trial | search`: parses arguments, calls other modules, prints; holds no logic."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError, RunError
from ..files import results_folder
from .outputs import check_folder
from .settings import parse_settings, with_paths_from_here
from .terminal import write_lines, write_table


def run_experiment(options: argparse.Namespace) -> int:
    """Start an experiment through NNI's manager, follow it, and collect and print its results."""
    from ..files.resources import experiment_file
    from ..nni_bridge import plan as plans
    from ..training.ranks import own_processes

    plan = plans.check_config(experiment_file(options.config, "config.yml"))
    results = options.results or plan.results
    if options.show_recipe:
        from .show_recipe import show_experiment

        show_experiment(plan, results)
        if not options.dry_run:
            return 0
    plans.check_files(plan)  # before torch is imported

    from ..nni_bridge import collect, manager, run, shield
    from ..progress import progress_bar
    from ..signals import stopped_by_signals

    manager.check_port(options.port)
    host = shield.check_host(options.host)
    check_folder(results, "choose another folder with --results")
    if not options.overwrite:
        plans.check_results(plan, results)
    if options.dry_run:
        from . import dry_run

        plans.check_tuner(plan)
        run.load_config(plan)
        with own_processes():
            dry_run.dry_run_experiment(plan, results, options.port)
        return 0
    with stopped_by_signals():
        plans.check_tuner(plan)
        run.load_config(plan)
        run.measure_targets(plan, progress_bar)
        outcomes = run.run_experiment(plan, options.port, keep=options.keep, results=results, host=host)
    rows = collect.summary_rows(outcomes)
    if rows:
        collect.write_summary(rows, results / "summary.csv")
        _table(collect.table_rows(rows))
        compared = collect.summary_rows(collect.at_equal_latency(outcomes))
        if len(compared) < len(rows):
            collect.write_summary(compared, results / "comparison.csv")
            sys.stdout.write("\nat equal latency")
            _table(collect.table_rows(compared))
        for text in collect.warnings_of(outcomes):
            write_lines("", f"warning: {text}")
        lines = [f"results: {results.resolve()}"]
        if command := collect.next_command(outcomes):
            lines.append(f"next: {command}")
        write_lines("", *lines)
    failed, others = collect.failures(outcomes)
    for text in others:
        write_lines("", f"warning: {text}")
    if failed or not outcomes:
        raise RunError("; ".join(failed) or "no trial was run")
    return 0


def _table(rows: Sequence[Sequence[str]]) -> None:
    sys.stdout.write("\n")
    write_table(rows)


def nnictl(options: argparse.Namespace) -> int:
    """Replace this process by NNI's nnictl, with an environment in which its manager listens on this machine only."""
    from ..nni_bridge import shield

    host = shield.check_host(options.host)
    path = Path(sys.executable).with_name("nnictl")
    if not path.is_file():  # such as with `pip install --user`
        found = shutil.which("nnictl")
        if found is None:
            raise InputError(f"there is no {path} and none on PATH; install NNI: pip install 'nni>=3.0,<3.1'")
        path = Path(found).absolute()
    environment = shield.shielded(os.environ, host)
    # Trials start `nni-proxyless` from PATH.
    environment["PATH"] = os.pathsep.join([str(path.parent), environment.get("PATH", "")])
    sys.stdout.flush()
    os.execve(path, [str(path), *options.words], environment)


def trial(options: argparse.Namespace) -> int:
    """Run what NNI's manager asks for."""
    from ..nni_bridge.trial import run_trial

    run_trial(options.recipe, options.task)
    return 0


def search(options: argparse.Namespace) -> int:
    """Run one search, and print its result."""
    from ..files.resources import experiment_file
    from ..search.earlier import check_earlier
    from ..search.early_checks import check_inputs
    from ..search.recipe import Recipe
    from ..training.ranks import is_main_process, own_processes

    settings = parse_settings(options.settings)
    path = experiment_file(options.recipe, "recipe.yml")
    settings = with_paths_from_here(settings, path.resolve().parent)
    recipe = Recipe.load(path, settings, "command line")
    output = options.output or Path("results") / path.resolve().parent.name / recipe.target
    if options.show_recipe:
        from .show_recipe import show_search

        show_search(recipe, path, settings, output)
        if not options.dry_run:
            return 0
    check_inputs(recipe)  # before torch is imported
    check_earlier(output, recipe, results_folder.NEEDED_BY_SEARCH, overwrite=options.overwrite)

    if options.dry_run:
        from . import dry_run

        with own_processes():
            dry_run.dry_run_search(recipe, path, output, remeasure=options.remeasure)
        return 0

    from ..files.claims import claimed

    with contextlib.ExitStack() as stack:
        stack.enter_context(own_processes(recipe.devices, recipe.num_nodes))
        if is_main_process():
            stack.enter_context(claimed(output))

        from ..progress import progress_bar
        from ..search.prepared import prepare

        with progress_bar(f"measuring target {recipe.target}") as step:
            prepared = prepare(recipe, remeasure=options.remeasure, progress=step)

        from ..search.run import run_search

        architecture = run_search(prepared, output)
        if not is_main_process():
            return 0
    from ..report.found import found_lines

    write_lines(
        *(f"warning: {text}" for text in architecture.warnings),
        *found_lines(architecture, recipe),
        f"results: {output.resolve()}",
    )
    return 0
