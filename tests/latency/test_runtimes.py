"""The runtimes openvino, mnn and ncnn: they compute what PyTorch computes, and their tables are measured."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nni_proxyless.errors import InputError, MissingDependencyError
from nni_proxyless.latency import LatencyTable, Protocol, make_backend, measure_table_isolated, random_architecture
from nni_proxyless.latency.backends.native_output import captured_output
from nni_proxyless.latency.backends.onnx_model import OnnxModelBackend
from nni_proxyless.latency.measure import measure_file
from nni_proxyless.latency.validate import table_backend, validate
from nni_proxyless.network.folding import fold_batch_norm
from nni_proxyless.network.onnx_file import export_onnx
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.search.targets import Target

RUNTIMES = ("openvino", "mnn", "ncnn")
SHORT = Protocol(warmup_s=0.001, settle_s=0.0, sample_s=0.0005, min_rounds=2, max_rounds=2)


def runtime(name: str, **settings: Any) -> OnnxModelBackend:
    backend = make_backend(name, **settings)
    assert isinstance(backend, OnnxModelBackend)
    return backend


def lively(module: torch.nn.Module) -> torch.nn.Module:
    """Give the batch norms statistics and weights unlike those of a new network, whose blocks compute almost nothing."""
    for norm in module.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(norm.weight, 0.8, 1.2)
            torch.nn.init.normal_(norm.bias, 0.0, 0.1)
            torch.nn.init.normal_(norm.running_mean, 0.0, 0.1)  # type: ignore[arg-type]
    return module.eval()


@pytest.mark.parametrize("space", ["mobilenetv2_digits", "mobilenetv2_cifar", "mobilenetv2_imagenet"])
@pytest.mark.parametrize("name", ["onnxruntime", *RUNTIMES])
def test_a_runtime_computes_the_network(name: str, space: str) -> None:
    spec = SpaceSpec.from_yaml(space)
    network = lively(random_architecture(spec, random.Random(2)).build())
    images = torch.randn(1, *spec.input_shape)
    with torch.inference_mode():
        expected = network(images).numpy()
    backend = runtime(name)
    workload = backend.load(backend.convert(export_onnx(network, spec.input_shape, 1)), images.numpy())
    workload.run()
    found = workload.output()
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["openvino", "mnn"])
def test_batches(name: str, tiny_spec: SpaceSpec) -> None:
    network = lively(random_architecture(tiny_spec, random.Random(2)).build())
    images = torch.randn(3, *tiny_spec.input_shape)
    backend = runtime(name, batch=3)
    workload = backend.load(backend.convert(export_onnx(network, tiny_spec.input_shape, 3)), images.numpy())
    workload.run()
    with torch.inference_mode():
        np.testing.assert_allclose(workload.output(), network(images).numpy(), rtol=1e-4, atol=1e-5)
