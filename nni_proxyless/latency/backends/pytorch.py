"""Backend that runs networks with PyTorch in eager mode, on the CPU or on a CUDA GPU."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from ..device import Device
from .base import Backend, Workload, one_of

if TYPE_CHECKING:  # settings and files are checked without torch
    from torch import Tensor, nn

    from ..calls import Call

DEVICES = ("cpu", "cuda")


class TorchBackend(Backend):
    """PyTorch in eager mode, with fp32, the channels_last memory format and inference mode.

    Args:
        threads: Number of CPU threads.
        batch: Number of images in a batch.
        device: Device type, `cpu` or `cuda`.

    Raises:
        InputError: A setting is invalid, or PyTorch finds no CUDA device for `cuda`.
    """

    name = "torch"

    def __init__(self, threads: int = 1, batch: int = 1, device: str = "cpu") -> None:
        super().__init__(threads, batch)
        one_of(self.name, "device", device, DEVICES)
        if device == "cuda" and not _has_cuda():
            raise InputError(
                "backend torch: device cuda, but PyTorch sees no CUDA device here; use device cpu, or measure on the "
                "machine that has one and copy the table"
            )
        self.device_type = device

    @property
    def version(self) -> str:
        import torch

        return str(torch.__version__)

    @property
    def settings(self) -> dict[str, Any]:
        return {**super().settings, "device": self.device_type}

    @property
    def device(self) -> Device:
        here = super().device
        if self.device_type == "cpu":
            return here
        import torch

        return replace(here, processor=torch.cuda.get_device_name())

    def prepare(self, module: nn.Module, input_shape: tuple[int, ...]) -> Workload:
        import torch
        from torch.fx import GraphModule

        from ...network.blocks import example_input

        # A program loaded from torch.export is always in evaluation mode, and its `eval` method raises an error.
        network = (module if isinstance(module, GraphModule) else module.eval()).to(self.device_type)
        images = torch.randn(self.batch, *input_shape, device=self.device_type)
        if len(input_shape) == 3:
            network = network.to(memory_format=torch.channels_last)
            images = example_input((input_shape[0], input_shape[1], input_shape[2]), self.batch).to(self.device_type)

        return self._workload(network, [images])

    def call_loader(self, call: Call) -> Callable[[], Workload]:
        if call.image_shape(self.batch) is not None:
            return super().call_loader(call)

        def load() -> Workload:
            network = copy.deepcopy(call.flat()).eval().to(self.device_type)
            return self._workload(network, [tensor.to(self.device_type) for tensor in call.tensors()])

        return load

    def _workload(self, network: nn.Module, inputs: Sequence[Tensor]) -> Workload:
        import torch

        def run() -> object:
            with torch.inference_mode():
                return network(*inputs)

        return Workload(run) if self.device_type == "cpu" else CudaWorkload(run)

    def file_loader(self, path: Path, input_shape: tuple[int, ...]) -> Callable[[], Workload]:
        network = load_model(path)
        return lambda: self.prepare(network, input_shape)

    @contextmanager
    def session(self) -> Iterator[None]:
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with super().session():
                yield
        finally:
            torch.set_num_threads(before)


def _has_cuda() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def load_model(path: Path) -> nn.Module:
    """Load an exported network, a TorchScript (`.pt`) or torch.export (`.pt2`) file.

    Raises:
        InputError: The file cannot be read as either of these formats.
    """
    import torch

    try:
        if path.suffix == ".pt2":
            return torch.export.load(path).module()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript emits a deprecation warning at every call
            loaded: nn.Module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
            return loaded
    except (RuntimeError, ValueError, OSError) as reason:
        raise InputError(
            f"{path} is not an exported model, or it is truncated: {str(reason).splitlines()[0]}"
        ) from reason


class CudaWorkload(Workload):
    """A network on the GPU, timed between two events on its stream.

    Kernel launches are asynchronous. `run` therefore waits for the device, and `sample` divides the time between the
    two events by the number of repeats.

    Args:
        launch: Function that launches the network once, without waiting for the device.
    """

    def __init__(self, launch: Callable[[], object]) -> None:
        import torch

        super().__init__(self._to_completion)
        self._launch = launch
        self._cuda = torch.cuda

    def _to_completion(self) -> object:
        output = self._launch()
        self._cuda.synchronize()
        return output

    def sample(self, repeats: int) -> float:
        start, end = (self._cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        self._cuda.synchronize()
        start.record()
        for _ in range(repeats):
            self._launch()
        end.record()
        self._cuda.synchronize()
        return float(start.elapsed_time(end)) / repeats
