"""From trained weights to a file that runs on the device: ONNX, int8 ONNX, TorchScript, torch.export, state dict.

Batch-norm is folded into the convolutions before it. What was written is run and compared with PyTorch before it gets
its name, and its latency is measured beside the predicted one.
"""

from __future__ import annotations

import glob
import logging
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, RunError, unknown_name
from ..files import write_json
from ..latency import Backend, LatencyTable, make_backend, this_device
from ..latency.backends.onnx_runtime import export_onnx, quantize_static, require_onnx
from ..latency.isolated import measure_file_isolated, measure_networks_isolated
from ..latency.validate import comparable_level
from ..network.architecture import Architecture
from ..network.folding import fold_batch_norm
from ..network.weights import save_weights

_log = logging.getLogger(__name__)
EXPORT_SCHEMA = "nni-proxyless/export@1"
TOLERANCE = 1e-4  # of logits, fp32
FILES = {
    "onnx": "model.onnx",
    "int8": "model_int8.onnx",
    "torchscript": "model.pt",
    "torch_export": "model.pt2",
    "state_dict": "weights.pt",
}


@dataclass(frozen=True)
class Exported:
    """One file, how well it agrees with PyTorch, and how fast it is.

    Attributes:
        format: Its format.
        file: Its name.
        max_difference: Largest absolute difference of a logit from PyTorch's.
        agreement: Part of the images whose class is the same as PyTorch's.
        accuracy: Top-1 accuracy on these images, where they have labels.
        runtime: What measured it.
        predicted_latency_ms: By the table of that runtime, in milliseconds, where there is one.
        measured_latency_ms: Measured on this machine, at the level that the table was measured at.
        clock_latency_ms: The same by the clock alone.
    """

    format: str
    file: str
    max_difference: float
    agreement: float
    accuracy: float | None
    runtime: str | None = None
    predicted_latency_ms: float | None = None
    measured_latency_ms: float | None = None
    clock_latency_ms: float | None = None


@dataclass(frozen=True)
class Images:
    """What an export is checked and calibrated with.

    Attributes:
        check: Images that the exported model is run on, (images, channels, height, width).
        labels: Their classes, where they are real ones.
        calibration: Images that int8 takes its scales from.
        source: Where they come from.
    """

    check: Tensor
    labels: Tensor | None
    calibration: Tensor
    source: str

    @classmethod
    def random(cls, shape: tuple[int, int, int], count: int = 32) -> Images:
        """Noise: enough to compare two models, not to calibrate one."""
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(2 * count, *shape, generator=generator)
        return cls(noise[:count], None, noise[count:], "random images")


def load_images(architecture: Architecture, recipe: Path, count: int) -> Images:
    """Real images, of the data that a recipe names: those held out to check, others to calibrate.

    Args:
        architecture: Says their shape.
        recipe: The `recipe.yml` of a search or a retraining; without such a file the images are random.
        count: How many of each at most.

    Raises:
        InputError: The recipe or its data are at fault.
    """
    spec = architecture.require_spec()
    if not recipe.is_file():
        return Images.random(spec.input_shape, min(count, 32))
    from .retrain import load_recipe_splits
    from .retrain_recipe import RetrainRecipe, of_search

    settings = RetrainRecipe.from_dict(of_search(recipe), recipe.resolve().parent, f"recipe {recipe}")
    splits = load_recipe_splits(settings, spec)
    check = [splits.held_out[i] for i in _spread(len(splits.held_out), count)]
    calibration = [splits.statistics[i][0] for i in _spread(len(splits.statistics), count)]
    labels = None if spec.classes != splits.num_classes else torch.tensor([int(label) for _, label in check])
    return Images(
        torch.stack([image for image, _ in check]),
        labels,
        torch.stack(calibration),
        f"held-out images of {settings.data}",
    )


def find_tables(paths: Sequence[Path], architecture: Path) -> list[LatencyTable]:
    """The tables to predict with: those given, else those of the results that an architecture is among.

    Args:
        paths: Files of tables.
        architecture: An architecture file: `latency_table.yml` beside it, or a folder up, and in sibling folders; where
            trials of each target lie in folders of their own, also that of another target's trial of the same name.

    Raises:
        LatencyTableError: A file is no table.
    """
    if paths:
        return [LatencyTable.load(path) for path in paths]
    folder = architecture.resolve().parent
    places = (folder.glob("latency_table.yml"), folder.parent.glob("latency_table.yml"))
    near = [path for place in places for path in place]
    base = near[0].parent.parent if near else folder
    around = sorted(base.glob("*/latency_table.yml"))
    if near:
        around += sorted(base.parent.glob(f"*/{glob.escape(near[0].parent.name)}/latency_table.yml"))
    return [LatencyTable.load(path) for path in dict.fromkeys((*near, *around))]


def _spread(available: int, count: int) -> list[int]:
    """At most `count` indices, spread evenly: data sets are often sorted by class."""
    return sorted({i * available // count for i in range(count)} if count < available else range(available))


def check_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """The formats, each once.

    Raises:
        InputError: One does not exist, or needs a package that is not installed.
    """
    for name in formats:
        if name not in FILES:
            raise InputError(unknown_name("format", name, FILES))
    if {"onnx", "int8"} & set(formats):
        require_onnx("exporting ONNX")
    return tuple(dict.fromkeys(formats))


def export(
    architecture: Architecture,
    weights: Path,
    out: Path,
    formats: Sequence[str],
    images: Images,
    *,
    tables: Sequence[LatencyTable] = (),
    measure: bool = True,
) -> list[Exported]:
    """Write a network in several formats, each of them checked, and `export.json`, which says how they did.

    Args:
        architecture: The network's architecture.
        weights: Its weights, as a search or retraining leaves them.
        out: Folder of the files; a file gets its name when it has passed its check.
        formats: Of `FILES`.
        images: What they are checked and calibrated with.
        tables: Latency tables to predict with; each format takes the one of its runtime.
        measure: Whether latency is measured.

    Raises:
        InputError: A format does not exist, or the weights are of another architecture.
        RunError: An exported model gives other results than PyTorch.
    """
    formats = check_formats(formats)
    network = architecture.build(pretrained=weights).eval()
    folded = fold_batch_norm(network)
    with torch.inference_mode():
        expected = torch.cat([network(image[None]) for image in images.check])
    results = []
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out) as folder:
        for name in formats:
            path = Path(folder) / FILES[name]
            _WRITERS[name](folded, network, architecture, images, path)
            run = _RUNNERS[name](path, architecture)
            found = torch.cat([run(image[None]) for image in images.check])
            results.append(_checked(name, found, expected, images.labels))
        for name in formats:
            (Path(folder) / FILES[name]).replace(out / FILES[name])
    architecture.save(out / "architecture.json")
    if measure:
        results = [_measured(result, architecture, out, tables) for result in results]
    write_json(
        out / "export.json",
        {
            "schema": EXPORT_SCHEMA,
            "target": architecture.target,
            "images": {"count": len(images.check), "source": images.source},
            "machine": asdict(this_device()),
            "formats": [asdict(result) for result in results],
            "versions": {name: version(name) for name in ("nni-proxyless", "torch")},
        },
    )
    return results


def _checked(name: str, found: Tensor, expected: Tensor, labels: Tensor | None) -> Exported:
    difference = float((found - expected).abs().max())
    if name != "int8" and not difference <= TOLERANCE:
        raise RunError(
            f"the exported {FILES[name]} gives other results than PyTorch: logits differ by up to {difference:.3g}, "
            f"and {TOLERANCE:g} is allowed; nothing was written"
        )
    predicted = found.argmax(1)
    agreement = float((predicted == expected.argmax(1)).float().mean())
    accuracy = None if labels is None else float((predicted == labels).float().mean())
    return Exported(name, FILES[name], difference, agreement, accuracy)


def _measured(result: Exported, architecture: Architecture, out: Path, tables: Sequence[LatencyTable]) -> Exported:
    spec = architecture.require_spec()
    runtime, dtype = _RUNTIMES[result.format]
    table = next((t for t in tables if (t.backend, t.dtype) == (runtime, dtype) and t.device_type is None), None)
    if result.format in ("torchscript", "torch_export"):
        table = None  # compiled or folded, they are not what a table of PyTorch eager speaks of
    settings: dict[str, Any] = {"threads": (table.threads if table else None) or 1}
    settings["batch"] = (table.batch if table else None) or 1
    backend: Backend = make_backend(runtime, **settings, **({"dtype": dtype} if runtime == "onnxruntime" else {}))
    level = None if table is None else comparable_level(table, backend, spec)
    if result.format == "state_dict":  # a plain network, built from its architecture
        samples = measure_networks_isolated([architecture], backend, reference_ms=level)[0]
    else:
        samples = measure_file_isolated(out / result.file, architecture, backend, reference_ms=level)
    return Exported(
        **{
            **asdict(result),
            "runtime": f"{runtime} {dtype}, {backend.threads} thread(s), batch {backend.batch}",
            "predicted_latency_ms": None if table is None else table.costs(spec).of(architecture.choices),
            "measured_latency_ms": samples.median,
            "clock_latency_ms": sorted(samples.raw)[len(samples.raw) // 2],
        }
    )


_RUNTIMES = {
    "onnx": ("onnxruntime", "float32"),
    "int8": ("onnxruntime", "int8"),
    "torchscript": ("torch", "float32"),
    "torch_export": ("torch", "float32"),
    "state_dict": ("torch", "float32"),
}
Writer = Callable[[nn.Module, nn.Module, Architecture, Images, Path], Any]
Runner = Callable[[Path, Architecture], Callable[[Tensor], Tensor]]


def _write_onnx(folded: nn.Module, _network: nn.Module, found: Architecture, _images: Images, path: Path) -> None:
    path.write_bytes(export_onnx(folded, found.require_spec().input_shape, 1))


def _write_int8(folded: nn.Module, _network: nn.Module, found: Architecture, images: Images, path: Path) -> None:
    model = export_onnx(folded, found.require_spec().input_shape, 1)
    path.write_bytes(quantize_static(model, [image[None].numpy() for image in images.calibration]))


def _write_torchscript(
    folded: nn.Module, _network: nn.Module, _found: Architecture, images: Images, path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript announces its successor at every call
        torch.jit.save(torch.jit.trace(folded, images.check[:1]), str(path))  # type: ignore[no-untyped-call]


def _write_torch_export(folded: nn.Module, _net: nn.Module, _found: Architecture, images: Images, path: Path) -> None:
    torch.export.save(torch.export.export(folded, (images.check[:1],)), str(path))


def _write_state_dict(
    _folded: nn.Module, network: nn.Module, _found: Architecture, _images: Images, path: Path
) -> None:
    save_weights(network, path)


def _run_onnx(path: Path, _found: Architecture) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda image: torch.from_numpy(session.run(None, {name: image.numpy()})[0])


def _run_torch(path: Path, found: Architecture) -> Callable[[Tensor], Tensor]:
    from ..latency.backends.pytorch import load_model

    network = found.build(pretrained=path).eval() if path.name == FILES["state_dict"] else load_model(path)

    def run(image: Tensor) -> Tensor:
        with torch.inference_mode():
            return network(image)  # type: ignore[no-any-return]

    return run


_WRITERS: Mapping[str, Writer] = {
    "onnx": _write_onnx,
    "int8": _write_int8,
    "torchscript": _write_torchscript,
    "torch_export": _write_torch_export,
    "state_dict": _write_state_dict,
}
_RUNNERS: Mapping[str, Runner] = {
    "onnx": _run_onnx,
    "int8": _run_onnx,
    "torchscript": _run_torch,
    "torch_export": _run_torch,
    "state_dict": _run_torch,
}
