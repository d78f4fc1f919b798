"""The folder in which the bad inputs are tried: good files of every kind, which the cases replace one by one."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.constants import TINY_SPACE
from nni_proxyless.latency import LatencyTable
from nni_proxyless.network.architecture import Architecture
from nni_proxyless.network.space_spec import SpaceSpec
from tests.helpers import table_of

from .case import put

SPACE = TINY_SPACE
COLOUR_SPACE = {**SPACE, "name": "colour", "input": {"channels": 3, "size": 8}, "classes": 2}
OTHER_SPACE = {**SPACE, "name": "other", "head": {"width": 24}}
_SPEC = SpaceSpec.from_dict(SPACE)
_OTHER = SpaceSpec.from_dict(OTHER_SPACE)
CHOICES = {"stage1_layer1": "k3_e1", "stage1_layer2": "skip", "stage2_layer1": "k5_e2"}
TABLE: dict[str, Any] = table_of(_SPEC).to_dict()
OTHER_TABLE: dict[str, Any] = table_of(_OTHER).to_dict()
COLOUR_TABLE: dict[str, Any] = table_of(SpaceSpec.from_dict(COLOUR_SPACE)).to_dict()
LARGEST_MS = LatencyTable.from_dict(TABLE).costs(_SPEC).largest
SMALLEST_MS = LatencyTable.from_dict(TABLE).costs(_SPEC).smallest
ARCHITECTURE: dict[str, Any] = Architecture.of_space(
    _SPEC, CHOICES, target="phone", predicted_latency_ms=1.0, metrics={"default": 0.5}
).to_dict()
OTHER_ARCHITECTURE: dict[str, Any] = Architecture.of_space(_OTHER, CHOICES, target="phone").to_dict()
COUNTED: dict[str, Any] = {
    **{key: value for key, value in TABLE.items() if key != "operators"},
    "unit": "flops",
    "operators": [
        {**{k: v for k, v in row.items() if k not in ("latency_ms", "spread_ms")}, "flops": 1000.0}
        for row in TABLE["operators"]
    ],
}
FITTED: dict[str, Any] = {
    **TABLE,
    "backend": {"name": "fit", "version": "0"},
    "operators": [
        {
            "kind": "choice",
            "layer": layer.label,
            "candidate": name,
            "latency_ms": 0.1 * number,
            "spread_ms": 0.0,
            "runs": 1,
        }
        for layer in _SPEC.layers
        for number, name in enumerate(layer.names, start=1)
    ],
}
RECIPE: dict[str, Any] = {
    "space": "space.yml",
    "data": "digits",
    "epochs": 6,
    "warmup_epochs": 2,
    "budget_fraction": 0.87,
    "threads": 1,
    "finalists": 1,
    "accept_tables": True,
    "target": "phone",
    "targets": {"phone": {"table": "table.yml"}},
}
RETRAIN: dict[str, Any] = {"architecture": "architecture.json", "data": "digits", "epochs": 4, "warmup_epochs": 1}
CONFIG: dict[str, Any] = {
    "experimentName": "tiny",
    "trialCommand": "nni-proxyless trial --recipe recipe.yml",
    "trialCodeDirectory": ".",
    "searchSpace": {"budget_fraction": {"_type": "choice", "_value": [0.8, 0.9]}},
    "tuner": {"name": "LatencyBudget"},
    "trialConcurrency": 1,
    "maxTrialNumber": 2,
    "trainingService": {"platform": "local"},
}
PUBLISHED: dict[str, Any] = {
    "Conv-input:224x224x3-output:112x112x32": {"mean": 6.2, "count": 10, "var": 0.01},
    "expanded_conv-input:112x112x16-output:56x56x24-expand:3-kernel:3-stride:2-idskip:0": {
        "mean": 6.2, "count": 10, "var": 0.01,
    },
}  # fmt: skip
MEASUREMENTS = "stage1_layer1,stage1_layer2,stage2_layer1,latency_ms\n" + "".join(
    f"k{k}_e{e},{second},k{k}_e1,{1 + 0.1 * n}\n"
    for n, (k, e, second) in enumerate((k, e, s) for k in (3, 5) for e in (1, 2) for s in ("skip", "k3_e1", "k5_e2"))
)
ARCHITECTURES = "".join(f"{line.rsplit(',', 1)[0]}\n" for line in MEASUREMENTS.splitlines())
COUNTS = "layer,candidate,macs\n" + "".join(
    f"{layer.label},{name},{100 * number}\n" for layer in _SPEC.layers for number, name in enumerate(layer.names)
)
HISTORY = "epoch,default,latency_ms,expected_latency_ms,entropy,train_loss,seconds\n1,0.5,3.0,3.1,1.0,2.0,1.0\n"


def checkpoint(**changes: Any) -> dict[str, Any]:
    """Content of a search's checkpoint."""
    state = {
        "schema": "nni-proxyless/checkpoint@1",
        "space": _SPEC.to_dict(),
        "alpha": {layer.label: torch.zeros(len(layer.names)) for layer in _SPEC.layers},
        "candidates": {layer.label: list(layer.names) for layer in _SPEC.layers},
        **changes,
    }
    return {"nni_proxyless": state}


def saved(content: Any) -> bytes:
    """Content of a file that torch writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def weights(architecture: dict[str, Any] = ARCHITECTURE) -> dict[str, torch.Tensor]:
    return Architecture.from_dict(architecture).build().state_dict()


def arrays(**changes: Any) -> bytes:
    """Content of an `.npz` file of images for the tiny space; an array that is `None` is left out."""
    images = np.random.default_rng(0).integers(0, 256, (200, 8, 8), dtype=np.uint8)
    given = {"images": images, "labels": np.arange(200) % 10, **changes}
    buffer = io.BytesIO()
    np.savez(buffer, **{key: value for key, value in given.items() if value is not None})
    return buffer.getvalue()


def picture(size: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((size, size, 3), np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def good_files() -> dict[str, Any]:
    """The good files of the folder, by their path."""
    finished = {
        "recipe.yml": {**RECIPE, "space": "../space.yml", "targets": {"phone": {"table": "../table.yml"}}},
        "latency_table.yml": TABLE,
        "history.csv": HISTORY,
        "architecture.json": ARCHITECTURE,
        "weights.pt": saved(weights()),
        "checkpoint.ckpt": saved(checkpoint()),
    }
    return {
        "space.yml": SPACE,
        "colour.yml": COLOUR_SPACE,
        "other.yml": OTHER_SPACE,
        "table.yml": TABLE,
        "other_table.yml": OTHER_TABLE,
        "colour_table.yml": COLOUR_TABLE,
        "flops.yml": COUNTED,
        "fitted.yml": FITTED,
        "recipe.yml": RECIPE,
        "retrain.yml": RETRAIN,
        "config.yml": CONFIG,
        "architecture.json": ARCHITECTURE,
        "other.json": OTHER_ARCHITECTURE,
        "published.yaml": PUBLISHED,
        "measured.csv": MEASUREMENTS,
        "networks.csv": ARCHITECTURES,
        "counts.csv": COUNTS,
        "images.npz": arrays(),
        "notes.txt": "Buy milk.\n",
        "empty/.keep": "",
        **{f"found/{name}": content for name, content in finished.items()},
        **{f"pictures/train/{kind}/{n}.png": picture() for kind in ("cat", "dog") for n in range(12)},
    }


def make_good_files(folder: Path) -> dict[str, bytes]:
    """Write the good files; return what each of them holds."""
    for name, content in good_files().items():
        put(folder / name, content)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@functools.lru_cache(maxsize=4096)
def _hash(path: str, *_identity: int) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def snapshot(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Return kind, size, hash and times of change of everything below a folder.

    A file is read again only if its number, its size or one of its times is another one. Programs cannot set the time
    of the last change of a file's description (ctime).
    """
    found: dict[str, tuple[Any, ...]] = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(place, name)
            state = os.lstat(path)
            times = state.st_mtime_ns, state.st_ctime_ns
            if stat.S_ISREG(state.st_mode):
                found[path] = (state.st_size, *times[:1], _hash(path, state.st_ino, state.st_size, *times))
            else:
                found[path] = (stat.S_IFMT(state.st_mode), os.readlink(path) if stat.S_ISLNK(state.st_mode) else None)
    start = len(str(folder)) + 1
    return {path[start:]: state for path, state in found.items()}


def as_json(content: Any) -> str:
    return json.dumps(content)
