"""How well a measured table predicts whole networks that it has never seen.

    .venv/bin/python benchmarks/latency_accuracy.py [--networks 30]

For each space and backend on this machine: measure and calibrate a table, draw random networks that calibration has
not used, measure them, compare. Machine and process are faster at one minute than at the next, so the networks that
calibrated the table are measured once more among the new ones: `drift` is how much slower they have become, and
`mean_error_less_drift` is what the table itself is to blame for.
"""

from __future__ import annotations

import argparse
import random
import time
import warnings
from typing import Any

import numpy as np
from _results import publish
from scipy.stats import spearmanr

from nni_proxyless.latency import make_backend, measure_table, random_architecture, time_interleaved
from nni_proxyless.latency.measure import NETWORK_PROTOCOL, calibration_architectures
from nni_proxyless.space_spec import SpaceSpec

SPACES = ("mobilenetv2_digits", "mobilenetv2_cifar", "mobilenetv2_imagenet")
BACKENDS = ("torch", "onnxruntime")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=30)
    count = parser.parse_args().networks
    warnings.simplefilter("ignore")
    rows: list[dict[str, Any]] = []
    for space in SPACES:
        spec = SpaceSpec.from_yaml(space)
        for name in BACKENDS:
            backend = make_backend(name, threads=1)
            start = time.perf_counter()
            table = measure_table(spec, backend)
            seconds = time.perf_counter() - start
            costs = table.costs(spec)
            generator = random.Random("validation")
            known = calibration_architectures(table, spec, table.calibration.networks, 0)
            drawn = [random_architecture(spec, generator) for _ in range(count)]
            with backend.session():
                runners = [backend.prepare(a.build(), spec.input_shape) for a in known + drawn]
                times = np.array([samples.median_ms for samples in time_interleaved(runners, NETWORK_PROTOCOL)])
            predicted = np.array([costs.of(a.choices) for a in known + drawn])
            drift = float(np.mean(times[: len(known)] / predicted[: len(known)]))
            measured, predicted = times[len(known) :], predicted[len(known) :]
            error = (predicted - measured) / measured
            less_drift = (predicted * drift - measured) / measured
            rows.append(
                {
                    "space": space,
                    "backend": name,
                    "threads": 1,
                    "operators": len(table.operators),
                    "measuring_s": round(seconds, 1),
                    "networks": count,
                    "smallest_ms": round(costs.smallest, 3),
                    "largest_ms": round(costs.largest, 3),
                    "mean_error": round(float(np.abs(error).mean()), 4),
                    "worst_error": round(float(np.abs(error).max()), 4),
                    "drift": round(drift, 4),
                    "mean_error_less_drift": round(float(np.abs(less_drift).mean()), 4),
                    "spearman": round(float(spearmanr(predicted, measured)[0]), 4),
                }
            )
    publish("latency_accuracy", rows, ("nni-proxyless", "torch", "onnxruntime"))


if __name__ == "__main__":
    main()
