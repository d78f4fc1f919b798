"""Backend that runs networks with OpenVINO on the CPU, in fp32 or int8."""

from __future__ import annotations

import sys
from typing import Any

from ...network.onnx_file import require_onnx
from .base import one_of
from .onnx_model import Images, ModelWorkload, OnnxModelBackend
from .signal_stack import signal_stack_kept

DTYPES = ("float32", "int8")
_TELEMETRY = "openvino_telemetry"


class OpenVinoBackend(OnnxModelBackend):
    """OpenVINO on the CPU, compiled for latency.

    Calculations stay in fp32 on processors where OpenVINO would choose bf16.

    Args:
        threads: Number of CPU threads.
        batch: Number of images in a batch.
        dtype: Number format, `float32` or `int8`; see `OnnxRuntimeBackend`, whose quantised models it runs.

    Raises:
        InputError: A setting is invalid.
        MissingDependencyError: OpenVINO, or for int8 ONNX or ONNX Runtime, is not installed.
    """

    name = "openvino"
    extra = "openvino"
    # In a process that has measured operators, networks ran 1 to 3 % faster relative to the reference network.
    networks_apart = True

    def __init__(self, threads: int = 1, batch: int = 1, dtype: str = "float32") -> None:
        super().__init__(threads, batch)
        one_of(self.name, "dtype", dtype, DTYPES)
        self._require("onnx")  # for the export
        self._runtime = self._import()
        if dtype == "int8":
            require_onnx(f"backend {self.name} with dtype int8")
        self.dtype = dtype
        self._core = self._runtime.Core()

    def _import(self) -> Any:
        """Import OpenVINO without its telemetry.

        Each import would start a process that reports it to Intel, and that process would run during the measurement.
        OpenVINO works without the telemetry package.
        """
        hidden = _TELEMETRY not in sys.modules
        if hidden:
            sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
        try:
            return self._require("openvino")
        finally:
            if hidden:
                del sys.modules[_TELEMETRY]

    @property
    def version(self) -> str:
        return str(self._runtime.__version__).split("-")[0]

    @property
    def settings(self) -> dict[str, Any]:
        return {**super().settings, "dtype": self.dtype}

    def convert(self, model: bytes) -> Any:
        try:
            return self._core.read_model(model)
        except RuntimeError as reason:
            raise self._unreadable(reason) from reason

    def load(self, model: Any, images: Images) -> ModelWorkload:
        with signal_stack_kept():
            compiled = self._core.compile_model(
                model,
                "CPU",
                {
                    "PERFORMANCE_HINT": "LATENCY",
                    "NUM_STREAMS": 1,
                    "INFERENCE_NUM_THREADS": self.threads,
                    "INFERENCE_PRECISION_HINT": "f32",
                    # By default all processes are pinned to the same cores, and would wait for each other.
                    "ENABLE_CPU_PINNING": False,
                },
            )
        request = compiled.create_infer_request()
        request.set_input_tensor(self._runtime.Tensor(images.copy()))
        return ModelWorkload(request.infer, lambda: request.get_output_tensor(0).data.copy())
