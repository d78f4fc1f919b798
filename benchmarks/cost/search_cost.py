"""What a search costs, in units of one training step (or epoch) of the sampled network alone.

    python -m benchmarks.cost.search_cost [--networks 12] [--rounds 5] [--parts steps default growth epoch]

The space is the paper's, `mobilenetv2_imagenet`, with 16 images of 96 x 96. The runs of a part are interleaved. The
script takes the median over rounds for each random network, and then the median over networks with its range.

`steps`   times training the network as a plain module, and on the same path the weight and architecture steps of our
          supernet and of NNI's own Proxyless and DARTS. Our architecture steps use every kind of gradient, and
          candidates with weights of their own and with entangled weights. All run in one memory format: first
          channels_last, our default on the CPU, then contiguous, NNI's default.
`default` times our steps in our default format, and NNI's Proxyless without any change.
`growth`  times the same steps with 2 to 12 equal candidates in each layer, so that only their number changes.
`epoch`   times an epoch of search through Lightning, with loaders and logging, and an epoch of training one network.
          One search takes a `two_path` step for each weight step, the other has the recipes' defaults.

Saved-tensor hooks count the activations saved for the backward pass.
"""

from __future__ import annotations

import argparse
import gc
import logging
import multiprocessing
import random
import statistics
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from nni.nas.strategy import DARTS, Proxyless

from benchmarks.constants import COST_RESULTS, SPACE_OF_THE_PAPER
from benchmarks.cost.epoch_cost import epoch
from benchmarks.cost.ratios import ratio_rows
from benchmarks.cost.supernets import (
    Batch,
    EqualCandidates,
    NniSearch,
    OurSearch,
    paper_space,
    paper_spec,
    plain_step,
    saved_bytes,
    seconds,
)
from benchmarks.results_csv import publish
from nni_proxyless.latency import random_architecture
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.process_memory import keep_freed_memory

OURS = ("weight", "two_path", "full")
ENTANGLED = "entangled weights"


def steps(part: str, memory_format: Any, networks: int, rounds: int) -> list[dict[str, Any]]:
    batch, generator = Batch(memory_format), random.Random(0)
    ours = OurSearch(paper_space(), batch)
    entangled = OurSearch(paper_space(entangled=True), batch)
    theirs = NniSearch(Proxyless(), paper_space(), batch)
    darts = NniSearch(DARTS(), paper_space(), batch)
    times: dict[str, list[float]] = {}
    memory: dict[str, list[float]] = {}
    for number in range(networks):
        architecture = random_architecture(ours.supernet.spec, generator)
        network = batch.place(architecture.build())
        train = plain_step(network, batch)
        theirs.choose(architecture.choices)
        taken: dict[str, list[float]] = {}
        for _ in range(rounds + 1):

            def note(name: str, run: Callable[[], Any], taken: dict[str, list[float]] = taken) -> None:
                taken.setdefault(name, []).append(seconds(run))

            note("training alone", train)
            for step in OURS:
                ours.choose(architecture.choices, step, generator)
                note(step, lambda step=step: ours.step(step))  # type: ignore[misc]
                entangled.choose(architecture.choices, step, generator)
                note(f"{step}, {ENTANGLED}", lambda step=step: entangled.step(step))  # type: ignore[misc]
            for step in ("weight", "architecture"):
                note(f"NNI Proxyless {step}", lambda step=step: theirs.step(step))  # type: ignore[misc]
                gc.collect()  # NNI leaves its graphs to the garbage collector
            if number < 3:
                note("NNI DARTS weight", lambda: darts.step("weight"))
        medians = {name: statistics.median(values[1:]) for name, values in taken.items()}
        unit = medians.pop("training alone")
        for name, value in medians.items():
            times.setdefault(name, []).append(value / unit)
        both = medians["NNI Proxyless weight"] + medians["NNI Proxyless architecture"]
        pair = medians["weight"] + medians["two_path"]
        times.setdefault("NNI Proxyless / ours, weight + architecture", []).append(both / pair)
        recipes = medians[f"weight, {ENTANGLED}"] + medians[f"full, {ENTANGLED}"] / 2
        times.setdefault("recipes' defaults: weight step and half a full one, entangled", []).append(recipes / unit)
        times.setdefault("NNI Proxyless, weight + architecture / recipes' defaults", []).append(both / recipes)
        alone = saved_bytes(lambda network=network: batch.loss(network))  # type: ignore[misc]
        for step in OURS:
            ours.choose(architecture.choices, step, generator)
            memory.setdefault(step, []).append(saved_bytes(lambda step=step: ours.forward(step)) / alone)  # type: ignore[misc]
            entangled.choose(architecture.choices, step, generator)
            saved = saved_bytes(lambda step=step: entangled.forward(step))  # type: ignore[misc]
            memory.setdefault(f"{step}, {ENTANGLED}", []).append(saved / alone)
        memory.setdefault("NNI Proxyless", []).append(saved_bytes(lambda: batch.loss(theirs.supernet)) / alone)
        if number < 3:
            memory.setdefault("NNI DARTS", []).append(saved_bytes(lambda: batch.loss(darts.supernet)) / alone)
    return [*ratio_rows(part, times, "time"), *ratio_rows(part, memory, "saved activations")]


def stepper(who: str, orders: Any) -> None:
    """Run one search with its own defaults: receive choices, send the seconds of both steps, until None is received."""
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    torch.manual_seed(0)
    generator = random.Random(0)
    search: Any
    if who == "ours":
        keep_freed_memory()  # as `nni-proxyless` does in a search
        search, steps_of = OurSearch(paper_space(), Batch()), ("weight", "two_path")
    else:
        search = NniSearch(Proxyless(), paper_space(), Batch(torch.contiguous_format), as_it_comes=True)
        steps_of = ("weight", "architecture")
    while (choices := orders.recv()) is not None:
        taken = []
        for step in steps_of:
            if who == "ours":
                search.choose(choices, step, generator)
            else:
                search.choose(choices)
            taken.append(seconds(lambda step=step: search.step(step)))  # type: ignore[misc]
        gc.collect()  # before sending: the other process starts when it receives the answer
        orders.send(taken)


def default(networks: int, rounds: int) -> list[dict[str, Any]]:
    """Our search and NNI's run in turns, each in a process of its own and with its own defaults."""
    spec, generator = SpaceSpec.from_yaml(SPACE_OF_THE_PAPER), random.Random(0)
    context = multiprocessing.get_context("spawn")
    ends = {who: context.Pipe() for who in ("ours", "NNI")}
    workers = [context.Process(target=stepper, args=(who, end[1]), daemon=True) for who, end in ends.items()]
    for worker in workers:
        worker.start()
    ratios = []
    for _ in range(networks):
        choices = random_architecture(spec, generator).choices
        taken: dict[str, list[list[float]]] = {}
        for _ in range(rounds + 1):
            for who, (order, _) in ends.items():
                order.send(choices)
                taken.setdefault(who, []).append(order.recv())
        both = {who: float(np.median(values[1:], axis=0).sum()) for who, values in taken.items()}
        ratios.append(both["NNI"] / both["ours"])
    for order, _ in ends.values():
        order.send(None)
    for worker in workers:
        worker.join()
    return ratio_rows("default", {"NNI Proxyless as it comes / ours, weight + architecture": ratios}, "time")


def growth(rounds: int) -> list[dict[str, Any]]:
    batch, generator = Batch(), random.Random(0)
    spec = paper_spec()
    counts = (2, 4, 8, 12)
    ours = {n: OurSearch(EqualCandidates(spec, n), batch) for n in counts}
    darts = {n: NniSearch(DARTS(), EqualCandidates(spec, n), batch) for n in counts}
    taken: dict[tuple[str, int], list[float]] = {}
    memory: dict[tuple[str, int], float] = {}
    for number in range(2 * rounds + 1):
        for n in counts:
            choices = {layer.label: f"c{generator.randrange(n)}" for layer in spec.layers}
            for step in ("weight", "two_path"):
                ours[n].choose(choices, step, generator)
                taken.setdefault((step, n), []).append(seconds(lambda n=n, step=step: ours[n].step(step)))  # type: ignore[misc]
                if number == 0:
                    memory[step, n] = saved_bytes(lambda n=n, step=step: ours[n].forward(step))  # type: ignore[misc]
            if number < 3:
                taken.setdefault(("NNI DARTS weight", n), []).append(seconds(lambda n=n: darts[n].step("weight")))  # type: ignore[misc]
                if number == 0:
                    memory["NNI DARTS weight", n] = saved_bytes(lambda n=n: batch.loss(darts[n].supernet))  # type: ignore[misc]
    rows = []
    for what in ("weight", "two_path", "NNI DARTS weight"):
        for n in counts:
            first = np.array(taken[what, counts[0]][1:])
            ratios = (np.array(taken[what, n][1:]) / first).tolist()
            rows += ratio_rows("growth", {f"{what}, {n} candidates": ratios}, f"time with {counts[0]}")
            rows += ratio_rows(
                "growth", {f"{what}, {n} candidates": [memory[what, n] / memory[what, counts[0]]]},
                f"saved activations with {counts[0]}",
            )  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", nargs="+", default=["steps", "default", "growth", "epoch"])
    options = parser.parse_args()
    # Each part has a process of its own: NNI's Proxyless leaves some GB of graphs behind.
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        rows = []
        for part in names(options.parts):
            if part == "default":
                rows += default(options.networks, options.rounds)  # starts its own processes
            else:
                rows += pool.apply(run_part, (part, options.networks, options.rounds))
    publish("search_cost", rows, ("nni-proxyless", "nni", "torch", "pytorch-lightning"), COST_RESULTS)


def names(parts: list[str]) -> list[str]:
    return [n for p in parts for n in (("steps, channels_last", "steps, contiguous") if p == "steps" else (p,))]


def run_part(part: str, networks: int, rounds: int) -> list[dict[str, Any]]:
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    torch.manual_seed(0)
    if part == "growth":
        return growth(rounds)
    if part == "epoch":
        return epoch(max(2, networks // 2))
    memory_format = torch.contiguous_format if part.endswith("contiguous") else torch.channels_last
    return steps(part, memory_format, networks, rounds)


if __name__ == "__main__":
    main()
