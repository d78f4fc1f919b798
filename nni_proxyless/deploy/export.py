"""Exports trained networks to files that run on a device: ONNX, int8 ONNX, TorchScript, torch.export, state dict.

Each batch norm is folded into the convolution before it, except in the state dict. Each file is run and its results are
compared with PyTorch's before it gets its final name. Then its latency is measured and reported with the predicted one.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError, RunError
from ..files import results_folder
from ..files.work_folder import temporary_files_in
from ..files.writing import write_json, write_text
from ..latency import LatencyTable, this_device
from ..network.architecture import Architecture
from ..network.folding import fold_batch_norm
from ..network.onnx_file import OPSET, OPSET_PER_CHANNEL, OPSETS
from ..network.quantization import WEIGHT_BITS
from ..progress import work_begins
from .check_images import Images as Images
from .check_images import load_images as load_images
from .export_checks import FILES as FILES
from .export_checks import README, check_formats, check_out, written_files
from .export_checks import find_tables as find_tables
from .export_folder import UNTOUCHED, made, named_errors, work_folder
from .export_latency import backend_of
from .export_latency import measured as _measured
from .export_readme import readme
from .exported import LEAST_AGREEMENT, MOST_LOSS, is_lossy
from .exported import Exported as Exported
from .formats import RUNNERS, WRITERS, Source, in_batches
from .model_card import exported_card
from .model_input import ModelInput

_log = logging.getLogger(__name__)
EXPORT_SCHEMA = "nni-proxyless/export@1"
TOLERANCE = 1e-4  # largest allowed difference of an fp32 logit, in units of the largest logit if that is above 1


def check_opset(opset: int, formats: Sequence[str]) -> None:
    """Check that ONNX files can be written with a version of ONNX's operators.

    Raises:
        InputError: There is no such version, or int8 needs a newer one.
    """
    low, high = OPSETS
    if not low <= opset <= high:
        raise InputError(f"opset must be from {low} to {high}, got {opset}")
    if "int8" in formats and opset < OPSET_PER_CHANNEL:
        raise InputError(
            f"int8 needs opset {OPSET_PER_CHANNEL} or newer, which has a scale for each channel, got {opset}"
        )


def export(
    architecture: Architecture,
    weights: Path,
    out: Path,
    formats: Sequence[str],
    images: Images,
    *,
    tables: Sequence[LatencyTable] = (),
    measure: bool = True,
    batch: int | None = 1,
    opset: int = OPSET,
    accept_loss: bool = False,
) -> list[Exported]:
    """Write a network in several formats, check each file, and write the results of the checks to `export.json`.

    The folder also gets `model_card.json` and a `README.md` with the lines that run an ONNX file without this package.

    Args:
        architecture: Architecture of the network.
        weights: Path of its weights, as written by a search or a retraining.
        out: Folder of the files. The files are moved there when all of them have passed the check.
        formats: Names of the formats, keys of `FILES`.
        images: Images to check and calibrate with.
        tables: Latency tables to predict with; each format uses the table of its runtime and batch.
        measure: Whether latencies are measured, and predicted where a table is available.
        batch: Number of images that a file takes at a time; `None` leaves it open.
        opset: Version of ONNX's operators, from `OPSETS`.
        accept_loss: Whether an int8 file is written although it differs from PyTorch by more than `LEAST_AGREEMENT` and
            `MOST_LOSS` allow.

    Returns:
        The results of the checks and measurements, in the order of `formats`.

    Raises:
        InputError: A format or opset does not exist, the weights belong to another architecture or give logits that are
            not finite, int8 has no images of the network's data to be calibrated with, or another process uses the
            folder.
        RunError: The results of an exported model differ from PyTorch's by more than `TOLERANCE`, or in int8 by more
            than is accepted, or a latency could not be measured.
    """
    formats = check_formats(formats)
    check_opset(opset, formats)
    if "int8" in formats and not images.of_the_data:
        raise InputError(
            f"int8 is calibrated with images of the network's data, got {images.source}; give the recipe with the data "
            "by --recipe"
        )
    check_out(out, formats, weights)
    network = architecture.build(pretrained=weights).eval()
    about = _described(architecture, weights, images)
    card = exported_card(architecture, weights, about)
    for name in formats if measure else ():
        backend_of(name, tables, batch)  # a runtime that is missing is named before anything is written
    folded = fold_batch_norm(network)
    with torch.inference_mode():
        expected = torch.cat([network(image[None]) for image in images.check])
    if not bool(expected.isfinite().all()):
        raise InputError(f"the network with the weights {weights} gives logits that are not finite; train it again")
    if images.of_the_data and len(expected) > 1 and len(set(expected.argmax(1).tolist())) == 1:
        _log.warning(
            "the network assigns all %d images to class %d, so the check of its files says little; the training has "
            "failed, or all images are alike", len(expected), int(expected[0].argmax()),
        )  # fmt: skip
    source = Source(network, folded, images.calibration, batch, opset, {} if about is None else about.metadata())
    results = []
    with made(out):
        work_begins()
        with work_folder(out) as folder, temporary_files_in(folder):
            with named_errors(out, UNTOUCHED):
                for name in formats:
                    write = _written_int8 if name == "int8" else _written
                    results.append(write(name, source, folder, architecture, images, expected, accept_loss))
                architecture.save(folder / results_folder.ARCHITECTURE)
                write_json(folder / results_folder.MODEL_CARD, {**card, "files": {r.format: r.file for r in results}})
                write_text(folder / README, readme(architecture, results, batch, about))
                _save_results(results, architecture, images, folder, batch, opset)
            with named_errors(out):
                # It describes the files that are about to be replaced.
                (out / results_folder.EXPORT).unlink(missing_ok=True)
                for file in written_files(formats):
                    (folder / file).replace(out / file)
        if measure:
            try:
                results = [_measured(result, architecture, out, tables, batch) for result in results]
            except RunError as reason:
                raise RunError(
                    f"{reason}; the files in {out} are checked and complete, and only their latencies are missing"
                ) from reason
            _save_results(results, architecture, images, out, batch, opset)
    return results


def _written(
    name: str, source: Source, folder: Path, architecture: Architecture, images: Images, expected: Tensor,
    accept_loss: bool = False,
) -> Exported:  # fmt: skip
    """Write a file, run it on the images to check with, and compare its logits with the expected ones."""
    path = folder / FILES[name]
    WRITERS[name](source, path)
    run = RUNNERS[name](path, architecture)
    parts = [run(part) for part in in_batches(images.check, source.batch or 1)]
    return _checked(name, torch.cat(parts)[: len(images.check)], expected, images.labels, accept_loss)


def _written_int8(
    name: str, source: Source, folder: Path, architecture: Architecture, images: Images, expected: Tensor,
    accept_loss: bool,
) -> Exported:  # fmt: skip
    """Write an int8 file with weights of 7 bits; with 8 bits only if 7 bits lose too much and 8 bits do not."""
    for bits in WEIGHT_BITS:
        try:
            result = _written(name, replace(source, weight_bits=bits), folder, architecture, images, expected)
        except RunError:
            continue
        if bits != WEIGHT_BITS[0]:
            _log.warning(
                "%s has weights of %d bits, because %d bits lose too much accuracy; on x86 processors without VNNI, it "
                "may be less accurate than here", FILES[name], bits, WEIGHT_BITS[0],
            )  # fmt: skip
        return replace(result, weight_bits=bits)
    result = _written(name, source, folder, architecture, images, expected, accept_loss)
    return replace(result, weight_bits=source.weight_bits)


def _described(architecture: Architecture, weights: Path, images: Images) -> ModelInput | None:
    """Return what is known of the network's input and classes, if it fits the network. The log says if nothing is."""
    spec = architecture.require_spec()
    for about in (ModelInput.beside(weights), images.about):
        if about is not None and (about.preprocessing.input_shape, len(about.classes)) == (
            spec.input_shape, spec.classes,
        ):  # fmt: skip
            return about
    _log.warning(
        "the files do not say how images are prepared and what the classes are called: neither %s nor a recipe of "
        "the network's data is there", weights.parent / results_folder.PREPROCESSING,
    )  # fmt: skip
    return None


def _save_results(
    results: Sequence[Exported], architecture: Architecture, images: Images, out: Path, batch: int | None, opset: int
) -> None:
    write_json(
        out / results_folder.EXPORT,
        {
            "schema": EXPORT_SCHEMA,
            "target": architecture.target,
            "images": {"count": len(images.check), "source": images.source},
            "batch": "dynamic" if batch is None else batch,
            "opset": opset,
            "machine": asdict(this_device()),
            "formats": [asdict(result) for result in results],
            "versions": {name: version(name) for name in ("nni-proxyless", "torch")},
        },
    )


def _checked(name: str, found: Tensor, expected: Tensor, labels: Tensor | None, accept_loss: bool = False) -> Exported:
    """Compare the logits of a file with PyTorch's, both of shape (images, classes).

    Raises:
        RunError: They differ by more than is allowed, or are not finite.
    """
    difference = float((found - expected).abs().max())
    allowed = TOLERANCE * max(1.0, float(expected.abs().max()))
    if name != "int8" and not difference <= allowed:
        raise RunError(
            f"the exported {FILES[name]} differs from PyTorch: logits differ by up to {difference:.3g}, "
            f"and {allowed:.3g} is allowed; nothing was written"
        )
    if not math.isfinite(difference):
        raise RunError(f"the exported {FILES[name]} gives logits that are not finite; nothing was written")
    predicted, theirs = found.argmax(1), expected.argmax(1)
    agreement = _part(predicted == theirs)
    accuracy = loss = None
    if labels is not None:
        accuracy = _part(predicted == labels)
        loss = _part(theirs == labels) - accuracy
    result = Exported(name, FILES[name], difference, agreement, accuracy, accuracy_loss=loss)
    if name == "int8" and is_lossy(agreement, loss):
        lost = (
            ""
            if loss is None
            else f", and {100 * (loss + (accuracy or 0)):.1f} % accuracy became {100 * (accuracy or 0):.1f} %"
        )
        text = (
            f"the exported {FILES[name]} gives {100 * agreement:.1f} % of {len(found)} images the same class as PyTorch"
            f"{lost}; at least {100 * LEAST_AGREEMENT:g} % and a loss of at most {100 * MOST_LOSS:g} points are allowed"
        )
        if not accept_loss:
            raise RunError(f"{text}; nothing was written. Calibrate with more --images, or write it with --accept-loss")
        _log.warning("%s", text)
    return result


def _part(true: Tensor) -> float:
    """Part of the values that are true, between 0 and 1, as exact as a float64 is."""
    return int(true.sum()) / len(true)
