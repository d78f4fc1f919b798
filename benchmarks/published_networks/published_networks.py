"""Latency of networks with a published accuracy on ImageNet, in each runtime.

    python -m benchmarks.published_networks.published_networks [--runtimes …] [--passes 3]

A fresh process measures all networks in one runtime, on one thread with one image of 224 x 224, interleaved with a
reference network. The latency is the CPU time of the process. On an idle machine that is the elapsed time, and time in
which other programs have the core does not count. Each process adds its rows to a CSV file in `results`, so a benchmark
that was stopped goes on. A runtime's outputs are compared with PyTorch's.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from benchmarks.jobs import add_job_arguments, print_result, run_jobs
from benchmarks.published_networks.networks import INPUT_SHAPE, NETWORKS, Network
from benchmarks.published_networks.tables import RESULTS, RUNTIMES, Row, draw, spread
from benchmarks.results_csv import append_rows, processor, read_rows
from nni_proxyless import Architecture
from nni_proxyless.latency import make_backend
from nni_proxyless.latency.backends.base import Backend, Workload
from nni_proxyless.latency.backends.onnx_model import OnnxModelBackend
from nni_proxyless.latency.machine_load import LoadMeter
from nni_proxyless.latency.protocol import Protocol
from nni_proxyless.latency.sampling import sample_interleaved
from nni_proxyless.network.onnx_file import export_onnx
from nni_proxyless.network.quantization import quantize_static

MODULE = "benchmarks.published_networks.published_networks"
MOST_DIFFERENCE = 0.01  # of a float32 runtime's outputs, as a part of PyTorch's largest output
COLUMNS = (
    "runtime", "network", "pass", "ms", "reference_ms", "difference", "other_cores", "processor", "version",
    "nni-proxyless", "torch", "samples_ms",
)  # fmt: skip


class CpuTimed(Workload):
    """A network that is timed by the CPU time of this process."""

    def sample(self, repeats: int) -> float:
        start = time.process_time()
        for _ in range(repeats):
            self.run()
        return (time.process_time() - start) * 1000.0 / repeats


def run_one(job: dict[str, Any]) -> list[Row]:
    """Measure all networks in one runtime, in this process.

    Args:
        job: `runtime`, a key of `RUNTIMES`, and `pass`, the number of the process.
    """
    name, dtype = RUNTIMES[job["runtime"]]
    settings = {"dtype": dtype} if dtype == "int8" else {}
    backend = make_backend(name, threads=1, **settings)
    return measure(backend, NETWORKS, job)


def measure(
    backend: Backend, networks: Iterable[Network], job: dict[str, Any], protocol: Protocol | None = None
) -> list[Row]:
    """Measure networks in a runtime, interleaved with MobileNetV2 as the reference; a row for each."""
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    with backend.session():
        loaders, differences = {}, {}
        for network in networks:
            loaders[network.name], differences[network.name] = prepared(backend, network.build())
        reference, _ = prepared(backend, Architecture.mobilenet_v2(1.0).build().eval())
        load = LoadMeter()
        taken = sample_interleaved(
            {name: _timed(loader) for name, loader in loaders.items()},
            protocol or backend.network_protocol,
            reference=_timed(reference)(),
        )
        seen = load.read()
    return [
        {
            "runtime": job["runtime"],
            "network": name,
            "pass": str(job["pass"]),
            "ms": f"{samples.median:.4g}",
            "reference_ms": f"{samples.reference:.4g}",
            "difference": f"{differences[name]:.1e}",
            "other_cores": f"{seen.other_cores:.2f}",
            "processor": processor(),
            "version": backend.version,
            "nni-proxyless": version("nni-proxyless"),
            "torch": version("torch"),
            "samples_ms": " ".join(f"{value:.4g}" for value in samples.raw),
        }
        for name, samples in taken.items()
    ]


def _timed(loader: Callable[[], Workload]) -> Callable[[], Workload]:
    return lambda: CpuTimed(loader().run)


def prepared(backend: Backend, network: nn.Module) -> tuple[Callable[[], Workload], float]:
    """Return what loads a network in a runtime, and the largest difference of its outputs from PyTorch's.

    The difference is a part of PyTorch's largest output.

    Raises:
        ValueError: A float32 runtime computes something else.
    """
    if not isinstance(backend, OnnxModelBackend):
        return backend.loader(network, INPUT_SHAPE), 0.0
    model = export_onnx(network, INPUT_SHAPE, backend.batch)
    converted = backend.convert(quantize_static(model) if backend.dtype == "int8" else model)
    images = torch.randn(backend.batch, *INPUT_SHAPE)
    with torch.no_grad():
        expected = network(images)
    loaded = backend.load(converted, images.numpy())
    loaded.run()
    found = torch.from_numpy(loaded.output())
    difference = float((found - expected).abs().max() / expected.abs().max())
    if backend.dtype == "float32" and not difference <= MOST_DIFFERENCE:
        raise ValueError(f"{backend.name} differs from PyTorch by {difference:.2g} of the largest output")
    return lambda: backend.load(converted, images.numpy()), difference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_job_arguments(parser, "process")
    parser.set_defaults(processes=1)  # two at a time would disturb each other
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=list(RUNTIMES))
    parser.add_argument("--passes", type=int, default=3, help="number of processes for each runtime")
    options = parser.parse_args()
    if options.job:
        print_result(options.job, run_one)
        return
    known = {(row["runtime"], row["pass"], row["processor"]) for row in read_rows(RESULTS)}
    jobs = [
        {"runtime": runtime, "pass": number}
        for number, runtime in itertools.product(range(options.passes), options.runtimes)
        if (runtime, str(number), processor()) not in known
    ]
    for rows in run_jobs(MODULE, jobs, options.processes, options.minutes):
        append_rows(rows, RESULTS, COLUMNS)
        sys.stdout.write(f"{rows[0]['runtime']}: {len(rows)} networks, other cores {rows[0]['other_cores']}\n")
    draw()
    if options.passes > 1:
        sys.stdout.write(f"processes differ by {100 * spread(read_rows(RESULTS)):.1f} % on average\n")


if __name__ == "__main__":
    main()
