"""Model spaces for the tests of `nni_spaces`, and a backend whose cost of a network anybody can compute."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import nni
import nni.nas.strategy  # imported first: otherwise NNI's import cycle leaves stubs
import torch
import torch.nn.functional as F
from nni.nas.nn.pytorch import Cell, InputChoice, LayerChoice, ModelSpace, MutableConv2d, MutableLinear, Repeat
from torch import Tensor, nn

from nni_proxyless.latency.backends.base import Backend, Workload
from nni_proxyless.latency.calls import Call
from nni_proxyless.latency.protocol import Protocol
from nni_proxyless.supernet.candidates import path_candidates, searched

ONCE = Protocol(warmup_s=0.0, settle_s=0.0, sample_s=0.0, min_rounds=1, max_rounds=1)


class EveryChoice(ModelSpace):
    """Space of 128 networks with each kind of choice. Two widths and a kernel are shared by several modules.

    Args:
        pooled: Whether the second input of the InputChoice is smaller, so that the shapes behind it depend on it.
    """

    def __init__(self, pooled: bool = False) -> None:
        super().__init__()
        self.pooled = pooled
        width, kernel = nni.choice("width", [4, 6]), nni.choice("kernel", [1, 3])
        self.stem = MutableConv2d(3, width, 3, padding=1)
        self.layer = LayerChoice(
            {"conv": MutableConv2d(width, width, kernel, padding=kernel // 2), "skip": nn.Identity()}, label="layer"
        )
        self.blocks = Repeat(
            lambda index: LayerChoice([MutableConv2d(width, width, 1), nn.AvgPool2d(3, 1, 1)], label=f"block{index}"),
            (1, 2),
            label="depth",
        )
        self.join = InputChoice(n_candidates=2, n_chosen=1, label="join")
        self.scale = nn.Parameter(torch.ones(1))
        self.head = MutableConv2d(width, 8, 3, padding=1)
        self.classifier = MutableLinear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.layer(self.stem(x)))
        early = F.avg_pool2d(x, 2) if self.pooled else x
        x = self.join([self.blocks(x), early])
        return self.classifier(self.scale * self.head(x).mean(dim=(2, 3)))


class AnyWidth(nn.Module):
    """Convolution that takes as many channels as there are."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, most, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight[:, : x.shape[1]])


class LooseEnds(ModelSpace):
    """Space of 48 networks, whose last convolution gets as many nodes as no other node uses."""

    def __init__(self) -> None:
        super().__init__()

        def conv(kernel: int) -> Callable[[int, int, int | None], nn.Module]:
            return lambda node, op, chosen: nn.Conv2d(3, 3, kernel, padding=kernel // 2, bias=chosen == 0)

        self.cell = Cell({"one": conv(1), "three": conv(3)}, 3, merge_op="loose_end", label="cell")
        self.last = AnyWidth(9)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.cell([x])).mean((2, 3))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return self.inner(x, x, x, need_weights=False)[0] * weights[..., None]


class Weighted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return self.linear(x) * weights[..., None]


class Sequences(ModelSpace):
    """Space of networks with two inputs: indices of an embedding, and weights of the positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.mixer = LayerChoice({"linear": Weighted(), "attention": Attention()}, label="mixer")
        self.classifier = nn.Linear(8, 2)

    def forward(self, tokens: Tensor, weights: Tensor) -> Tensor:
        return self.classifier(self.mixer(self.embedding(tokens), weights=weights).mean(1))


def samples_of(space: ModelSpace) -> Iterator[dict[str, Any]]:
    """All networks of a space as NNI samples."""
    mutables = space.simplify()
    labels = searched(mutables)
    for chosen in itertools.product(*(path_candidates(mutables[label]) for label in labels)):
        yield dict(zip(labels, chosen, strict=True))


def cost_ms(network: nn.Module, *inputs: Any, **named: Any) -> float:
    """Cost of a network: for each call of a module without further ones inside, by parameters, input and output."""
    total = 0.0

    def add(module: nn.Module, given: Any, output: Any) -> None:
        nonlocal total
        read = sum(value.numel() for value in given if isinstance(value, Tensor))
        parameters = sum(p.numel() for p in module.parameters())
        made = sum(value.numel() for value in (output if isinstance(output, (list, tuple)) else [output]))
        total += 1e-3 * parameters + 1e-4 * read + 3e-4 * made

    leaves = [part for part in network.modules() if next(part.children(), None) is None]
    hooks = [leaf.register_forward_hook(add) for leaf in leaves]
    with torch.no_grad():
        network.eval()(*inputs, **named)
    for hook in hooks:
        hook.remove()
    return total


class ComputedBackend(Backend):
    """Backend whose latencies are those of `cost_ms`."""

    name = "command"
    clocked: ClassVar[bool] = False
    operator_protocol = ONCE
    network_protocol = ONCE
    calibration_protocol = ONCE

    @property
    def version(self) -> str:
        return "1"

    def prepare(self, module: nn.Module, input_shape: tuple[int, ...]) -> Workload:
        raise NotImplementedError

    def call_loader(self, call: Call) -> Callable[[], Workload]:
        cost = cost_ms(call.flat(), *call.tensors())

        class Known(Workload):
            def sample(self, repeats: int) -> float:
                return cost

        return lambda: Known(lambda: None)
