"""How good the networks are that searches find, in a space whose networks have all been trained.

    python -m benchmarks.search_quality.search_quality --data ../shared/data/cifar10 [--strategies …] [--seeds 5]

Every strategy searches with the same data, the same steps and the same decoding within three budgets on two targets.
The script looks the exported network up in the ground truth. It continues where it stopped: each search is a row of
`results/search_quality.csv`. `--summary` runs no search; it prints the tables and draws the picture.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.constants import FINALISTS, GROUND_TRUTH_BUDGETS, SEEDS, TARGETS
from benchmarks.jobs import add_job_arguments, print_result, run_jobs
from benchmarks.results_csv import append_rows, read_rows
from benchmarks.search_quality.ground_truth.load import SPACE, TABLES, GroundTruth
from benchmarks.search_quality.outcomes import Row, most_rows, random_rows, scored, selected_rows
from benchmarks.search_quality.settings import (
    COMMON,
    ENTANGLED,
    FINALIST_COLUMNS,
    FINALISTS_CSV,
    PICTURE,
    SEARCH_COLUMNS,
    SEARCH_KEY,
    SEARCHES_CSV,
    STRATEGIES,
    TRIED,
)
from benchmarks.search_quality.summary import (
    Groups,
    against_base_table,
    against_random_table,
    by_strategy,
    draw,
    strategy_table,
)

MODULE = "benchmarks.search_quality.search_quality"


def run_one(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Run one search in this process, and return a row for each of its targets and budgets."""
    from benchmarks.search_quality import all_budgets
    from nni_proxyless.search.prepared import prepare
    from nni_proxyless.search.recipe import Recipe
    from nni_proxyless.search.run import run_search

    truth = GroundTruth()
    budgets = {(target, part): truth.budget(target, part) for target, part in job["cells"]}
    (target, _), budget = next(iter(budgets.items()))
    settings = {
        **COMMON,
        **job["settings"],
        "space": str(SPACE),
        "data_dir": job["data"],
        "seed": job["seed"],
        "budget_ms": budget,
        "target": target,
        "targets": {target: {"table": str(TABLES[target])}},
    }
    count = settings["finalists"]
    tables = {key: (str(TABLES[key[0]]), milliseconds) for key, milliseconds in budgets.items()}
    if _serves_all(job["settings"]):
        settings |= {
            **all_budgets.settings(settings.get("strategy", "proxyless"), list(tables.values())),
            "budget_fraction": 1.0,
        }
        del settings["budget_ms"]
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = run_search(prepare(Recipe.from_dict(settings)), Path(folder))
        took = time.perf_counter() - start
        cost = json.loads((Path(folder) / "cost.json").read_text(encoding="utf-8"))
        if _serves_all(job["settings"]):
            took = all_budgets.seconds(Path(folder), count)
            compared = {key: all_budgets.finalists(Path(folder), table, count) for key, table in tables.items()}
            exported = {key: all_budgets.best(of) for key, of in compared.items()}
        else:
            compared = dict.fromkeys(budgets, read_rows(Path(folder) / "finalists.csv"))
            exported = dict.fromkeys(budgets, found.candidate_names)
    return [
        {
            "finalists": compared[key],
            **scored(truth, exported[key], *key),
            "strategy": job["strategy"],
            "seed": job["seed"],
            "settings": json.dumps({**COMMON, **job["settings"]}, sort_keys=True),
            "weight_steps": cost["weight_steps"],
            "architecture_steps": cost["architecture_steps"],
            "seconds": round(took, 1),
        }
        for key in budgets
    ]


def _serves_all(settings: dict[str, Any]) -> bool:
    """Whether one search with these settings serves all targets and budgets (`all_budgets.py`)."""
    from benchmarks.search_quality import all_budgets

    return settings.get("strategy", "proxyless") in all_budgets.STRATEGIES and settings.get("latency_weight") == 0.0


def search(options: argparse.Namespace) -> None:
    """Run the searches that are missing in the CSV file."""
    from benchmarks.search_quality.ground_truth.train import Training, data_file, make_data
    from nni_proxyless.cli.settings import parse_settings

    data = make_data(options.data, Training(), data_file())
    changed = parse_settings(options.set)
    rows = read_rows(options.out)
    known = {(r["strategy"], r["target"], float(r["budget"]), int(r["seed"]), r["settings"]) for r in rows}
    jobs = []
    for seed, name in itertools.product(range(options.seeds), options.strategies):
        settings = {**STRATEGIES, **TRIED}[name] | changed
        full = json.dumps({**COMMON, **settings}, sort_keys=True)
        missing = [
            (target, budget)
            for budget, target in itertools.product(GROUND_TRUTH_BUDGETS, options.targets)
            if (name, target, budget, seed, full) not in known
        ]
        together = [missing] if _serves_all(settings) and missing else [[one] for one in missing]
        job = {"strategy": name, "seed": seed, "settings": settings, "data": str(data)}
        jobs += [{**job, "cells": of} for of in together]
    for row in itertools.chain.from_iterable(run_jobs(MODULE, jobs, options.processes, options.minutes)):
        key = {k: row[k] for k in SEARCH_KEY}
        lines = [
            {
                **key, "rank": rank, "architecture": line["architecture"], "shared_accuracy": line["accuracy"],
                "log_likelihood": line["log_likelihood"],
            }
            for rank, line in enumerate(row.pop("finalists"), start=1)
        ]  # fmt: skip
        append_rows(lines, FINALISTS_CSV, FINALIST_COLUMNS)
        append_rows([row], options.out, SEARCH_COLUMNS)
        sys.stdout.write(
            f"{row['strategy']} {row['target']} {row['budget']} seed {row['seed']}: "
            f"percentile {row['percentile']:.0f}, regret {100 * row['regret']:.2f}, {row['seconds']} s\n"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_job_arguments(parser, "search")
    parser.add_argument("--strategies", nargs="+", choices={**STRATEGIES, **TRIED}, default=list(ENTANGLED))
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--finalists", nargs="+", type=int, default=[1, 64], help="numbers of finalists in the table")
    parser.add_argument("--set", nargs="*", default=[], metavar="key=value", help="settings to try with all strategies")
    parser.add_argument("--out", type=Path, default=SEARCHES_CSV, help="CSV file of the searches")
    parser.add_argument("--summary", action="store_true", help="only print and draw the results so far")
    options = parser.parse_args()
    if options.job:
        print_result(options.job, run_one)
        return
    if not options.summary:
        search(options)
    final = options.out.resolve() == SEARCHES_CSV
    found = read_rows(options.out) if final else read_rows(options.out) + read_rows(SEARCHES_CSV)
    groups = _results(found, GroundTruth(), options.finalists, options.seeds)
    sys.stdout.write(f"{strategy_table(groups)}\n{against_random_table(groups)}")
    if final:
        draw(groups, PICTURE)
    else:
        sys.stdout.write(f"\n{against_base_table(groups, options.finalists)}")


def draw_results(truth: GroundTruth) -> None:
    """Draw the picture of the recorded searches."""
    draw(_results(read_rows(SEARCHES_CSV), truth), PICTURE)


def _results(rows: list[Row], truth: GroundTruth, finalists: Sequence[int] = (1, FINALISTS), seeds: int = 10) -> Groups:
    """What recorded searches and baselines export."""
    return by_strategy(selected_rows(rows, finalists, truth) + random_rows(seeds, truth) + most_rows(truth))


if __name__ == "__main__":
    main()
