"""Model spaces of different kinds, for the check of predicted against measured latencies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import nni
import nni.nas.hub.pytorch as hub
import nni.nas.strategy
import torch
import torch.nn.functional as F
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableConv1d, MutableDropout, MutableLinear, Repeat
from torch import Tensor, nn


class _Separable(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(in_channels, in_channels, kernel_size=3, groups=in_channels)
        self.pointwise = nn.Conv2d(in_channels, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


class Tutorial(ModelSpace):
    """The space of NNI's tutorial, which has 18 networks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, 1)
        self.conv2 = LayerChoice([nn.Conv2d(32, 64, 3, 1), _Separable(32, 64)], label="conv2")
        self.dropout1 = MutableDropout(nni.choice("dropout", [0.25, 0.5, 0.75]))
        self.dropout2 = nn.Dropout(0.5)
        feature = nni.choice("feature", [64, 128, 256])
        self.fc1 = MutableLinear(9216, feature)
        self.fc2 = MutableLinear(feature, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.conv2(F.relu(self.conv1(x))), 2)
        x = torch.flatten(self.dropout1(x), 1)
        return self.fc2(self.dropout2(F.relu(self.fc1(x))))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm, self.heads = nn.LayerNorm(width), heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        scores = torch.softmax(q @ k.transpose(-2, -1) / (width // self.heads) ** 0.5, -1)
        return x + self.out((scores @ v).transpose(1, 2).reshape(batch, length, width))


class _Convolution(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.LayerNorm(width), nn.Conv1d(width, width, 9, padding=4, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(self.norm(x).transpose(1, 2)).transpose(1, 2)


class _FeedForward(nn.Module):
    def __init__(self, width: int, label: str) -> None:
        super().__init__()
        inner = nni.choice(label, [width, 2 * width, 4 * width])
        self.norm, self.first, self.second = (
            nn.LayerNorm(width),
            MutableLinear(width, inner),
            MutableLinear(inner, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.gelu(self.first(self.norm(x))))


class Transformer(ModelSpace):
    """Encoder over 64 vectors: two to four blocks, each with attention or a convolution, and a width inside."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.blocks = Repeat(
            lambda index: nn.Sequential(
                LayerChoice(
                    {"heads2": _Attention(width, 2), "heads8": _Attention(width, 8), "conv": _Convolution(width)},
                    label=f"mix{index}",
                ),
                _FeedForward(width, f"inner{index}"),
            ),
            (2, 4),
            label="depth",
        )
        self.classifier = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.blocks(x).mean(1))


class Signals(ModelSpace):
    """Convolutions over two channels of a signal, with widths that two layers share."""

    def __init__(self) -> None:
        super().__init__()
        widths = [2, *(nni.choice(f"width{index}", [16, 32, 48]) for index in range(3))]
        self.layers = nn.ModuleList(
            LayerChoice(
                {f"kernel{k}": MutableConv1d(widths[i], widths[i + 1], k, 2, padding=k // 2) for k in (3, 7, 15)},
                label=f"layer{i}",
            )
            for i in range(3)
        )
        self.classifier = MutableLinear(widths[-1], 4)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = F.relu(layer(x))
        return self.classifier(x.mean(-1))


@dataclass(frozen=True)
class Measured:
    """A space of the check.

    Attributes:
        name: Name in the table.
        make: Function that makes the space.
        inputs: Shape of one input.
    """

    name: str
    make: Callable[[], ModelSpace]
    inputs: tuple[int, ...]


SPACES = {
    "tutorial": Measured("NNI's tutorial", Tutorial, (1, 28, 28)),
    "transformer": Measured("transformer", Transformer, (64, 128)),
    "signals": Measured("1-D convolutions", Signals, (2, 2048)),
    "hub": Measured("hub: ProxylessNAS", lambda: hub.ProxylessNAS(10, width_mult=0.75), (3, 96, 96)),
    "cells": Measured("hub: ENAS, cells with loose ends", lambda: hub.ENAS(16, 3, "cifar"), (3, 32, 32)),
    "graphs": Measured("hub: NasBench101", lambda: hub.NasBench101(32, 3, 1, 5, 6), (3, 32, 32)),
}
