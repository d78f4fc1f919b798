"""The runtimes openvino, mnn and ncnn: they compute what PyTorch computes, and they measure tables and files."""

from __future__ import annotations

import ctypes
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from nni_proxyless.errors import InputError, MissingDependencyError, RunError
from nni_proxyless.latency import LatencyTable, Protocol, make_backend, measure_table_isolated, random_architecture
from nni_proxyless.latency.backends.native_output import captured_output
from nni_proxyless.latency.backends.onnx_model import OnnxModelBackend
from nni_proxyless.latency.backends.signal_stack import signal_stack
from nni_proxyless.latency.measure import measure_file
from nni_proxyless.latency.validate import table_backend, usable_backend
from nni_proxyless.network.onnx_file import export_onnx
from nni_proxyless.network.quantization import quantize_static
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.nni_bridge import doctor
from nni_proxyless.search.targets import Target
from tests.helpers import REPOSITORY

RUNTIMES = ("openvino", "mnn", "ncnn")
SHORT = Protocol(warmup_s=0.001, settle_s=0.0, sample_s=0.0005, min_rounds=2, max_rounds=2)


def runtime(name: str, **settings: Any) -> OnnxModelBackend:
    backend = make_backend(name, **settings)
    assert isinstance(backend, OnnxModelBackend)
    return backend


def network_of(spec: SpaceSpec) -> torch.nn.Module:
    """A network with random batch norms. In a new network those of residual blocks are 0, which hides the blocks."""
    network = random_architecture(spec, random.Random(2)).build()
    for norm in network.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(norm.weight, 0.8, 1.2)
            torch.nn.init.normal_(norm.bias, 0.0, 0.1)
            torch.nn.init.normal_(norm.running_mean, 0.0, 0.1)  # type: ignore[arg-type]
    return network.eval()


def outputs(backend: OnnxModelBackend, model: bytes, images: torch.Tensor) -> torch.Tensor:
    workload = backend.load(backend.convert(model), images.numpy())
    workload.run()
    return torch.from_numpy(workload.output())


@pytest.mark.parametrize("space", ["mobilenetv2_digits", "mobilenetv2_cifar", "mobilenetv2_imagenet"])
@pytest.mark.parametrize("name", ["onnxruntime", *RUNTIMES])
def test_a_runtime_computes_the_network(name: str, space: str) -> None:
    spec = SpaceSpec.from_yaml(space)
    network = network_of(spec)
    images = torch.randn(1, *spec.input_shape)
    found = outputs(runtime(name), export_onnx(network, spec.input_shape, 1), images)
    with torch.inference_mode():
        expected = network(images)
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) < 1e-4 * float(expected.abs().max())


@pytest.mark.parametrize("name", ["onnxruntime", *RUNTIMES])
def test_a_conversion_uses_no_file_of_the_working_directory(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MNN's converter passes the weights through a file of a fixed name, which two conversions at once would share.

    A link of that name to the null device loses the weights each time, and not only when two conversions meet.
    """
    (tmp_path / ".__convert_external_data.bin").symlink_to(os.devnull)
    monkeypatch.chdir(tmp_path)
    spec = SpaceSpec.from_yaml("mobilenetv2_digits")  # smaller ones do not use the file
    network = network_of(spec)
    images = torch.randn(1, *spec.input_shape)
    found = outputs(runtime(name), export_onnx(network, spec.input_shape, 1), images)
    with torch.inference_mode():
        torch.testing.assert_close(found, network(images), rtol=1e-4, atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == [".__convert_external_data.bin"]


@pytest.mark.parametrize("name", ["mnn", "ncnn"])
def test_a_runtime_that_fails_while_it_runs_is_not_timed(
    name: str, tiny_spec: SpaceSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both runtimes report failures by codes, and their output is then whatever the memory held."""
    backend = runtime(name)
    model = backend.convert(export_onnx(network_of(tiny_spec), tiny_spec.input_shape, 1))

    class Failing:
        def __init__(self, real: Any) -> None:
            self.real = real

        def __getattr__(self, attribute: str) -> Any:
            return getattr(self.real, attribute)

        def runSession(self, *_: object) -> int:
            return 3

        def create_extractor(self) -> Any:
            return Failing(self.real.create_extractor())

        def extract(self, *_: object) -> tuple[int, None]:
            return 3, None

    made = "Interpreter" if name == "mnn" else "Net"
    real = getattr(backend._runtime, made)  # type: ignore[attr-defined]
    monkeypatch.setattr(backend._runtime, made, lambda *words: Failing(real(*words)))  # type: ignore[attr-defined]
    workload = backend.load(model, torch.randn(1, *tiny_spec.input_shape).numpy())
    with pytest.raises(RunError, match=rf"(?i)^{name} could not run the model: its error code is 3"):
        workload.run()


@pytest.mark.parametrize("name", ["onnxruntime", *RUNTIMES])
def test_grey_images_that_are_not_square(name: str, tiny_spec: SpaceSpec) -> None:
    spec = tiny_spec.with_changes(input_size=[12, 20], input_channels=1)
    network = network_of(spec)
    images = torch.randn(1, 1, 12, 20)
    found = outputs(runtime(name), export_onnx(network, spec.input_shape, 1), images)
    with torch.inference_mode():
        torch.testing.assert_close(found, network(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["openvino", "mnn"])
def test_batches_and_threads(name: str, tiny_spec: SpaceSpec) -> None:
    network = network_of(tiny_spec)
    images = torch.randn(3, *tiny_spec.input_shape)
    found = outputs(runtime(name, batch=3, threads=2), export_onnx(network, tiny_spec.input_shape, 3), images)
    with torch.inference_mode():
        torch.testing.assert_close(found, network(images), rtol=1e-4, atol=1e-5)


def test_ncnn_has_no_batches() -> None:
    with pytest.raises(InputError, match="batch must be 1, got 2"):
        make_backend("ncnn", batch=2)


def test_openvino_runs_int8(tiny_spec: SpaceSpec) -> None:
    """OpenVINO's results are those of ONNX Runtime for the same quantised model, and its convolutions are int8."""
    model = quantize_static(export_onnx(network_of(tiny_spec), tiny_spec.input_shape, 1))
    images = torch.randn(1, *tiny_spec.input_shape)
    backend = runtime("openvino", dtype="int8")
    expected = outputs(runtime("onnxruntime", dtype="int8"), model, images)
    assert float((outputs(backend, model, images) - expected).abs().max()) < 0.1 * float(expected.abs().max())

    import openvino

    compiled = openvino.Core().compile_model(backend.convert(model), "CPU")
    kinds = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    convolutions = [str(kind["runtimePrecision"].value) for kind in kinds if kind["layerType"].value == "Convolution"]
    assert convolutions
    assert {"u8", "i8"} >= set(convolutions)


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_table_is_measured_in_other_processes(name: str, tiny_spec: SpaceSpec, tmp_path: Path) -> None:
    """What MNN prints does not get into the messages of the measuring process."""
    spec = replace(tiny_spec, stages=tiny_spec.stages[:1], kernels=(3,), expansions=(1,))
    table = measure_table_isolated(
        spec, make_backend(name), processes=1, calibration_networks=2, protocol=SHORT, network_protocol=SHORT
    )
    assert set(table.operators) == set(spec.distinct_operators())
    assert (table.backend, table.dtype, table.unit) == (name, "float32", "ms")
    assert table.backend_version == make_backend(name).version
    again = table_backend(LatencyTable.load(table.save(tmp_path / "table.yml")))
    assert again.settings == make_backend(name).settings


@pytest.mark.parametrize("name", RUNTIMES)
def test_an_exported_file_is_measured(name: str, tiny_spec: SpaceSpec, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(export_onnx(network_of(tiny_spec), tiny_spec.input_shape, 1))
    assert 0 < measure_file(path, tiny_spec, make_backend(name)).median < 1000


@pytest.mark.parametrize("name", ["openvino", "mnn", "ncnn"])
def test_what_is_no_model_is_refused(name: str, tiny_spec: SpaceSpec, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(InputError, match=f"backend {name} cannot read the ONNX model: ."):
        make_backend(name).file_loader(path, tiny_spec.input_shape)


@pytest.mark.parametrize(
    ("name", "package"),
    [("openvino", "openvino"), ("mnn", "MNN"), ("ncnn", "ncnn"), ("ncnn", "pnnx"), ("mnn", "onnx")],
)
def test_a_missing_package_is_named(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        MissingDependencyError, match=f"needs the package '{package}': pip install 'nni-proxyless.{name}"
    ):
        make_backend(name)


@pytest.mark.parametrize(("name", "package"), [("openvino", "openvino"), ("mnn", "MNN"), ("ncnn", "pnnx")])
def test_a_package_that_is_installed_but_cannot_be_loaded_is_not_called_missing(
    name: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "_engine.so: cannot enable executable stack as shared object requires: Invalid argument"
    (tmp_path / f"{package}.py").write_text(f"raise ImportError({said!r}, name='_engine')\n")
    for module in [module for module in sys.modules if module.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingDependencyError) as found:
        make_backend(name)
    assert str(found.value) == (
        f"backend {name} needs the package '{package}', which is installed but cannot be loaded: {said}; set the "
        "environment variable GLIBC_TUNABLES=glibc.rtld.execstack=2, which allows it"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    doctor.load_problems.cache_clear()
    (finding,) = (one for one in doctor._backends() if one.found.startswith(package))
    assert finding.level == "warning"
    assert finding.found.endswith(f"cannot be loaded: ImportError: {said}")
    assert "GLIBC_TUNABLES=glibc.rtld.execstack=2" in finding.fix
    doctor.load_problems.cache_clear()


def test_no_runtime_reports_its_use_or_installs_packages() -> None:
    """OpenVINO's telemetry and MNN's log, which installs a package with pip, are not imported."""
    code = (
        "import sys; from nni_proxyless.latency import make_backend; from torch import nn\n"
        "for name in ('openvino', 'mnn', 'ncnn'): make_backend(name).prepare(nn.Conv2d(3, 4, 3), (3, 8, 8)).run()\n"
        "print([name for name in sys.modules if 'telemetry' in name.split('.')[0] or name.startswith('MNN.tools')])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_native_output_is_captured(capfd: pytest.CaptureFixture[str]) -> None:
    puts: Callable[[bytes], int] = ctypes.CDLL(None).puts
    puts(b"before")
    with captured_output() as written:
        puts(b"inside")
        assert written() == "inside\n"
    puts(b"after")
    ctypes.CDLL(None).fflush(None)
    assert capfd.readouterr().out == "before\nafter\n"


def test_a_target_is_one_line_of_yaml() -> None:
    backend = Target.parse("laptop", {"backend": "openvino", "threads": 2, "dtype": "int8"}, Path()).make_backend()
    assert backend is not None
    assert (backend.name, backend.threads, backend.dtype) == ("openvino", 2, "int8")


def test_an_export_is_measured_with_the_runtime_of_its_table(
    tiny_table: LatencyTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("onnxruntime", "openvino", "mnn", "ncnn")
    elsewhere = replace(tiny_table, backend="ncnn")
    here = replace(tiny_table, device=make_backend("ncnn").device)
    tables = [here, elsewhere, replace(here, backend="mnn", threads=2), replace(here, backend="ncnn")]
    # The first table is of PyTorch, the second of another device.
    backend, table = usable_backend(tables, names, "float32")
    assert (backend.name, backend.threads, table) == ("mnn", 2, tables[2])
    monkeypatch.setitem(sys.modules, "MNN", None)
    assert usable_backend(tables, names, "float32")[1] is tables[3]
    backend, table = usable_backend(tables, ("onnxruntime", "openvino"), "int8")
    assert (backend.name, backend.dtype, table) == ("onnxruntime", "int8", None)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "mnn", "ncnn"])
def test_signals_have_the_stack_that_they_had(name: str) -> None:
    """OpenVINO sets an alternate stack and frees its memory. The next signal would end the process."""
    backend = make_backend(name)
    stacks = []

    def use() -> None:
        stacks.append(signal_stack())
        backend.prepare(torch.nn.Conv2d(3, 8, 3), (3, 16, 16)).run()
        stacks.append(signal_stack())

    # A new thread has no alternate stack. In the main thread, pytest's faulthandler has set one, and OpenVINO keeps it.
    with backend.session():
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
    assert len(stacks) == 2
    assert stacks[0] == stacks[1]


def test_the_shipped_recipe_has_every_runtime() -> None:
    targets = yaml.safe_load((REPOSITORY / "experiments" / "devices" / "recipe.yml").read_text())["targets"]
    for name in (*RUNTIMES, "openvino_int8"):
        backend = Target.parse(name, targets[name], Path()).make_backend()
        assert backend is not None
        assert name == backend.name + ("_int8" if backend.dtype == "int8" else "")
