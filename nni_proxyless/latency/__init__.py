"""Latency as a measured quantity: operators, tables, measuring backends. Never imports NNI."""

from .backend import Backend, Workload
from .backends import BACKENDS, make_backend
from .calibration import fit_calibration
from .command_backend import CommandBackend
from .costs import SpaceCosts
from .device import Device, this_device
from .entries import Choice, ModuleCall
from .isolated import measure_isolated, measure_networks_isolated, measure_table_isolated
from .measure import draw_architectures, measure_networks, measure_table, random_architecture
from .onnx_backend import OnnxRuntimeBackend
from .sampling import Protocol, Samples, sample_interleaved
from .table import Calibration, LatencyTable, OperatorCost
from .torch_backend import TorchBackend

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
