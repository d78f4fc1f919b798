"""Latencies of exported files: the tables that predict them, and their measurement on this machine."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..files import results_folder
from ..latency import LatencyTable
from ..latency.backends.base import Backend
from ..latency.isolated import measure_file_isolated, measure_networks_isolated
from ..latency.judgement import load_judged
from ..latency.validate import comparable_level, usable_backend
from ..network.architecture import Architecture
from .exported import Exported


def find_tables(paths: Sequence[Path], architecture: Path) -> list[LatencyTable]:
    """Load the latency tables to predict with: the given ones, or those found near an architecture file.

    Tables are files called `latency_table.yml`. They are searched in the architecture's folder, one folder up, and in
    the sibling folders of the folder where one was found (in subfolders if none was). If the trials of each target have
    a folder of their own, the tables of the other targets' trials of the same name are found as well.

    Args:
        paths: Paths of the tables; if empty, tables are searched near the architecture.
        architecture: Path of the architecture file.

    Returns:
        The tables; of those that were searched, the architecture's own table comes first.

    Raises:
        LatencyTableError: A file is not a valid latency table.
    """
    if paths:
        return [load_judged(path) for path in paths]
    folder = architecture.resolve().parent
    places = (folder.glob(results_folder.LATENCY_TABLE), folder.parent.glob(results_folder.LATENCY_TABLE))
    near = [path for place in places for path in place]
    base = near[0].parent.parent if near else folder
    around = sorted(base.glob(f"*/{results_folder.LATENCY_TABLE}"))
    if near:
        around += sorted(base.parent.glob(f"*/{glob.escape(near[0].parent.name)}/{results_folder.LATENCY_TABLE}"))
    return [load_judged(path) for path in dict.fromkeys((*near, *around))]


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
