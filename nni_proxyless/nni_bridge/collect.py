"""What an experiment came to: each trial's outcome, its files in one place, and the summary."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import read_mapping, write_csv
from ..network.architecture import Architecture
from .grid_points import Rules, ratio_of

_ARTIFACTS = (
    "architecture.json", "history.csv", "probabilities.csv", "pruned.csv", "cost.json", "latency_table.yml",
    "recipe.yml", "weights.pt", "weights_last.pt", "model_card.json", "checkpoint.ckpt",
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What one trial came to.

    Attributes:
        trial_id: NNI's id.
        parameters: What NNI sent it.
        status: NNI's status.
        folder: Where its results were collected, if it succeeded.
        architecture: What it found (or trained), if it succeeded.
        card: The model card of a retraining, if it was one.
        reason: Last line of its stderr, if it failed.
    """

    trial_id: str
    parameters: Mapping[str, Any]
    status: str
    folder: Path | None = None
    architecture: Architecture | None = None
    card: Mapping[str, Any] | None = None
    reason: str = ""


def parameters_of(job: Any) -> dict[str, Any]:
    """What NNI sent a trial job; empty as long as it has sent nothing."""
    return dict(job.hyperParameters[0].parameters) if job.hyperParameters else {}


def collect(job: Any, home: Path, results: Path, used: set[Path]) -> Outcome:
    """Copy what a trial of the local service left into the folder of results.

    Args:
        job: NNI's TrialJob.
        home: The experiment's folder.
        results: Below it, `<target>/` and what else NNI varied.
        used: Folders of the experiment's earlier trials, to which this one is added: of two trials with the same
            parameters, the later one goes into a folder below, named by its id.
    """
    parameters = parameters_of(job)
    output = home / "environments" / "local-env" / "trials" / job.trialJobId
    if job.status != "SUCCEEDED":
        return Outcome(job.trialJobId, parameters, job.status, reason=_last_line(output / "trial.stderr"))
    source = output / "architecture.json"
    if not source.is_file():
        return Outcome(job.trialJobId, parameters, job.status, reason=f"no {source.name} in {output}")
    architecture = Architecture.load(source)
    card = _card(output / "model_card.json")
    # What the trial received: with several at a time, NNI's record of the job may be that of another one.
    parameters = dict((architecture.trial_parameters if card is None else card["trial_parameters"]) or parameters)
    folder = results / _folder_of(architecture, parameters)
    if folder in used:
        folder = folder / str(job.trialJobId)
    used.add(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in _ARTIFACTS:
        if (output / name).is_file():
            temporary = folder / f".{name}"
            temporary.unlink(missing_ok=True)
            try:  # checkpoints can be large; all of these files are replaced, never changed
                os.link(output / name, temporary)
            except OSError:
                shutil.copyfile(output / name, temporary)
            temporary.replace(folder / name)
    return Outcome(job.trialJobId, parameters, job.status, folder, architecture, card)


def _card(path: Path) -> dict[str, Any] | None:
    return read_mapping(path, "model card", InputError) if path.is_file() else None


def _folder_of(architecture: Architecture, parameters: Mapping[str, Any]) -> Path:
    """`<target>`, or the name of the architecture that was trained, and below it what else NNI varied."""
    rest = [f"{key}-{value}" for key, value in sorted(parameters.items()) if key not in ("target", "architecture")]
    trained = parameters.get("architecture")
    folder = Path(str(architecture.target)) if trained is None else Path(Path(str(trained)).name.removesuffix(".json"))
    return folder / "_".join(rest).replace(os.sep, "-") if rest else folder


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return "no stderr"
    return lines[-1] if lines else "nothing on stderr"


COLUMNS = (
    "target", "strategy", "accuracy", "budget_ms", "predicted_latency_ms", "measured_latency_ms",
    "expected_over_budget", "parameters", "architecture",
)  # fmt: skip


def summary_rows(outcomes: list[Outcome]) -> list[dict[str, str]]:
    """One row for each trial that succeeded; the keys are `COLUMNS`."""
    rows = []
    for outcome in outcomes:
        found, folder = outcome.architecture, outcome.folder
        if found is None or folder is None:
            continue
        measured, ratio = found.measured_latency_ms, found.metrics.get("expected_over_budget")
        rows.append(
            {
                "target": found.target or "",
                "strategy": found.strategy or "",
                "accuracy": f"{_accuracy(outcome):.4f}",
                "budget_ms": _number(found.budget_ms, ""),
                "predicted_latency_ms": _number(found.predicted_latency_ms, ""),
                "measured_latency_ms": _number(measured, "" if found.target is None else "other device"),
                "expected_over_budget": "" if ratio is None else f"{ratio:.3f}",
                "parameters": str(found.parameters),
                "architecture": str(folder / "architecture.json"),
            }
        )
    return rows


def _number(value: float | None, otherwise: str) -> str:
    return otherwise if value is None else f"{value:.4g}"


def _accuracy(outcome: Outcome) -> float:
    if outcome.card is not None:
        return float(outcome.card["results"]["validation"]["top1"])
    assert outcome.architecture is not None
    return outcome.architecture.metrics["default"]


def at_equal_latency(outcomes: list[Outcome], weight_key: str = Rules().weight_key) -> list[Outcome]:
    """Of trials that differ in nothing but the latency weight, the one whose expected latency is nearest to the budget.

    Args:
        outcomes: All trials of an experiment.
        weight_key: The parameter that holds the weight.
    """
    cells: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.architecture is not None:
            cell = {key: value for key, value in outcome.parameters.items() if key != weight_key}
            cells.setdefault(json.dumps(cell, sort_keys=True, default=str), []).append(outcome)

    def away(outcome: Outcome) -> float:
        assert outcome.architecture is not None
        ratio = ratio_of(outcome.parameters, outcome.architecture.metrics)
        return math.inf if ratio is None else abs(math.log(ratio))

    return [min(listed, key=away) for listed in cells.values()]


def write_summary(rows: list[dict[str, str]], path: Path) -> Path:
    """The summary as CSV."""
    return write_csv(path, COLUMNS, rows)


def format_table(rows: list[dict[str, str]]) -> str:
    """The summary as aligned text, without columns that say nothing."""
    shown = [column for column in COLUMNS if any(row[column] for row in rows)]
    table = [dict(zip(COLUMNS, COLUMNS, strict=True)), *rows]
    widths = {column: max(len(row[column]) for row in table) for column in shown}
    return "\n".join("  ".join(row[c].ljust(widths[c]) for c in shown).rstrip() for row in table)
