"""Searches on CIFAR-10 for two devices and three budgets; their results are trained from scratch and measured.

    python -m benchmarks.cifar10.cifar10 --data ../shared/data/cifar10 [--minutes 60] [--parts search retrain …]

The space is `mobilenetv2_cifar` at 0.35 of its width with images of 24 x 24, which two cores can search in hours. The
baseline is MobileNetV2. The script continues where it stopped: `results/` has a row for each finished search, training
and measurement.

`tables`   measures the latency tables of the two targets. Nothing else may run on the machine.
`search`   searches with ProxylessNAS, random best-of-8 and DARTS, for each target, budget and seed.
`retrain`  trains each found network, and MobileNetV2 at several widths, from scratch with the same settings. The test
           images are CIFAR-10 images that neither searches nor trainings see.
`latency`  measures every network that has no latency on this processor yet, in turns with MobileNetV2 and in fresh
           processes. Nothing else may run on the machine.
`summary`  prints the tables and draws accuracy against measured latency.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from benchmarks.cifar10.latencies import make_tables, measure
from benchmarks.cifar10.searches import search, search_jobs
from benchmarks.cifar10.settings import (
    MODULE,
    NNI,
    PROXYLESS,
    RANDOM,
    RETRAIN_COLUMNS,
    SEARCH_COLUMNS,
    TARGETS,
    csv_path,
)
from benchmarks.cifar10.summary import draw, gain_table, lines, load_results, main_table
from benchmarks.cifar10.trainings import retrain, retrain_jobs
from benchmarks.constants import CACHE, CIFAR10_IMAGES, CIFAR10_SEEDS, CIFAR10_SIZE
from benchmarks.jobs import add_job_arguments, print_result, run_jobs
from benchmarks.results_csv import append_rows

PARTS = ("tables", "search", "retrain", "latency", "summary")


def run_and_append(
    jobs: list[dict[str, Any]], file: str, columns: tuple[str, ...], options: argparse.Namespace, end: float
) -> None:
    """Run jobs, and append their rows to a CSV file as they end."""
    for rows in run_jobs(MODULE, jobs, options.processes, (end - time.monotonic()) / 60):
        append_rows(rows, csv_path(file), columns)
        sys.stdout.write(f"{rows[0]}\n")


def summary() -> None:
    """Print the tables, and draw the picture."""
    results = load_results()
    made, points = lines(results)
    sys.stdout.write(f"Latencies and the comparisons with MobileNetV2: {'; '.join(results.latency)}.\n\n")
    sys.stdout.write(f"{main_table(made)}\n{gain_table(results)}")
    if points:
        draw(points)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_job_arguments(parser, "job")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument(
        "--strategies",
        nargs="+",
        choices=[*PROXYLESS, *RANDOM, *NNI],
        default=["random_best_of_8", "proxyless", "darts"],
    )
    parser.add_argument("--seeds", type=int, default=CIFAR10_SEEDS)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS), help="targets of searches")
    parser.add_argument("--trainings", type=int, default=1, help="trainings of each network, with different seeds")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each network's latency")
    options = parser.parse_args()
    if options.job:
        print_result(options.job, lambda job: {"search": search, "retrain": retrain}[job["part"]](job))
        return
    end = time.monotonic() + 60 * options.minutes
    data = ""
    if {"search", "retrain"} & set(options.parts):
        from benchmarks.search_quality.ground_truth.train import Training, make_data

        training = Training(images=CIFAR10_IMAGES, size=CIFAR10_SIZE)
        data = str(make_data(options.data, training, CACHE / f"cifar10-{CIFAR10_IMAGES}-{CIFAR10_SIZE}.npz"))
    if "tables" in options.parts:
        make_tables()
    if "search" in options.parts:
        jobs = search_jobs(options.strategies, options.seeds, data)
        jobs = [job for job in jobs if job.get("target", options.targets[0]) in options.targets]
        run_and_append(jobs, "searches", SEARCH_COLUMNS, options, end)
    if "retrain" in options.parts:
        jobs = retrain_jobs(options.strategies, options.seeds, options.trainings, data)
        run_and_append(jobs, "retrained", RETRAIN_COLUMNS, options, end)
    if "latency" in options.parts:
        measure(options.strategies, options.rounds)
    if "summary" in options.parts:
        summary()


if __name__ == "__main__":
    main()
