"""Latencies of exported files: the tables that predict them, and their measurement on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..latency import LatencyTable
from ..latency.backends.base import Backend
from ..latency.isolated import measure_file_isolated, measure_networks_isolated
from ..latency.validate import comparable_level, usable_backend
from ..network.architecture import Architecture
from .exported import Exported


def measured(
    result: Exported,
    architecture: Architecture,
    out: Path,
    tables: Sequence[LatencyTable],
    batch: int | None = 1,
) -> Exported:
    """Measure the latency of an exported file, and predict it with the table of its runtime.

    Args:
        result: Result of the file's check.
        architecture: Architecture of the network.
        out: Folder of the file.
        tables: Latency tables to predict with.
        batch: Number of images in a batch of the file; `None` if it is open. Then the batch is that of the table.

    Returns:
        The result with its latency.

    Raises:
        RunError: The measurement failed.
    """
    spec = architecture.require_spec()
    backend, table = backend_of(result.format, tables, batch)
    if result.format in ("torchscript", "torch_export"):
        table = None  # compiled or folded networks do not run like those of a table of PyTorch eager
    level = None if table is None else comparable_level(table, backend, spec)
    if result.format == "state_dict":  # no model file: the network is built from its architecture
        samples = measure_networks_isolated([architecture], backend, reference_ms=level)[0]
    else:
        samples = measure_file_isolated(out / result.file, architecture, backend, reference_ms=level)
    return replace(
        result,
        runtime=f"{backend.name} {backend.dtype}, {backend.threads} thread(s), batch {backend.batch}",
        predicted_latency_ms=None if table is None else table.costs(spec).of(architecture.choices),
        measured_latency_ms=samples.median,
        clock_latency_ms=sorted(samples.raw)[len(samples.raw) // 2],
    )


def backend_of(name: str, tables: Sequence[LatencyTable], batch: int | None) -> tuple[Backend, LatencyTable | None]:
    """Return the backend that measures a format, and the table that predicts it; see `usable_backend`."""
    runtimes, dtype = _RUNTIMES[name]
    return usable_backend(tables, runtimes, dtype, batch)


_RUNTIMES: dict[str, tuple[tuple[str, ...], str]] = {
    "onnx": (("onnxruntime", "openvino", "mnn", "ncnn"), "float32"),
    "int8": (("onnxruntime", "openvino"), "int8"),
    "torchscript": (("torch",), "float32"),
    "torch_export": (("torch",), "float32"),
    "state_dict": (("torch",), "float32"),
}
