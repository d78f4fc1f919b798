"""Backend that runs networks with ONNX Runtime on the CPU, in fp32 or int8."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...network.onnx_file import INPUT, export_call, require_onnx
from .base import Workload, one_of
from .onnx_model import Images, ModelWorkload, OnnxModelBackend

if TYPE_CHECKING:
    from ..calls import Call

DTYPES = ("float32", "int8")


class OnnxRuntimeBackend(OnnxModelBackend):
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
    extra = "onnx"
    open_batch = True

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

    def convert(self, model: bytes) -> bytes:
        return model

    def call_loader(self, call: Call) -> Callable[[], Workload]:
        if call.image_shape(self.batch) is not None or self.dtype != "float32":
            return super().call_loader(call)
        tensors = call.tensors()
        model = export_call(call.flat(), tensors)
        arrays = {f"{INPUT}{i}": tensor.numpy() for i, tensor in enumerate(tensors)}

        def load() -> Workload:
            session = self._session(model)
            feed = {each.name: arrays[each.name].copy() for each in session.get_inputs()}  # unused ones are left out
            return Workload(lambda: session.run(None, feed))

        return load

    def load(self, model: bytes, images: Images) -> ModelWorkload:
        session = self._session(model)
        feed = {session.get_inputs()[0].name: images}
        return ModelWorkload(lambda: session.run(None, feed), lambda: session.run(None, feed)[0])

    def _session(self, model: bytes) -> Any:
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        return self._runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
