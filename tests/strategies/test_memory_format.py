"""Searches on the CPU run in channels_last with any evaluator, unless the network cannot, and learn the same."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nni.nas.evaluator.pytorch import DataLoader
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from nni_proxyless import ProxylessNAS
from nni_proxyless.training.memory_format import ChannelsLast
from tests.strategies.test_self_check import Plain, search


class Viewed(nn.Conv2d):
    """Convolution of an image that has been one row of numbers, which `Tensor.view` makes of no channels_last."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.view(x.shape[0], -1).view(x.shape))


class Images(ModelSpace):
    def __init__(self, other: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.layer = LayerChoice({"a": nn.Conv2d(8, 8, 3, padding=1), "b": other()}, label="layer")
        self.linear = nn.Linear(8, 2)
        self.formats: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(self.stem(x))
        if self.training and torch.is_grad_enabled():
            self.formats.append(y.is_contiguous(memory_format=torch.channels_last))
        return self.linear(y.mean((2, 3)))  # type: ignore[no-any-return]


class OfImages(Plain):
    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.05, momentum=0.9)


def images(seed: int) -> DataLoader[Any]:
    x = torch.randn(32, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return DataLoader(TensorDataset(x, (x[:, 0].mean((1, 2)) > 0).long()), batch_size=8)


def searched(other: Callable[[], nn.Module], **settings: Any) -> tuple[ProxylessNAS, Images]:
    torch.manual_seed(0)
    space = Images(other)
    settings = {"arch_update_every": 1, **settings}
    strategy = search(space, OfImages(), loaders=(images(0), images(1)), trainer={"max_epochs": 2}, **settings)
    return strategy, space


@pytest.mark.parametrize("gradient", ["full", "reinforce"])
def test_a_search_learns_the_same_in_channels_last(gradient: Any) -> None:
    extra: dict[str, Any] = {"objective": "add_linear"} if gradient == "reinforce" else {}
    found = [
        searched(lambda: nn.Conv2d(8, 8, 1), arch_gradient=gradient, channels_last=wanted, **extra)
        for wanted in (True, False)
    ]
    assert [set(space.formats) for _, space in found] == [{True}, {False}]
    (fast, fast_space), (plain, plain_space) = found
    for a, b in zip(fast_space.parameters(), plain_space.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(fast.path_probs(), plain.path_probs(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("gradient", ["full", "reinforce"])
def test_a_network_that_cannot_run_in_channels_last_is_searched_as_it_was(gradient: Any) -> None:
    _, space = searched(lambda: Viewed(8, 8, 3, padding=1), arch_gradient=gradient)
    assert set(space.formats) == {False}
    assert space.stem.weight.is_contiguous()


def test_weights_in_shared_memory_stay_and_momenta_follow() -> None:
    first, second, third = (nn.Conv2d(4, 4, 3) for _ in range(3))
    second.weight.data = first.weight.data
    network = nn.Sequential(first, second, third)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    network(torch.randn(2, 4, 9, 9)).sum().backward()
    optimizer.step()
    before = copy.deepcopy(optimizer.state_dict())
    formats = ChannelsLast(network)
    assert formats.weights == [third.weight]
    assert second.weight.data_ptr() == first.weight.data_ptr()
    formats.follow([optimizer])
    momentum = optimizer.state[third.weight]["momentum_buffer"]
    assert momentum.stride() == third.weight.stride() != before["state"][4]["momentum_buffer"].stride()
    assert torch.equal(momentum, before["state"][4]["momentum_buffer"])
    formats.revert()
    assert third.weight.is_contiguous()
