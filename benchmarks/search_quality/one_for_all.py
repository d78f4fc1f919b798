"""Whether one search serves two devices with three budgets each as well as a search for each of the six.

    python -m benchmarks.search_quality.one_for_all --data ../shared/data/cifar10 [--seeds 10]

For each seed, the six recipes have `share_search: true`. The search is trained once, without a device in its loss, and
all six decode it and compare their own finalists. A comparison evaluates only networks that no earlier one has
evaluated. The exported networks are looked up in the ground truth. The searches for each device and budget, with the
same settings, are those of `search_quality.py`, strategy `proxyless`. The script continues where it stopped: each seed
is six rows of `results/one_for_all.csv`, with the machine and the versions. CPU seconds are those of the process and
the processes that it starts, so they hardly depend on what else the machine does. `--summary` runs nothing, and prints
the table. `--quick FOLDER` tries the script in a minute: it searches for two epochs, and writes the CSV file into the
folder.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.constants import GROUND_TRUTH_BUDGETS, SEARCH_QUALITY_RESULTS, TARGETS
from benchmarks.jobs import add_job_arguments, print_result, run_jobs
from benchmarks.markdown import markdown_table
from benchmarks.results_csv import append_rows, processor, read_rows
from benchmarks.search_quality.ground_truth.load import SPACE, TABLES, GroundTruth
from benchmarks.search_quality.outcomes import scored
from benchmarks.search_quality.settings import COMMON, DEFAULTS, SEARCHES_CSV
from nni_proxyless.files import results_folder
from nni_proxyless.latency import this_device

MODULE = "benchmarks.search_quality.one_for_all"
ONE_FOR_ALL_CSV = SEARCH_QUALITY_RESULTS / "one_for_all.csv"
SETTINGS = {**COMMON, **DEFAULTS}
COLUMNS = (
    "target", "budget", "seed", "settings", "budget_ms", "architecture", "accuracy", "best_accuracy", "regret",
    "percentile", "within_budget", "evaluated", "training_cpu_seconds", "comparison_cpu_seconds", "training_seconds",
    "comparison_seconds", "peak_memory_mib", "processor", "cores", "nni-proxyless", "torch",
)  # fmt: skip
SEEDS = 10
QUICK: dict[str, Any] = {"epochs": 2, "finalists": 4}
Row = dict[str, str]


def run_one(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Run the shared search of one seed in this process, and return a row for each target and budget."""
    from nni_proxyless.search.prepared import prepare
    from nni_proxyless.search.recipe import Recipe
    from nni_proxyless.search.run import run_search

    truth = GroundTruth()
    rows: list[dict[str, Any]] = []
    own = {**SETTINGS, **job["changes"]}
    where = {"processor": processor(), "cores": this_device().cores}
    where |= {name: version(name) for name in ("nni-proxyless", "torch")}
    pairs = list(itertools.product(TARGETS, GROUND_TRUTH_BUDGETS))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NNI_PROXYLESS_CACHE"] = folder  # so that the search of this seed is trained here, and timed

        def run(target: str, part: float, finalists: int) -> tuple[Any, Path, float, float]:
            """Return what a target and budget get, its folder, and CPU seconds and seconds."""
            settings = {
                **own,
                "finalists": finalists,
                "share_search": True,
                "space": str(SPACE),
                "data_dir": job["data"],
                "seed": job["seed"],
                "budget_ms": truth.budget(target, part),
                "target": target,
                "targets": {target: {"table": str(TABLES[target])}},
            }
            output = Path(folder) / "results" / f"{target}-{part}-{finalists}"
            cpu, start = cpu_seconds(), time.perf_counter()
            found = run_search(prepare(Recipe.from_dict(settings)), output)
            return found, output, cpu_seconds() - cpu, time.perf_counter() - start

        _, output, training_cpu, training = run(*pairs[0], finalists=1)  # trains the search, and compares nothing
        peak = json.loads((output / "cost.json").read_text(encoding="utf-8"))["peak_memory_mib"]
        before = 0
        for target, part in pairs:
            found, _, cpu, took = run(target, part, own["finalists"])
            evaluated = len(_evaluated(Path(folder)))
            rows.append(
                {
                    **scored(truth, found.candidate_names, target, part),
                    "seed": job["seed"],
                    "settings": json.dumps(own, sort_keys=True),
                    "evaluated": evaluated - before,
                    "training_cpu_seconds": round(training_cpu, 1),
                    "comparison_cpu_seconds": round(cpu, 2),
                    "training_seconds": round(training, 1),
                    "comparison_seconds": round(took, 1),
                    "peak_memory_mib": peak,
                    **where,
                }
            )
            before = evaluated
    return rows


def cpu_seconds() -> float:
    """CPU seconds of this process and of the processes that it has started and that have ended."""
    of = os.times()
    return of.user + of.system + of.children_user + of.children_system


def _evaluated(cache: Path) -> set[str]:
    """Networks that were evaluated for the shared search in a cache."""
    (path,) = (cache / "searches").glob(f"*/{results_folder.ACCURACIES}")
    kept = json.loads(path.read_text(encoding="utf-8"))["accuracies"]
    return {name for networks in kept.values() for name in networks}


def search(options: argparse.Namespace, path: Path = ONE_FOR_ALL_CSV) -> None:
    """Run the seeds that are missing in a CSV file."""
    from benchmarks.search_quality.ground_truth.train import Training, data_file, make_data

    data = make_data(options.data, Training(), data_file())
    changes = QUICK if options.quick else {}
    known = {int(row["seed"]) for row in shared_rows(path, changes) if row["training_cpu_seconds"]}
    jobs = [{"seed": seed, "data": str(data), "changes": changes} for seed in range(options.seeds) if seed not in known]
    for rows in run_jobs(MODULE, jobs, options.processes, options.minutes):
        append_rows(rows, path, COLUMNS)
        regret = np.mean([row["regret"] for row in rows])
        seconds = rows[0]["training_cpu_seconds"] + sum(row["comparison_cpu_seconds"] for row in rows)
        sys.stdout.write(f"seed {rows[0]['seed']}: mean regret {100 * regret:.2f}, {seconds:.0f} CPU seconds\n")


def shared_rows(path: Path = ONE_FOR_ALL_CSV, changes: Mapping[str, Any] | None = None) -> list[Row]:
    """Results of the shared searches with today's settings.

    Rows of 2026-11-29 have no CPU seconds. They count until their seed has been run again.
    """
    settings = json.dumps({**SETTINGS, **(changes or {})}, sort_keys=True)
    rows = [row for row in read_rows(path) if row["settings"] == settings]
    timed = {row["seed"] for row in rows if row["training_cpu_seconds"]}
    return [row for row in rows if row["training_cpu_seconds"] or row["seed"] not in timed]


def separate_rows(seeds: set[str]) -> list[Row]:
    """Results of searches for each target and budget, with the same settings and seeds."""
    settings = json.dumps(SETTINGS, sort_keys=True)
    return [
        row
        for row in read_rows(SEARCHES_CSV)
        if row["strategy"] == "proxyless" and row["settings"] == settings and row["seed"] in seeds
    ]


def table() -> str:
    """Regret and cost of both ways, and the difference of the regrets with its standard error over the seeds."""
    return compared(shared_rows())


def compared(shared: Sequence[Row]) -> str:
    """The table for some results of shared searches.

    Raises:
        ValueError: There are fewer than two seeds, so the difference has no standard error.
    """
    seeds = {row["seed"] for row in shared}
    if len(seeds) < 2:
        raise ValueError(f"the table needs two seeds, and there are {len(seeds)}; run {MODULE}")
    separate = separate_rows(seeds)
    together, each = _cpu_seconds(shared)
    count = len(TARGETS) * len(GROUND_TRUTH_BUDGETS)
    rows = [
        (f"{count} searches", *_regrets(separate), count, f"{each:.0f}"),
        (f"one search, {count} comparisons", *_regrets(shared), 1, f"{together:.0f} ({together / each:.3f} of it)"),
    ]
    difference = _by_seed(shared) - _by_seed(separate)
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    rows.append(("difference", f"{difference.mean():+.2f} ± {error:.2f}", "", "", "", ""))
    columns = (
        f"for {count} pairs of target and budget, {len(seeds)} seeds", "mean regret, points", "worst", "within budget",
        "trainings for each seed", "CPU seconds for each seed",
    )  # fmt: skip
    return markdown_table(columns, rows)


def _regrets(rows: Sequence[Row]) -> tuple[str, str, str]:
    regrets = [100 * float(row["regret"]) for row in rows]
    within = np.mean([row["within_budget"] == "True" for row in rows])
    return f"{np.mean(regrets):.2f}", f"{max(regrets):.2f}", f"{100 * within:.0f} %"


def _by_seed(rows: Sequence[Row]) -> Any:
    seeds = sorted({row["seed"] for row in rows}, key=int)
    return np.array([np.mean([100 * float(row["regret"]) for row in rows if row["seed"] == seed]) for seed in seeds])


def _cpu_seconds(rows: Sequence[Row]) -> tuple[float, float]:
    """Median over the seeds with CPU seconds: of a shared search with its comparisons, and of a search for each pair.

    Each of the latter is as expensive as the shared training with the first comparison, the only one that evaluates all
    of its finalists. Its budget is the tightest of its device, so its networks are the cheapest ones to evaluate.
    """
    together, each = [], []
    for seed in {row["seed"] for row in rows if row["training_cpu_seconds"]}:
        of = [row for row in rows if row["seed"] == seed]
        training = float(of[0]["training_cpu_seconds"])
        comparisons = [float(row["comparison_cpu_seconds"]) for row in of]
        (first,) = (
            float(row["comparison_cpu_seconds"])
            for row in of
            if (row["target"], row["budget"]) == (TARGETS[0], str(GROUND_TRUTH_BUDGETS[0]))
        )
        together.append(training + sum(comparisons))
        each.append(len(of) * (training + first))
    return float(np.median(together)), float(np.median(each))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_job_arguments(parser, "search")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--summary", action="store_true", help="only print the table of the results so far")
    parser.add_argument("--quick", type=Path, metavar="FOLDER", help="try two short searches, and write to a folder")
    options = parser.parse_args()
    if options.job:
        print_result(options.job, run_one)
        return
    if options.quick:
        path = options.quick / ONE_FOR_ALL_CSV.name
        options.seeds = min(options.seeds, 2)
        search(options, path)
        sys.stdout.write(f"\n{compared(shared_rows(path, QUICK))}")
        return
    if not options.summary:
        search(options)
    sys.stdout.write(f"\n{table()}")


if __name__ == "__main__":
    main()
