"""`nni-proxyless run | trial | search`: parses arguments, calls other modules, prints; holds no logic."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
from pathlib import Path

from ..errors import InputError, RunError
from ..files import results_folder
from ..files.claims import claimed
from .outputs import check_folder
from .settings import parse_settings


def run_experiment(options: argparse.Namespace) -> int:
    """Start an experiment through NNI's manager, follow it, and collect and print its results."""
    from ..files.resources import experiment_file
    from ..nni_bridge import collect, manager, run, shield
    from ..nni_bridge import plan as plans
    from ..progress import progress_bar
    from ..signals import stopped_by_signals

    plan = plans.check_config(experiment_file(options.config, "config.yml"))
    manager.check_port(options.port)
    host = shield.check_host(options.host)
    results = options.results or plan.results
    check_folder(results, "choose another folder with --results")
    if not options.overwrite:
        plans.check_results(plan, results)
    plans.check_files(plan)
    with stopped_by_signals():
        plans.check_tuner(plan)
        run.load_config(plan)
        run.measure_targets(plan, progress_bar)
        outcomes = run.run_experiment(plan, options.port, keep=options.keep, results=results, host=host)
    rows = collect.summary_rows(outcomes)
    if rows:
        collect.write_summary(rows, results / "summary.csv")
        sys.stdout.write(f"\n{collect.format_table(rows)}\n")
        compared = collect.summary_rows(collect.at_equal_latency(outcomes))
        if len(compared) < len(rows):
            collect.write_summary(compared, results / "comparison.csv")
            sys.stdout.write(f"\nat equal latency\n{collect.format_table(compared)}\n")
        for text in collect.warnings_of(outcomes):
            sys.stdout.write(f"\nwarning: {text}\n")
        sys.stdout.write(f"\nresults: {results.resolve()}\n")
        sys.stdout.flush()
    failed, others = collect.failures(outcomes)
    for text in others:
        sys.stdout.write(f"\nwarning: {text}\n")
    sys.stdout.flush()
    if failed or not outcomes:
        raise RunError("; ".join(failed) or "no trial was run")
    return 0


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
    from ..search.recipe import Recipe
    from ..training.ranks import is_main_process, own_processes

    settings = parse_settings(options.settings)
    path = experiment_file(options.recipe, "recipe.yml")
    recipe = Recipe.load(path, settings)
    output = options.output or Path("results") / path.resolve().parent.name / recipe.target
    check_earlier(output, recipe, results_folder.NEEDED_BY_SEARCH, overwrite=options.overwrite)

    with contextlib.ExitStack() as stack:
        stack.enter_context(own_processes(recipe.devices, recipe.num_nodes))
        if is_main_process():
            stack.enter_context(claimed(output))

        from ..search.prepared import prepare

        prepared = prepare(recipe, remeasure=options.remeasure)

        from ..search.run import run_search

        architecture = run_search(prepared, output)
        if not is_main_process():
            return 0
    measured = architecture.measured_latency_ms
    for text in architecture.warnings:
        sys.stdout.write(f"warning: {text}\n")
    sys.stdout.write(
        f"accuracy {architecture.metrics['default']:.4f}, "
        f"predicted {architecture.predicted_latency_ms:.4g} ms, "
        f"{'not measured' if measured is None else f'measured {measured:.4g} ms'}\n"
        f"results: {output.resolve()}\n"
    )
    return 0
