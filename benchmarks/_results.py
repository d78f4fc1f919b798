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
    device = this_device()
    where = {"processor": device.processor, "cores": device.cores, **{p: version(p) for p in packages}}
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}-{re.sub('[^a-z0-9]+', '-', device.processor.lower()).strip('-')}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0], *where], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, **where} for row in rows)
    widths = {key: max(len(key), *(len(str(row[key])) for row in rows)) for key in rows[0]}
    for row in [dict(zip(rows[0], rows[0], strict=True)), *rows]:
        sys.stdout.write("  ".join(str(row[key]).ljust(widths[key]) for key in rows[0]).rstrip() + "\n")
    sys.stdout.write(f"{device.processor}, {device.cores} cores -> {path}\n")
    return path
