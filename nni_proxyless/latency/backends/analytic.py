"""Backends that count multiply-adds or parameters instead of measuring latency. Their tables have their own unit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..device import Device
from ..protocol import Protocol
from .base import Backend, Workload

if TYPE_CHECKING:  # settings and files are checked without torch
    from torch import nn

_ONCE = Protocol(warmup_s=0.0, settle_s=0.0, sample_s=0.0, min_rounds=1, max_rounds=1)


class _Counted(Workload):
    def __init__(self, count: float) -> None:
        super().__init__(lambda: count)
        self.count = count

    def sample(self, repeats: int) -> float:
        return self.count


class _AnalyticBackend(Backend):
    clocked = False
    exact = True
    operator_protocol = _ONCE
    network_protocol = _ONCE

    def __init__(self, threads: int = 1, batch: int = 1) -> None:
        super().__init__(threads, batch)
        # The counts are per image and do not depend on the device, the number of threads or the batch size.
        self.threads = self.batch = 1
        self.dtype = "any"

    @property
    def version(self) -> str:
        import torch

        return str(torch.__version__)

    @property
    def device(self) -> Device:
        return Device("any", "counted, not measured", None)


class FlopsBackend(_AnalyticBackend):
    """Multiply-adds of convolutions, matrix products and linear layers for one image, which the field calls FLOPs."""

    name = "flops"
    unit = "flops"

    def prepare(self, module: nn.Module, input_shape: tuple[int, ...]) -> Workload:
        import torch

        from ..flop_counter import multiply_adds_counted, total_multiply_adds

        with multiply_adds_counted() as counter, torch.no_grad():
            module.eval()(torch.randn(1, *input_shape))
        return _Counted(total_multiply_adds(counter))


class ParamsBackend(_AnalyticBackend):
    """Number of parameters, without buffers."""

    name = "params"
    unit = "params"

    def prepare(self, module: nn.Module, input_shape: tuple[int, ...]) -> Workload:
        return _Counted(float(sum(parameter.numel() for parameter in module.parameters())))
