"""What the steps of a search cost, in units of one training step of the sampled network alone.

    .venv/bin/python benchmarks/search_cost.py [--networks 12]

Space `mobilenetv2_imagenet`, 16 images of 96 x 96, channels_last for all. For each of some random networks, training
it as a plain module, a weight step of the supernet on the same path, and architecture steps with that path active are
timed in turn; the medians over networks are given with their range. Activations saved for the backward pass are counted
with saved-tensor hooks, each storage once.
"""

from __future__ import annotations

import argparse
import random
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from _results import publish
from torch import nn

from nni_proxyless import MobileNetV2Space, ProxylessNAS
from nni_proxyless.gates import PathSample, rescale_pair
from nni_proxyless.latency import random_architecture
from nni_proxyless.supernet import WeightFreezer

STEPS = ("weight", "two_path", "full")


def seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def saved_bytes(forward: Callable[[], Any]) -> int:
    storages: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(storages.values())


class Search:
    """A supernet with the two optimizers of a search, without Lightning around it."""

    def __init__(self) -> None:
        space = MobileNetV2Space.from_yaml("mobilenetv2_imagenet", input_size=96)
        self.spec = space.spec
        strategy = ProxylessNAS()
        self.supernet = strategy.mutate_model(space).to(memory_format=torch.channels_last)
        self.gates = strategy._gates
        alphas = [gate.alpha for gate in self.gates.values()]
        known = {id(alpha) for alpha in alphas}
        weights = [p for p in self.supernet.parameters() if id(p) not in known]
        self.weight_optimizer = torch.optim.SGD(weights, 0.01, momentum=0.9)
        self.arch_optimizer = torch.optim.Adam(alphas, 1e-3, betas=(0.0, 0.999))
        self.freezer = WeightFreezer(self.supernet)
        self.images = torch.randn(16, 3, 96, 96).contiguous(memory_format=torch.channels_last)
        self.labels = torch.randint(0, 1000, (16,))

    def loss(self, network: nn.Module) -> torch.Tensor:
        return nn.functional.cross_entropy(network(self.images), self.labels)

    def choose(self, choices: Any, step: str, generator: random.Random) -> None:
        for label, gate in self.gates.items():
            active = gate.candidates.index(choices[label])
            others = tuple(i for i in range(gate.num_candidates) if i != active)
            inactive = {"weight": (), "two_path": (generator.choice(others),), "full": others}[step]
            gate.sample = PathSample(active, inactive)

    def step(self, step: str) -> None:
        if step == "weight":
            self.weight_optimizer.zero_grad()
            self.loss(self.supernet).backward()
            self.weight_optimizer.step()
            return
        before = [gate.alpha.detach().clone() for gate in self.gates.values()]
        with self.freezer.frozen():
            self.arch_optimizer.zero_grad()
            self.loss(self.supernet).backward()
        self.arch_optimizer.step()
        if step == "two_path":
            for gate, alpha in zip(self.gates.values(), before, strict=True):
                rescale_pair(gate.alpha, alpha, gate.sample)

    def forward(self, step: str) -> None:
        if step == "weight":
            self.loss(self.supernet)
        else:
            with self.freezer.frozen():
                self.loss(self.supernet)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    generator = random.Random(0)
    search = Search()
    times: dict[str, list[float]] = {step: [] for step in STEPS}
    memory: dict[str, list[float]] = {step: [] for step in STEPS}
    for _ in range(options.networks):
        architecture = random_architecture(search.spec, generator)
        network = architecture.build().to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9)

        def train(network: nn.Module = network, optimizer: torch.optim.Optimizer = optimizer) -> None:
            optimizer.zero_grad()
            search.loss(network).backward()
            optimizer.step()

        taken: dict[str, list[float]] = {step: [] for step in ("train", *STEPS)}
        for _ in range(options.rounds):
            taken["train"].append(seconds(train))
            for step in STEPS:
                search.choose(architecture.choices, step, generator)
                taken[step].append(seconds(lambda step=step: search.step(step)))
        unit = np.median(taken["train"][1:])
        alone = saved_bytes(lambda network=network: search.loss(network))
        for step in STEPS:
            times[step].append(float(np.median(taken[step][1:]) / unit))
            search.choose(architecture.choices, step, generator)
            memory[step].append(saved_bytes(lambda step=step: search.forward(step)) / alone)
    rows = [
        {
            "step": step,
            "time": round(float(np.median(times[step])), 3),
            "time_lowest": round(min(times[step]), 3),
            "time_highest": round(max(times[step]), 3),
            "saved_activations": round(float(np.median(memory[step])), 3),
            "networks": options.networks,
        }
        for step in STEPS
    ]
    publish("search_cost", rows, ("nni-proxyless", "torch"))


if __name__ == "__main__":
    main()
