"""The formats of exported networks: how each is written, and how it is run to be compared with PyTorch.

PyTorch writes every format into memory. If it writes a file itself and the disk is full, it ends the process.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..network.architecture import Architecture
from ..network.onnx_file import export_onnx, quantize_static
from ..network.weights import save_weights
from .export_checks import FILES as FILES

# A writer gets the network with folded batch norms, the network itself, one image, images for the calibration, and the
# path of the file.
Writer = Callable[[nn.Module, nn.Module, Tensor, Tensor, Path], object]
Runner = Callable[[Path, Architecture], Callable[[Tensor], Tensor]]


def _onnx(folded: nn.Module, _network: nn.Module, image: Tensor, _calibration: Tensor, path: Path) -> None:
    path.write_bytes(export_onnx(folded, tuple(image.shape[1:]), 1))


def _int8(folded: nn.Module, _network: nn.Module, image: Tensor, calibration: Tensor, path: Path) -> None:
    model = export_onnx(folded, tuple(image.shape[1:]), 1)
    path.write_bytes(quantize_static(model, [one[None].numpy() for one in calibration]))


def _torchscript(folded: nn.Module, _network: nn.Module, image: Tensor, _calibration: Tensor, path: Path) -> None:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit warns at each call that it is superseded
        torch.jit.save(torch.jit.trace(folded, image), buffer)  # type: ignore[no-untyped-call]
    path.write_bytes(buffer.getvalue())


def _torch_export(folded: nn.Module, _network: nn.Module, image: Tensor, _calibration: Tensor, path: Path) -> None:
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(folded, (image,)), buffer)
    path.write_bytes(buffer.getvalue())


def _state_dict(_folded: nn.Module, network: nn.Module, _image: Tensor, _calibration: Tensor, path: Path) -> None:
    save_weights(network, path)


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
