"""The operators of MobileNetV2-style networks: their description, their modules, their cost.

An `Operator` is what a latency table has an entry for and what a layer of a network is built from: one
description serves measuring, searching and building. Paper: ProxylessNAS (arXiv 1812.00332) section 4.1, blocks
of MobileNetV2 (Sandler et al. 2018).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .errors import InputError

OperatorKind = Literal["conv", "mbconv", "classifier"]
OPERATOR_KINDS: tuple[OperatorKind, ...] = ("conv", "mbconv", "classifier")


@dataclass(frozen=True)
class NormSettings:
    """Batch-norm settings; the paper trains with eps 1e-3 and momentum 0.1."""

    eps: float = 1e-3
    momentum: float = 0.1


@dataclass(frozen=True)
class Operator:
    """One operator with all that its cost depends on.

    Attributes:
        kind: `conv` (convolution, batch-norm, ReLU6), `mbconv` (inverted residual) or `classifier`
            (global average pooling and a linear layer).
        input_shape: Channels, height, width of one image.
        output_shape: Channels, height, width; `(classes, 1, 1)` for the classifier.
        kernel: Side of the (depthwise) kernel.
        expansion: Ratio of an mbconv's hidden width to its input width; 1 for other kinds.
        stride: 1 or 2.
    """

    kind: OperatorKind
    input_shape: tuple[int, int, int]
    output_shape: tuple[int, int, int]
    kernel: int = 1
    expansion: int = 1
    stride: int = 1

    @property
    def hidden_channels(self) -> int:
        return self.input_shape[0] * self.expansion

    @property
    def residual(self) -> bool:
        """Whether the input is added to the output: stride 1 and equal widths (MobileNetV2, section 3.3)."""
        return self.kind == "mbconv" and self.stride == 1 and self.input_shape == self.output_shape

    @property
    def parameters(self) -> int:
        """Trainable parameters, batch-norm's scale and shift included."""
        c_in, c_out, hidden, k = self.input_shape[0], self.output_shape[0], self.hidden_channels, self.kernel
        if self.kind == "conv":
            return c_in * c_out * k * k + 2 * c_out
        if self.kind == "classifier":
            return c_in * c_out + c_out
        expand = c_in * hidden + 2 * hidden if self.expansion != 1 else 0
        return expand + hidden * k * k + 2 * hidden + hidden * c_out + 2 * c_out

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of convolutions and the linear layer for one image (the field's convention)."""
        (c_in, h_in, w_in), (c_out, h_out, w_out) = self.input_shape, self.output_shape
        hidden, k = self.hidden_channels, self.kernel
        if self.kind == "conv":
            return c_in * c_out * k * k * h_out * w_out
        if self.kind == "classifier":
            return c_in * c_out
        expand = c_in * hidden * h_in * w_in if self.expansion != 1 else 0
        return expand + (hidden * k * k + hidden * c_out) * h_out * w_out

    def build(self, norm: NormSettings | None = None) -> nn.Module:
        """A freshly initialised module that maps (batch, *input_shape) to its output."""
        norm = norm or NormSettings()
        c_in, c_out = self.input_shape[0], self.output_shape[0]
        if self.kind == "conv":
            return ConvBNReLU(c_in, c_out, self.kernel, self.stride, norm)
        if self.kind == "classifier":
            return Classifier(c_in, c_out)
        return MBConv(c_in, c_out, self.kernel, self.expansion, self.stride, norm)

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "input": list(self.input_shape),
            "output": list(self.output_shape),
            "kernel": self.kernel,
            "expansion": self.expansion,
            "stride": self.stride,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Operator:
        """Inverse of `to_dict`.

        Raises:
            InputError: A field is missing, of a wrong type or out of range.
        """
        kind = content.get("kind")
        if kind not in OPERATOR_KINDS:
            raise InputError(f"operator kind {kind!r} is not one of {', '.join(OPERATOR_KINDS)}")
        shapes = {}
        for name in ("input", "output"):
            shape = content.get(name)
            if not isinstance(shape, (list, tuple)) or len(shape) != 3 or not all(_is_positive(n) for n in shape):
                raise InputError(
                    f"operator field '{name}' must be three positive integers [channels, height, width], got {shape!r}"
                )
            shapes[name] = (int(shape[0]), int(shape[1]), int(shape[2]))
        numbers = {}
        for name in ("kernel", "expansion", "stride"):
            number = content.get(name, 1)
            if not _is_positive(number):
                raise InputError(f"operator field '{name}' must be a positive integer, got {number!r}")
            numbers[name] = int(number)
        return cls(kind, shapes["input"], shapes["output"], **numbers)

    def __str__(self) -> str:
        source, target = ("x".join(map(str, shape)) for shape in (self.input_shape, self.output_shape))
        details = f" k{self.kernel} e{self.expansion} s{self.stride}" if self.kind != "classifier" else ""
        return f"{self.kind} {source} -> {target}{details}"


def total_parameters(operators: Iterable[Operator]) -> int:
    return sum(operator.parameters for operator in operators)


def total_multiply_adds(operators: Iterable[Operator]) -> int:
    return sum(operator.multiply_adds for operator in operators)


class ConvBNReLU(nn.Module):
    """Convolution, batch-norm, ReLU6."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, norm: NormSettings) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(c_out, norm.eps, norm.momentum)
        self.act = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))  # type: ignore[no-any-return]


class MBConv(nn.Module):
    """Inverted residual: pointwise expansion (left out at expansion 1), depthwise, pointwise-linear."""

    def __init__(self, c_in: int, c_out: int, kernel: int, expansion: int, stride: int, norm: NormSettings) -> None:
        super().__init__()
        hidden = c_in * expansion
        self.residual = stride == 1 and c_in == c_out
        if expansion != 1:
            self.conv_pw = nn.Conv2d(c_in, hidden, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(hidden, norm.eps, norm.momentum)
        self.conv_dw = nn.Conv2d(hidden, hidden, kernel, stride, kernel // 2, groups=hidden, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden, norm.eps, norm.momentum)
        self.conv_pwl = nn.Conv2d(hidden, c_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(c_out, norm.eps, norm.momentum)
        self.expands = expansion != 1
        self.act = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = x  # (batch, c_in, h, w)
        if self.expands:
            y = self.act(self.bn1(self.conv_pw(y)))  # (batch, hidden, h, w)
        y = self.act(self.bn2(self.conv_dw(y)))  # (batch, hidden, h / stride, w / stride)
        out: Tensor = self.bn3(self.conv_pwl(y))  # (batch, c_out, h / stride, w / stride)
        return x + out if self.residual else out


class Classifier(nn.Module):
    """Global average pooling and a linear layer."""

    def __init__(self, c_in: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(c_in, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.mean((2, 3)))  # type: ignore[no-any-return]


def initialise(network: nn.Module) -> None:
    """He normal (fan out) for convolutions and a small normal for linear layers, as in the paper's code.

    Residual blocks start as identities: their last batch-norm scales by 0 (Goyal et al. 2017, section 5.1).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01)
            nn.init.zeros_(module.bias)
        elif isinstance(module, MBConv) and module.residual:
            nn.init.zeros_(module.bn3.weight)


@torch.no_grad()
def align_candidates(candidates: Iterable[nn.Module]) -> None:
    """Start all MBConv candidates of one layer as parts of the largest: centre of its kernel, first of its channels.

    Paths that are trained in turn then agree from the first step on what each channel means; started apart, most
    of a short search goes into finding such an agreement (docs/design.md has the measurement).
    """
    blocks = [module for module in candidates if isinstance(module, MBConv)]
    if not blocks:
        return
    largest = max(blocks, key=lambda block: (block.conv_dw.out_channels, block.conv_dw.kernel_size[0]))
    for block in blocks:
        hidden, kernel = block.conv_dw.out_channels, block.conv_dw.kernel_size[0]
        margin = (largest.conv_dw.kernel_size[0] - kernel) // 2
        centre = slice(margin, margin + kernel)
        if block.expands and largest.expands:
            block.conv_pw.weight.copy_(largest.conv_pw.weight[:hidden].clone())
        block.conv_dw.weight.copy_(largest.conv_dw.weight[:hidden, :, centre, centre].clone())
        block.conv_pwl.weight.copy_(largest.conv_pwl.weight[:, :hidden].clone())


@torch.no_grad()
def entangle_candidates(candidates: Iterable[nn.Module]) -> None:
    """Let the MBConv candidates of one layer train the same weights: each a part of one tensor for all.

    A narrower one has the first channels, a smaller kernel the centre (weight entanglement, Chen et al. 2021,
    AutoFormer, section 3.2; the superkernel of Stamoulis et al. 2019, Single-Path NAS). Batch-norms stay each
    candidate's own, and blocks without an expansion, whose channels mean something else, share with their like only.
    Parameters stay what they were, as views of the same memory: names, state dicts and optimizers do not change. What
    copies parameters (another memory format, another device) parts them, until this is called again.
    """
    blocks = [module for module in candidates if isinstance(module, MBConv)]
    for expands in (True, False):
        like = [block for block in blocks if block.expands == expands]
        _share([block.conv_dw.weight for block in like])
        _share([block.conv_pwl.weight for block in like], transposed=True)
        if expands:
            _share([block.conv_pw.weight for block in like])


def _share(weights: Sequence[Tensor], transposed: bool = False) -> None:
    """Make each a view of one tensor, the first channels and the centre of its kernel; the largest gives its values.

    Args:
        weights: Shape (channels, …, kernel_height, kernel_width), or `transposed` (…, channels, 1, 1).
        transposed: Store the channels first all the same, so that the views of pointwise kernels are dense.
    """
    if len(weights) < 2:
        return
    tensors = [weight.data.transpose(0, 1) if transposed else weight.data for weight in weights]
    shape = [max(sizes) for sizes in zip(*(tensor.shape for tensor in tensors), strict=True)]
    shared = tensors[0].new_zeros(shape)
    for weight, tensor in sorted(zip(weights, tensors, strict=True), key=lambda pair: pair[1].numel()):
        margins = [(most - size) // 2 for most, size in zip(shape[2:], tensor.shape[2:], strict=True)]
        centre = [slice(m, m + size) for m, size in zip(margins, tensor.shape[2:], strict=True)]
        view = shared[(slice(tensor.shape[0]), slice(None), *centre)]
        view.copy_(tensor)
        weight.data = view.transpose(0, 1) if transposed else view


class Network(nn.Module):
    """A plain network of one operator after another, without any search code inside.

    `blocks` keeps a place for every layer of the space, an identity where the layer is skipped, so that a
    decoded supernet's state dict loads by name.

    Shape: (batch, channels, height, width) to (batch, classes).
    """

    def __init__(
        self,
        stem: Operator,
        blocks: Iterable[Operator | None],
        head: Operator,
        classifier: Operator,
        norm: NormSettings | None = None,
    ) -> None:
        super().__init__()
        self.stem = stem.build(norm)
        self.blocks = nn.Sequential(*(nn.Identity() if block is None else block.build(norm) for block in blocks))
        self.head = head.build(norm)
        self.classifier = classifier.build(norm)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.blocks(self.stem(x)))
        return self.classifier(x)  # type: ignore[no-any-return]


def example_input(shape: tuple[int, int, int], batch: int = 1) -> Tensor:
    """Random images in the memory format that these networks are fast in, (batch, channels, height, width)."""
    return torch.randn(batch, *shape).contiguous(memory_format=torch.channels_last)


def _is_positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
