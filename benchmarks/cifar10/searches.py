"""The searches: which are missing, and how one of them runs."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterable
from typing import Any

from benchmarks.cifar10.settings import (
    NNI,
    NNI_EPOCHS,
    PROXYLESS,
    RANDOM,
    SEARCH,
    TARGETS,
    WARMUP,
    WORK,
    budget_ms,
    network,
    read,
    spec,
    table_path,
)
from benchmarks.constants import CIFAR10_BUDGETS, FINALISTS, RANDOM_BEST_OF
from benchmarks.results_csv import read_rows
from nni_proxyless.decoding.random_networks import draw_within
from nni_proxyless.latency import LatencyTable


def search_jobs(strategies: Iterable[str], seeds: int, data: str) -> list[dict[str, Any]]:
    """Jobs for the searches that are missing in `searches.csv`."""
    found = read("searches")
    known = {(r["strategy"], r["target"], float(r["budget"]), int(r["seed"])) for r in found}
    jobs: list[dict[str, Any]] = []
    for seed, name in itertools.product(range(seeds), strategies):
        missing = [(t, b) for b in CIFAR10_BUDGETS for t in TARGETS if (name, t, b, seed) not in known]
        if name not in PROXYLESS and missing:  # one supernet serves all targets and budgets
            jobs.append({"part": "search", "strategy": name, "seed": seed, "data": data})
        elif name in PROXYLESS:
            jobs += [
                {"part": "search", "strategy": name, "target": t, "budget": b, "seed": seed, "data": data}
                for t, b in missing
            ]
    return jobs


def search(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Run one search in this process. A search with ProxylessNAS returns one row, another one all that it serves."""
    from benchmarks.search_quality import all_budgets
    from nni_proxyless.search.prepared import prepare
    from nni_proxyless.search.recipe import Recipe
    from nni_proxyless.search.run import run_search

    strategy, seed = job["strategy"], job["seed"]
    target = job.get("target", next(iter(TARGETS)))
    settings: dict[str, Any] = {
        **SEARCH, "data_dir": job["data"], "seed": seed, "target": target,
        "targets": {target: {"table": str(table_path(target))}},
    }  # fmt: skip
    if strategy in PROXYLESS:
        settings |= {"warmup_epochs": WARMUP, **PROXYLESS[strategy], "budget_ms": budget_ms(target, job["budget"])}
    else:
        settings["budget_fraction"] = 1.0
        budgets = {(t, b): (str(table_path(t)), budget_ms(t, b)) for t in TARGETS for b in CIFAR10_BUDGETS}
    if strategy in RANDOM:
        drawn = {(t, b): draw(t, b, seed) for t, b in budgets}
        networks = list(dict.fromkeys(name for names in drawn.values() for name in names))
        rank_given = {
            "strategy": "benchmarks.search_quality.rank_given:RankGiven", "strategy_args": {"networks": networks},
        }  # fmt: skip
        settings |= {**RANDOM[strategy], **rank_given}
    elif strategy not in PROXYLESS:
        name, besides = NNI[strategy]
        settings |= {
            **all_budgets.settings(name, list(budgets.values())),
            "finalists": FINALISTS,
            "latency_weight": 0.0,
            "epochs": NNI_EPOCHS,
            **besides,
        }
    output = WORK / "-".join(str(job[key]) for key in ("strategy", "target", "budget", "seed") if key in job)
    found = run_search(prepare(Recipe.from_dict(settings)), output)
    cost = json.loads((output / "cost.json").read_text(encoding="utf-8"))
    row = {
        "strategy": strategy, "seed": seed, "weight_steps": cost["weight_steps"],
        "architecture_steps": cost["architecture_steps"] or 0,
        "seconds": round(float(read_rows(output / "history.csv")[-1]["seconds"])),
    }  # fmt: skip
    if strategy in PROXYLESS:
        return [{**row, **_found(found.candidate_names, target, job["budget"])}]
    if strategy not in RANDOM:
        row["seconds"] = round(all_budgets.seconds(output, FINALISTS))
        compared = {key: all_budgets.finalists(output, budget, FINALISTS) for key, budget in budgets.items()}
        return [{**row, **_found(all_budgets.best(of), t, b)} for (t, b), of in compared.items()]
    shared = {line["architecture"]: float(line["accuracy"]) for line in read_rows(output / "finalists.csv")}
    row["seconds"] = round(all_budgets.seconds(output, RANDOM_BEST_OF))
    return [{**row, **_found(max(names, key=shared.__getitem__), t, b)} for (t, b), names in drawn.items()]


def draw(target: str, budget: float, seed: int) -> list[str]:
    """Random networks within a budget, as the strategy `random` draws them."""
    space = spec()
    costs = LatencyTable.load(table_path(target)).costs(space)
    candidates = {layer.label: tuple(layer.names) for layer in space.layers}
    generator = random.Random(f"random {seed}")
    drawn = draw_within(candidates, costs, budget_ms(target, budget), RANDOM_BEST_OF, generator)
    return [" ".join(choices.values()) for choices in drawn]


def _found(name: str, target: str, budget: float) -> dict[str, Any]:
    """The columns of a row that follow from the network, its target and its budget."""
    architecture = network(name)
    predicted = LatencyTable.load(table_path(target)).costs(spec()).of(architecture.choices)
    return {
        "target": target, "budget": budget, "budget_ms": round(budget_ms(target, budget), 5),
        "predicted_ms": round(predicted, 5), "architecture": name, "multiply_adds": architecture.multiply_adds,
    }  # fmt: skip
