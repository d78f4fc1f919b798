"""How well latency tables predict whole networks that were not used to calibrate them.

    python -m benchmarks.latency.latency_accuracy [--networks 30] [--repeats 1]
        [--spaces mobilenetv2_imagenet] [--only-float32-onnxruntime | --runtimes [openvino mnn ncnn]]

For each space and backend, the script measures and calibrates a table, draws random networks that the calibration has
not used, measures them in other processes, and compares prediction and measurement. It calls the functions behind
`nni-proxyless latency measure` and `nni-proxyless latency validate`. With `--runtimes` it measures OpenVINO, MNN and
ncnn, and appends to their CSV file. The column `load` is the average number of running processes in the minute before
the table was measured.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from typing import Any

import numpy as np

from benchmarks.constants import LATENCY_RESULTS, SPACE_OF_THE_PAPER
from benchmarks.results_csv import publish
from nni_proxyless.latency import make_backend, measure_table_isolated
from nni_proxyless.latency.validate import validate
from nni_proxyless.network.space_spec import SpaceSpec

BACKENDS: tuple[dict[str, Any], ...] = (
    {"name": "onnxruntime"},
    {"name": "torch"},
    {"name": "onnxruntime", "dtype": "int8"},
)
RUNTIMES = {"openvino": "openvino", "mnn": "MNN", "ncnn": "ncnn"}  # and their packages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=1)
    subset = parser.add_mutually_exclusive_group()
    subset.add_argument("--only-float32-onnxruntime", action="store_true", help="write a CSV file of its own")
    subset.add_argument(
        "--runtimes", nargs="*", choices=RUNTIMES, help="measure these runtimes (all), and append to their CSV file"
    )
    parser.add_argument("--spaces", nargs="+", default=[SPACE_OF_THE_PAPER])
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    backends = BACKENDS[:1] if options.only_float32_onnxruntime else BACKENDS
    if options.runtimes is not None:
        backends = tuple({"name": name} for name in options.runtimes or RUNTIMES)
    rows: list[dict[str, Any]] = []
    for repeat in range(options.repeats):
        for space in options.spaces:
            spec = SpaceSpec.from_yaml(space)
            for settings in backends:
                backend = make_backend(**settings, threads=1)
                load = os.getloadavg()[0]
                start = time.perf_counter()
                table = measure_table_isolated(spec, backend)
                seconds = time.perf_counter() - start
                found = validate(table, spec, options.networks, backend=backend, seed=repeat)
                clock = np.abs(found.predicted_ms / found.raw_ms - 1)
                rows.append(
                    {
                        "space": space,
                        "backend": backend.name,
                        "dtype": backend.dtype,
                        "threads": 1,
                        "repeat": repeat,
                        "operators": len(table.operators),
                        "measuring_s": round(seconds, 1),
                        "networks": options.networks,
                        "smallest_ms": round(float(found.measured_ms.min()), 3),
                        "largest_ms": round(float(found.measured_ms.max()), 3),
                        "scale": round(table.calibration.scale, 3),
                        "mean_error": round(found.mean_error, 4),
                        "worst_error": round(found.worst_error, 4),
                        "bias": round(found.bias, 4),
                        "machine": round(found.machine or 1.0, 4),
                        "mean_error_by_clock": round(float(clock.mean()), 4),
                        "spearman": round(found.spearman, 4),
                        "kendall": round(found.kendall, 4),
                        "load": round(load, 1),
                    }
                )
                if options.runtimes is not None:  # each line is one run, and stays if a later one is cut off
                    packages = ("nni-proxyless", "torch", *RUNTIMES.values())
                    publish("latency_accuracy_runtimes", rows[-1:], packages, LATENCY_RESULTS, append=True)
    name = "latency_accuracy_onnxruntime" if options.only_float32_onnxruntime else "latency_accuracy"
    if options.runtimes is None:
        publish(name, rows, ("nni-proxyless", "torch", "onnxruntime"), LATENCY_RESULTS)


if __name__ == "__main__":
    main()
