"""Quantisation of ONNX models to int8, for measuring their latency and for deploying them.

Weights have 7 bits by default. x86 processors without VNNI add two products of a uint8 activation and an int8 weight in
16 bits, and a sum of weights of 8 bits saturates there (ONNX Runtime, "Quantize ONNX models", section "U8S8, U8U8 and
S8S8"). Sums of weights of 7 bits fit, so the model gives the same results on every processor.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..files.work_folder import WorkFolder, temporary_files_in

WEIGHT_BITS = (7, 8)  # the first is the default


def quantize_static(model: bytes, batches: Iterable[Any] | None = None, weight_bits: int = WEIGHT_BITS[0]) -> bytes:
    """Quantise the activations and weights of an fp32 ONNX model to int8, the weights per channel.

    Args:
        model: Serialised fp32 model.
        batches: Arrays of the input's shape from which the scales are computed. Defaults to one random batch, which is
            sufficient to measure latency.
        weight_bits: Bits of the weights, 7 or 8. Sums with 8 bits may saturate on x86 processors without VNNI.

    Returns:
        Serialised int8 model.
    """
    import onnx
    import torch
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as quantize

    loaded = _without_shared_weights(onnx.load_from_string(model))
    shape = [dim.dim_value or 1 for dim in loaded.graph.input[0].type.tensor_type.shape.dim]  # 0: open
    name = loaded.graph.input[0].name

    class Batches(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter([torch.randn(*shape).numpy()] if batches is None else batches)

        def get_next(self) -> Any:
            batch = next(self.left, None)
            return None if batch is None else {name: batch}

    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # the quantiser recommends a pre-processing step that the exporter has already done
    try:
        with WorkFolder() as folder, temporary_files_in(folder):  # the quantiser makes large files
            output = folder / "int8.onnx"
            quantize(
                loaded,
                output,
                Batches(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=weight_bits == 7,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
            return output.read_bytes()
    finally:
        root.setLevel(level)


def _without_shared_weights(model: Any) -> Any:
    """Remove the Identity nodes through which the exporter shares equal weights.

    The quantiser does not recognise the output of such a node as a constant weight, and the model would quantise it
    again in every run.
    """
    initializers = {tensor.name for tensor in model.graph.initializer}
    source = {
        n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "Identity" and n.input[0] in initializers
    }
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = source.get(name, name)
    for node in [n for n in model.graph.node if n.op_type == "Identity" and n.output[0] in source]:
        model.graph.node.remove(node)
    return model


def tidied(model: bytes) -> bytes:
    """Remove from a quantised model the activations that its quantisation contains, and constants that nothing uses.

    ONNX Runtime does so whenever the model is loaded, and warns of each constant.
    """
    import onnx

    loaded = onnx.load_from_string(model)
    graph = loaded.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    stored |= {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    constants = {name: onnx.numpy_helper.to_array(tensor) for name, tensor in stored.items()}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    kept = {out.name for out in graph.output}
    for node in [node for node in graph.node if node.op_type == "Clip" and node.output[0] not in kept]:
        bounds = [constants.get(name) for name in node.input[1:]]
        after = readers.get(node.output[0], [])
        if len(bounds) == 2 and after and all(_saturates(reader, bounds, constants) for reader in after):
            for reader in after:
                reader.input[0] = node.input[0]
            graph.node.remove(node)
    used = {name for node in graph.node for name in node.input} | kept
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
    for node in [node for node in graph.node if node.op_type == "Constant" and node.output[0] not in used]:
        graph.node.remove(node)
    content: bytes = loaded.SerializeToString()
    return content


def _saturates(node: Any, bounds: Sequence[Any], constants: Mapping[str, Any]) -> bool:
    """Whether a node quantises to 8 bits such that values beyond the bounds become the same as the bounds."""
    scale, zero = (constants.get(name) for name in (*node.input[1:3], "", "")[:2])
    if node.op_type != "QuantizeLinear" or scale is None or zero is None or scale.size != 1 or None in bounds:
        return False
    lowest, highest = (round(float(bound) / float(scale)) + int(zero) for bound in bounds)
    return lowest <= 0 and highest >= 255 and str(zero.dtype) == "uint8"
