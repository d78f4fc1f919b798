"""Searches on CIFAR-10 for two devices and three budgets, each result trained anew and measured, beside MobileNetV2.

    .venv/bin/python benchmarks/cifar10.py --data ../shared/data/cifar10 [--minutes 60] [--parts search retrain …]

Space `mobilenetv2_cifar` at 0.35 of its width and 24 x 24 pixels: what two cores can do in some hours. It goes on where
it stopped: `results/cifar10/` has a line for each finished search, retraining and measurement.

`tables`   latency tables of the two targets, measured here (alone on the machine).
`search`   proxyless with its defaults, random best-of-8 and DARTS, for each target, budget and seed.
`retrain`  each network found, and MobileNetV2 at several widths, from scratch with one recipe; the images that test it
           are CIFAR-10's that neither searches nor trainings see.
`latency`  every network on its target that has no latency on this processor yet, MobileNetV2 beside them, in turns,
           in fresh processes (alone on the machine).
`summary`  the table, and the picture of accuracy against measured latency.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import _results
import numpy as np
from _jobs import CACHE, add_arguments, answer, append, results
from _jobs import read as read_lines

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER), str(FOLDER / "ground_truth")]
RESULTS = FOLDER / "results" / "cifar10"
WORK = CACHE / "cifar10_runs"
PARTS = ("tables", "search", "retrain", "latency", "summary")
TARGETS: dict[str, dict[str, Any]] = {
    "cpu_torch": {"backend": "torch", "threads": 1, "batch": 8},
    "cpu_onnxruntime": {"backend": "onnxruntime", "threads": 1, "batch": 8},
}
BUDGETS = (0.35, 0.5, 0.65)  # parts of the largest network's latency
WIDTH, SIZE, IMAGES = 0.35, 24, 20_000
SEARCH: dict[str, Any] = {
    "space": "mobilenetv2_cifar", "width_mult": WIDTH, "input_size": SIZE, "data": "arrays",
    "arch_fraction": 0.3, "held_out_fraction": 0.1, "epochs": 32, "batch_size": 32, "learning_rate": 0.05,
    "weight_decay": 3e-4, "decay_norm_bias": False, "threads": 1,
}  # fmt: skip
# "own weights": candidates do not share, as in the paper and in NNI.
OWN: dict[str, Any] = {"entangle_weights": False}
WITHOUT_DECAY: dict[str, Any] = {"arch_weight_decay": 0.0}
NNI_EPOCHS = 3  # all candidates in each step: as many epochs as take the time of the others' searches
PROXYLESS: dict[str, dict[str, Any]] = {
    "proxyless": {},  # the defaults
    "proxyless, no architecture decay": WITHOUT_DECAY,
    "proxyless, no architecture decay, own weights": {**WITHOUT_DECAY, **OWN},
    "proxyless_two_path, own weights": {"arch_gradient": "two_path", "arch_update_every": 1, **OWN},
    "proxyless, as many steps as DARTS": {"epochs": NNI_EPOCHS, "warmup_epochs": 0},
}
RANDOM: dict[str, dict[str, Any]] = {"random_best_of_8": {}, "random_best_of_8, own weights": OWN}
# NNI's: settings beside the strategy that all_budgets has.
NNI: dict[str, tuple[str, dict[str, Any]]] = {"darts": ("darts", {}), "darts, own weights": ("darts", OWN)}
WARMUP = 24  # trained once for all targets and budgets of a seed
BEST_OF, FINALISTS = 8, 64
RETRAIN: dict[str, Any] = {
    "data": "arrays", "arch_fraction": 0.3, "held_out_fraction": 0.1, "epochs": 10, "warmup_epochs": 1,
    "batch_size": 64, "learning_rate": 0.1, "weight_decay": 3e-4, "threads": 1,
}  # fmt: skip
# MobileNetV2 (Sandler et al. 2018) has fewer layers in most stages than the space, and no choice to leave any out.
MOBILENET_V2_DEPTHS = (2, 3, 4, 3, 3, 1)
MOBILENET = "MobileNetV2"
WIDTHS = (0.2, 0.35, 0.5)
FOUND = ("strategy", "target", "budget", "seed", "budget_ms", "predicted_ms", "architecture", "multiply_adds",
         "weight_steps", "architecture_steps", "seconds")  # fmt: skip
TRAINED = ("network", "seed", "top1", "validation_top1", "parameters", "multiply_adds", "seconds")
MEASURED = ("network", "target", "round", "milliseconds", "processor")


def spec() -> Any:
    from nni_proxyless.network.space_spec import SpaceSpec

    return SpaceSpec.from_yaml("mobilenetv2_cifar").with_changes(width_mult=WIDTH, input_size=SIZE)


def network(name: str) -> Any:
    """The architecture of a name: candidate names of the space, or `mobilenet_v2_<width>`."""
    from nni_proxyless.network.architecture import Architecture
    from nni_proxyless.network.space_spec import SpaceSpec

    if not name.startswith("mobilenet_v2_"):
        space = spec()
        return Architecture.of_space(space, dict(zip((la.label for la in space.layers), name.split(), strict=True)))
    base = SpaceSpec.from_yaml("mobilenetv2_cifar")
    stages = tuple(replace(stage, depth=d) for stage, d in zip(base.stages, MOBILENET_V2_DEPTHS, strict=True))
    like = replace(base, stages=stages).with_changes(input_size=SIZE)
    return Architecture.mobilenet_v2(float(name.rsplit("_", 1)[1]), like)


def table(target: str) -> Path:
    return RESULTS / f"{target}.yml"


def read(name: str) -> list[dict[str, str]]:
    return read_lines(RESULTS / f"{name}.csv")


def make_tables() -> None:
    from nni_proxyless.search.targets import Target

    RESULTS.mkdir(parents=True, exist_ok=True)
    for name, settings in TARGETS.items():
        if not table(name).exists():
            Target.parse(name, settings, FOLDER).latency_table(spec()).save(table(name))


def budget_ms(target: str, part: float) -> float:
    from nni_proxyless.latency import LatencyTable

    return part * float(LatencyTable.load(table(target)).costs(spec()).largest)


def search_jobs(strategies: Iterable[str], seeds: int, data: str) -> list[dict[str, Any]]:
    found = read("searches")
    known = {(r["strategy"], r["target"], float(r["budget"]), int(r["seed"])) for r in found}
    jobs: list[dict[str, Any]] = []
    for seed, name in itertools.product(range(seeds), strategies):
        missing = [(t, b) for b in BUDGETS for t in TARGETS if (name, t, b, seed) not in known]
        if name not in PROXYLESS and missing:  # one supernet for all
            jobs.append({"part": "search", "strategy": name, "seed": seed, "data": data})
        elif name in PROXYLESS:
            jobs += [
                {"part": "search", "strategy": name, "target": t, "budget": b, "seed": seed, "data": data}
                for t, b in missing
            ]
    return jobs


def search(job: dict[str, Any]) -> list[dict[str, Any]]:
    """One search, in this process; of those but `PROXYLESS` all that one supernet serves."""
    import all_budgets

    from nni_proxyless.search.prepare import prepare
    from nni_proxyless.search.recipe import Recipe
    from nni_proxyless.search.run import run_search

    strategy, seed = job["strategy"], job["seed"]
    target = job.get("target", next(iter(TARGETS)))
    settings: dict[str, Any] = {
        **SEARCH, "data_dir": job["data"], "seed": seed, "target": target,
        "targets": {target: {"table": str(table(target))}},
    }  # fmt: skip
    if strategy in PROXYLESS:
        settings |= {"warmup_epochs": WARMUP, **PROXYLESS[strategy], "budget_ms": budget_ms(target, job["budget"])}
    else:
        settings["budget_fraction"] = 1.0
        cells = {(t, b): (str(table(t)), budget_ms(t, b)) for t in TARGETS for b in BUDGETS}
    if strategy in RANDOM:
        drawn = {(t, b): draw(t, b, seed) for t, b in cells}
        networks = list(dict.fromkeys(name for names in drawn.values() for name in names))
        settings |= {**RANDOM[strategy], "strategy": "rank_given:RankGiven", "strategy_args": {"networks": networks}}
    elif strategy not in PROXYLESS:
        name, beside = NNI[strategy]
        settings |= {**all_budgets.settings(name, list(cells.values())), "finalists": FINALISTS, "latency_weight": 0.0}
        settings |= {"epochs": NNI_EPOCHS, **beside}
    output = WORK / "-".join(str(job[key]) for key in ("strategy", "target", "budget", "seed") if key in job)
    found = run_search(prepare(Recipe.from_dict(settings)), output)
    cost = json.loads((output / "cost.json").read_text(encoding="utf-8"))
    with (output / "history.csv").open(encoding="utf-8", newline="") as file:
        seconds = float(list(csv.DictReader(file))[-1]["seconds"])
    row = {
        "strategy": strategy, "seed": seed, "weight_steps": cost["weight_steps"],
        "architecture_steps": cost["architecture_steps"] or 0, "seconds": round(seconds),
    }  # fmt: skip
    if strategy in PROXYLESS:
        return [{**row, **_found(found.candidate_names, target, job["budget"])}]
    if strategy not in RANDOM:
        row["seconds"] = round(all_budgets.seconds(output, FINALISTS))
        compared = {key: all_budgets.finalists(output, cell, FINALISTS) for key, cell in cells.items()}
        return [{**row, **_found(all_budgets.best(of), t, b)} for (t, b), of in compared.items()]
    with (output / "finalists.csv").open(encoding="utf-8", newline="") as file:
        shared = {line["architecture"]: float(line["accuracy"]) for line in csv.DictReader(file)}
    row["seconds"] = round(all_budgets.seconds(output, BEST_OF))
    return [{**row, **_found(max(names, key=shared.__getitem__), t, b)} for (t, b), names in drawn.items()]


def _found(name: str, target: str, budget: float) -> dict[str, Any]:
    from nni_proxyless.latency import LatencyTable

    architecture = network(name)
    predicted = LatencyTable.load(table(target)).costs(spec()).of(architecture.choices)
    return {
        "target": target, "budget": budget, "budget_ms": round(budget_ms(target, budget), 5),
        "predicted_ms": round(predicted, 5), "architecture": name, "multiply_adds": architecture.multiply_adds,
    }  # fmt: skip


def draw(target: str, budget: float, seed: int) -> list[str]:
    """Random networks within a budget, as strategy `random` draws them."""
    from nni_proxyless.decoding.random_networks import draw_within
    from nni_proxyless.latency import LatencyTable

    space = spec()
    costs = LatencyTable.load(table(target)).costs(space)
    candidates = {layer.label: tuple(layer.names) for layer in space.layers}
    generator = random.Random(f"random {seed}")
    return [
        " ".join(choices.values())
        for choices in draw_within(candidates, costs, budget_ms(target, budget), BEST_OF, generator)
    ]


def retrain_jobs(strategies: Iterable[str], seeds: int, trainings: int, data: str) -> list[dict[str, Any]]:
    """What a search found, with the search's seed and, for further trainings, ten more each time; and MobileNetV2."""
    of = set(strategies)
    found = [(row["architecture"], int(row["seed"])) for row in read("searches") if row["strategy"] in of]
    found += [(f"mobilenet_v2_{width}", seed) for seed, width in itertools.product(range(seeds), WIDTHS)]
    wanted = [(name, seed + 10 * number) for number in range(trainings) for name, seed in found]
    known = {(row["network"], int(row["seed"])) for row in read("retrained")}
    return [
        {"part": "retrain", "network": name, "seed": seed, "data": data}
        for name, seed in dict.fromkeys(wanted)
        if (name, seed) not in known
    ]


def retrain(job: dict[str, Any]) -> list[dict[str, Any]]:
    """One retraining, in this process."""
    from nni_proxyless.deploy.retrain import prepare_retraining, run_retraining
    from nni_proxyless.deploy.retrain_recipe import RetrainRecipe

    architecture = network(job["network"])
    with tempfile.TemporaryDirectory() as folder:
        path = architecture.save(Path(folder) / "architecture.json")
        settings = {**RETRAIN, "architecture": str(path), "data_dir": job["data"], "seed": job["seed"]}
        start = time.perf_counter()
        card = run_retraining(prepare_retraining(RetrainRecipe.from_dict(settings)), Path(folder) / "out")
    return [
        {
            "network": job["network"], "seed": job["seed"], "top1": card["results"]["test"]["top1"],
            "validation_top1": card["results"]["validation"]["top1"], "parameters": architecture.parameters,
            "multiply_adds": architecture.multiply_adds, "seconds": round(time.perf_counter() - start),
        }
    ]  # fmt: skip


def measure(strategies: Iterable[str], rounds: int) -> None:
    """Latency of each found network on its target that has none yet on this processor, in turns, in fresh processes.

    A round begins with MobileNetV2. If that takes another time than in the rounds before, the machine is not what it
    was, and nothing is measured in that round. What a finished round has measured is kept.
    """
    from nni_proxyless.search.targets import Target

    processor, of = _results.processor(), set(strategies)
    known = {(row["network"], row["target"]) for row in read("latency") if row["processor"] == processor}
    wanted = dict.fromkeys((row["architecture"], row["target"]) for row in read("searches") if row["strategy"] in of)
    missing = [pair for pair in wanted if pair not in known]
    beside = [(f"mobilenet_v2_{w}", t) for t in TARGETS if t in {target for _, target in missing} for w in WIDTHS]
    targets = {name: Target.parse(name, settings, FOLDER) for name, settings in TARGETS.items()}

    def row(name: str, target: str, number: int) -> dict[str, Any]:
        took = targets[target].measure(network(name))
        return {
            "network": name,
            "target": target,
            "round": number,
            "milliseconds": round(took, 5),
            "processor": processor,
        }

    for number in range(rounds):
        before = [row for row in read("latency") if row["processor"] == processor]
        rows = [row(*pair, number) for pair in beside]
        drift = _drift(before, rows, beside)
        if drift:
            sys.stdout.write(f"MobileNetV2, now to before: {', '.join(f'{ratio:.3f}' for ratio in drift)}\n")
        if drift and not 0.95 < np.median(drift) < 1.05:
            sys.stdout.write(f"round {number}: left out, as MobileNetV2 takes {np.median(drift):.2f} times as long\n")
            continue
        append([*rows, *(row(*pair, number) for pair in missing)], RESULTS / "latency.csv", MEASURED)
        sys.stdout.write(f"round {number}: {len(missing)} networks\n")
        sys.stdout.flush()


def _drift(found: list[dict[str, str]], rows: list[dict[str, Any]], pairs: list[tuple[str, str]]) -> list[float]:
    """How much longer each of these takes in `rows` than in `found`, where it is in both."""

    def median(of: Iterable[dict[str, Any]], pair: tuple[str, str]) -> float:
        return float(np.median([float(r["milliseconds"]) for r in of if (r["network"], r["target"]) == pair]))

    known = {(row["network"], row["target"]) for row in found}
    return [median(rows, pair) / median(found, pair) for pair in pairs if pair in known]


def summary() -> None:
    """The tables, with the latencies of each processor, and the picture."""
    accuracy: dict[str, list[float]] = {}  # of each training
    for r in read("retrained"):
        accuracy.setdefault(r["network"], []).append(100 * float(r["top1"]))
    rows: dict[tuple[str, str, str], list[tuple[str, str]]] = {}  # target, family and what: network and search's seed
    for target, name in itertools.product(TARGETS, accuracy):
        if name.startswith("mobilenet_v2_"):
            rows[target, MOBILENET, name.rsplit("_", 1)[1]] = [(name, "")]
    for r in sorted(read("searches"), key=lambda r: int(r["seed"])):
        if r["architecture"] in accuracy:
            rows.setdefault((r["target"], r["strategy"], r["budget"]), []).append((r["architecture"], r["seed"]))
    above = _above_random(rows, accuracy)
    times: dict[str, dict[tuple[str, str], list[float]]] = {}  # of each processor
    for r in read("latency"):
        times.setdefault(r["processor"], {}).setdefault((r["network"], r["target"]), []).append(
            float(r["milliseconds"])
        )
    latency = {name: {key: float(np.median(of)) for key, of in each.items()} for name, each in times.items()}
    points = _table(rows, accuracy, latency, above)
    say = sys.stdout.write
    say("| target | network | searches | above the better random best-of-8, points: mean ± standard error (worst) ")
    say("| better | by a point or more |\n|---|---|---|---|---|---|\n")
    for target, family in dict.fromkeys((target, family) for target, family, _ in above):
        of_all = [gain for key, gains in above.items() if key[:2] == (target, family) for gain in gains]
        if len(of_all) > 1:
            error = np.std(of_all, ddof=1) / np.sqrt(len(of_all))
            better, clearly = sum(gain > 0 for gain in of_all), sum(gain >= 1 for gain in of_all)
            say(f"| {target} | {family} | {len(of_all)} | {np.mean(of_all):.1f} ± {error:.1f} ({min(of_all):.1f}) ")
            say(f"| {better} | {clearly} |\n")
    if points:
        _draw(points)


# Milliseconds and accuracy of the networks of a target and family.
Points = dict[tuple[str, str], list[tuple[float, float]]]


def _above_random(
    rows: dict[tuple[str, str, str], list[tuple[str, str]]], accuracy: dict[str, list[float]]
) -> dict[tuple[str, str, str], list[float]]:
    """By how many points each searched network is above the better random one of its target, budget and seed."""
    drawn: dict[tuple[str, str, str], list[float]] = {}  # target, budget and seed
    for (target, family, what), networks in rows.items():
        for name, seed in networks if family in RANDOM else ():
            drawn.setdefault((target, what, seed), []).append(float(np.mean(accuracy[name])))
    return {
        (target, family, what): [
            float(np.mean(accuracy[name])) - max(drawn[target, what, seed])
            for name, seed in networks
            if (target, what, seed) in drawn
        ]
        for (target, family, what), networks in rows.items()
        if family not in RANDOM and family != MOBILENET
    }


def _table(
    rows: dict[tuple[str, str, str], list[tuple[str, str]]],
    accuracy: dict[str, list[float]],
    latency: dict[str, dict[tuple[str, str], float]],
    above: dict[tuple[str, str, str], list[float]],
) -> dict[str, Points]:
    """Print the table, with what each processor measured where it did so of all networks of a row; gives the latter."""
    say = sys.stdout.write
    say(f"Latencies and what follows from them: {'; '.join(latency)}.\n\n")
    say("| target | network | budget | milliseconds (8 images) | test accuracy, % (each search: each training) ")
    say("| multiply-adds, M | above MobileNetV2 at equal latency, points | times as fast at equal accuracy ")
    say("| above the better random best-of-8, points (each search) |\n|---|---|---|---|---|---|---|---|---|\n")
    points: dict[str, Points] = {processor: {} for processor in latency}
    for target, family, what in sorted(rows, key=lambda key: (key[0], key[1] != MOBILENET, key)):
        networks = rows[target, family, what]
        each = [float(np.mean(accuracy[name])) for name, _ in networks]
        mean = float(np.mean(each))
        cells = []
        for processor, of in latency.items():
            measured = [of[name, target] for name, _ in networks if (name, target) in of]
            if len(measured) < len(networks):
                cells.append(("", "", ""))
                continue
            took = float(np.mean(measured))
            mobilenets = [] if family == MOBILENET else points[processor].get((target, MOBILENET), [])
            cells.append((f"{took:.2f}", *against(mobilenets, took, mean)))
            points[processor].setdefault((target, family), []).extend(zip(measured, each, strict=True))
        took_text, above_text, times_text = ("; ".join(of) if any(of) else "" for of in zip(*cells, strict=True))
        trainings = "; ".join(", ".join(f"{value:.1f}" for value in accuracy[name]) for name, _ in networks)
        size = float(np.mean([network(name).multiply_adds / 1e6 for name, _ in networks]))
        gains = ", ".join(f"{gain:.1f}" for gain in above.get((target, family, what), []))
        say(f"| {target} | {family} | {what} | {took_text} | {mean:.1f} ({trainings}) | {size:.1f} ")
        say(f"| {above_text} | {times_text} | {gains} |\n")
    say("\n")
    return points


def against(mobilenets: list[tuple[float, float]], took: float | None, accuracy: float) -> tuple[str, str]:
    """Points above MobileNetV2 at equal latency and times as fast at equal accuracy, between widths along a line.

    Beyond the narrowest and widest only a bound is known: a network that is faster than all of them is that many points
    or more above, as one that is better than all is that many times as fast, or more.
    """
    of = sorted(mobilenets)
    if took is None or len(of) < 2:
        return "", ""
    milliseconds, accuracies = zip(*of, strict=True)
    above, ratio = accuracy - np.interp(took, milliseconds, accuracies), np.interp(accuracy, accuracies, milliseconds)
    least = "≥ " if took < milliseconds[0] else "≤ " if took > milliseconds[-1] else ""
    bound = "≥ " if accuracy > accuracies[-1] else "≤ " if accuracy < accuracies[0] else ""
    return f"{least}{above:.1f}", f"{bound}{ratio / took:.2f}"


def _draw(points: dict[str, Points]) -> None:
    """A row for each processor, a column for each target."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    known = {family for of in points.values() for _, family in of}
    families = [name for name in (MOBILENET, "proxyless", *RANDOM, *NNI) if name in known]
    figure, grid = pyplot.subplots(
        len(points), len(TARGETS), figsize=(11, 0.4 + 3.8 * len(points)), sharey=True, squeeze=False
    )
    marks = {}
    for axis, (processor, target) in zip(grid.flat, itertools.product(points, TARGETS), strict=True):
        for number, family in enumerate(families):
            of = sorted(points[processor].get((target, family), []))
            if of:
                style = "-o" if family == MOBILENET else "o"
                (marks[family],) = axis.plot(*zip(*of, strict=True), style, color=f"C{number}")
        axis.set_title(f"{target}, {processor}", fontsize=10)
        axis.set_xlabel("measured latency, ms for 8 images")
        axis.grid(alpha=0.3)
    for row in grid:
        row[0].set_ylabel("test accuracy, %")
    figure.legend([marks[name] for name in families], families, loc="lower center", ncols=len(families))
    figure.tight_layout(rect=(0, 0.07 / len(points), 1, 1))
    figure.savefig(RESULTS / "accuracy.png", dpi=110)


def run_jobs(
    jobs: list[dict[str, Any]], file: str, columns: tuple[str, ...], options: argparse.Namespace, end: float
) -> None:
    for rows in results(__file__, jobs, options.processes, (end - time.monotonic()) / 60):
        append(rows, RESULTS / f"{file}.csv", columns)
        sys.stdout.write(f"{rows[0]}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, "job")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument(
        "--strategies",
        nargs="+",
        choices=[*PROXYLESS, *RANDOM, *NNI],
        default=["random_best_of_8", "proxyless", "darts"],
    )
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS), help="of searches")
    parser.add_argument("--trainings", type=int, default=1, help="of each network, with different seeds")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each network's latency")
    options = parser.parse_args()
    if options.job:
        answer(options.job, lambda job: {"search": search, "retrain": retrain}[job["part"]](job))
        return
    end = time.monotonic() + 60 * options.minutes
    data = ""
    if {"search", "retrain"} & set(options.parts):
        from train import Training, make_data

        training = Training(images=IMAGES, size=SIZE)
        data = str(make_data(options.data, training, CACHE / f"cifar10-{IMAGES}-{SIZE}.npz"))
    if "tables" in options.parts:
        make_tables()
    if "search" in options.parts:
        jobs = search_jobs(options.strategies, options.seeds, data)
        jobs = [job for job in jobs if job.get("target", options.targets[0]) in options.targets]
        run_jobs(jobs, "searches", FOUND, options, end)
    if "retrain" in options.parts:
        jobs = retrain_jobs(options.strategies, options.seeds, options.trainings, data)
        run_jobs(jobs, "retrained", TRAINED, options, end)
    if "latency" in options.parts:
        measure(options.strategies, options.rounds)
    if "summary" in options.parts:
        summary()


if __name__ == "__main__":
    main()
