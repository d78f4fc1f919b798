"""Base class of the measuring backends. A backend turns a module into a workload, which measures the cost of a run."""

from __future__ import annotations

import copy
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...errors import InputError, shown
from ...process_memory import keep_freed_memory
from ...values import MOST_BATCH, MOST_THREADS, is_whole
from ..device import Device, this_device
from ..protocol import CALIBRATION_PROTOCOL, NETWORK_PROTOCOL, OPERATOR_PROTOCOL, Protocol
from ..table import Unit

if TYPE_CHECKING:  # settings and files are checked without torch
    from torch import nn

    from ..calls import Call

_log = logging.getLogger(__name__)
MOST = {"threads": MOST_THREADS, "batch": MOST_BATCH}  # more threads abort the process on many machines


class Workload:
    """A network that is ready to run.

    Args:
        run: Function that runs the network once, to completion.

    Attributes:
        label: Name of the operator or network, for error messages.
    """

    def __init__(self, run: Callable[[], object]) -> None:
        self.run = run
        self.label = ""

    def sample(self, repeats: int) -> float:
        """Measure the mean cost of a run over `repeats` consecutive runs, in the backend's unit (here milliseconds)."""
        start = time.perf_counter()
        for _ in range(repeats):
            self.run()
        return (time.perf_counter() - start) * 1000.0 / repeats


class Backend(ABC):
    """A way to measure the cost of networks, by running them or by counting.

    Attributes:
        name: Name of the backend in recipes and tables.
        unit: Unit of the measured costs.
        clocked: Whether the measuring process itself runs and times the network. If not, another program reports the
            time, or the cost is counted.
        exact: Whether all samples of a network are equal, so that one sample is enough and sums need no calibration.
        dtype: Number format of the network.
        threads: Number of threads.
        batch: Number of images in a batch.
        networks_apart: Whether the networks that calibrate a table are measured in processes that measure no operators.
        operator_protocol: Default measuring protocol of operators.
        network_protocol: Default measuring protocol of whole networks.
        calibration_protocol: Default measuring protocol of the networks that calibrate a table.
        note: Function that tells the user something once, such as how the first sample was read. It logs by default.
    """

    name: ClassVar[str]
    unit: ClassVar[Unit] = "ms"
    clocked: ClassVar[bool] = True
    exact: ClassVar[bool] = False
    networks_apart: ClassVar[bool] = False
    operator_protocol: ClassVar[Protocol] = OPERATOR_PROTOCOL
    network_protocol: ClassVar[Protocol] = NETWORK_PROTOCOL
    calibration_protocol: ClassVar[Protocol] = CALIBRATION_PROTOCOL

    def __init__(self, threads: int = 1, batch: int = 1) -> None:
        for label, value in (("threads", threads), ("batch", batch)):
            if not is_whole(value, 1):
                raise InputError(f"backend {self.name}: {label} must be a whole number from 1, got {shown(value)}")
            if value > (most := MOST[label]):
                raise InputError(f"backend {self.name}: {label} must be at most {most}, got {shown(value)}")
        self.threads = threads
        self.batch = batch
        self.dtype = "float32"
        self.note: Callable[[str], None] = _log.info

    @property
    @abstractmethod
    def version(self) -> str:
        """Version of the software that runs the network."""

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments with which `make_backend` creates an equal backend, for example in another process."""
        return {"name": self.name, "threads": self.threads, "batch": self.batch}

    @property
    def device(self) -> Device:
        """Device on which the backend measures."""
        return this_device()

    @property
    def command(self) -> str | None:
        """Shell command of the user that measures, if the backend is `command`; otherwise `None`."""
        return None

    @property
    def tool_name(self) -> str | None:
        """Device tool whose output the command prints, if the user named one; otherwise `None`."""
        return None

    @abstractmethod
    def prepare(self, module: nn.Module, input_shape: tuple[int, ...]) -> Workload:
        """Make a module ready to run on a batch of inputs.

        Args:
            module: Module to run.
            input_shape: Shape of one input, without the batch dimension.
        """

    def loader(self, module: nn.Module, input_shape: tuple[int, ...]) -> Callable[[], Workload]:
        """Return a function that makes a module ready to run; the arguments are those of `prepare`.

        Work that is needed only once is done immediately. The rest, including the allocation of memory, is done at each
        call of the returned function.
        """
        return lambda: self.prepare(copy.deepcopy(module), input_shape)

    def call_loader(self, call: Call) -> Callable[[], Workload]:
        """Return a function that makes a call of a module ready to run; see `loader`.

        Args:
            call: Module with its inputs, which may be several, or none of the kind that `loader` takes.

        Raises:
            InputError: The backend runs modules with one input of floating-point numbers only.
        """
        shape = call.image_shape(self.batch)
        if shape is None:
            raise InputError(
                f"module '{call.name}' ({type(call.module).__name__}) takes other inputs than one batch of "
                f"floating-point numbers, which backend {self.name} cannot give it; measure with torch or onnxruntime"
            )
        return self.loader(call.module, shape)

    def file_loader(self, path: Path, input_shape: tuple[int, ...]) -> Callable[[], Workload]:
        """Return a function that makes an exported network ready to run; see `loader`.

        Args:
            path: Path of the exported model.
            input_shape: Shape of one input, without the batch dimension.

        Raises:
            InputError: The backend cannot run this file format, or the file is invalid.
        """
        raise InputError(f"backend {self.name} cannot run files like {path.name}")

    @contextmanager
    def session(self) -> Iterator[None]:
        """Context manager that applies the process-wide settings of a measurement."""
        if self.clocked:
            keep_freed_memory()
        yield


def labelled(loader: Callable[[], Workload], label: str) -> Callable[[], Workload]:
    """Wrap a loader so that it names its workload; see `Backend.loader`."""

    def load() -> Workload:
        workload = loader()
        workload.label = label
        return workload

    return load


def one_of(backend: str, label: str, value: object, allowed: Mapping[str, Any] | tuple[str, ...]) -> None:
    """Check that the value of a backend's setting is one of the allowed values.

    Args:
        backend: Name of the backend, for the error message.
        label: Name of the setting.
        value: Received value.
        allowed: Allowed values.

    Raises:
        InputError: The value is not allowed.
    """
    if not isinstance(value, str) or value not in allowed:
        raise InputError(f"backend {backend}: {label} must be one of {', '.join(allowed)}, got {shown(value)}")
