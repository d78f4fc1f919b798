"""Base class of the backends that run networks in a runtime for ONNX models, in this process."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from ...errors import InputError, MissingDependencyError
from ...network.onnx_file import batch_of, export_onnx, with_batch
from ...network.quantization import quantize_static
from ..watched_program import ProgramOutputError, ProgramTimeoutError, run_watched
from .base import Backend, Workload

if TYPE_CHECKING:  # settings and files are checked without torch
    from torch import nn

_TIMEOUT_S = 300  # of a converter
Images = npt.NDArray[np.float32]


class ModelWorkload(Workload):
    """A model that is loaded in a runtime and has its input.

    Args:
        run: Function that runs the model once, to completion.
        output: Function that returns the first output of the last run, shape (batch, …).
    """

    def __init__(self, run: Callable[[], object], output: Callable[[], Images]) -> None:
        super().__init__(run)
        self.output = output


class OnnxModelBackend(Backend):
    """A backend whose runtime reads ONNX models, or a format that it converts them to.

    Attributes:
        extra: Name of the package's extra that installs the runtime.
        open_batch: Whether the runtime runs models whose batch is open.
    """

    extra: ClassVar[str]
    open_batch: ClassVar[bool] = False

    @abstractmethod
    def convert(self, model: bytes) -> Any:
        """Convert a serialised ONNX model to the form that `load` takes. This is done once for each network.

        Raises:
            InputError: The runtime cannot read the model.
        """

    @abstractmethod
    def load(self, model: Any, images: Images) -> ModelWorkload:
        """Load a converted model and give it its input, in memory of its own.

        Args:
            model: Model, as `convert` returned it.
            images: Input, shape (batch, …).
        """

    def prepare(self, module: nn.Module, input_shape: tuple[int, ...]) -> Workload:
        return self.loader(module, input_shape)()

    def loader(self, module: nn.Module, input_shape: tuple[int, ...]) -> Callable[[], Workload]:
        model = export_onnx(module, input_shape, self.batch)
        return self._loader(quantize_static(model) if self.dtype == "int8" else model, input_shape)

    def file_loader(self, path: Path, input_shape: tuple[int, ...]) -> Callable[[], Workload]:
        model = path.read_bytes()
        try:
            batch = batch_of(model)
            if batch is None and not self.open_batch:
                model = with_batch(model, self.batch)
        except Exception as reason:  # a damaged file raises errors of many kinds
            raise self._unreadable(reason) from reason
        if batch not in (None, self.batch):
            raise InputError(
                f"{path.name} takes {batch} images at a time, and backend {self.name} gives it {self.batch}; set batch "
                f"to {batch}, or export the network with another --batch"
            )
        return self._loader(model, input_shape)

    def _loader(self, model: bytes, input_shape: tuple[int, ...]) -> Callable[[], Workload]:
        import torch

        images = torch.randn(self.batch, *input_shape).numpy()
        converted = self.convert(model)
        return lambda: self.load(converted, images)

    def _require(self, module: str, package: str | None = None) -> Any:
        """Import a module of the runtime.

        Args:
            module: Name of the module.
            package: Name of the package on PyPI, if it differs.

        Raises:
            MissingDependencyError: The package is not installed or cannot be loaded. The message explains what to do.
        """
        try:
            return import_module(module)
        except ImportError as reason:
            found = package or module.partition(".")[0]
            raise MissingDependencyError.of(reason, f"backend {self.name}", found, self.extra) from reason

    def _run_converter(self, name: str, words: Sequence[str], made: Path) -> None:
        """Run the runtime's converter in the folder of the file that it makes.

        Args:
            name: Name of the converter, for messages.
            words: Program and arguments.
            made: File that the converter makes.

        Raises:
            InputError: The converter did not make the file.
        """
        try:
            done = run_watched(words, timeout_s=_TIMEOUT_S, folder=made.parent)
        except ProgramTimeoutError as reason:
            raise self._unreadable(f"{name} did not finish within {_TIMEOUT_S} s") from reason
        except ProgramOutputError as reason:
            raise self._unreadable(f"{name} printed too much") from reason
        if done.code != 0 or not made.is_file():
            said = [line for line in (done.errors or done.output).splitlines() if line.strip()]
            raise self._unreadable(f"{': '.join(said[-1:] or [name])} (exit code {done.code})")

    def _unreadable(self, reason: object) -> InputError:
        """Return the error for a model that the runtime cannot read."""
        lines = [line.strip() for line in str(reason).splitlines() if line.strip()]
        return InputError(
            f"backend {self.name} cannot read the ONNX model: {lines[-1] if lines else 'no reason given'}"
        )
