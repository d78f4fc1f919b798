"""Exports trained networks to files that run on a device: ONNX, int8 ONNX, TorchScript, torch.export, state dict.

Each batch norm is folded into the convolution before it, except in the state dict. Each file is run and its results are
compared with PyTorch's before it gets its final name. Then its latency is measured and reported with the predicted one.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from ..errors import OF_THE_MACHINE, InputError, RunError, WriteError
from ..files import results_folder
from ..files.claims import claimed
from ..files.work_folder import WorkFolder, temporary_files_in
from ..files.writing import write_json
from ..latency import LatencyTable, this_device
from ..latency.isolated import measure_file_isolated, measure_networks_isolated
from ..latency.validate import comparable_level, usable_backend
from ..network.architecture import Architecture
from ..network.folding import fold_batch_norm
from ..progress import work_begins
from .export_checks import FILES as FILES
from .export_checks import check_formats, check_out
from .export_checks import find_tables as find_tables
from .formats import RUNNERS, WRITERS

_log = logging.getLogger(__name__)
EXPORT_SCHEMA = "nni-proxyless/export@1"
_UNTOUCHED = "; what was there before is untouched"
TOLERANCE = 1e-4  # largest allowed difference of an fp32 logit


@dataclass(frozen=True)
class Exported:
    """One exported file, its agreement with PyTorch and its latency.

    Attributes:
        format: Name of the format, one of the keys of `FILES`.
        file: Name of the file.
        max_difference: Largest absolute difference between a logit and PyTorch's; `None` if it is not finite, as it
            may be in int8.
        agreement: Fraction of the images that get the same class as in PyTorch.
        accuracy: Top-1 accuracy on these images, between 0 and 1; `None` if they have no labels.
        runtime: Description of the runtime that the latency was measured with.
        predicted_latency_ms: Latency in milliseconds by the table of that runtime; `None` if there is no such table.
        measured_latency_ms: Latency in milliseconds on this machine, corrected for machine slowdown: since the table
            was measured, if a comparable table is given.
        clock_latency_ms: Median latency in milliseconds without this correction.
    """

    format: str
    file: str
    max_difference: float | None
    agreement: float
    accuracy: float | None
    runtime: str | None = None
    predicted_latency_ms: float | None = None
    measured_latency_ms: float | None = None
    clock_latency_ms: float | None = None


@dataclass(frozen=True)
class Images:
    """Images to check and calibrate an export with.

    Attributes:
        check: Images that the exported model is run on, of shape (images, channels, height, width).
        labels: Classes of the `check` images, of shape (images,); `None` if they are not classes of the network.
        calibration: Images that the scales of int8 quantisation are calibrated on.
        source: Description of the images' source.
    """

    check: Tensor
    labels: Tensor | None
    calibration: Tensor
    source: str

    @classmethod
    def random(cls, shape: tuple[int, int, int], count: int = 32) -> Images:
        """Random noise images, `count` of each kind. They suffice to compare two models, but not to calibrate one."""
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(2 * count, *shape, generator=generator)
        return cls(noise[:count], None, noise[count:], "random images")


def load_images(architecture: Architecture, recipe: Path, count: int) -> Images:
    """Load images of a recipe's data set: held-out images to check with, training images to calibrate with.

    Args:
        architecture: Architecture of the network, which determines the shape of the images.
        recipe: Path of the `recipe.yml` of a search or a retraining; without such a file the images are random.
        count: Maximum number of images of each kind.

    Raises:
        InputError: The recipe or its data are invalid.
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


def _spread(available: int, count: int) -> list[int]:
    """At most `count` indices, spread evenly because data sets are often sorted by class."""
    return sorted({i * available // count for i in range(count)} if count < available else range(available))


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
    """Write a network in several formats, check each file, and write the results of the checks to `export.json`.

    Args:
        architecture: Architecture of the network.
        weights: Path of its weights, as written by a search or a retraining.
        out: Folder of the files. The files are moved there when all of them have passed the check.
        formats: Names of the formats, keys of `FILES`.
        images: Images to check and calibrate with.
        tables: Latency tables to predict with; each format uses the table of its runtime.
        measure: Whether latencies are measured, and predicted where a table is available.

    Returns:
        The results of the checks and measurements, in the order of `formats`.

    Raises:
        InputError: A format does not exist, the weights belong to another architecture, or another process uses the
            folder.
        RunError: The results of an exported model differ from PyTorch's by more than `TOLERANCE`; int8 is exempt.
    """
    formats = check_formats(formats)
    check_out(out, formats, weights)
    network = architecture.build(pretrained=weights).eval()
    folded = fold_batch_norm(network)
    with torch.inference_mode():
        expected = torch.cat([network(image[None]) for image in images.check])
    results = []
    with _made(out):
        work_begins()
        with _work_folder(out) as folder, temporary_files_in(folder):
            with _named_errors(out, _UNTOUCHED):
                for name in formats:
                    path = folder / FILES[name]
                    WRITERS[name](folded, network, images.check[:1], images.calibration, path)
                    run = RUNNERS[name](path, architecture)
                    found = torch.cat([run(image[None]) for image in images.check])
                    results.append(_checked(name, found, expected, images.labels))
                architecture.save(folder / results_folder.ARCHITECTURE)
                _save_results(results, architecture, images, folder)
            with _named_errors(out):
                # It describes the files that are about to be replaced.
                (out / results_folder.EXPORT).unlink(missing_ok=True)
                for file in (*(FILES[name] for name in formats), results_folder.ARCHITECTURE, results_folder.EXPORT):
                    (folder / file).replace(out / file)
        if measure:
            results = [_measured(result, architecture, out, tables) for result in results]
            _save_results(results, architecture, images, out)
    return results


@contextlib.contextmanager
def _made(out: Path) -> Iterator[None]:
    """Make a folder that no other process uses until the end, and remove it again if nothing was written.

    Raises:
        InputError: The folder cannot be made or written to, or is in use.
        RunError: The disk is full.
    """
    whole = out.absolute()
    missing = [folder for folder in (whole, *whole.parents) if not os.path.exists(folder)]
    try:
        with contextlib.ExitStack() as stack:
            with _named_errors(out, "" if missing else _UNTOUCHED):
                stack.enter_context(claimed(out, "choose another folder with --out"))
            yield
    finally:
        for folder in missing:
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()


def _work_folder(out: Path) -> WorkFolder:
    with _named_errors(out, _UNTOUCHED):
        return WorkFolder(out, ".export-")


@contextlib.contextmanager
def _named_errors(out: Path, consequence: str = "") -> Iterator[None]:
    """Raise errors of the file system as errors in writing into the folder, not of the temporary files in it."""
    try:
        yield
    except OSError as reason:
        told = reason if reason.errno is not None else reason.__cause__  # the package's own errors have a cause
        if not isinstance(told, OSError) or told.errno is None:
            raise
        text = f"cannot write into {out}: {told.strerror}{consequence}"
        raise (
            WriteError(text) if told.errno in OF_THE_MACHINE else InputError(f"{text}; choose another --out")
        ) from reason


def _save_results(results: Sequence[Exported], architecture: Architecture, images: Images, out: Path) -> None:
    write_json(
        out / results_folder.EXPORT,
        {
            "schema": EXPORT_SCHEMA,
            "target": architecture.target,
            "images": {"count": len(images.check), "source": images.source},
            "machine": asdict(this_device()),
            "formats": [asdict(result) for result in results],
            "versions": {name: version(name) for name in ("nni-proxyless", "torch")},
        },
    )


def _checked(name: str, found: Tensor, expected: Tensor, labels: Tensor | None) -> Exported:
    difference = float((found - expected).abs().max())
    if name != "int8" and not difference <= TOLERANCE:
        raise RunError(
            f"the exported {FILES[name]} gives other results than PyTorch: logits differ by up to {difference:.3g}, "
            f"and {TOLERANCE:g} is allowed; nothing was written"
        )
    if not math.isfinite(difference):
        _log.warning("%s: logits differ from PyTorch's by %s, so some of them are not finite", FILES[name], difference)
    predicted = found.argmax(1)
    agreement = float((predicted == expected.argmax(1)).float().mean())
    accuracy = None if labels is None else float((predicted == labels).float().mean())
    return Exported(name, FILES[name], difference if math.isfinite(difference) else None, agreement, accuracy)


def _measured(result: Exported, architecture: Architecture, out: Path, tables: Sequence[LatencyTable]) -> Exported:
    spec = architecture.require_spec()
    backend, table = usable_backend(tables, *_RUNTIMES[result.format])
    if result.format in ("torchscript", "torch_export"):
        table = None  # compiled or folded networks do not run like those of a table of PyTorch eager
    level = None if table is None else comparable_level(table, backend, spec)
    if result.format == "state_dict":  # no model file: the network is built from its architecture
        samples = measure_networks_isolated([architecture], backend, reference_ms=level)[0]
    else:
        samples = measure_file_isolated(out / result.file, architecture, backend, reference_ms=level)
    return Exported(
        **{
            **asdict(result),
            "runtime": f"{backend.name} {backend.dtype}, {backend.threads} thread(s), batch {backend.batch}",
            "predicted_latency_ms": None if table is None else table.costs(spec).of(architecture.choices),
            "measured_latency_ms": samples.median,
            "clock_latency_ms": sorted(samples.raw)[len(samples.raw) // 2],
        }
    )


_RUNTIMES = {
    "onnx": (("onnxruntime", "openvino", "mnn", "ncnn"), "float32"),
    "int8": (("onnxruntime", "openvino"), "int8"),
    "torchscript": (("torch",), "float32"),
    "torch_export": (("torch",), "float32"),
    "state_dict": (("torch",), "float32"),
}
