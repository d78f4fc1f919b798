"""Stages and layers of a space, and the operators that they are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .operators import Operator


@dataclass(frozen=True)
class Stage:
    """A sequence of `depth` layers of the same width. The first layer has the stage's stride, the others stride 1."""

    width: int
    depth: int
    stride: int


@dataclass(frozen=True)
class Layer:
    """A searched layer.

    Attributes:
        label: Stage and position of the layer, both counted from 1, such as `stage2_layer1`.
        candidates: Mapping from candidate names to operators, in the order of the architecture parameters. The
            operator of `skip` is `None`.
    """

    label: str
    candidates: Mapping[str, Operator | None]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.candidates)


def strided(size: int, stride: int) -> int:
    """Return the height or width after a layer with a stride, whose padding keeps the size at stride 1."""
    return (size - 1) // stride + 1


def conv(shape: tuple[int, int, int], width: int, kernel: int, stride: int) -> Operator:
    """Return a convolution with batch-norm and ReLU6, for an input of the given shape."""
    output = (width, strided(shape[1], stride), strided(shape[2], stride))
    return Operator("conv", shape, output, kernel, 1, stride)


def mbconv(shape: tuple[int, int, int], width: int, kernel: int, expansion: int, stride: int) -> Operator:
    """Return an inverted residual block, for an input of the given shape."""
    output = (width, strided(shape[1], stride), strided(shape[2], stride))
    return Operator("mbconv", shape, output, kernel, expansion, stride)
