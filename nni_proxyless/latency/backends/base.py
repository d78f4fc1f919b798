"""What a measuring backend is: it makes a module ready to run, and the result can be asked what a run costs."""

from __future__ import annotations

import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from ...errors import InputError
from ...process_memory import keep_freed_memory
from ..device import Device, this_device
from ..protocol import CALIBRATION_PROTOCOL, NETWORK_PROTOCOL, OPERATOR_PROTOCOL, Protocol
from ..table import Unit


class Workload:
    """A network made ready: `run` runs it once, to completion.

    Args:
        run: Runs it.
    """

    def __init__(self, run: Callable[[], object]) -> None:
        self.run = run

    def sample(self, repeats: int) -> float:
        """Mean cost of one of `repeats` runs in a row, in the backend's unit: here milliseconds by this clock."""
        start = time.perf_counter()
        for _ in range(repeats):
            self.run()
        return (time.perf_counter() - start) * 1000.0 / repeats


class Backend(ABC):
    """A way to run networks, or to count what they need.

    Attributes:
        name: Its name in recipes and tables.
        unit: Unit of what it measures.
        clocked: Whether this process runs the network and takes the time; if not, a sample is what it is told.
        exact: Whether every sample is the same, so that one is enough and sums need no calibration.
        dtype: Number format of the network.
        threads: Threads it computes with.
        batch: Images in a batch.
        operator_protocol: How long operators are measured, unless told otherwise.
        network_protocol: How long whole networks are measured, unless told otherwise.
        calibration_protocol: How long those are that calibrate a table.
    """

    name: ClassVar[str]
    unit: ClassVar[Unit] = "ms"
    clocked: ClassVar[bool] = True
    exact: ClassVar[bool] = False
    operator_protocol: ClassVar[Protocol] = OPERATOR_PROTOCOL
    network_protocol: ClassVar[Protocol] = NETWORK_PROTOCOL
    calibration_protocol: ClassVar[Protocol] = CALIBRATION_PROTOCOL

    def __init__(self, threads: int = 1, batch: int = 1) -> None:
        for label, value in (("threads", threads), ("batch", batch)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"backend {self.name}: {label} must be a whole number from 1, got {value!r}")
        self.threads = threads
        self.batch = batch
        self.dtype = "float32"

    @property
    @abstractmethod
    def version(self) -> str:
        """Version of what runs the network."""

    @property
    def settings(self) -> dict[str, Any]:
        """What `make_backend` needs to make the same one again, in another process."""
        return {"name": self.name, "threads": self.threads, "batch": self.batch}

    @property
    def device(self) -> Device:
        """What it measures on."""
        return this_device()

    @property
    def command(self) -> str | None:
        """The user's program, where that is the backend."""
        return None

    @abstractmethod
    def prepare(self, module: nn.Module, input_shape: tuple[int, ...]) -> Workload:
        """Make a module ready to run on a batch of inputs of `input_shape`, the batch dimension left out."""

    def loader(self, module: nn.Module, input_shape: tuple[int, ...]) -> Callable[[], Workload]:
        """Like `prepare`, but what need be done only once is done now, and the rest, memory included, at each call."""
        return lambda: self.prepare(copy.deepcopy(module), input_shape)

    def file_loader(self, path: Path, input_shape: tuple[int, ...]) -> Callable[[], Workload]:
        """Like `loader`, for a network that was exported to a file.

        Raises:
            InputError: This backend does not run such files.
        """
        raise InputError(f"backend {self.name} runs no file of the kind of {path.name}")

    @contextmanager
    def session(self) -> Iterator[None]:
        """Holds the settings that a measurement needs of the whole process."""
        if self.clocked:
            keep_freed_memory()
        yield


def one_of(backend: str, label: str, value: object, allowed: Mapping[str, Any] | tuple[str, ...]) -> None:
    """Check a setting that has a few values.

    Raises:
        InputError: The value is not one of them.
    """
    if value not in allowed:
        raise InputError(f"backend {backend}: {label} must be one of {', '.join(allowed)}, got {value!r}")
