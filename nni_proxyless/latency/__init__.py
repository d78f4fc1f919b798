"""Latency as a measured quantity: operators, tables, measuring backends. Never imports NNI."""

from .backends import BACKENDS, Backend, OnnxRuntimeBackend, TorchBackend, make_backend
from .device import Device, this_device
from .isolated import measure_isolated, measure_table_isolated
from .measure import (
    Protocol,
    Samples,
    fit_calibration,
    measure_network,
    measure_table,
    random_architecture,
    time_interleaved,
)
from .table import Calibration, LatencyCosts, LatencyTable, OperatorLatency

__all__ = [
    "BACKENDS",
    "Backend",
    "Calibration",
    "Device",
    "LatencyCosts",
    "LatencyTable",
    "OnnxRuntimeBackend",
    "OperatorLatency",
    "Protocol",
    "Samples",
    "TorchBackend",
    "fit_calibration",
    "make_backend",
    "measure_isolated",
    "measure_network",
    "measure_table",
    "measure_table_isolated",
    "random_architecture",
    "this_device",
    "time_interleaved",
]
