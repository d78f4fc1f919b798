"""The formats of exported networks: how each is written, and how it is run to be compared with PyTorch.

PyTorch writes every format into memory. If it writes a file itself and the disk is full, it ends the process.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from ..network.architecture import Architecture
from ..network.onnx_file import INPUT, OPSET, export_onnx, with_metadata
from ..network.quantization import WEIGHT_BITS, quantize_static, tidied
from ..network.weights import save_weights
from .export_checks import FILES as FILES


@dataclass(frozen=True)
class Source:
    """Input from which the files of an export are made.

    Attributes:
        network: Trained network.
        folded: The same network with folded batch norms.
        calibration: Images that the scales of int8 quantisation are calibrated on, (images, channels, height, width).
        batch: Number of images in a batch; `None` leaves it open.
        opset: Version of ONNX's operators.
        metadata: Metadata of the files about their input and output, as texts in JSON by key.
        weight_bits: Bits of the weights in int8.
    """

    network: nn.Module
    folded: nn.Module
    calibration: Tensor
    batch: int | None = 1
    opset: int = OPSET
    metadata: Mapping[str, str] = field(default_factory=dict)
    weight_bits: int = WEIGHT_BITS[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels, height and width of an image."""
        return tuple(self.calibration.shape[1:])


Writer = Callable[[Source, Path], object]
Runner = Callable[[Path, Architecture], Callable[[Tensor], Tensor]]


def in_batches(images: Tensor, batch: int) -> Iterator[Tensor]:
    """Cut images into batches of exactly this size. The last one is filled up with the first images."""
    for start in range(0, len(images), batch):
        yield images[[number % len(images) for number in range(start, start + batch)]]


class _Named(nn.Module):
    """A network whose argument has the name that the input has in every format."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, input: Tensor) -> Tensor:
        return self.network(input)  # type: ignore[no-any-return]


def _onnx(source: Source, path: Path) -> None:
    model = export_onnx(source.folded, source.shape, source.batch, opset=source.opset)
    path.write_bytes(with_metadata(model, source.metadata))


def _int8(source: Source, path: Path) -> None:
    model = export_onnx(source.folded, source.shape, source.batch, opset=source.opset)
    batches = [part.numpy() for part in in_batches(source.calibration, source.batch or 1)]
    path.write_bytes(with_metadata(tidied(quantize_static(model, batches, source.weight_bits)), source.metadata))


def _torchscript(source: Source, path: Path) -> None:
    buffer = io.BytesIO()
    example = torch.randn(source.batch or 1, *source.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit warns at each call that it is superseded
        traced = torch.jit.trace(_Named(source.folded).eval(), example)  # type: ignore[no-untyped-call]
        torch.jit.save(traced, buffer, _extra_files=dict(source.metadata))
    path.write_bytes(buffer.getvalue())


def _torch_export(source: Source, path: Path) -> None:
    buffer = io.BytesIO()
    example = torch.randn(source.batch or 2, *source.shape)  # an open dimension of size 1 would become fixed
    dynamic = None if source.batch is not None else {INPUT: {0: torch.export.Dim("batch")}}
    program = torch.export.export(_Named(source.folded).eval(), (example,), dynamic_shapes=dynamic)
    torch.export.save(program, buffer, extra_files=dict(source.metadata))
    path.write_bytes(buffer.getvalue())


def _state_dict(source: Source, path: Path) -> None:
    save_weights(source.network, path)


def _run_onnx(path: Path, _found: Architecture) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda image: torch.from_numpy(session.run(None, {name: image.numpy()})[0])


def _run_torch(path: Path, found: Architecture) -> Callable[[Tensor], Tensor]:
    from ..latency.backends.pytorch import load_model

    network = found.build(pretrained=path).eval() if path.name == FILES["state_dict"] else load_model(path)

    def run(image: Tensor) -> Tensor:
        with torch.inference_mode():
            return network(image)  # type: ignore[no-any-return]

    return run


WRITERS: Mapping[str, Writer] = {
    "onnx": _onnx,
    "int8": _int8,
    "torchscript": _torchscript,
    "torch_export": _torch_export,
    "state_dict": _state_dict,
}
RUNNERS: Mapping[str, Runner] = {
    "onnx": _run_onnx,
    "int8": _run_onnx,
    "torchscript": _run_torch,
    "torch_export": _run_torch,
    "state_dict": _run_torch,
}
