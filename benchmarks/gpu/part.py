"""What the parts of the GPU check share: command line, device, and a CSV file that grows with every result.

Each part is a module with a name, its columns, and a list of items. An item is a function that returns rows. The rows
are written when the item ends, so a part that is stopped keeps what it has measured. An item that fails is reported,
and the next one runs.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.constants import GPU_RESULTS
from benchmarks.results_csv import append_rows
from nni_proxyless.latency import this_device

Row = dict[str, Any]
Item = tuple[str, Callable[[], Iterable[Row]]]
PACKAGES = ("nni-proxyless", "nni", "pytorch-lightning", "torch")
DEVICE_COLUMNS = ("device", "cores", "cuda", "cudnn", *PACKAGES)


@dataclass(frozen=True)
class Setting:
    """What a part runs on.

    Attributes:
        device: `cuda`, or `cpu` for a dry run.
        toy: Whether everything has a toy size. The figures then mean nothing.
        output: Folder of the CSV files.
        seconds: Time that the part has, in seconds.
        scratch: Folder for files that nobody needs afterwards.
        begun: When the part has begun, by `time.monotonic`.
    """

    device: str
    toy: bool
    output: Path
    seconds: float
    scratch: Path
    begun: float = field(default_factory=time.monotonic)

    @property
    def accelerator(self) -> str:
        """Lightning's name of the device."""
        return "gpu" if self.device == "cuda" else "cpu"

    @property
    def left(self) -> float:
        """Seconds until the part's time is over."""
        return self.seconds - (time.monotonic() - self.begun)

    def path(self, name: str, suffix: str = ".csv") -> Path:
        """File of the results, named after the device."""
        slug = re.sub("[^a-z0-9]+", "-", processor_name(self.device).lower()).strip("-")
        return self.output / f"{name}-{slug}{suffix}"


def run(name: str, columns: tuple[str, ...], items: Callable[[Setting], list[Item]], doc: str | None) -> int:
    """Run a part from the command line.

    Args:
        name: Name of the part and of its CSV file.
        columns: Columns of its rows, without those of device and versions.
        items: Function that returns the items.
        doc: Description of the part for `--help`.

    Returns:
        Exit code: 0, or 1 if an item failed.
    """
    options = parse(doc)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as scratch:
        setting = Setting(options.device, options.toy, options.output, options.seconds, Path(scratch))
        return _run(name, columns, items(setting), setting)


def _run(name: str, columns: tuple[str, ...], items: list[Item], setting: Setting) -> int:
    path = setting.path(name)
    setting.output.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    described = description(setting.device)
    failed = []
    for label, work in items:
        begun = time.monotonic()
        try:
            for row in work():
                if set(row) != set(columns):
                    raise ValueError(f"row of {label} has the columns {sorted(row)}, not {sorted(columns)}")
                append_rows([{**row, **described}], path, (*columns, *described))
        except Exception:
            failed.append(label)
            sys.stderr.write(f"{name}: {label} failed\n{traceback.format_exc()}\n")
            if setting.device == "cuda":
                torch.cuda.empty_cache()
        else:
            sys.stdout.write(f"{name}: {label}, {time.monotonic() - begun:.1f} s\n")
        sys.stdout.flush()
    if failed:
        sys.stderr.write(f"{name}: {len(failed)} failed: {', '.join(failed)}\n")
    return 1 if failed else 0


def parse(doc: str | None) -> argparse.Namespace:
    """Read the command line of a part.

    Raises:
        SystemExit: PyTorch sees no CUDA device, or results of the CPU would lie among those of GPUs.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--output", type=Path, default=GPU_RESULTS)
    parser.add_argument("--seconds", type=float, default=120.0)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch sees no CUDA device here; --device cpu --toy --output FOLDER is a dry run")
    check_place(options.device, options.toy, options.output)
    return options


def check_place(device: str, toy: bool, output: Path) -> None:
    """Check that figures of a CPU or of a toy size do not get among the results of GPUs.

    Raises:
        SystemExit: They would.
    """
    folder = output.resolve()
    if (device == "cpu" or toy) and (folder == GPU_RESULTS or GPU_RESULTS in folder.parents):
        raise SystemExit(f"results of a dry run do not belong in {GPU_RESULTS}; give another folder with --output")


def processor_name(device: str) -> str:
    """Name of the GPU, or of the CPU for a dry run."""
    return torch.cuda.get_device_name() if device == "cuda" else f"cpu {this_device().processor}"


def description(device: str) -> Row:
    """The columns of device and versions."""
    found = {
        "device": processor_name(device),
        "cores": this_device().cores,
        "cuda": torch.version.cuda if device == "cuda" else "none",
        "cudnn": torch.backends.cudnn.version() if device == "cuda" else "none",
        **{package: version(package) for package in PACKAGES},
    }
    assert tuple(found) == DEVICE_COLUMNS
    return found
