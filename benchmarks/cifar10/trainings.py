"""The trainings from scratch: which are missing, and how one of them runs."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.cifar10.settings import MOBILENET_WIDTHS, RETRAIN, network, read

SEED_STEP = 10  # a further training of a network has a seed that is larger by this


def retrain_jobs(strategies: Iterable[str], seeds: int, trainings: int, data: str) -> list[dict[str, Any]]:
    """Jobs for the trainings that are missing in `retrained.csv`, of searched networks and of MobileNetV2.

    The first training of a searched network has the seed of its search.
    """
    of = set(strategies)
    found = [(row["architecture"], int(row["seed"])) for row in read("searches") if row["strategy"] in of]
    found += [(f"mobilenet_v2_{width}", seed) for seed, width in itertools.product(range(seeds), MOBILENET_WIDTHS)]
    wanted = [(name, seed + SEED_STEP * number) for number in range(trainings) for name, seed in found]
    known = {(row["network"], int(row["seed"])) for row in read("retrained")}
    return [
        {"part": "retrain", "network": name, "seed": seed, "data": data}
        for name, seed in dict.fromkeys(wanted)
        if (name, seed) not in known
    ]


def retrain(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Run one training in this process."""
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
