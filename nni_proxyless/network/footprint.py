"""Size of an exported network and peak memory of its activations, computed from its operators.

Both are properties of the exported file: batch norms are folded into convolutions, and activation functions work in
place, as every runtime executes them. The export is that of `onnx_file.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Literal

from ..errors import InputError
from .operators import Operator

ValueType = Literal["float32", "int8"]
BYTES = {"float32": 4, "int8": 1}

# Bytes of an exported file for each convolution or linear layer, for each activation function and for each residual
# addition, apart from weights. They are names, attributes and, for int8, nodes that quantise. Fitted to exports of
# networks of the shipped spaces; tests/network/test_footprint.py compares them with other networks.
_GRAPH_BYTES = {"float32": (424, 283, 159), "int8": (1417, 959, 813)}
# Bytes of each output channel: the bias in fp32; or the bias with its scale and zero point, and those of the weights.
_CHANNEL_BYTES = {"float32": 4, "int8": 17}
# Bytes of the rest of a file, and a reserve, so that no exported file is larger than its estimate.
_REST_BYTES = 256


def _weights(operator: Operator) -> list[tuple[int, int]]:
    """Number of weights and of output channels of each convolution or linear layer, batch norms folded."""
    c_in, c_out, hidden, k = (
        operator.input_shape[0],
        operator.output_shape[0],
        operator.hidden_channels,
        operator.kernel,
    )
    if operator.kind == "conv":
        return [(c_in * c_out * k * k, c_out)]
    if operator.kind == "classifier":
        return [(c_in * c_out, c_out)]
    expand = [(c_in * hidden, hidden)] if operator.expansion != 1 else []
    return [*expand, (hidden * k * k, hidden), (hidden * c_out, c_out)]


def file_bytes(operator: Operator, dtype: ValueType = "float32") -> int:
    """Estimate an operator's part of the exported ONNX file, in bytes. The estimate of a network is an upper bound.

    Args:
        operator: Operator.
        dtype: Number format of the file, `float32` or `int8` (weights quantised per channel, activations by QDQ nodes).
    """
    layer, activation, residual = _GRAPH_BYTES[dtype]
    weights = _weights(operator)
    activations = {"conv": 1, "classifier": 0, "mbconv": len(weights) - 1}[operator.kind]
    stored = sum(count * BYTES[dtype] + channels * _CHANNEL_BYTES[dtype] for count, channels in weights)
    rest = _REST_BYTES if operator.kind == "classifier" else 0
    return stored + layer * len(weights) + activation * activations + residual * operator.residual + rest


def peak_values(operator: Operator) -> int:
    """Compute the largest number of values of activations that are alive at once while an operator runs.

    The layers of an operator run in order. While a layer runs, its input and its output are in memory, and so is the
    block's input until the residual addition has read it. Weights are not counted.

    Args:
        operator: Operator.

    Returns:
        Number of values for one image.
    """
    source, target = prod(operator.input_shape), prod(operator.output_shape)
    if operator.kind == "conv":
        return source + target
    if operator.kind == "classifier":
        pooled = operator.input_shape[0]
        return max(source + pooled, pooled + target)
    hidden_in = operator.hidden_channels * prod(operator.input_shape[1:])
    hidden_out = operator.hidden_channels * prod(operator.output_shape[1:])
    kept = source if operator.residual else 0
    steps = [kept + hidden_out + target]
    if operator.expansion == 1:
        steps.append(source + hidden_out)  # the depthwise convolution reads the block's input
    else:
        steps += [source + hidden_in, kept + hidden_in + hidden_out]
    if operator.residual:
        steps.append(source + target + target)
    return max(steps)


def peak_bytes(operator: Operator, dtype: ValueType = "float32", batch: int = 1) -> int:
    """Compute the peak memory of an operator's activations in bytes; see `peak_values`.

    Args:
        operator: Operator.
        dtype: Number format of the activations, `float32` or `int8`.
        batch: Number of images in a batch.
    """
    return peak_values(operator) * BYTES[dtype] * batch


def network_file_bytes(operators: Sequence[Operator], dtype: ValueType = "float32") -> int:
    """Estimate the size of the exported ONNX file of a network in bytes, without metadata such as class names."""
    return sum(file_bytes(operator, dtype) for operator in operators)


def conversion_bytes(input_shape: Sequence[int], batch: int = 1) -> int:
    """Compute the memory while the exported int8 file converts its images from floats to int8, in bytes.

    Args:
        input_shape: Shape of an image, without the batch.
        batch: Number of images in a batch.
    """
    return (BYTES["float32"] + BYTES["int8"]) * prod(input_shape) * batch


def network_peak_bytes(operators: Sequence[Operator], dtype: ValueType = "float32", batch: int = 1) -> int:
    """Compute the peak memory of a network's activations in bytes.

    It is the maximum over its operators and, in int8, the conversion of the images (`conversion_bytes`).

    Args:
        operators: Operators in execution order, each of which reads only the output of the one before it.
        dtype: Number format of the activations, `float32` or `int8`.
        batch: Number of images in a batch.

    Raises:
        InputError: There are no operators, or one does not fit the one before it.
    """
    if not operators:
        raise InputError("a network needs at least one operator")
    for before, after in pairwise(operators):
        if before.output_shape != after.input_shape:
            raise InputError(f"operator {after} does not fit the output of {before}")
    peak = max(peak_bytes(operator, dtype, batch) for operator in operators)
    return peak if dtype == "float32" else max(peak, conversion_bytes(operators[0].input_shape, batch))
