"""Zero-cost proxies of all networks of the ground truth: scores of networks that have not been trained.

    python -m benchmarks.search_quality.proxies --data ../shared/data/cifar10

* AZ-NAS (Lee and Ham, AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search, CVPR 2024): expressivity,
  progressivity and trainability from the features of the blocks and one backward pass through each.
* SWAP (Peng, Song, Fayek, Ciesielski and Chang, SWAP-NAS: Sample-Wise Activation Patterns for Ultra-Fast NAS, ICLR
  2024): the number of distinct activation patterns.

The weights are drawn from N(0, 2 / fan in), as in AZ-NAS. Each score is the mean over several initialisations. The
script writes `results/zero_cost_proxies.csv`.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.constants import SEARCH_QUALITY_RESULTS
from benchmarks.search_quality.ground_truth.load import GroundTruth
from benchmarks.search_quality.ground_truth.train import Training, data_file, make_data
from nni_proxyless.data.image_arrays import load_arrays
from nni_proxyless.files.writing import write_csv

PROXIES_CSV = SEARCH_QUALITY_RESULTS / "zero_cost_proxies.csv"
SCORES = ("expressivity", "progressivity", "trainability", "swap")
SEEDS = 3
IMAGES = 32


def initialise(network: nn.Module) -> None:
    """Draw all weights from N(0, 2 / fan in); biases are zero, and batch-norms scale by one."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def block_features(network: nn.Module, images: Tensor) -> list[Tensor]:
    """Output of the stem, of each block that is not skipped, and of the head, each (images, channels, height, width).

    A gradient can be taken from each output to the one before.
    """
    stem, blocks, head = network.get_submodule("stem"), network.get_submodule("blocks"), network.get_submodule("head")
    features = [stem(images)]
    for block in blocks.children():
        if not isinstance(block, nn.Identity):
            features.append(block(features[-1]))
    return [*features, head(features[-1])]


def expressivity(features: Tensor) -> float:
    """Entropy of the normalised eigenvalues of the covariance of the channels, in nats (expressivity of AZ-NAS).

    Args:
        features: Output of a block, (images, channels, height, width).
    """
    columns = features.detach().permute(1, 0, 2, 3).flatten(1)
    columns = columns - columns.mean(1, keepdim=True)
    eigenvalues = torch.linalg.eigvalsh(columns @ columns.T / columns.shape[1]).clamp(min=0)
    parts = eigenvalues / eigenvalues.sum()
    return float(torch.special.entr(parts).sum())


def trainability(before: Tensor, after: Tensor, generator: torch.Generator) -> float:
    """-σ - 1/σ + 2 of a block, where σ is the spectral norm of an estimate of its Jacobian (trainability of AZ-NAS).

    The estimate is the mean of g vᵀ over images and positions. v is the gradient at the output with random signs, and g
    is the gradient at the input. Where the block has a stride, positions that become one count as channels. The value
    is 0 if the block keeps the scale of gradients, and negative otherwise.

    Args:
        before: Input of the block, (images, channels, height, width).
        after: Its output.
        generator: Draws the signs.
    """
    signs = torch.randint(0, 2, after.shape, generator=generator).to(after) * 2 - 1
    (gradient,) = torch.autograd.grad(after, before, signs, retain_graph=True)
    stride = gradient.shape[-1] // signs.shape[-1]
    gradient = functional.pixel_unshuffle(gradient, stride)
    inner, outer = (of.permute(1, 0, 2, 3).flatten(1) for of in (gradient, signs))
    largest = float(torch.linalg.matrix_norm(inner @ outer.T / inner.shape[1], ord=2))
    return -largest - 1 / max(largest, 1e-6) + 2


def activation_patterns(network: nn.Module, images: Tensor) -> int:
    """Number of distinct patterns of images for which a neuron is active, over all neurons (SWAP-Score)."""
    codes: list[Tensor] = []
    powers = 2 ** torch.arange(len(images))

    def remember(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        codes.append((powers @ (output.detach() > 0).flatten(1).long()).unique())

    hooks = [m.register_forward_hook(remember) for m in network.modules() if isinstance(m, (nn.ReLU, nn.ReLU6))]
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    return len(torch.cat(codes).unique())


def scores(network: nn.Module, images: Tensor, seed: int) -> dict[str, float]:
    """All scores of a network with the weights of one initialisation; the higher, the better."""
    torch.manual_seed(seed)
    initialise(network)
    network.train()
    features = block_features(network, images)
    entropies = [expressivity(of) for of in features]
    generator = torch.Generator().manual_seed(seed)
    blocks = [trainability(a, b, generator) for a, b in itertools.pairwise(features)]
    return {
        "expressivity": sum(entropies),
        "progressivity": min(b - a for a, b in itertools.pairwise(entropies)),
        "trainability": sum(blocks) / len(blocks),
        "swap": math.log(activation_patterns(network, images)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with CIFAR-10's train.tar.xz")
    options = parser.parse_args()
    torch.set_num_threads(1)
    train, _, _ = load_arrays(make_data(options.data, Training(), data_file()))
    images, _ = train.batch(torch.arange(IMAGES))
    truth = GroundTruth()
    rows = []
    for name in truth.names:
        found = [scores(truth.architecture(name).build(), images, seed) for seed in range(SEEDS)]
        rows.append({"architecture": name, **{key: f"{np.mean([of[key] for of in found]):.6f}" for key in SCORES}})
    write_csv(PROXIES_CSV, ("architecture", *SCORES), rows)
    sys.stdout.write(f"{len(rows)} networks -> {PROXIES_CSV}\n")


if __name__ == "__main__":
    main()
