"""Size, ONNX export and latency of the networks published with ProxylessNAS, and of MobileNetV2.

    python -m benchmarks.latency.published_networks [--threads 1]

The script builds each network, exports it to ONNX, and compares the ONNX file with PyTorch. Fresh processes measure the
latency in float32 with one image of 224 x 224. The weights are random: the package ships no trained ones, and latency
does not depend on them.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.constants import LATENCY_RESULTS
from benchmarks.results_csv import publish
from nni_proxyless import Architecture
from nni_proxyless.deploy.export import Images, export
from nni_proxyless.latency import make_backend
from nni_proxyless.latency.isolated import measure_isolated
from nni_proxyless.network.catalogue import PUBLISHED
from nni_proxyless.network.weights import save_weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    rows: list[dict[str, Any]] = []
    networks = {name: Architecture.published(name) for name in PUBLISHED}
    networks |= {f"mobilenet_v2_{width:g}": Architecture.mobilenet_v2(width) for width in (0.75, 1.0, 1.4)}
    for name, architecture in networks.items():
        with tempfile.TemporaryDirectory() as folder:
            network = architecture.build()
            for module in network.modules():
                if isinstance(
                    module, nn.BatchNorm2d
                ):  # residual blocks start as identities, which would hide errors of the export
                    nn.init.uniform_(module.weight, 0.5, 1.5)
                    nn.init.normal_(module.bias, std=0.2)
            network.train()(torch.randn(8, *architecture.require_spec().input_shape))
            weights = save_weights(network, Path(folder) / "weights.pt")
            images = Images.random(architecture.require_spec().input_shape, 2)
            (onnx,) = export(architecture, weights, Path(folder) / "out", ("onnx",), images, measure=False)
        row: dict[str, Any] = {
            "network": name,
            "parameters_m": round(architecture.parameters / 1e6, 3),
            "multiply_adds_m": round(architecture.multiply_adds / 1e6, 1),
            "onnx_difference": f"{onnx.max_difference:.1e}",
        }
        for backend in ("onnxruntime", "torch"):
            measured = measure_isolated(architecture, make_backend(backend, threads=options.threads))
            row[f"{backend}_ms"] = round(measured, 2)
        rows.append({**row, "threads": options.threads})
    publish("published_networks", rows, ("nni-proxyless", "torch", "onnxruntime"), LATENCY_RESULTS)


if __name__ == "__main__":
    main()
