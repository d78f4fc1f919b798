"""Samples on disk as they are taken, so that an interrupted measurement goes on where it stopped."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from ..files import write_csv, write_text

_log = logging.getLogger(__name__)


class Journal:
    """A file of lines: first what is measured, then one line for each sample.

    A file that measured something else, or with other settings, is begun anew; a line that a crash cut short is
    dropped.

    Args:
        path: The file.
        header: What is measured and how; compared with the file's.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.path = path
        wanted = json.dumps(header, sort_keys=True, default=str)
        self._samples: list[tuple[str, float, float]] = []
        if path.exists():
            found, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
            if found == wanted:
                self._samples = [sample for line in lines if (sample := _parse(line)) is not None]
                _log.info("going on with %d samples of %s", len(self._samples), path)
            else:
                _log.info("%s holds samples of another measurement: beginning anew", path)
        write_text(path, "".join(f"{line}\n" for line in [wanted, *map(json.dumps, self._samples)]))
        self._file: IO[str] = path.open("a", encoding="utf-8")

    def samples(self) -> Iterator[tuple[str, float, float]]:
        """Name of the workload, moment in seconds since the epoch, and value, as taken before."""
        return iter(self._samples)

    def write(self, name: str, moment: float, value: float) -> None:
        """Add a sample; it is on disk when this returns."""
        self._file.write(json.dumps([name, moment, value]) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file; it stays."""
        self._file.close()


def _parse(line: str) -> tuple[str, float, float] | None:
    try:
        name, moment, value = json.loads(line)
        return str(name), float(moment), float(value)
    except (ValueError, TypeError):
        return None


def export_samples(journals: Sequence[Path], path: Path) -> Path:
    """Write the samples of journals, one of each process, as CSV.

    Columns: `process`, `workload`, `moment_s` since the epoch, `value` in the backend's unit.
    """
    rows = []
    for process, journal in enumerate(journals, start=1):
        for line in journal.read_text(encoding="utf-8").splitlines()[1:]:
            if (sample := _parse(line)) is not None:
                name, moment, value = sample
                rows.append({"process": process, "workload": name, "moment_s": f"{moment:.6f}", "value": value})
    return write_csv(path, ("process", "workload", "moment_s", "value"), rows)
