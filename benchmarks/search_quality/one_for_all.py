"""Whether one search serves two devices with three budgets each as well as a search for each of the six.

    python -m benchmarks.search_quality.one_for_all --data ../shared/data/cifar10 [--seeds 10]

For each seed, the six recipes have `share_search: true`: the first one trains the search, without a device in its loss,
and all six decode it and compare their own finalists. The exported networks are looked up in the ground truth. The
searches for each device and budget, with the same settings, are those of `search_quality.py`, strategy `proxyless`. The
script continues where it stopped: each seed is six rows of `results/one_for_all.csv`, with the machine and the
versions. `--summary` runs nothing, and prints the table. `--quick FOLDER` tries the script in a minute: it searches for
two epochs, and writes the CSV file into the folder.
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
from nni_proxyless.latency import this_device

MODULE = "benchmarks.search_quality.one_for_all"
ONE_FOR_ALL_CSV = SEARCH_QUALITY_RESULTS / "one_for_all.csv"
SETTINGS = {**COMMON, **DEFAULTS}
COLUMNS = (
    "target", "budget", "seed", "settings", "budget_ms", "architecture", "accuracy", "best_accuracy", "regret",
    "percentile", "within_budget", "training_seconds", "comparison_seconds", "peak_memory_mib", "processor", "cores",
    "nni-proxyless", "torch",
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
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NNI_PROXYLESS_CACHE"] = folder  # so that the search of this seed is trained here, and timed
        for number, (target, part) in enumerate(itertools.product(TARGETS, GROUND_TRUTH_BUDGETS)):
            settings = {
                **own,
                "share_search": True,
                "space": str(SPACE),
                "data_dir": job["data"],
                "seed": job["seed"],
                "budget_ms": truth.budget(target, part),
                "target": target,
                "targets": {target: {"table": str(TABLES[target])}},
            }
            output = Path(folder) / "results" / str(number)
            start = time.perf_counter()
            found = run_search(prepare(Recipe.from_dict(settings)), output)
            took = time.perf_counter() - start
            cost = json.loads((output / "cost.json").read_text(encoding="utf-8"))
            trained = cost["seconds"]
            rows.append(
                {
                    **scored(truth, found.candidate_names, target, part),
                    "seed": job["seed"],
                    "settings": json.dumps(own, sort_keys=True),
                    "training_seconds": trained,
                    "comparison_seconds": round(took if number else took - trained, 1),
                    "peak_memory_mib": cost["peak_memory_mib"],
                    **where,
                }
            )
    return rows


def search(options: argparse.Namespace, path: Path = ONE_FOR_ALL_CSV) -> None:
    """Run the seeds that are missing in a CSV file."""
    from benchmarks.search_quality.ground_truth.train import Training, data_file, make_data

    data = make_data(options.data, Training(), data_file())
    changes = QUICK if options.quick else {}
    known = {int(row["seed"]) for row in shared_rows(path, changes)}
    jobs = [{"seed": seed, "data": str(data), "changes": changes} for seed in range(options.seeds) if seed not in known]
    for rows in run_jobs(MODULE, jobs, options.processes, options.minutes):
        append_rows(rows, path, COLUMNS)
        regret = np.mean([row["regret"] for row in rows])
        seconds = rows[0]["training_seconds"] + sum(row["comparison_seconds"] for row in rows)
        sys.stdout.write(f"seed {rows[0]['seed']}: mean regret {100 * regret:.2f}, {seconds:.0f} s\n")


def shared_rows(path: Path = ONE_FOR_ALL_CSV, changes: Mapping[str, Any] | None = None) -> list[Row]:
    """Results of the shared searches with today's settings."""
    settings = json.dumps({**SETTINGS, **(changes or {})}, sort_keys=True)
    return [row for row in read_rows(path) if row["settings"] == settings]


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
    training, comparisons = _seconds(shared)
    each = sum(training + one for one in comparisons)
    together = training + sum(comparisons)
    count = len(comparisons)
    rows = [
        (f"{count} searches", *_regrets(separate), count, f"{each:.0f}"),
        (f"one search, {count} comparisons", *_regrets(shared), 1, f"{together:.0f} ({together / each:.2f} of it)"),
    ]
    difference = _by_seed(shared) - _by_seed(separate)
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    rows.append(("difference", f"{difference.mean():+.2f} ± {error:.2f}", "", "", "", ""))
    columns = (
        f"for {count} pairs of target and budget, {len(seeds)} seeds", "mean regret, points", "worst", "within budget",
        "trainings for each seed", "seconds for each seed",
    )  # fmt: skip
    return markdown_table(columns, rows)


def _regrets(rows: Sequence[Row]) -> tuple[str, str, str]:
    regrets = [100 * float(row["regret"]) for row in rows]
    within = np.mean([row["within_budget"] == "True" for row in rows])
    return f"{np.mean(regrets):.2f}", f"{max(regrets):.2f}", f"{100 * within:.0f} %"


def _by_seed(rows: Sequence[Row]) -> Any:
    seeds = sorted({row["seed"] for row in rows}, key=int)
    return np.array([np.mean([100 * float(row["regret"]) for row in rows if row["seed"] == seed]) for seed in seeds])


def _seconds(rows: Sequence[Row]) -> tuple[float, list[float]]:
    """Median seconds of a training, and of the comparison for each target and budget."""
    pairs = list(itertools.product(TARGETS, map(str, GROUND_TRUTH_BUDGETS)))
    comparisons = [
        float(np.median([float(r["comparison_seconds"]) for r in rows if (r["target"], r["budget"]) == pair]))
        for pair in pairs
    ]
    return float(np.median([float(row["training_seconds"]) for row in rows])), comparisons


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
