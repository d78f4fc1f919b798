"""ONNX export and int8 quantisation of modules, for measuring their latency and for deploying them."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from ..errors import MissingDependencyError
from ..files.work_folder import WorkFolder, temporary_files_in

if TYPE_CHECKING:  # settings and files are checked without torch
    from torch import nn


def require_onnx(what: str) -> None:
    """Check that ONNX and ONNX Runtime are installed.

    Raises:
        MissingDependencyError: One of them is missing. The message explains how to install it.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as reason:
        raise MissingDependencyError(
            f"{what} needs the package '{reason.name}': pip install 'nni-proxyless[onnx]'"
        ) from reason


def export_onnx(module: nn.Module, input_shape: tuple[int, ...], batch: int) -> bytes:
    """Export a module as an ONNX model with static shapes, with batch norms folded into preceding convolutions.

    The function uses the TorchScript exporter, which takes 4 ms per operator; the newer exporter takes seconds. The
    exporter folds batch norms itself, but folding them beforehand makes the export of a network a third faster.

    Args:
        module: Module to export.
        input_shape: Shape of one input, without the batch dimension.
        batch: Number of images in a batch.

    Returns:
        Serialised ONNX model.
    """
    import torch

    from .folding import fold_batch_norm

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter emits a deprecation warning at every call
        torch.onnx.export(
            fold_batch_norm(module),
            (torch.randn(batch, *input_shape),),
            cast(Any, buffer),
            opset_version=17,
            dynamo=False,
        )
    return buffer.getvalue()


def quantize_static(model: bytes, batches: Iterable[Any] | None = None) -> bytes:
    """Quantise the activations and weights of an fp32 ONNX model to int8, the weights per channel.

    Args:
        model: Serialised fp32 model.
        batches: Arrays of the input's shape from which the scales are computed. Defaults to one random batch, which is
            sufficient to measure latency.

    Returns:
        Serialised int8 model.
    """
    import onnx
    import torch
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as quantize

    loaded = _without_shared_weights(onnx.load_from_string(model))
    shape = [dim.dim_value for dim in loaded.graph.input[0].type.tensor_type.shape.dim]
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
