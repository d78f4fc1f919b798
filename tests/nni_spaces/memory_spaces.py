"""Model spaces for the tests of peak memory, and the memory of exported networks."""

from __future__ import annotations

import io
import warnings
from math import prod
from typing import Any

import nni
import nni.nas.strategy  # imported first: otherwise NNI's import cycle leaves stubs
import onnx
import torch
import torch.nn.functional as F
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableConv1d, MutableConv2d, MutableLinear, Repeat
from torch import Tensor, nn

# Operations of one activation that write over it, and operations that take no memory.
_ELEMENTWISE = {"Relu", "Clip", "Sigmoid", "Tanh", "BatchNormalization", "Add", "Mul", "Div", "Sub", "Dropout"}
_VIEWS = {"Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity"}
_BYTES = {onnx.TensorProto.FLOAT: 4, onnx.TensorProto.INT64: 8}


class Block(nn.Module):
    """Convolution with an activation function that is applied in place, and a residual connection."""

    def __init__(self, width: Any, kernel: int) -> None:
        super().__init__()
        self.conv = MutableConv2d(width, width, kernel, padding=kernel // 2)
        self.gate = MutableConv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu_(self.conv(x))
        y = y * torch.sigmoid(self.gate(y.mean((2, 3), keepdim=True)))
        y += x
        return y


class Residual(ModelSpace):
    """Space of 96 networks: shared widths, residual and long connections, repeated blocks, and a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        width, wide = nni.choice("width", [4, 6]), nni.choice("wide", [6, 12])
        self.stem = nn.Sequential(MutableConv2d(3, width, 3, padding=1), nn.ReLU())
        self.layer = LayerChoice(
            {"small": Block(width, 1), "large": Block(width, 3), "pool": nn.AvgPool2d(3, 1, 1), "skip": nn.Identity()},
            label="layer",
        )
        self.blocks = Repeat(lambda index: Block(width, 3), (1, 3), label="depth")
        self.down = MutableConv2d(width, wide, 3, stride=2, padding=1)
        self.inner = LayerChoice([nn.Hardtanh(0, 6), nn.Softmax(1)], label="inner")
        self.up = MutableConv2d(wide, width, 1)
        self.last = MutableConv2d(2 * width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        early = self.layer(self.stem(x))
        x = self.inner(self.down(self.blocks(early)))
        x = F.interpolate(self.up(x), scale_factor=2.0)
        return self.last(torch.cat([x, early], 1)).mean((2, 3))


class Signals(ModelSpace):
    """Space of 12 networks of one-dimensional signals and a vector."""

    def __init__(self) -> None:
        super().__init__()
        width = nni.choice("width", [4, 8, 40])
        self.conv = MutableConv1d(2, width, 5, padding=2)
        self.layer = LayerChoice([nn.Identity(), nn.Sequential(nn.MaxPool1d(2), nn.ReLU(inplace=True))], label="layer")
        self.vector = LayerChoice(
            [nn.Linear(5, 4), nn.Sequential(nn.Linear(5, 300), nn.Linear(300, 4))], label="vector"
        )
        self.last = MutableLinear(width + 4, 2)

    def forward(self, signal: Tensor, vector: Tensor) -> Tensor:
        x = self.layer(F.relu(self.conv(signal))).mean(2)
        return self.last(torch.cat([x, self.vector(vector)], 1))


class Attention(nn.Module):
    """Attention with one head."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, inner) for _ in range(3))
        self.out = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        scores = torch.bmm(self.query(x), self.key(x).transpose(1, 2))
        return self.out(torch.bmm(torch.softmax(0.5 * scores, -1), self.value(x)))


class Transformer(ModelSpace):
    """Space of 18 networks: transformer blocks over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.position = nn.Parameter(torch.randn(1, 6, 8))
        self.attention = LayerChoice(
            {"narrow": Attention(8, 4), "wide": Attention(8, 32), "none": nn.Identity()}, label="a"
        )
        ratio = nni.choice("ratio", [1, 3, 9])
        self.norm = nn.LayerNorm(8)
        self.first, self.second = MutableLinear(8, 8 * ratio), MutableLinear(8 * ratio, 8)
        self.last = LayerChoice([nn.Linear(8, 2), nn.Linear(8, 200)], label="last")

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.position
        x = x + self.attention(x)
        x = x + self.second(torch.relu(self.first(self.norm(x))))
        return self.last(x)


def exported(network: nn.Module, *inputs: Tensor) -> bytes:
    """Return a network as an ONNX file."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        torch.onnx.export(network.eval(), inputs, file, dynamo=False, opset_version=17)
    return file.getvalue()


def exported_peak(model: bytes) -> int:
    """Largest number of bytes alive at once in a graph, which is executed in the order of its nodes."""
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(model)).graph
    sizes: dict[str, int] = {}
    for info in (*graph.input, *graph.value_info, *graph.output):
        kind = info.type.tensor_type
        sizes[info.name] = _BYTES.get(kind.elem_type, 0) * prod(dim.dim_value for dim in kind.shape.dim)
    constants = {tensor.name for tensor in graph.initializer} | {""}
    same: dict[str, str] = {}
    steps: list[tuple[set[str], str, bool]] = []
    for node in graph.node:
        written = node.output[0]
        read = {same.get(name, name) for name in node.input if name not in constants}
        if not read or node.op_type == "Shape":
            constants.update(node.output)
        elif node.op_type in _VIEWS:
            (same[written],) = read
        else:
            steps.append((read, written, node.op_type in _ELEMENTWISE and len(read) == 1))
    last = {name: number for number, (read, _, _) in enumerate(steps) for name in read}
    last |= {same.get(info.name, info.name): len(steps) for info in graph.output}
    given = {info.name for info in graph.input} - constants
    alive, peak = set(given), 0
    for number, (read, written, elementwise) in enumerate(steps):
        over = {name for name in read if elementwise and last[name] == number and name not in given}
        over = {name for name in over if sizes[name] == sizes[written]}
        alive.add(written)
        peak = max(peak, sum(sizes[name] for name in alive - over))
        alive = {name for name in alive if last.get(name, -1) > number}
    return peak
