"""ONNX export of modules, for measuring their latency and for deploying them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from ..errors import MissingDependencyError

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
        MissingDependencyError: One of them is missing or cannot be loaded. The message explains what to do.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as reason:
        raise MissingDependencyError.of(reason, what, (reason.name or "onnx").partition(".")[0], "onnx") from reason


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
    from .given_inputs import only_given

    buffer = io.BytesIO()
    dynamic = None if batch is not None else {INPUT: {0: "batch"}, OUTPUT: {0: "batch"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter emits a deprecation warning at every call
        torch.onnx.export(
            only_given(fold_batch_norm(module), 1),
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
    from .given_inputs import only_given

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            only_given(fold_batch_norm(module), len(inputs)),
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
