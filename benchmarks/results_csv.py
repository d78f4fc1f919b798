"""CSV files of results: read, append, and publish under a name that says on which processor they were measured."""

from __future__ import annotations

import csv
import gzip
import re
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TextIO

from nni_proxyless.latency import this_device


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a `.csv` or `.csv.gz` file; an empty list if there is no such file."""
    if not path.exists():
        return []
    with _open(path, "rt") as file:
        return list(csv.DictReader(file))


def append_rows(rows: list[dict[str, Any]], path: Path, columns: tuple[str, ...]) -> None:
    """Append rows to a CSV file. A new file gets a header first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists() or path.stat().st_size == 0
    with _open(path, "at") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)


def publish(
    name: str, rows: list[dict[str, Any]], packages: tuple[str, ...], folder: Path, *, append: bool = False
) -> Path:
    """Write rows, with machine and versions, to `<folder>/<name>-<processor>.csv`, and print them.

    Args:
        name: Name of the benchmark.
        rows: The results; all have the same keys.
        packages: Packages whose versions matter.
        folder: Results folder of the benchmark.
        append: Whether rows of earlier runs on this processor are kept. They must have the same columns.
    """
    where = {"processor": processor(), "cores": this_device().cores, **{p: version(p) for p in packages}}
    folder.mkdir(parents=True, exist_ok=True)
    path = file_here(name, folder)
    if not append:
        path.unlink(missing_ok=True)
    append_rows([{**row, **where} for row in rows], path, (*rows[0], *where))
    widths = {key: max(len(key), *(len(str(row[key])) for row in rows)) for key in rows[0]}
    for row in [dict(zip(rows[0], rows[0], strict=True)), *rows]:
        sys.stdout.write("  ".join(str(row[key]).ljust(widths[key]) for key in rows[0]).rstrip() + "\n")
    sys.stdout.write(f"{where['processor']}, {where['cores']} cores -> {path}\n")
    return path


def file_here(name: str, folder: Path) -> Path:
    """The file of a benchmark's results on this processor, `<folder>/<name>-<processor>.csv`."""
    suffix = re.sub("[^a-z0-9]+", "-", processor().lower()).strip("-")
    return folder / f"{name}-{suffix}.csv"


def processor() -> str:
    """This machine's processor: its name, and on Linux its family and model.

    Hosts shorten names: several generations are called "AMD EPYC".
    """
    return " ".join([this_device().processor, *_generation()])


def _generation() -> list[str]:
    """`family 25` and `model 1` as Linux reports them on x86; an empty list elsewhere."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.is_file() else ""
    family, model = (re.search(rf"^{key}\s*:\s*(\d+)$", text, re.MULTILINE) for key in ("cpu family", "model"))
    return [f"family {family[1]}", f"model {model[1]}"] if family and model else []


def _open(path: Path, mode: Literal["rt", "at"]) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, mode, encoding="utf-8", newline="")
    return path.open(mode, encoding="utf-8", newline="")
