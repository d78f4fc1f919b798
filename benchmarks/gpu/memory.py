"""Peak memory of a search on a GPU, beside training one network and beside NNI's Proxyless and DARTS.

    python -m benchmarks.gpu.memory [--device cpu --toy --output FOLDER]

On CUDA it is the allocator's peak (`torch.cuda.max_memory_allocated`) in a step, after a first step has made the
optimizer's state. The CPU has no such counter, so a dry run there counts the activations that a forward pass saves.
Each search is alone on the device.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from nni.nas.strategy import DARTS, Proxyless

from benchmarks.constants import SPACE_OF_THE_PAPER
from benchmarks.cost.supernets import Batch, NniSearch, OurSearch, plain_step, saved_bytes
from benchmarks.gpu.made_up import TINY_SPACE
from benchmarks.gpu.part import Item, Row, Setting, run
from nni_proxyless import MobileNetV2Space
from nni_proxyless.latency import random_architecture
from nni_proxyless.network.space_spec import SpaceSpec

COLUMNS = ("step", "batch", "peak_mib", "weights_mib", "of_training", "measure")
ALONE = "training alone"
Subject = Callable[[Batch], tuple[Any, Callable[[], Any]]]


def items(setting: Setting) -> list[Item]:
    spec = SpaceSpec.from_dict(TINY_SPACE) if setting.toy else SpaceSpec.from_yaml(SPACE_OF_THE_PAPER)
    images = 4 if setting.toy else 32
    known: dict[str, float] = {}  # peak of each step so far
    return [
        (name, partial(_row, name, subject, spec, images, setting.device, known))
        for name, subject in _subjects(spec).items()
    ]


def _subjects(spec: SpaceSpec) -> dict[str, Subject]:
    """Functions that make a network and one step of it, the training alone first."""
    choices = random_architecture(spec, random.Random(0)).choices

    def alone(batch: Batch) -> tuple[Any, Callable[[], Any]]:
        network = batch.place(random_architecture(spec, random.Random(0)).build())
        return network, plain_step(network, batch)

    def ours(step: str, batch: Batch) -> tuple[Any, Callable[[], Any]]:
        search = OurSearch(MobileNetV2Space(spec), batch)
        search.choose(choices, step, random.Random(0))
        return search.supernet, partial(search.step, step)

    def theirs(strategy: Any, step: str, batch: Batch) -> tuple[Any, Callable[[], Any]]:
        search = NniSearch(strategy(), MobileNetV2Space(spec), batch)
        if strategy is Proxyless:
            search.choose(choices)
        return search.supernet, partial(search.step, step)

    return {
        ALONE: alone,
        "weight": partial(ours, "weight"),
        "two_path": partial(ours, "two_path"),
        "full": partial(ours, "full"),
        "NNI Proxyless weight": partial(theirs, Proxyless, "weight"),
        "NNI Proxyless architecture": partial(theirs, Proxyless, "architecture"),
        "NNI DARTS weight": partial(theirs, DARTS, "weight"),
    }


def _row(
    name: str, subject: Subject, spec: SpaceSpec, images: int, device: str, known: dict[str, float]
) -> Iterable[Row]:
    gc.collect()
    before = torch.cuda.memory_allocated() if device == "cuda" else 0
    batch = Batch(torch.contiguous_format, images=images, shape=spec.input_shape, classes=spec.classes, device=device)
    network, step = subject(batch)
    peak = known[name] = ((_cuda_peak if device == "cuda" else saved_bytes)(step) - before) / 2**20
    weights = sum(p.numel() * p.element_size() for p in network.parameters()) / 2**20
    yield {
        "step": name, "batch": images, "peak_mib": round(peak, 3), "weights_mib": round(weights, 3),
        "of_training": round(peak / known[ALONE], 4),
        "measure": "allocated" if device == "cuda" else "saved activations",
    }  # fmt: skip


def _cuda_peak(step: Callable[[], Any]) -> int:
    step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return int(torch.cuda.max_memory_allocated())


if __name__ == "__main__":
    raise SystemExit(run("memory", COLUMNS, items, __doc__))
