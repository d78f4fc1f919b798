"""How the initial weights of a supernet's candidates change what a short training reaches.

    python -m benchmarks.cost.candidate_alignment [--seeds 3] [--epochs 20]

The script trains a supernet of `mobilenetv2_digits` with weight steps on uniformly drawn paths. It compares four
initialisations: candidates aligned or not, residual blocks that start as identities or not. A fifth training adds
entangled weights to the last initialisation. The result is the held-out accuracy of random networks with the supernet's
weights.
"""

from __future__ import annotations

import argparse
import random
import warnings
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.constants import COST_RESULTS
from benchmarks.cost.supernets import gates_by_label
from benchmarks.results_csv import publish
from nni_proxyless import MobileNetV2Space, ProxylessNAS
from nni_proxyless.data.splits import load_splits
from nni_proxyless.latency import random_architecture
from nni_proxyless.network.blocks import MBConv, initialise
from nni_proxyless.supernet.entangling import align_candidates, entangle
from nni_proxyless.supernet.gated import decoded_state
from nni_proxyless.training.accuracy import accuracy, reestimate_batch_norm

BATCH = 32


def supernet(aligned: bool, identity: bool, entangled: bool) -> MobileNetV2Space:
    """A supernet with the given initialisation."""
    space = MobileNetV2Space.from_yaml("mobilenetv2_digits")
    space.entangled = entangled
    initialise(space)
    if aligned:
        for choice in list(space.blocks)[1:]:
            align_candidates(choice)
    if not identity:
        for module in space.modules():
            if isinstance(module, MBConv) and module.residual:
                nn.init.ones_(module.bn3.weight)
    mutated: MobileNetV2Space = ProxylessNAS().mutate_model(space).to(memory_format=torch.channels_last)
    entangle(mutated)
    return mutated


def train(aligned: bool, identity: bool, entangled: bool, seed: int, epochs: int, networks: int) -> float:
    """Mean held-out accuracy of random networks after training."""
    torch.manual_seed(seed)
    space = supernet(aligned, identity, entangled)
    gates = list(gates_by_label(space).values())
    spec = space.spec
    splits = load_splits("digits", spec.input_shape, seed=seed)
    images, labels = (torch.stack([torch.as_tensor(pair[k]) for pair in splits.weights]) for k in (0, 1))
    images = images.contiguous(memory_format=torch.channels_last)
    held = [(torch.stack([x for x, _ in splits.held_out]), torch.stack([y for _, y in splits.held_out]))]
    alphas = {id(gate.alpha) for gate in gates}
    weights = [p for p in space.parameters() if id(p) not in alphas]
    optimizer = torch.optim.SGD(weights, 0.05, momentum=0.9, nesterov=True, weight_decay=4e-5)
    steps = len(images) // BATCH
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps)
    for _ in range(epochs):
        for index in torch.randperm(len(images))[: steps * BATCH].reshape(steps, BATCH):
            for gate in gates:
                gate.draw_path()
            optimizer.zero_grad()
            batch = images[index].contiguous(memory_format=torch.channels_last)
            nn.functional.cross_entropy(space(batch), labels[index]).backward()
            optimizer.step()
            schedule.step()
    generator = random.Random(seed)
    found = []
    for _ in range(networks):
        architecture = random_architecture(spec, generator)
        network = architecture.build()
        network.load_state_dict(decoded_state(space, architecture.choices))
        reestimate_batch_norm(network, [(images[:256], labels), (images[256:512], labels)])
        found.append(accuracy(network, held))
    return float(np.mean(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--networks", type=int, default=16)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    starts = [(aligned, identity, False) for aligned in (False, True) for identity in (False, True)]
    starts.append((True, True, True))
    found: dict[tuple[bool, bool, bool], list[float]] = {start: [] for start in starts}
    for seed in range(options.seeds):
        for start in starts:
            found[start].append(train(*start, seed, options.epochs, options.networks))
    rows: list[dict[str, Any]] = [
        {
            "aligned": aligned,
            "residuals_start_as_identity": identity,
            "weights_entangled": entangled,
            "epochs": options.epochs,
            "seeds": options.seeds,
            "networks": options.networks,
            "mean_accuracy": round(float(np.mean(values)), 4),
            "lowest_seed": round(min(values), 4),
            "highest_seed": round(max(values), 4),
        }
        for (aligned, identity, entangled), values in found.items()
    ]
    publish("candidate_alignment", rows, ("nni-proxyless", "torch"), COST_RESULTS)


if __name__ == "__main__":
    main()
