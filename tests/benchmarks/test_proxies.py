"""Zero-cost proxies of the benchmarks on networks whose scores are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from benchmarks.search_quality.ground_truth.load import SPACE
from benchmarks.search_quality.proxies import SCORES, activation_patterns, expressivity, scores, trainability
from benchmarks.search_quality.proxy_tables import az_nas
from nni_proxyless.network.architecture import Architecture
from nni_proxyless.network.space_spec import SpaceSpec


def test_expressivity_is_the_entropy_of_the_eigenvalues() -> None:
    independent = torch.randn(64, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    assert expressivity(independent) == pytest.approx(math.log(4), abs=1e-3)
    assert expressivity(independent[:, :1].repeat(1, 4, 1, 1)) == pytest.approx(0.0, abs=1e-5)
    # Variances 3 and 1: the parts are 3/4 and 1/4.
    scaled = independent[:, :2] * torch.tensor([math.sqrt(3.0), 1.0])[None, :, None, None]
    expected = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert expressivity(scaled) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(("scale", "stride"), [(1.0, 1), (3.0, 1), (0.25, 1), (2.0, 2)])
def test_trainability_knows_the_scale_of_gradients(scale: float, stride: int) -> None:
    """A convolution that multiplies each channel has a Jacobian whose singular values are the factor."""
    before = torch.zeros(64, 3, 32, 32, requires_grad=True)
    block = nn.Conv2d(3, 3, 1, stride=stride, bias=False)
    with torch.no_grad():
        block.weight.copy_(scale * torch.eye(3)[:, :, None, None])
    value = trainability(before, block(before), torch.Generator().manual_seed(0))
    assert value == pytest.approx(-scale - 1 / scale + 2, abs=0.05)


def test_patterns_are_counted_over_all_neurons() -> None:
    first, second = nn.Linear(2, 3, bias=False), nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]]))
        second.weight.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, -1.0]]))
    images = torch.tensor([[1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]])
    # First layer: images 1 and 3; 2 and 3; 1 and 3 again. Second layer: 1 and 3 again; 2 alone.
    assert activation_patterns(nn.Sequential(first, nn.ReLU(), second, nn.ReLU()), images) == 3


def test_az_nas_sums_logarithms_of_ranks() -> None:
    expected = [math.log(1 / 3) + math.log(1), math.log(2 / 3) + math.log(1 / 3), math.log(1) + math.log(2 / 3)]
    assert az_nas([[1.0, 5.0, 7.0], [9.0, 2.0, 3.0]]) == pytest.approx(expected)


def test_skipped_layers_are_no_blocks() -> None:
    spec = SpaceSpec.from_yaml(str(SPACE))
    images = torch.randn(20, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    found = {}
    for last in ("skip", "k5_e6"):
        names = ("k3_e1", "skip", "k3_e1", last)
        choices = dict(zip((layer.label for layer in spec.layers), names, strict=True))
        found[last] = scores(Architecture.of_space(spec, choices).build(), images, seed=0)
        assert set(found[last]) == set(SCORES)
        assert all(math.isfinite(value) for value in found[last].values())
    assert found["k5_e6"]["expressivity"] > found["skip"]["expressivity"] + 1  # another block of 32 channels
    assert found["k5_e6"]["swap"] > found["skip"]["swap"]
