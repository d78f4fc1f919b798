"""What a weight step and an architecture step cost in NNI's own space, with NNI's strategy and with ours.

    python -m benchmarks.cost.hub_cost [--networks 6] [--rounds 3] [--batches 24] [--parts steps experiment] [--append]

The space is `ProxylessNAS` of NNI's hub, with choices of operators inside choices of depth, and 16 images of 96 x 96.
All times are CPU times of one thread, so that other programs on the machine matter little. Runs take turns.

`steps`      times the steps of both supernets on the same sampled networks and in the same memory format, and training
             that network alone as a plain module. Both use the optimizers of `search_cost.py`.
`experiment` times the batches of whole searches with NNI's evaluator `Classification`, from a weight step to the next.
             NNI's Proxyless and ours with each gradient take an architecture step after each weight step, and one
             search has our defaults. Each search has a process of its own and draws its own networks. The processes
             take turns after each batch.
"""

from __future__ import annotations

import argparse
import gc
import logging
import multiprocessing
import random
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from nni.nas.evaluator.pytorch import Classification, DataLoader
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.hub.pytorch import ProxylessNAS as HubSpace
from nni.nas.space import RawFormatModelSpace
from nni.nas.strategy import Proxyless
from torch.utils.data import TensorDataset

from benchmarks.constants import COST_RESULTS
from benchmarks.cost.ratios import ratio_rows
from benchmarks.cost.supernets import BATCH, SIZE, Batch, NniSearch, OurSearch, plain_step, saved_bytes
from benchmarks.results_csv import publish
from nni_proxyless import ProxylessNAS

EACH: dict[str, Any] = {"arch_update_every": 1}
# Settings of our searches in an experiment, and what they do for each weight step.
OURS: dict[str, dict[str, Any]] = {
    "two_path": {"arch_gradient": "two_path", **EACH},
    "full": {"arch_gradient": "full", **EACH},
    "reinforce": {"arch_gradient": "reinforce", **EACH},
    "defaults": {},
}
SEARCHES = {
    "two_path": "weight + two_path", "full": "weight + full", "reinforce": "weight + reinforce",
    "defaults": "weight step with the defaults",
}  # fmt: skip
DEPTHS = (1, 2, 3, 4)  # of the space's Repeats
WARM_UP = 2  # batches of an experiment that do not count
GROUPS = 6  # of the batches of an experiment


def cpu_seconds(run: Callable[[], Any]) -> float:
    """CPU time of a call in seconds."""
    start = time.process_time()
    run()
    return time.process_time() - start


def for_nni(choices: Mapping[str, Any]) -> dict[str, Any]:
    """The choices as NNI's Proxyless makes them: for each optional block of a Repeat, whether it runs."""
    made = {label: value for label, value in choices.items() if value not in DEPTHS}
    for label, depth in choices.items():
        if depth in DEPTHS:
            made |= {f"{label}/in_repeat_{i}": "1" if i < depth else "0" for i in range(min(DEPTHS), max(DEPTHS))}
    return made


def steps(part: str, memory_format: Any, networks: int, rounds: int) -> list[dict[str, Any]]:
    batch, generator = Batch(memory_format), random.Random(0)
    ours, theirs = OurSearch(HubSpace(), batch), NniSearch(Proxyless(), HubSpace(), batch)
    times: dict[str, list[float]] = {}
    memory: dict[str, list[float]] = {}
    for _ in range(networks):
        choices = {label: generator.choice(gate.candidates) for label, gate in ours.gates.items()}
        network = batch.place(HubSpace().freeze(choices))
        train = plain_step(network, batch)
        theirs.choose(for_nni(choices))
        taken: dict[str, list[float]] = {}
        for _ in range(rounds + 1):
            taken.setdefault("training alone", []).append(cpu_seconds(train))
            for step in ("weight", "two_path", "full"):
                ours.choose(choices, step, generator)
                taken.setdefault(step, []).append(cpu_seconds(lambda step=step: ours.step(step)))  # type: ignore[misc]
            for step in ("weight", "architecture"):
                took = cpu_seconds(lambda step=step: theirs.step(step))  # type: ignore[misc]
                taken.setdefault(f"NNI Proxyless {step}", []).append(took)
                gc.collect()  # NNI leaves its graphs to the garbage collector
        medians = {name: statistics.median(values[1:]) for name, values in taken.items()}
        unit = medians.pop("training alone")
        for name, value in medians.items():
            times.setdefault(name, []).append(value / unit)
        both = medians["NNI Proxyless weight"] + medians["NNI Proxyless architecture"]
        for step in ("two_path", "full"):
            ratio = both / (medians["weight"] + medians[step])
            times.setdefault(f"NNI Proxyless / ours, weight + {step}", []).append(ratio)
        alone = saved_bytes(lambda network=network: batch.loss(network))  # type: ignore[misc]
        for step in ("weight", "two_path", "full"):
            ours.choose(choices, step, generator)
            memory.setdefault(step, []).append(saved_bytes(lambda step=step: ours.forward(step)) / alone)  # type: ignore[misc]
        memory.setdefault("NNI Proxyless", []).append(saved_bytes(lambda: batch.loss(theirs.supernet)) / alone)
    return [*ratio_rows(part, times, "time"), *ratio_rows(part, memory, "saved activations")]


class TakesTurns(pl.Callback):
    """Waits for its turn before each batch, and sends the CPU time of the batch."""

    def __init__(self, turns: Any, collects: bool) -> None:
        self._turns = turns
        self._collects = collects  # as NNI leaves its graphs to the garbage collector
        self._start = 0.0

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        self._turns.recv()
        self._start = time.process_time()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        taken = time.process_time() - self._start
        if self._collects:
            gc.collect()
        self._turns.send(taken)


def search(who: str, batches: int, turns: Any) -> None:
    """Search for an epoch, with NNI's strategy or with one of ours."""
    quiet()
    torch.manual_seed(0)
    images = TensorDataset(torch.randn(BATCH * batches, 3, SIZE, SIZE), torch.randint(0, 1000, (BATCH * batches,)))
    evaluator = Classification(
        train_dataloaders=DataLoader(images, batch_size=BATCH, shuffle=True),
        val_dataloaders=DataLoader(images, batch_size=BATCH, shuffle=True),
        num_classes=1000,
        max_epochs=1,
        accelerator="cpu",
        callbacks=[TakesTurns(turns, who == "nni")],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    strategy = Proxyless() if who == "nni" else ProxylessNAS(**OURS[who], seed=0, finalists=1)
    strategy(RawFormatModelSpace.from_model(HubSpace(), evaluator), SequentialExecutionEngine())


def experiment(batches: int) -> list[dict[str, Any]]:
    context = multiprocessing.get_context("spawn")
    turns = {who: context.Pipe() for who in ("nni", *OURS)}
    workers = [context.Process(target=search, args=(who, batches, ends[1]), daemon=True) for who, ends in turns.items()]
    for worker in workers:
        worker.start()
    taken: dict[str, list[float]] = {}
    for _ in range(batches):
        for who, (order, _) in turns.items():
            order.send(None)
            taken.setdefault(who, []).append(order.recv())
    for worker in workers:
        worker.join()
    # Every batch has networks of its own, so each ratio is one of means over several batches.
    means = {
        who: [statistics.mean(values[WARM_UP + i :: GROUPS]) for i in range(GROUPS)] for who, values in taken.items()
    }
    ratios = {
        f"NNI Proxyless / ours, {name}": [a / b for a, b in zip(means["nni"], means[who], strict=True)]
        for who, name in SEARCHES.items()
    }
    return ratio_rows("experiment", ratios, "time")


def quiet() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    torch.set_num_threads(1)


def run_part(part: str, networks: int, rounds: int) -> list[dict[str, Any]]:
    quiet()
    torch.manual_seed(0)
    memory_format = torch.contiguous_format if part.endswith("contiguous") else torch.channels_last
    return steps(part, memory_format, networks, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, default=24)
    parser.add_argument("--parts", nargs="+", default=["steps", "experiment"])
    parser.add_argument("--append", action="store_true", help="keep the rows of an earlier run, of other parts")
    options = parser.parse_args()
    rows = []
    # Each part has a process of its own: NNI's Proxyless leaves some GB of graphs behind.
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        if "steps" in options.parts:
            for part in ("steps, channels_last", "steps, contiguous"):
                rows += pool.apply(run_part, (part, options.networks, options.rounds))
    if "experiment" in options.parts:
        rows += experiment(options.batches)
    publish(
        "hub_cost", rows, ("nni-proxyless", "nni", "torch", "pytorch-lightning"), COST_RESULTS, append=options.append
    )


if __name__ == "__main__":
    main()
