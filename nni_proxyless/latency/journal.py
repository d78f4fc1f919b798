"""Journal of a measurement: samples are stored as they are taken, so that an interrupted measurement can resume."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from ..errors import InputError
from ..files.parsing import parse_json
from ..files.reading import read_bytes
from ..files.writing import write_csv, write_text

_log = logging.getLogger(__name__)


class Journal:
    """A text file whose first line describes the measurement; every following line is one sample.

    If the file belongs to a different measurement or to different settings, it is overwritten. A line that a crash left
    incomplete is dropped.

    Args:
        path: Path of the file.
        header: Description of the measurement and its settings. It is compared with the first line of an existing file.

    Raises:
        InputError: There is a file of this name that is not a journal.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.path = path
        wanted = json.dumps(header, sort_keys=True, default=str)
        self._samples: list[tuple[str, float, float]] = []
        if path.exists():
            found, *lines = _lines(path)
            if found == wanted:
                self._samples = [sample for line in lines if (sample := _parse(line)) is not None]
                _log.info("resuming with %d samples from %s", len(self._samples), path)
            else:
                _log.info("%s holds samples of another measurement: starting over", path)
        write_text(path, "".join(f"{line}\n" for line in [wanted, *map(json.dumps, self._samples)]))
        self._file: IO[str] = path.open("a", encoding="utf-8")

    def samples(self) -> Iterator[tuple[str, float, float]]:
        """Iterate over the samples found in the file: workload name, time in seconds since the epoch, and value."""
        return iter(self._samples)

    def write(self, name: str, moment: float, value: float) -> None:
        """Add a sample and flush it to the file.

        Args:
            name: Name of the workload.
            moment: Time of the sample, in seconds since the epoch.
            value: Measured cost, in the backend's unit.
        """
        self._file.write(json.dumps([name, moment, value]) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file. The file is not deleted."""
        self._file.close()


def _lines(path: Path) -> list[str]:
    """Read the lines of a journal. A crash of the machine may have left bytes that are not text, but not in the first.

    Raises:
        InputError: The file cannot be read, or its first line is not text.
    """
    content = read_bytes(path, "journal of a measurement", InputError)
    lines = content.decode("utf-8", errors="replace").split("\n")
    if not (lines[0].isprintable() and "\ufffd" not in lines[0]):
        raise InputError(f"{path} is not a journal of a measurement; delete it, or choose another --out")
    return lines


def _parse(line: str) -> tuple[str, float, float] | None:
    try:
        name, moment, value = parse_json(line, "sample", InputError)
    except (ValueError, TypeError):  # an InputError is a ValueError
        return None
    good = isinstance(name, str) and all(
        isinstance(n, (int, float)) and not isinstance(n, bool) and n >= 0 for n in (moment, value)
    )
    return (name, float(moment), float(value)) if good else None


def export_samples(journals: Sequence[Path], path: Path) -> Path:
    """Write the samples of several journals, one per process, to a CSV file.

    The columns are `process`, `workload`, `moment_s` (seconds since the epoch) and `value` (in the backend's unit).
    """
    rows = []
    for process, journal in enumerate(journals, start=1):
        for line in _lines(journal)[1:]:
            if (sample := _parse(line)) is not None:
                name, moment, value = sample
                rows.append({"process": process, "workload": name, "moment_s": f"{moment:.6f}", "value": value})
    return write_csv(path, ("process", "workload", "moment_s", "value"), rows)
