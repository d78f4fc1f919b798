"""Sequentials that join their batch-norms compute what PyTorch's own do, in every kind of pass."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from nni_proxyless.training import norms
from nni_proxyless.training.cpu_kernels import accelerate
from nni_proxyless.training.in_order import InOrder


class Block(nn.Sequential):
    """Sequential of Sequentials whose own `forward` adds a residual, as in NNI's hub."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x)
        return x + y


def units(channels: int, act: Callable[[], nn.Module] = nn.ReLU6) -> nn.Sequential:
    """Residual block of three convolutions, each with a batch-norm and most with an activation."""

    def unit(c_in: int, c_out: int, kernel: int, groups: int, *last: nn.Module) -> nn.Sequential:
        conv = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, groups=groups, bias=False)
        norm = nn.BatchNorm2d(c_out, momentum=0.3)
        nn.init.normal_(norm.weight, 3.0)
        nn.init.normal_(norm.bias, 1.0)
        return nn.Sequential(conv, norm, *last)

    wide = 2 * channels
    return Block(unit(channels, wide, 1, 1, act()), unit(wide, wide, 5, wide, act()), unit(wide, channels, 1, 1))


def outcome(network: nn.Module, x: Tensor, weight: Tensor) -> list[Tensor]:
    """Output, gradients and buffers of a training step."""
    x = x.clone().requires_grad_()
    y = network(x)
    (y * weight).sum().backward()
    assert x.grad is not None
    return [y.detach(), x.grad, *(p.grad for p in network.parameters() if p.grad is not None), *network.buffers()]


@pytest.mark.parametrize("act", [nn.ReLU6, nn.ReLU, nn.Hardswish])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_a_training_step_is_that_of_the_plain_network_in_double_precision(
    act: Callable[[], nn.Module], memory_format: torch.memory_format
) -> None:
    plain = units(8, act)
    faster = accelerate(copy.deepcopy(plain))
    assert isinstance(faster, InOrder)
    x = torch.randn(4, 8, 7, 9).contiguous(memory_format=memory_format)
    weight = torch.randn_like(x)
    found = outcome(faster, x, weight)
    expected = outcome(plain.double(), x.double(), weight.double())
    assert len(found) == len(expected) == 2 + len(list(plain.parameters())) + len(list(plain.buffers()))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.double(), b.double(), rtol=1e-3, atol=1e-3)


def test_the_gradient_of_an_output_that_several_operations_use_is_left_alone() -> None:
    """The last ReLU6 of a Sequential must not mask the gradient in place: an addition passes it on to others."""
    plain = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU6())
    faster = accelerate(copy.deepcopy(plain))
    x = torch.randn(3, 4, 5, 5)
    grads = []
    for network in (plain, faster):
        z = x.clone().requires_grad_()
        (network(z) + z).sum().backward()
        grads.append(z.grad)
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("large", [False, True])
def test_passes_without_a_graph_compute_the_same_and_change_nothing_else(
    large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(norms, "LARGE", 0 if large else 1 << 30)
    plain = units(8)
    faster = accelerate(copy.deepcopy(plain))
    for norm in (m for net in (plain, faster) for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.track_running_stats = False
    x = (torch.randn(4, 8, 6, 6) * 3 + 5).contiguous(memory_format=torch.channels_last)
    kept, state = x.clone(), copy.deepcopy(plain.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(faster(x), plain(x), rtol=1e-4, atol=1e-4)
    assert torch.equal(x, kept)
    assert all(torch.equal(value, state[key]) for key, value in faster.state_dict().items())


def test_children_stay_and_their_hooks_see_what_they_compute() -> None:
    plain = units(4)
    faster = accelerate(accelerate(copy.deepcopy(plain)))
    assert [type(m) for m in plain.modules() if not list(m.children())][1:2] == [nn.BatchNorm2d]
    assert list(faster.state_dict()) == list(plain.state_dict())
    x = torch.randn(2, 4, 5, 5)
    seen: list[list[Tensor]] = [[], []]
    for network, outputs in zip((plain, faster), seen, strict=True):
        for name in ("0.0", "0.1", "0.2", "1.1"):
            network.get_submodule(name).register_forward_hook(lambda _m, _i, y, of=outputs: of.append(y.clone()))
        network(x.clone().requires_grad_())
    assert len(seen[0]) == 4
    for a, b in zip(*seen, strict=True):
        torch.testing.assert_close(a, b)


def test_copies_and_pickles_are_of_the_same_kind() -> None:
    faster = accelerate(units(4)).eval()
    x = torch.randn(2, 4, 5, 5)
    for other in (copy.deepcopy(faster), pickle.loads(pickle.dumps(faster))):
        assert isinstance(other, Block)
        assert type(other) is type(faster)
        assert torch.equal(other(x), faster(x))


def test_a_gradient_can_be_differentiated_again() -> None:
    """As for a penalty on the norm of the gradient."""
    plain = units(4)
    faster = accelerate(copy.deepcopy(plain))
    found = []
    for network, kind in ((plain.double(), torch.float64), (faster, torch.float32)):
        x = torch.linspace(-2, 3, 2 * 4 * 25).sin().view(2, 4, 5, 5).to(kind).requires_grad_()
        (grad,) = torch.autograd.grad(network(x).square().mean(), x, create_graph=True)
        grad.square().sum().backward()
        found.append([p.grad.double() for p in network.parameters() if p.grad is not None])
    assert len(found[0]) == len(list(plain.parameters()))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-3)


def test_a_single_value_per_channel_is_refused_as_ever() -> None:
    faster = accelerate(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU6()))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        faster(torch.randn(1, 4, 1, 1))
