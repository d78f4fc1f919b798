"""How well tables of `measure_model_space` predict whole networks of spaces of many kinds.

    python -m benchmarks.spaces.predictions [--spaces tutorial ...] [--backends torch onnxruntime] [--networks 24]

For each space and backend, the script measures a table, draws random networks, and measures them in one interleaved
run, at the speed that the machine had when the table was measured. The networks are drawn with another seed than those
of the calibration. The column `load` is the average number of running processes in the minute before. Results of other
spaces and backends on this processor are kept.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
import warnings
from typing import Any

from nni.nas.nn.pytorch import ModelSpace

from benchmarks.constants import SPACES_RESULTS
from benchmarks.results_csv import append_rows, file_here, publish, read_rows
from benchmarks.spaces.spaces import SPACES
from nni_proxyless.latency import make_backend
from nni_proxyless.nni_spaces.space_latency import measure_model_space, measure_space_networks
from nni_proxyless.supernet.candidates import path_candidates, searched
from nni_proxyless.supernet.constraints import Constraints

_MOST_DRAWS = 100_000


def drawn(space: ModelSpace, count: int, seed: int) -> list[dict[str, Any]]:
    """Draw different networks that keep the constraints of a space; fewer if it has not that many."""
    mutables = space.simplify()
    constraints, generator = Constraints.in_space(mutables), random.Random(f"predictions {seed}")
    candidates = {label: path_candidates(mutables[label]) for label in searched(mutables)}
    found: dict[str, dict[str, Any]] = {}
    for _ in range(_MOST_DRAWS):
        sample = {label: generator.choice(of) for label, of in candidates.items()}
        if constraints.allow(sample):
            found.setdefault(str(sample), sample)
        if len(found) == count:
            break
    return list(found.values())


def compared(name: str, backend_name: str, count: int, seed: int) -> list[dict[str, Any]]:
    """Measure a table and networks of a space; return a row for each network."""
    space, inputs = SPACES[name].make(), SPACES[name].inputs
    backend = make_backend(backend_name, threads=1)
    load, start = os.getloadavg()[0], time.perf_counter()
    table = measure_model_space(space, inputs, backend, seed=seed)
    seconds = time.perf_counter() - start
    samples = drawn(space, count, seed + 1)
    taken = measure_space_networks(space, inputs, samples, backend, table=table)
    costs = table.own_costs()
    return [
        {
            "space": name,
            "backend": backend_name,
            "network": number,
            "predicted_ms": f"{costs.of({label: str(candidate) for label, candidate in sample.items()}):.6g}",
            "measured_ms": f"{measured.median:.6g}",
            "spread_ms": f"{measured.spread:.3g}",
            "modules": len(table.operators),
            "calibration_error": f"{table.calibration.mean_relative_error or 0:.4f}",
            "table_seconds": f"{seconds:.1f}",
            "load": f"{load:.2f}",
        }
        for number, (sample, measured) in enumerate(zip(samples, taken, strict=True))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spaces", nargs="+", choices=SPACES, default=list(SPACES))
    parser.add_argument("--backends", nargs="+", default=["torch", "onnxruntime"])
    parser.add_argument("--networks", type=int, default=24, help="networks of each space (24)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = []
    for name in options.spaces:
        for backend in options.backends:
            start = time.perf_counter()
            rows += compared(name, backend, options.networks, options.seed)
            sys.stdout.write(f"{name}, {backend}: {time.perf_counter() - start:.0f} s\n")
            sys.stdout.flush()
    measured = {(row["space"], row["backend"]) for row in rows}
    path = file_here("predictions", SPACES_RESULTS)
    kept = [row for row in read_rows(path) if (row["space"], row["backend"]) not in measured]
    publish("predictions", rows, ("torch", "onnxruntime", "nni"), SPACES_RESULTS)
    append_rows(kept, path, tuple(read_rows(path)[0]))


if __name__ == "__main__":
    main()
