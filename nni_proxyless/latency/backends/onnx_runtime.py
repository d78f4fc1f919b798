"""Backend that runs networks with ONNX Runtime on the CPU, in fp32 or int8."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...network.onnx_file import export_onnx, quantize_static, require_onnx
from .base import Backend, Workload, one_of

DTYPES = ("float32", "int8")


class OnnxRuntimeBackend(Backend):
    """ONNX Runtime on the CPU, with all graph optimisations.

    Args:
        threads: Number of CPU threads.
        batch: Number of images in a batch.
        dtype: Number format, `float32` or `int8`. `int8` uses static quantisation with scales from random inputs. The
            latency does not depend on the scales, but the accuracy does and is meaningless here.

    Raises:
        InputError: A setting is invalid.
        MissingDependencyError: ONNX or ONNX Runtime is not installed.
    """

    name = "onnxruntime"

    def __init__(self, threads: int = 1, batch: int = 1, dtype: str = "float32") -> None:
        super().__init__(threads, batch)
        one_of(self.name, "dtype", dtype, DTYPES)
        require_onnx(f"backend {self.name}")
        import onnxruntime

        self.dtype = dtype
        self._runtime = onnxruntime

    @property
    def version(self) -> str:
        return str(self._runtime.__version__)

    @property
    def settings(self) -> dict[str, Any]:
        return {**super().settings, "dtype": self.dtype}

    def prepare(self, module: nn.Module, input_shape: tuple[int, ...]) -> Workload:
        return self.loader(module, input_shape)()

    def loader(self, module: nn.Module, input_shape: tuple[int, ...]) -> Callable[[], Workload]:
        model = export_onnx(module, input_shape, self.batch)
        return self._loader(quantize_static(model) if self.dtype == "int8" else model, input_shape)

    def file_loader(self, path: Path, input_shape: tuple[int, ...]) -> Callable[[], Workload]:
        return self._loader(path.read_bytes(), input_shape)

    def _loader(self, model: bytes, input_shape: tuple[int, ...]) -> Callable[[], Workload]:
        images = torch.randn(self.batch, *input_shape).numpy()
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3

        def load() -> Workload:
            session = self._runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            feed = {session.get_inputs()[0].name: images}
            return Workload(lambda: session.run(None, feed))

        return load
