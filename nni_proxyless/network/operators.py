"""The operators of MobileNetV2-style networks: their description, their size and cost, and how they are built.

A latency table has one entry for each `Operator`, and a network is built from the same operators. So one description
serves measuring, searching and building. The paper describes the operators in section 4.1 (ProxylessNAS,
arXiv 1812.00332); the blocks are those of MobileNetV2 (Sandler et al. 2018).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..errors import InputError, shown
from ..values import is_whole
from .norm_settings import NormSettings

if TYPE_CHECKING:  # files are checked without torch
    from torch import nn

OperatorKind = Literal["conv", "mbconv", "classifier"]
OPERATOR_FIELDS = ("input", "output", "kernel", "expansion", "stride")
MOST_SIZE = 10_000_000  # channels, pixels or classes
OPERATOR_KINDS: tuple[OperatorKind, ...] = ("conv", "mbconv", "classifier")


@dataclass(frozen=True)
class Operator:
    """One operator with all properties that its cost depends on.

    Attributes:
        kind: `conv` (convolution, batch-norm, ReLU6), `mbconv` (inverted residual) or `classifier`
            (global average pooling and a linear layer).
        input_shape: Channels, height and width of the input for one image.
        output_shape: Channels, height and width of the output for one image; `(classes, 1, 1)` for a classifier.
        kernel: Height and width of the kernel (of an mbconv: of the depthwise kernel).
        expansion: Ratio of an mbconv's hidden width to its input width; 1 for other kinds.
        stride: Stride, 1 or 2.
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
        """Whether the block adds its input to its output: stride 1 and equal widths (MobileNetV2, section 3.3)."""
        return self.kind == "mbconv" and self.stride == 1 and self.input_shape == self.output_shape

    @property
    def parameters(self) -> int:
        """Number of trainable parameters, including batch-norm's scale and shift."""
        c_in, c_out, hidden, k = self.input_shape[0], self.output_shape[0], self.hidden_channels, self.kernel
        if self.kind == "conv":
            return c_in * c_out * k * k + 2 * c_out
        if self.kind == "classifier":
            return c_in * c_out + c_out
        expand = c_in * hidden + 2 * hidden if self.expansion != 1 else 0
        return expand + hidden * k * k + 2 * hidden + hidden * c_out + 2 * c_out

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds for one image, counting convolutions and linear layers only (the field's convention)."""
        (c_in, h_in, w_in), (c_out, h_out, w_out) = self.input_shape, self.output_shape
        hidden, k = self.hidden_channels, self.kernel
        if self.kind == "conv":
            return c_in * c_out * k * k * h_out * w_out
        if self.kind == "classifier":
            return c_in * c_out
        expand = c_in * hidden * h_in * w_in if self.expansion != 1 else 0
        return expand + (hidden * k * k + hidden * c_out) * h_out * w_out

    @property
    def activations(self) -> int:
        """Number of values for one image that pass a non-linearity."""
        (_, h_in, w_in), (c_out, h_out, w_out) = self.input_shape, self.output_shape
        if self.kind == "conv":
            return c_out * h_out * w_out
        if self.kind == "classifier":
            return 0
        expanded = h_in * w_in if self.expansion != 1 else 0
        return self.hidden_channels * (expanded + h_out * w_out)

    def build(self, norm: NormSettings | None = None) -> nn.Module:
        """Build a freshly initialised module that maps (batch, *input_shape) to (batch, *output_shape).

        The output of a classifier has the shape (batch, classes).
        """
        from .blocks import Classifier, ConvBNReLU, MBConv

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
        """Create an operator from the output of `to_dict`.

        Raises:
            InputError: A field is missing, has a wrong type or is out of range.
        """
        kind = content.get("kind")
        if not isinstance(kind, str) or kind not in OPERATOR_KINDS:
            raise InputError(f"operator kind {shown(kind)} is not one of {', '.join(OPERATOR_KINDS)}")
        shapes = {}
        for name in ("input", "output"):
            shape = content.get(name)
            good = (
                isinstance(shape, (list, tuple)) and len(shape) == 3 and all(is_whole(n, 1, MOST_SIZE) for n in shape)
            )
            if not good or shape is None:
                raise InputError(
                    f"operator field '{name}' must be three whole numbers from 1 to {MOST_SIZE}, [channels, height, "
                    f"width], got {shown(shape)}"
                )
            shapes[name] = (int(shape[0]), int(shape[1]), int(shape[2]))
        numbers = {}
        for name in ("kernel", "expansion", "stride"):
            number = content.get(name, 1)
            if not is_whole(number, 1, MOST_SIZE):
                raise InputError(
                    f"operator field '{name}' must be a whole number from 1 to {MOST_SIZE}, got {shown(number)}"
                )
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


def total_activations(operators: Iterable[Operator]) -> int:
    return sum(operator.activations for operator in operators)
