"""How good are the networks that searches find? Judged by a space all of whose networks have been trained.

    .venv/bin/python benchmarks/search_quality.py --data ../shared/data/cifar10 [--strategies …] [--seeds 5]

Every strategy searches with the same data, steps and decoding within three budgets on two targets; what it exports is
looked up in `ground_truth/`. It goes on where it stopped: each search is a line of `results/search_quality.csv`.
`--summary` prints the table and draws the picture of what there is.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from _jobs import add_arguments, answer, append, read, results

Ranked = Literal["plain", "smoothed", "multiply-adds"]
FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER / "ground_truth"))
RESULTS = FOLDER / "results" / "search_quality.csv"
FINALISTS = FOLDER / "results" / "search_finalists.csv.gz"
PICTURE = FOLDER / "results" / "search_quality.png"
BUDGETS = (0.25, 0.5, 0.75)  # parts of all networks that are within the budget
TARGETS = ("cpu_torch", "cpu_onnxruntime")
# The same for all strategies. The weights see `epochs` epochs of the weights part, whatever the strategy.
COMMON: dict[str, Any] = {
    "data": "arrays",
    "arch_fraction": 0.4,
    "held_out_fraction": 0.1,
    "epochs": 20,
    "batch_size": 64,
    "learning_rate": 0.1,  # as the networks of the ground truth are trained
    "weight_decay": 5e-4,
    "decay_norm_bias": False,
    "threads": 1,
    "finalists": 64,
    "entangle_weights": True,
}
WITHOUT_DECAY: dict[str, Any] = {"warmup_epochs": 8, "arch_gradient": "full", "arch_update_every": 2}
LONGER = {**WITHOUT_DECAY, "arch_weight_decay": 0.001}
DEFAULTS = {**LONGER, "warmup_epochs": 0}
ENTANGLED: dict[str, dict[str, Any]] = {
    "proxyless": DEFAULTS,
    "proxyless_two_path": {"warmup_epochs": 8, "arch_gradient": "two_path"},
    "proxyless_full": {"warmup_epochs": 8, "arch_gradient": "full"},
    "proxyless_reinforce": {"warmup_epochs": 8, "arch_gradient": "reinforce"},
    # NNI's end nearer to the budget, and find better networks, where decoding alone keeps it: 0.1 is in `TRIED`.
    **{
        name: {"strategy": name, "latency_weight": 0.0}
        for name in ("nni_proxyless_builtin", "darts", "gumbel_darts", "enas")
    },
}
# Candidates with weights of their own, as in the paper and in NNI.
OWN: dict[str, Any] = {"entangle_weights": False}
OWN_WEIGHTS = ", own weights"
STRATEGIES = {
    **ENTANGLED,
    **{name + OWN_WEIGHTS: {**settings, **OWN} for name, settings in {**ENTANGLED, "proxyless": LONGER}.items()},
}
# What was tried, each alone: on top of what was the default before, …
BEFORE = "warm-up of 8 epochs"
ONE_FOR_ALL: dict[str, Any] = {"objective": "add_linear", "latency_weight": 0.0}
TRIED_ON_BEFORE: dict[str, dict[str, Any]] = {
    "proxyless": {"warmup_epochs": 0},
    "warm-up of 4 epochs": {"warmup_epochs": 4},
    "warm-up of 14 epochs": {"warmup_epochs": 14},
    "architecture rate halved": {"arch_learning_rate": 0.0075},
    "architecture rate doubled": {"arch_learning_rate": 0.03},
    "cosine architecture rate": {"arch_schedule": "cosine"},
    "running statistics in architecture steps": {"arch_batch_norm": "running"},
    "4 draws in a step": {"arch_samples": 4},
    # As much of the time for the architecture as NNI's strategies take.
    "warm-up of 4 epochs, 2 draws after each weight step": {
        "warmup_epochs": 4,
        "arch_samples": 2,
        "arch_update_every": 1,
    },
    "no sharpening": {"sharpen_epochs": 0},
    "fair warm-up": {"warmup_sampling": "fair"},
    "fair paths throughout": {"warmup_sampling": "fair", "weight_sampling": "fair"},
    "one for all budgets, entangled weights": ONE_FOR_ALL,
    # So slow that paths are still nearly as probable at the end, as with NNI's.
    "one for all budgets, architecture rate 0.001": {**ONE_FOR_ALL, "arch_learning_rate": 0.001, "sharpen_epochs": 0},
}
# … of `proxyless_two_path, own weights`, or of what was the default between the two, as their names say.
PLAIN = STRATEGIES[f"proxyless_two_path{OWN_WEIGHTS}"]
FAIR = {**PLAIN, "warmup_sampling": "fair", "weight_sampling": "fair"}
SLOWER = {"learning_rate": 0.05, "finalists": 32}
NNI = list(ENTANGLED)[4:]
TRIED: dict[str, dict[str, Any]] = {
    BEFORE: LONGER,
    **{name: {**LONGER, **settings} for name, settings in TRIED_ON_BEFORE.items()},
    "fair throughout": FAIR,
    "rate 0.05": {**PLAIN, **SLOWER},
    "rate 0.05, fair warm-up": {**PLAIN, **SLOWER, "warmup_sampling": "fair"},
    "rate 0.05, fair throughout": {**FAIR, **SLOWER},
    **{f"latency weight 0.1, {name}": {"strategy": name, **OWN} for name in NNI},
    **{f"rate 0.05, latency weight 0.1, {name}": {"strategy": name, **SLOWER, **OWN} for name in NNI},
    "full gradient in every second step, fair throughout": {**FAIR, **WITHOUT_DECAY},
    "entangled weights": WITHOUT_DECAY,
    "no architecture decay": {**WITHOUT_DECAY, **OWN},
    # Without latency in the loss: one search for all budgets.
    "one for all budgets": {**LONGER, **ONE_FOR_ALL, **OWN},
    "one for all budgets, no architecture decay": {**WITHOUT_DECAY, **ONE_FOR_ALL, **OWN},
    "finalists not trained": {**PLAIN, "finalist_epochs": 0},
    "finalists trained for 4 epochs": {**PLAIN, "finalist_epochs": 4},
}
# Strategy `random`: its supernet depends on the seed alone, so `shared_weights.py` trains it once for all budgets and
# targets and ranks every network; the draws and what follows are those of the strategy itself.
# How many are drawn, and whether they are ranked as the strategy does or as finalists are (`ranking.py`).
RANDOM: dict[str, tuple[int, Ranked]] = {
    "random_one": (1, "plain"), "random_best_of_8": (8, "plain"), "random_best_of_64": (64, "plain"),
    "random_best_of_64, smoothed": (64, "smoothed"),
    "random_best_of_64, smoothed, multiply-adds": (64, "multiply-adds"),
}  # fmt: skip
MOST = "most multiply-adds"  # within the budget: nothing is searched or trained
COLUMNS = (
    "strategy", "target", "budget", "seed", "settings", "budget_ms", "architecture", "accuracy", "best_accuracy",
    "regret", "percentile", "within_budget", "weight_steps", "architecture_steps", "seconds",
)  # fmt: skip
FINALIST_COLUMNS = (
    "strategy", "target", "budget", "seed", "rank", "architecture", "shared_accuracy", "log_likelihood",
)  # fmt: skip


def run_one(job: dict[str, Any]) -> list[dict[str, Any]]:
    """One search, in this process; a row for each of its targets and budgets."""
    import all_budgets
    from load import SPACE, TARGETS, GroundTruth

    from nni_proxyless.search.prepare import prepare
    from nni_proxyless.search.recipe import Recipe
    from nni_proxyless.search.run import run_search

    truth = GroundTruth()
    cells = {(target, part): truth.budget(target, part) for target, part in job["cells"]}
    (target, _), budget = next(iter(cells.items()))
    settings = {
        **COMMON,
        **job["settings"],
        "space": str(SPACE),
        "data_dir": job["data"],
        "seed": job["seed"],
        "budget_ms": budget,
        "target": target,
        "targets": {target: {"table": str(TARGETS[target])}},
    }
    count = settings["finalists"]
    tables = {key: (str(TARGETS[key[0]]), milliseconds) for key, milliseconds in cells.items()}
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
            compared = {key: all_budgets.finalists(Path(folder), cell, count) for key, cell in tables.items()}
            exported = {key: all_budgets.best(of) for key, of in compared.items()}
        else:
            compared = dict.fromkeys(cells, read(Path(folder) / "finalists.csv"))
            exported = dict.fromkeys(cells, found.candidate_names)
    return [
        {
            "finalists": compared[key],
            **_scored(truth, exported[key], *key),
            "strategy": job["strategy"],
            "seed": job["seed"],
            "settings": json.dumps({**COMMON, **job["settings"]}, sort_keys=True),
            "weight_steps": cost["weight_steps"],
            "architecture_steps": cost["architecture_steps"],
            "seconds": round(took, 1),
        }
        for key in cells
    ]


def _serves_all(settings: dict[str, Any]) -> bool:
    """Whether one search with these settings serves all targets and budgets (`all_budgets.py`)."""
    import all_budgets

    return settings.get("strategy", "proxyless") in all_budgets.STRATEGIES and settings.get("latency_weight") == 0.0


def random_rows(seeds: int) -> list[dict[str, str]]:
    """What strategy `random` exports, for each seed whose supernet has been trained."""
    import shared_weights
    from load import SPACE, TARGETS, GroundTruth

    from nni_proxyless.decoding.random_networks import draw_within
    from nni_proxyless.decoding.ranking import additive_fit, rank_values
    from nni_proxyless.latency import LatencyTable
    from nni_proxyless.network.space_spec import SpaceSpec

    truth, spec = GroundTruth(), SpaceSpec.from_yaml(str(SPACE))
    costs = {target: LatencyTable.load(table).costs(spec) for target, table in TARGETS.items()}
    candidates = {layer.label: tuple(layer.names) for layer in spec.layers}
    rows = []
    for (variant, seed), lines in sorted(shared_weights.read().items()):
        if variant not in ("random", f"random{OWN_WEIGHTS}") or seed >= seeds:
            continue
        of_its_own = variant.removeprefix("random")
        shared = shared_weights.ranking(lines)
        for (name, (count, ranked)), target, part in itertools.product(RANDOM.items(), TARGETS, BUDGETS):
            budget = truth.budget(target, part)
            drawn = draw_within(candidates, costs[target], budget, count, random.Random(f"random {seed}"))
            names = [" ".join(choices.values()) for choices in drawn]
            values = [shared[network] for network in names]
            if ranked == "smoothed":
                values = additive_fit(drawn, values)
            elif ranked == "multiply-adds":  # all are as likely
                numbers = [truth.architecture(network).multiply_adds for network in names]
                values = rank_values(drawn, values, [0.0] * count, numbers)
            best = names[values.index(max(values))]
            row = {
                **_scored(truth, best, target, part),
                "strategy": name + of_its_own,
                "seed": seed,
                "settings": json.dumps(
                    {**COMMON, "strategy": "random", "best_of": count, "entangle_weights": not of_its_own},
                    sort_keys=True,
                ),
                "weight_steps": int(lines[0]["weight_steps"]),
                "architecture_steps": 0,
                "seconds": round(float(lines[0]["training_seconds"]) + count * float(lines[0]["seconds_each"]), 1),
            }
            rows.append({key: str(value) for key, value in row.items()})  # as they are read from the CSV
    return rows


def most_rows() -> list[dict[str, str]]:
    """The network with the most multiply-adds within each budget."""
    from load import TARGETS, GroundTruth

    truth, rows = GroundTruth(), []
    for target, part in itertools.product(TARGETS, BUDGETS):
        within = np.flatnonzero(truth.latency_ms[target] <= truth.budget(target, part))
        best = truth.names[within[truth.multiply_adds[within].argmax()]]
        row = {"strategy": MOST, "seed": 0, "settings": json.dumps({**COMMON, "epochs": 0}), "weight_steps": 0,
               "architecture_steps": 0, "seconds": 0, **_scored(truth, best, target, part)}  # fmt: skip
        rows.append({key: str(value) for key, value in row.items()})
    return rows


def _scored(truth: Any, architecture: str, target: str, part: float) -> dict[str, Any]:
    budget = truth.budget(target, part)
    score = truth.score(architecture, target, budget)
    return {
        "target": target,
        "budget": part,
        "budget_ms": budget,
        "architecture": architecture,
        "accuracy": score.accuracy,
        "best_accuracy": score.best_accuracy,
        "regret": score.regret,
        "percentile": score.percentile,
        "within_budget": score.within_budget,
    }


def summary(rows: list[dict[str, str]], picture: Path | None) -> dict[str, list[dict[str, str]]]:
    """The table, and the picture of percentiles and regrets; gives the rows of each strategy."""
    groups: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        groups[row["strategy"]].append(row)
    per_epoch = max(int(row["weight_steps"]) / _epochs(row) for row in rows if _epochs(row))
    say = sys.stdout.write
    say("| strategy | searches | percentile: median (quartiles) | regret, points: mean (worst) | within budget ")
    say("| weight + architecture steps | seconds |\n|---|---|---|---|---|---|---|\n")
    for name in sorted(groups, key=lambda n: _column(groups[n], "regret").mean()):
        of = groups[name]
        low, middle, high = np.percentile(_column(of, "percentile"), [25, 50, 75])
        regret = 100 * _column(of, "regret")
        within = np.mean([row["within_budget"] == "True" for row in of])
        weight_steps = round(per_epoch * _epochs(of[0]))  # those of a warm-up that another search trained as well
        steps = " + ".join(filter(None, (str(weight_steps), str(of[0]["architecture_steps"]))))  # of NNI's not kept
        say(f"| {name} | {len(of)} | {middle:.0f} ({low:.0f}–{high:.0f}) | {regret.mean():.2f} ({regret.max():.2f}) ")
        say(f"| {100 * within:.0f} % | {steps} | {np.median(_column(of, 'seconds')):.0f} |\n")
    _against_random(groups)
    if picture:
        _draw(groups, picture)
    return groups


def by_finalists(rows: list[dict[str, str]], counts: Iterable[int]) -> list[dict[str, str]]:
    """What searches would have exported had they compared fewer finalists, or compared them otherwise.

    Rows are named `<strategy>, <k> finalists`, and `<strategy>, likeliest` for 1. Comparing them is the last thing that
    a search does, so one search tells all counts up to its own. Beside it `…, without multiply-adds`, `…, accuracies
    alone`, without likelihoods either, and for a count below 0 `…, not smoothed`, by each network's own accuracy alone.
    """
    from load import GroundTruth

    compared: dict[tuple[str, ...], list[dict[str, str]]] = defaultdict(list)
    for line in read(FINALISTS):
        compared[tuple(line[k] for k in FINALIST_COLUMNS[:4])].append(line)
    truth, found = GroundTruth(), []
    for count, row in itertools.product(counts, rows):
        lines = compared.get(tuple(row[k] for k in FINALIST_COLUMNS[:4]), [])
        if len(lines) < abs(count):
            continue
        lines = sorted(lines, key=lambda line: int(line["rank"]))[: abs(count)]
        for how, values in _opinions(lines, truth, smoothed=count > 0).items():
            best = lines[values.index(max(values))]["architecture"]
            scored = {k: str(value) for k, value in _scored(truth, best, row["target"], float(row["budget"])).items()}
            name = "likeliest" if abs(count) == 1 else f"{abs(count)} finalists{how}"
            found.append({**row, **scored, "strategy": f"{row['strategy']}, {name}"})
    return found


def _opinions(lines: list[dict[str, str]], truth: Any, smoothed: bool) -> dict[str, list[float]]:
    """By what finalists may be compared."""
    from nni_proxyless.decoding.ranking import additive_fit, rank_values

    accuracies = [float(line["shared_accuracy"]) for line in lines]
    if len(lines) == 1:
        return {"": accuracies}
    if not smoothed:
        return {", not smoothed": accuracies}
    choices = [dict(enumerate(line["architecture"].split())) for line in lines]
    fitted = additive_fit(choices, accuracies)
    if not lines[0]["log_likelihood"]:  # of searches before likelihoods were kept
        return {", accuracies alone": fitted}
    likelihoods = [float(line["log_likelihood"]) for line in lines]
    numbers = [truth.architecture(line["architecture"]).multiply_adds for line in lines]
    return {
        ", accuracies alone": fitted,
        ", without multiply-adds": rank_values(choices, accuracies, likelihoods),
        "": rank_values(choices, accuracies, likelihoods, numbers),
    }


def _epochs(row: dict[str, str]) -> int:
    return int(json.loads(row["settings"])["epochs"])


def _column(rows: Iterable[dict[str, str]], key: str) -> Any:
    return np.array([float(row[key]) for row in rows])


def _against_random(groups: dict[str, list[dict[str, str]]]) -> None:
    """In how many searches each strategy is better than random best-of-8 with the same seed, target and budget.

    And with the same kind of weights, entangled or not.
    """
    key = ("target", "budget", "seed")
    random_of = {
        (_entangled(row), *(row[k] for k in key)): float(row["accuracy"])
        for name in ("random_best_of_8", f"random_best_of_8{OWN_WEIGHTS}")
        for row in groups.get(name, [])
    }
    if not random_of:
        return
    sys.stdout.write("\n| strategy | budget | better than random best-of-8 | equal | worse |\n|---|---|---|---|---|\n")
    for name, budget in itertools.product(sorted(groups), BUDGETS):
        pairs = [
            (float(row["accuracy"]), random_of[same])
            for row in groups[name]
            if float(row["budget"]) == budget and (same := (_entangled(row), *(row[k] for k in key))) in random_of
        ]
        if pairs and not name.startswith("random_best_of_8"):
            better, worse = sum(a > b for a, b in pairs), sum(a < b for a, b in pairs)
            sys.stdout.write(f"| {name} | {budget} | {better} | {len(pairs) - better - worse} | {worse} |\n")


def _against_before(groups: dict[str, list[dict[str, str]]], counts: Iterable[int]) -> None:
    """What was tried on top of `BEFORE`, search by search: regret, and its difference ± standard error."""
    ends = ["likeliest" if count == 1 else f"{count} finalists" for count in counts if count > 0]
    before = {
        end: {_search(row): 100 * float(row["regret"]) for row in groups.get(f"{BEFORE}, {end}", [])} for end in ends
    }
    say = sys.stdout.write
    say(f"\n| tried | searches |{' | '.join(f' {end}: regret, with a {BEFORE}, difference' for end in ends)} |\n")
    say("|---|---|" + "---|" * len(ends) + "\n")
    for name in TRIED_ON_BEFORE:
        cells = []
        for end in ends:
            tried = {_search(row): 100 * float(row["regret"]) for row in groups.get(f"{name}, {end}", [])}
            both = [(tried[key], before[end][key]) for key in tried if key in before[end]]
            if len(both) > 1:
                own, plain = np.array(both).T
                error = (own - plain).std(ddof=1) / np.sqrt(len(both))
                cells.append(f"{own.mean():.2f}, {plain.mean():.2f}, {(own - plain).mean():+.2f} ± {error:.2f}")
        if cells:
            say(f"| {name} | {len(both)} | {' | '.join(cells)} |\n")


def _search(row: dict[str, str]) -> tuple[str, str, str]:
    return row["target"], row["budget"], row["seed"]


def _entangled(row: dict[str, str]) -> bool:
    return bool(json.loads(row["settings"])["entangle_weights"])


def _draw(groups: dict[str, list[dict[str, str]]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [name for name in groups if not name.endswith(("accuracies alone", "without multiply-adds"))]
    names = sorted(shown, key=lambda n: -_column(groups[n], "regret").mean())
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 0.3 * len(names) + 1.5), sharey=True)
    for axis, key, label, scale in (
        (axes[0], "percentile", "percentile within the budget", 1),
        (axes[1], "regret", "regret, points", 100),
    ):
        values = [scale * _column(groups[name], key) for name in names]
        axis.boxplot(values, orientation="horizontal", tick_labels=names, widths=0.6, showfliers=False)
        for position, points in enumerate(values, start=1):
            jitter = np.random.default_rng(0).uniform(-0.15, 0.15, len(points))
            axis.scatter(points, position + jitter, s=10, alpha=0.5)
        axis.set_xlabel(label)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, "search")
    parser.add_argument("--strategies", nargs="+", choices={**STRATEGIES, **TRIED}, default=list(ENTANGLED))
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--finalists", nargs="+", type=int, default=[1, 64], help="counts that the table has")
    parser.add_argument("--set", nargs="*", default=[], metavar="key=value", help="settings to try, for all strategies")
    parser.add_argument("--out", type=Path, default=RESULTS, help="CSV of the searches")
    parser.add_argument("--summary", action="store_true", help="only print and draw what there is")
    options = parser.parse_args()
    if options.job:
        answer(options.job, run_one)
        return
    if not options.summary:
        search(options)
    final = options.out == RESULTS
    found = read(options.out) if final else read(options.out) + read(RESULTS)
    rows = by_finalists(found, options.finalists) + random_rows(options.seeds) + most_rows()
    groups = summary(rows, PICTURE if final else None)
    if not final:
        _against_before(groups, options.finalists)


def search(options: argparse.Namespace) -> None:
    """Run the searches that are not there yet."""
    from train import Training, data_file, make_data

    from nni_proxyless.cli.settings import parse_settings

    data = make_data(options.data, Training(), data_file())
    tried = parse_settings(options.set)
    known = {(r["strategy"], r["target"], float(r["budget"]), int(r["seed"]), r["settings"]) for r in read(options.out)}
    jobs = []
    for seed, name in itertools.product(range(options.seeds), options.strategies):
        settings = {**STRATEGIES, **TRIED}[name] | tried
        full = json.dumps({**COMMON, **settings}, sort_keys=True)
        cells = [
            (target, budget)
            for budget, target in itertools.product(BUDGETS, options.targets)
            if (name, target, budget, seed, full) not in known
        ]
        together = [cells] if _serves_all(settings) and cells else [[cell] for cell in cells]
        job = {"strategy": name, "seed": seed, "settings": settings, "data": str(data)}
        jobs += [{**job, "cells": of} for of in together]
    for row in itertools.chain.from_iterable(results(__file__, jobs, options.processes, options.minutes)):
        key = {k: row[k] for k in FINALIST_COLUMNS[:4]}
        lines = [
            {
                **key, "rank": rank, "architecture": line["architecture"], "shared_accuracy": line["accuracy"],
                "log_likelihood": line["log_likelihood"],
            }
            for rank, line in enumerate(row.pop("finalists"), start=1)
        ]  # fmt: skip
        append(lines, FINALISTS, FINALIST_COLUMNS)
        append([row], options.out, COLUMNS)
        sys.stdout.write(
            f"{row['strategy']} {row['target']} {row['budget']} seed {row['seed']}: "
            f"percentile {row['percentile']:.0f}, regret {100 * row['regret']:.2f}, {row['seconds']} s\n"
        )


if __name__ == "__main__":
    main()
