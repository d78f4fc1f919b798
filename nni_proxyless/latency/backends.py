"""Measuring backends: each turns a module into something that can be run once and timed.

`torch` runs the module as it is (eager, fp32); `onnxruntime` runs its ONNX export with graph optimisation.
"""

from __future__ import annotations

import ctypes
import io
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn

from ..errors import InputError, MissingDependencyError, unknown_name
from ..operators import example_input

Runner = Callable[[], object]


class Backend(ABC):
    """A way to run networks on the machine at hand.

    Attributes:
        name: Its name in recipes and tables.
        threads: Threads it computes with.
        batch: Images in a batch.
    """

    name: str
    dtype = "float32"

    def __init__(self, threads: int = 1, batch: int = 1) -> None:
        for label, value in (("threads", threads), ("batch", batch)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"backend {self.name}: {label} must be a whole number from 1, got {value!r}")
        self.threads = threads
        self.batch = batch

    @property
    @abstractmethod
    def version(self) -> str:
        """Version of what runs the network."""

    @abstractmethod
    def prepare(self, module: nn.Module, input_shape: tuple[int, int, int]) -> Runner:
        """Make a function that runs `module` once on a batch of images of `input_shape`, to completion."""

    @contextmanager
    def session(self) -> Iterator[None]:
        """Holds the settings that a measurement needs of the whole process."""
        yield


class TorchBackend(Backend):
    """PyTorch eager on the CPU, fp32, channels_last, inference mode, in a process that keeps the memory it freed."""

    name = "torch"

    @property
    def version(self) -> str:
        return str(torch.__version__)

    def prepare(self, module: nn.Module, input_shape: tuple[int, int, int]) -> Runner:
        network = module.eval().to(memory_format=torch.channels_last)
        images = example_input(input_shape, self.batch)

        def run() -> object:
            with torch.inference_mode():
                return network(images)

        return run

    @contextmanager
    def session(self) -> Iterator[None]:
        _keep_freed_memory()
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _keep_freed_memory() -> None:
    """Have glibc keep freed memory instead of handing it back and faulting it in again at the next run.

    Whether it hands a network's activations back depends on the heap's history, and with it 5 to 20 % of an eager
    network's latency: the same calibration that fits networks within 1 % with memory kept missed them by 5 to 7 %
    without. For the rest of the process, as glibc cannot be asked what it did before; elsewhere a no-op.
    """
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)


class OnnxRuntimeBackend(Backend):
    """ONNX Runtime on the CPU, fp32, all graph optimisations."""

    name = "onnxruntime"

    def __init__(self, threads: int = 1, batch: int = 1) -> None:
        super().__init__(threads, batch)
        try:
            import onnx
            import onnxruntime
        except ImportError as reason:
            raise MissingDependencyError(
                f"backend onnxruntime needs the package '{reason.name}': pip install 'nni-proxyless[onnx]'"
            ) from reason
        self._onnx_version = onnx.__version__
        self._runtime = onnxruntime

    @property
    def version(self) -> str:
        return str(self._runtime.__version__)

    def prepare(self, module: nn.Module, input_shape: tuple[int, int, int]) -> Runner:
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        session = self._runtime.InferenceSession(
            export_onnx(module, input_shape, self.batch), options, providers=["CPUExecutionProvider"]
        )
        images = {session.get_inputs()[0].name: torch.randn(self.batch, *input_shape).numpy()}
        return lambda: session.run(None, images)


def export_onnx(module: nn.Module, input_shape: tuple[int, int, int], batch: int) -> bytes:
    """The module as an ONNX model with static shapes, batch-norm in inference mode.

    Uses the TorchScript exporter: it takes 4 ms for an operator, the newer one seconds.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter announces its successor at every call
        torch.onnx.export(
            module.eval(), (torch.randn(batch, *input_shape),), cast(Any, buffer), opset_version=17, dynamo=False
        )
    return buffer.getvalue()


BACKENDS: dict[str, type[Backend]] = {backend.name: backend for backend in (TorchBackend, OnnxRuntimeBackend)}


def make_backend(name: str, threads: int = 1, batch: int = 1) -> Backend:
    """The backend of that name.

    Raises:
        InputError: There is none of that name; the message lists what exists.
        MissingDependencyError: It needs a package that is not installed.
    """
    if name not in BACKENDS:
        raise InputError(unknown_name("latency backend", name, BACKENDS))
    return BACKENDS[name](threads, batch)
