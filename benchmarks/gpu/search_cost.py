"""Cost of the steps of a search on a GPU, in units of a training step of the sampled network alone.

    python -m benchmarks.gpu.search_cost [--device cpu --toy --output FOLDER]

The steps are those of `benchmarks/cost/search_cost.py`: ours, and those of NNI's own Proxyless and DARTS, on the same
path, in the same memory format and interleaved. The space is the paper's. DARTS runs all candidates with a graph, so it
has a smaller batch, and a training step of that batch as its unit.
"""

from __future__ import annotations

import gc
import random
import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from nni.nas.strategy import DARTS, Proxyless

from benchmarks.constants import SPACE_OF_THE_PAPER
from benchmarks.cost.supernets import Batch, NniSearch, OurSearch, plain_step, seconds
from benchmarks.gpu.made_up import TINY_SPACE
from benchmarks.gpu.part import Item, Row, Setting, run
from nni_proxyless import MobileNetV2Space
from nni_proxyless.latency import random_architecture
from nni_proxyless.network.space_spec import SpaceSpec

COLUMNS = (
    "step", "memory_format", "batch", "seconds", "training_steps", "lowest", "highest", "networks", "rounds",
)  # fmt: skip
OURS = ("weight", "two_path", "full")
THEIRS = ("weight", "architecture")
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
Times = dict[str, list[float]]


@dataclass(frozen=True)
class Size:
    """How much is timed.

    Attributes:
        spec: Space of the networks.
        batch: Images in a batch.
        darts_batch: The same for DARTS.
        networks: Number of random networks.
        rounds: Timed steps of each kind for each network, after one that is not counted.
    """

    spec: SpaceSpec
    batch: int
    darts_batch: int
    networks: int
    rounds: int

    @classmethod
    def of(cls, setting: Setting) -> Size:
        if setting.toy:
            return cls(SpaceSpec.from_dict(TINY_SPACE), 4, 2, 2, 1)
        return cls(SpaceSpec.from_yaml(SPACE_OF_THE_PAPER), 128, 32, 3, 3)

    def make_batch(self, images: int, memory_format: Any, device: str) -> Batch:
        """Random images of the space's size."""
        return Batch(
            memory_format, images=images, shape=self.spec.input_shape, classes=self.spec.classes, device=device
        )


def items(setting: Setting) -> list[Item]:
    size = Size.of(setting)
    found: list[Item] = []
    for name in FORMATS:
        found += [
            (f"ours and NNI's Proxyless, {name}", partial(_rows, size, setting.device, name, size.batch, _proxyless)),
            (f"NNI's DARTS, {name}", partial(_rows, size, setting.device, name, size.darts_batch, _darts)),
        ]
    return found


def _rows(size: Size, device: str, name: str, images: int, steps: Callable[..., Any]) -> Iterable[Row]:
    batch = size.make_batch(images, FORMATS[name], device)
    prepare = steps(size, batch)
    generator = random.Random(0)
    ratios: Times = {}
    took: Times = {}
    for _ in range(size.networks):
        architecture = random_architecture(size.spec, generator)
        train = plain_step(batch.place(architecture.build()), batch)
        times: Times = {}
        for _ in range(size.rounds + 1):
            times.setdefault("training alone", []).append(seconds(train, device))
            for step, work in prepare(architecture.choices, generator):
                times.setdefault(step, []).append(seconds(work, device))
            gc.collect()  # NNI leaves its graphs to the garbage collector
        medians = {step: statistics.median(values[1:]) for step, values in times.items()}
        for step, value in medians.items():
            took.setdefault(step, []).append(value)
            ratios.setdefault(step, []).append(value / medians["training alone"])
    for step, values in ratios.items():
        yield {
            "step": step, "memory_format": name, "batch": images,
            "seconds": round(statistics.median(took[step]), 6), "training_steps": round(statistics.median(values), 4),
            "lowest": round(min(values), 4), "highest": round(max(values), 4),
            "networks": size.networks, "rounds": size.rounds,
        }  # fmt: skip


def _proxyless(size: Size, batch: Batch) -> Callable[..., Iterator[tuple[str, Callable[[], Any]]]]:
    ours = {
        "own weights": OurSearch(MobileNetV2Space(size.spec), batch),
        "entangled weights": OurSearch(MobileNetV2Space(size.spec, entangled=True), batch),
    }
    theirs = NniSearch(Proxyless(), MobileNetV2Space(size.spec), batch)

    def steps(choices: Any, generator: random.Random) -> Iterator[tuple[str, Callable[[], Any]]]:
        for weights, search in ours.items():
            for step in OURS:
                search.choose(choices, step, generator)
                yield f"{step}, {weights}", partial(search.step, step)
        theirs.choose(choices)
        for step in THEIRS:
            yield f"NNI Proxyless {step}", partial(theirs.step, step)

    return steps


def _darts(size: Size, batch: Batch) -> Callable[..., Iterator[tuple[str, Callable[[], Any]]]]:
    search = NniSearch(DARTS(), MobileNetV2Space(size.spec), batch)

    def steps(choices: Any, generator: random.Random) -> Iterator[tuple[str, Callable[[], Any]]]:
        yield "NNI DARTS weight", partial(search.step, "weight")

    return steps


if __name__ == "__main__":
    raise SystemExit(run("search_cost", COLUMNS, items, __doc__))
