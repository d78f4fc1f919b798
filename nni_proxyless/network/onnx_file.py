"""ONNX export and int8 quantisation of modules, for measuring their latency and for deploying them."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from ..errors import MissingDependencyError
from ..files.work_folder import WorkFolder, temporary_files_in

if TYPE_CHECKING:  # settings and files are checked without torch
    from torch import Tensor, nn

INPUT = "input"  # names of every exported model's input and output
OUTPUT = "logits"
OPSET = 17
OPSETS = (11, 20)  # oldest and newest version of ONNX's operators that the exporter writes and ONNX Runtime reads
OPSET_PER_CHANNEL = 13  # oldest version with a scale for each channel of a weight


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


def export_onnx(module: nn.Module, input_shape: tuple[int, ...], batch: int | None, *, opset: int = OPSET) -> bytes:
    """Export a module as an ONNX model, with batch norms folded into preceding convolutions.

    The function uses the TorchScript exporter, which takes 4 ms per operator; the newer exporter takes seconds. The
    exporter folds batch norms itself, but folding them beforehand makes the export of a network a third faster.

    Args:
        module: Module to export.
        input_shape: Shape of one input, without the batch dimension.
        batch: Number of images in a batch; `None` leaves it open, as a dimension called `batch`.
        opset: Version of ONNX's operators, from `OPSETS`.

    Returns:
        Serialised ONNX model. Its input is called `input`, its output `logits`.
    """
    import torch

    from .folding import fold_batch_norm

    buffer = io.BytesIO()
    dynamic = None if batch is not None else {INPUT: {0: "batch"}, OUTPUT: {0: "batch"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter emits a deprecation warning at every call
        torch.onnx.export(
            fold_batch_norm(module),
            (torch.randn(batch or 1, *input_shape),),
            cast(Any, buffer),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes=dynamic,
            opset_version=opset,
            dynamo=False,
        )
    return buffer.getvalue()


def export_call(module: nn.Module, inputs: Sequence[Tensor]) -> bytes:
    """Export a module with several inputs as an ONNX model; see `export_onnx`.

    Args:
        module: Module to export.
        inputs: Positional arguments of its call.

    Returns:
        Serialised ONNX model. Its inputs are called `input0`, `input1` and so on. Inputs that are not used are left
        out.
    """
    import torch

    from .folding import fold_batch_norm

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            fold_batch_norm(module),
            tuple(inputs),
            cast(Any, buffer),
            input_names=[f"{INPUT}{i}" for i in range(len(inputs))],
            opset_version=OPSET,
            dynamo=False,
        )
    return buffer.getvalue()


def with_metadata(model: bytes, metadata: Mapping[str, str]) -> bytes:
    """Return a serialised ONNX model with entries in its `metadata_props`."""
    if not metadata:
        return model
    import onnx

    loaded = onnx.load_from_string(model)
    onnx.helper.set_model_props(loaded, dict(metadata))
    content: bytes = loaded.SerializeToString()
    return content


def batch_of(model: bytes) -> int | None:
    """Return the number of images that a serialised ONNX model takes at a time; `None` if it is open."""
    import onnx

    dimension = onnx.load_from_string(model).graph.input[0].type.tensor_type.shape.dim[0]
    return int(dimension.dim_value) or None


def with_batch(model: bytes, batch: int) -> bytes:
    """Return a serialised ONNX model whose open batch is fixed to a number of images."""
    import onnx

    loaded = onnx.load_from_string(model)
    for tensor in (*loaded.graph.input, *loaded.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_value = batch
    del loaded.graph.value_info[:]  # shapes of other tensors, which the runtime derives anew
    content: bytes = loaded.SerializeToString()
    return content


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
