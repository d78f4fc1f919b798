"""Latency tables of a GPU, measured with CUDA events, and how well they predict whole networks.

    python -m benchmarks.gpu.latency [--device cpu --toy --output FOLDER]

For each batch size, the part measures and calibrates a table of the paper's space, draws random networks that the
calibration has not used, and measures them in other processes. It calls the functions behind `nni-proxyless latency
measure` and `latency validate`, with fewer processes. The table and the networks are written too.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial

from benchmarks.constants import SPACE_OF_THE_PAPER
from benchmarks.gpu.made_up import TINY_SPACE
from benchmarks.gpu.part import Item, Row, Setting, run
from nni_proxyless.latency import make_backend, measure_table_isolated
from nni_proxyless.latency.judgement import verdict
from nni_proxyless.latency.validate import validate
from nni_proxyless.network.space_spec import SpaceSpec

COLUMNS = (
    "batch", "operators", "calibration_networks", "calibration_error", "verdict", "measuring_s", "networks",
    "validating_s", "mean_error", "worst_error", "bias", "spearman", "smallest_ms", "largest_ms",
)  # fmt: skip
BATCHES = (8, 128)


def items(setting: Setting) -> list[Item]:
    return [(f"batch {batch}", partial(_rows, setting, batch)) for batch in ((1,) if setting.toy else BATCHES)]


def _rows(setting: Setting, batch: int) -> Iterable[Row]:
    spec = SpaceSpec.from_dict(TINY_SPACE) if setting.toy else SpaceSpec.from_yaml(SPACE_OF_THE_PAPER)
    processes, calibration, networks = (1, 2, 3) if setting.toy else (2, 8, 16)
    backend = make_backend("torch", threads=1, batch=batch, device=setting.device)
    begun = time.monotonic()
    table = measure_table_isolated(
        spec, backend, processes=processes, most_processes=processes, calibration_networks=calibration
    )
    measured = time.monotonic()
    table.save(setting.path(f"latency_table-batch{batch}", ".yml"))
    found = validate(table, spec, networks, backend=backend, processes=processes)
    found.save_csv(setting.path(f"latency_networks-batch{batch}"))
    error = table.calibration.mean_relative_error
    yield {
        "batch": batch, "operators": len(table.operators), "calibration_networks": calibration,
        "calibration_error": "" if error is None else round(error, 5), "verdict": verdict(table).name.lower(),
        "measuring_s": round(measured - begun, 1), "networks": networks,
        "validating_s": round(time.monotonic() - measured, 1), "mean_error": round(found.mean_error, 5),
        "worst_error": round(found.worst_error, 5), "bias": round(found.bias, 5),
        "spearman": round(found.spearman, 4), "smallest_ms": round(float(found.measured_ms.min()), 4),
        "largest_ms": round(float(found.measured_ms.max()), 4),
    }  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(run("latency", COLUMNS, items, __doc__))
