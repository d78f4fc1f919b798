"""Checks of the input of an export that need no torch, so that wrong input is refused at once."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError, unknown_name
from ..files import results_folder
from ..files.probe import why_not_writable
from ..latency.judgement import load_judged
from ..latency.table import LatencyTable
from ..network.onnx_file import require_onnx

README = "README.md"
FILES = {
    "onnx": "model.onnx",
    "int8": "model_int8.onnx",
    "torchscript": "model.pt",
    "torch_export": "model.pt2",
    "state_dict": results_folder.WEIGHTS,
}


def written_files(formats: Sequence[str]) -> list[str]:
    """Names of all files of an export, in the order in which they get their places."""
    described = (results_folder.ARCHITECTURE, results_folder.MODEL_CARD, README, results_folder.EXPORT)
    return [*(FILES[name] for name in formats), *described]


def find_tables(paths: Sequence[Path], architecture: Path) -> list[LatencyTable]:
    """Load the latency tables to predict with: the given ones, or those found near an architecture file.

    Tables are files called `latency_table.yml`. They are searched in the architecture's folder, one folder up, and in
    the sibling folders of the folder where one was found (in subfolders if none was). If the trials of each target have
    a folder of their own, the tables of the other targets' trials of the same name are found as well.

    Args:
        paths: Paths of the tables; if empty, tables are searched near the architecture.
        architecture: Path of the architecture file.

    Returns:
        The tables; of those that were searched, the architecture's own table comes first.

    Raises:
        LatencyTableError: A file is not a valid latency table.
    """
    if paths:
        return [load_judged(path) for path in paths]
    folder = architecture.resolve().parent
    places = (folder.glob(results_folder.LATENCY_TABLE), folder.parent.glob(results_folder.LATENCY_TABLE))
    near = [path for place in places for path in place]
    base = near[0].parent.parent if near else folder
    around = sorted(base.glob(f"*/{results_folder.LATENCY_TABLE}"))
    if near:
        around += sorted(base.parent.glob(f"*/{glob.escape(near[0].parent.name)}/{results_folder.LATENCY_TABLE}"))
    return [load_judged(path) for path in dict.fromkeys((*near, *around))]


def check_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """Return the formats without duplicates.

    Raises:
        InputError: A format does not exist, or needs a package that is not installed.
    """
    for name in formats:
        if name not in FILES:
            raise InputError(unknown_name("format", name, FILES))
    if {"onnx", "int8"} & set(formats):
        require_onnx("exporting ONNX")
    return tuple(dict.fromkeys(formats))


def check_out(out: Path, formats: Sequence[str], weights: Path) -> None:
    """Check that the files can get their places, before anything slow is done.

    Raises:
        InputError: A part of the path is a file, a folder stands in the place of a file or is not writable, or the
            weights that are exported would be replaced.
    """
    why = why_not_writable(out)
    if why is not None:
        raise InputError(f"cannot export into {out}: {why}; choose another folder with --out")
    for name in written_files(formats):
        if os.path.isdir(out / name):
            raise InputError(f"cannot write {out / name}, which is a folder; choose another folder with --out")
    own = out / FILES["state_dict"]
    if "state_dict" in formats and os.path.exists(own) and weights.exists() and own.samefile(weights):
        raise InputError(f"the export would replace {weights}, which it exports; choose another folder with --out")
