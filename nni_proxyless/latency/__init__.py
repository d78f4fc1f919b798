"""Latency measurement and prediction: measuring backends, latency tables, predictions. Never imports NNI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .backends.base import Backend, Workload
    from .backends.by_name import BACKENDS, make_backend
    from .backends.command import CommandBackend
    from .backends.onnx_runtime import OnnxRuntimeBackend
    from .backends.pytorch import TorchBackend
    from .calibration import fit_calibration
    from .costs import SpaceCosts
    from .device import Device, this_device
    from .entries import Choice, ModuleCall
    from .isolated import measure_isolated, measure_networks_isolated, measure_table_isolated
    from .measure import measure_networks, measure_table
    from .protocol import Protocol
    from .random_architectures import draw_architectures, random_architecture
    from .sampling import Samples, sample_interleaved
    from .table import Calibration, LatencyTable, OperatorCost

__all__ = [
    "BACKENDS",
    "Backend",
    "Calibration",
    "Choice",
    "CommandBackend",
    "Device",
    "LatencyTable",
    "ModuleCall",
    "OnnxRuntimeBackend",
    "OperatorCost",
    "Protocol",
    "Samples",
    "SpaceCosts",
    "TorchBackend",
    "Workload",
    "draw_architectures",
    "fit_calibration",
    "make_backend",
    "measure_isolated",
    "measure_networks",
    "measure_networks_isolated",
    "measure_table",
    "measure_table_isolated",
    "random_architecture",
    "sample_interleaved",
    "this_device",
]
__getattr__ = lazy_names(
    __name__,
    {
        "BACKENDS": "latency.backends.by_name",
        "Backend": "latency.backends.base",
        "Calibration": "latency.table",
        "Choice": "latency.entries",
        "CommandBackend": "latency.backends.command",
        "Device": "latency.device",
        "LatencyTable": "latency.table",
        "ModuleCall": "latency.entries",
        "OnnxRuntimeBackend": "latency.backends.onnx_runtime",
        "OperatorCost": "latency.table",
        "Protocol": "latency.protocol",
        "Samples": "latency.sampling",
        "SpaceCosts": "latency.costs",
        "TorchBackend": "latency.backends.pytorch",
        "Workload": "latency.backends.base",
        "draw_architectures": "latency.random_architectures",
        "fit_calibration": "latency.calibration",
        "make_backend": "latency.backends.by_name",
        "measure_isolated": "latency.isolated",
        "measure_networks": "latency.measure",
        "measure_networks_isolated": "latency.isolated",
        "measure_table": "latency.measure",
        "measure_table_isolated": "latency.isolated",
        "random_architecture": "latency.random_architectures",
        "sample_interleaved": "latency.sampling",
        "this_device": "latency.device",
    },
)
