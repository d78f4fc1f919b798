"""The verdict: for each target, whether a good network was found, and what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..files import results_folder
from ..latency.difference import relative_error
from ..network.architecture import Architecture
from .baseline_recipe import can_have_baselines
from .checks import clean, latency_of
from .kept_budgets import Kept, own_budgets, value_of
from .results import Results, Search, Trained

Latencies = Mapping[tuple[str, str], float | None]


@dataclass(frozen=True)
class File:
    """An exported file.

    Attributes:
        path: Path of the file.
        size: Size in bytes; `None` if the file is not there.
    """

    path: Path
    size: int | None


@dataclass(frozen=True)
class Line:
    """One row of the verdict: a network on a target.

    Attributes:
        target: Target; empty if a network has none.
        name: Name of the network: its folder relative to the results, or the kind of a baseline.
        folder: Folder of the network's results.
        kind: Strategy that found the network; `baseline` for a baseline.
        budgets: Budgets of the network; empty if none was stated.
        predicted_ms: Latency in milliseconds by the target's table; `None` if it is not known.
        measured_ms: Measured latency in milliseconds; `None` if it was not measured.
        trained: Retrained network; `None` if it was not retrained.
        multiply_adds: Multiply-adds for one image; `None` if they are not known.
        files: Exported files.
        expected_bytes: Computed size of the ONNX file in bytes; `None` if it is not known.
        next_command: Command that the user should run next; empty if there is none.
        note: Further remark.
        finished: Whether there is a network.
    """

    target: str
    name: str
    folder: Path
    kind: str
    budgets: Sequence[Kept] = ()
    predicted_ms: float | None = None
    measured_ms: float | None = None
    trained: Trained | None = None
    multiply_adds: int | None = None
    files: Sequence[File] = field(default=())
    expected_bytes: int | None = None
    next_command: str = ""
    note: str = ""
    finished: bool = True

    @property
    def error(self) -> float | None:
        """Error of the prediction relative to the measured latency."""
        if self.predicted_ms is None or self.measured_ms is None:
            return None
        return relative_error(self.predicted_ms, self.measured_ms)

    @property
    def budget_text(self) -> str:
        return "; ".join(map(str, self.budgets))

    @property
    def budgets_hold(self) -> bool | None:
        """Whether all budgets are met; `None` if there are none that must be met, or a value is not known."""
        held = [kept.holds for kept in self.budgets if kept.hard]
        return None if not held else False if False in held else None if None in held else True

    def row(self) -> dict[str, Any]:
        """Return the values for the CSV file."""
        test = None if self.trained is None else self.trained.test_accuracy
        first = next((file for file in self.files if file.size is not None), None)
        values: dict[str, Any] = {
            "target": self.target,
            "network": self.name,
            "kind": self.kind,
            "folder": clean(self.folder),
            "budget": self.budget_text,
            "budget_kept": {True: "yes", False: "no", None: ""}[self.budgets_hold],
            "predicted_latency_ms": self.predicted_ms,
            "measured_latency_ms": self.measured_ms,
            "error": self.error,
            "test_accuracy": test,
            "held_out_accuracy": None if self.trained is None else self.trained.accuracy,
            "multiply_adds": self.multiply_adds,
            "file": None if first is None else first.path.name,
            "file_bytes": None if first is None else first.size,
            "next_command": self.next_command,
        }
        return {key: "" if value is None else value for key, value in values.items()}


def verdict(results: Results, baselines: Latencies) -> list[Line]:
    """Return the verdict: for each target its networks, then those of the baselines.

    Args:
        results: Results to report.
        baselines: Measured latency in milliseconds by name of the baseline and name of the target.
    """
    lines = []
    for target in results.targets:
        found = [_found(results, search) for search in results.chosen if search.target == target]
        lines += found or [_without_network(results, target)]
    known = {line.trained.name for line in lines if line.trained is not None}
    found_by_search = {
        (s.target, str(dict(s.architecture.choices))) for s in results.searches if s.architecture is not None
    }
    for trained in results.trained:  # retrainings whose search lies elsewhere
        of = (str(trained.architecture.target), str(dict(trained.architecture.choices)))
        if not trained.is_baseline and trained.name not in known and of not in found_by_search:
            lines.append(_trained_alone(results, trained))
    for target in results.targets or [""]:
        of_target = [trained for trained in results.baselines if not target or trained.is_of(target)]
        for trained in of_target:
            alike = [other.name for other in of_target if other.kind == trained.kind]
            name = f"{trained.kind} {alike.index(trained.name) + 1}" if len(alike) > 1 else trained.kind
            lines.append(_baseline(results, trained, name, target, baselines))
    return lines


def _found(results: Results, search: Search) -> Line:
    found = search.architecture
    assert found is not None
    trained = results.retrained(search)
    files = _exported(results, search.folder if trained is None else trained.folder)
    budgets = own_budgets(search.target, found, hard=search.keeps_budget)
    baselines = trained is not None and found.spec is not None and can_have_baselines(trained)
    command, note = _next(results, search.folder, trained, files, baselines=baselines)
    note = _room(search.target, budgets) or note
    if found.spec is None:
        command, note = "", "a model class of your own: freeze it with the choices of architecture.json"
    row = Line(search.target, search.name, search.folder, search.strategy, budgets)
    return _of_network(results, found, replace(row, trained=trained, files=files, next_command=command, note=note))


def _of_network(results: Results, found: Architecture, row: Line) -> Line:
    """Add to a row what follows from the network itself."""
    return replace(
        row,
        predicted_ms=latency_of(found.predicted_latency_ms),
        measured_ms=latency_of(found.measured_latency_ms),
        multiply_adds=None if found.spec is None else found.multiply_adds,
        expected_bytes=_bytes(value_of(results, found, "file_size")),
    )


def _without_network(results: Results, target: str) -> Line:
    search = next(search for search in results.searches if search.target == target)
    return Line(
        target,
        search.name,
        search.folder,
        search.strategy,
        next_command=shell_command("report", results.folder),
        note="its architecture.json cannot be read"
        if search.damaged
        else "not finished: wait for the search, or start it again to continue it",
        finished=False,
    )


def _trained_alone(results: Results, trained: Trained) -> Line:
    found = trained.architecture
    files = _exported(results, trained.folder)
    command, note = _next(results, trained.folder, trained, files, baselines=False)
    target = str(found.target)
    budgets = own_budgets(target, found)
    note = _room(target, budgets) or note
    row = Line(target, trained.name, trained.folder, str(found.strategy), budgets)
    return _of_network(results, found, replace(row, trained=trained, files=files, next_command=command, note=note))


def _baseline(results: Results, trained: Trained, name: str, target: str, measured: Latencies) -> Line:
    found = trained.architecture
    row = Line(target, name, trained.folder, "baseline", (), trained=trained, files=_exported(results, trained.folder))
    return replace(
        _of_network(results, found, row),
        predicted_ms=value_of(results, found, target) if target else None,
        measured_ms=measured.get((trained.name, target)),
    )


def _bytes(value: float | None) -> int | None:
    return None if value is None else round(value)


def _next(
    results: Results, folder: Path, trained: Trained | None, files: Sequence[File], *, baselines: bool
) -> tuple[str, str]:
    """Return the next command, and what to know besides.

    Args:
        results: Results to report.
        folder: Folder of the search.
        trained: Retrained network; `None` if it was not retrained.
        files: Exported files.
        baselines: Whether baselines can be trained with the recipe of the retrained network.
    """
    if trained is None:
        return shell_command("retrain", folder), "not trained yet"
    if all(file.size is None for file in files):
        return shell_command("export", trained.folder, "--format", "onnx", "int8"), ""
    if baselines and not results.baselines:
        return shell_command("report", results.folder, "--baselines"), ""
    return "", "the files are ready"


def _room(target: str, budgets: Sequence[Kept]) -> str:
    """Say which latency budget would leave room for the error, if a network takes too long only when it is measured."""
    for kept in budgets:
        if kept.constraint.name == target and kept.advice:
            return f"too slow when measured; {kept.advice}"
    return ""


def shell_command(name: str, folder: Path, *options: str) -> str:
    """Return a command that can be pasted into a shell, or nothing if the folder's name cannot be shown.

    Args:
        name: Command of `nni-proxyless`, such as `retrain`.
        folder: Folder on which it works.
        *options: Further words of the command.
    """
    path = f"./{folder}" if str(folder).startswith("-") else str(folder)
    words = ["nni-proxyless", name, path, *options]
    return shlex.join(words) if all(map(str.isprintable, words)) else ""


def _exported(results: Results, folder: Path) -> list[File]:
    """List the files that were exported from a folder's network, as `export.json` names them."""
    found = []
    for content in results.exports.values():
        place = content["folder"]
        if place.parent == folder or place == folder:
            for row in content["formats"]:
                name = row["file"]
                path = place / name
                if name == Path(name).name and name != results_folder.ARCHITECTURE:
                    found.append(File(path, _size(path)))
    return found


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:  # such as a name that is too long for the file system
        return None
