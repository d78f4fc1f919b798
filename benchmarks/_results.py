"""What all benchmarks share: a CSV named by machine and versions, and the same as a table on the terminal."""

from __future__ import annotations

import csv
import re
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nni_proxyless.latency import this_device

FOLDER = Path(__file__).resolve().parent / "results"


def publish(name: str, rows: list[dict[str, Any]], packages: tuple[str, ...]) -> Path:
    """Write rows, with machine and versions, to `results/<name>-<processor>.csv`, and print them.

    Args:
        name: Name of the benchmark.
        rows: The results; all have the same keys.
        packages: Packages whose versions matter.
    """
    where = {"processor": processor(), "cores": this_device().cores, **{p: version(p) for p in packages}}
    FOLDER.mkdir(exist_ok=True)
    suffix = re.sub("[^a-z0-9]+", "-", where["processor"].lower()).strip("-")
    path = FOLDER / f"{name}-{suffix}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0], *where], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, **where} for row in rows)
    widths = {key: max(len(key), *(len(str(row[key])) for row in rows)) for key in rows[0]}
    for row in [dict(zip(rows[0], rows[0], strict=True)), *rows]:
        sys.stdout.write("  ".join(str(row[key]).ljust(widths[key]) for key in rows[0]).rstrip() + "\n")
    sys.stdout.write(f"{where['processor']}, {where['cores']} cores -> {path}\n")
    return path


def processor() -> str:
    """This machine's processor: its name and, as hosts shorten names ("AMD EPYC" is several), family and model."""
    return " ".join([this_device().processor, *_generation()])


def _generation() -> list[str]:
    """`family 25`, `model 1` as Linux tells them on x86; nothing elsewhere."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.is_file() else ""
    family, model = (re.search(rf"^{key}\s*:\s*(\d+)$", text, re.MULTILINE) for key in ("cpu family", "model"))
    return [f"family {family[1]}", f"model {model[1]}"] if family and model else []
