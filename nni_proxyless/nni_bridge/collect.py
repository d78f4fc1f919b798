"""Collects the results of an experiment: the outcome and the files of each trial, and the summary."""

from __future__ import annotations

import json
import logging
import os
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..decoding.budget import must_keep_budget
from ..errors import ArchitectureError, InputError, InUseError, LatencyTableError, shown
from ..files import results_folder
from ..files.claims import claimed
from ..files.writing import LONGEST_NAME, aligned, check_name, read_mapping, write_csv
from ..latency.judgement import verdict
from ..latency.table import LatencyTable
from ..network.architecture import Architecture
from ..report.checks import check_card, number_of
from ..report.kept_budgets import own_budgets
from ..report.verdict import shell_command
from .grid_points import Rules, distance_to_budget

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """The outcome of one trial.

    Attributes:
        trial_id: NNI's id of the trial.
        parameters: Parameters that the trial received.
        status: NNI's status of the trial, such as `SUCCEEDED`.
        folder: Folder with the collected results; `None` if the trial has none.
        architecture: Architecture that the trial found or trained; `None` if the trial has no results.
        card: Model card of a retraining; `None` for a search.
        reason: Why there are no results: the last line of the trial's stderr, or the file that is missing.
        by_hand: Whether a user has made the trial in NNI's web UI, and not the tuner.
    """

    trial_id: str
    parameters: Mapping[str, Any]
    status: str
    folder: Path | None = None
    architecture: Architecture | None = None
    card: Mapping[str, Any] | None = None
    reason: str = ""
    by_hand: bool = False


def parameters_of(job: Any) -> dict[str, Any]:
    """Parameters that NNI sent to a trial job; empty until it has sent them."""
    return dict(job.hyperParameters[0].parameters) if job.hyperParameters else {}


def collect(job: Any, home: Path, results: Path, used: set[Path]) -> Outcome:
    """Collect the result files of a trial of the local training service in the results folder.

    Args:
        job: NNI's TrialJob.
        home: Folder of the experiment.
        results: Results folder. The trial gets the folder `<target>` in it, or `<architecture>` for a retraining, and
            below that a folder named after the other parameters, if there are any.
        used: Folders of the experiment's earlier trials. If the trial's folder is among them, the trial gets a
            subfolder named after its id, and also if another process uses the folder. The trial's folder is added to
            the set.
    """
    parameters = parameters_of(job)
    trial_id = check_name(job.trialJobId, "the id of a trial", InputError)
    by_hand = bool(getattr(job, "by_hand", False))
    output = home / "environments" / "local-env" / "trials" / trial_id
    if job.status != "SUCCEEDED":
        return Outcome(trial_id, parameters, job.status, reason=_last_line(output / "trial.stderr"), by_hand=by_hand)
    source = output / results_folder.ARCHITECTURE
    if not source.is_file():
        return Outcome(trial_id, parameters, job.status, reason=f"no {source.name} in {output}", by_hand=by_hand)
    try:
        architecture = Architecture.load(source)
        card = _card(output / results_folder.MODEL_CARD)
        if card is None and number_of(architecture.metrics.get("default")) is None:
            raise ArchitectureError(f"{source} has no accuracy, the metric 'default'")
    except InputError as reason:
        return Outcome(trial_id, parameters, job.status, reason=f"damaged results: {reason}", by_hand=by_hand)
    # The trial records the parameters that it received. When several trials run at once, the parameters in NNI's record
    # of the job may belong to another trial.
    parameters = dict((architecture.trial_parameters if card is None else card.get("trial_parameters")) or parameters)
    folder = results / _folder_of(architecture, parameters)
    if folder in used:
        folder = folder / trial_id
    try:
        _copy(output, folder)
    except InUseError as reason:  # such as by a search that was started by hand
        _log.warning("%s; the results of trial %s are in %s", reason, trial_id, folder / trial_id)
        folder = folder / trial_id
        _copy(output, folder)
    used.add(folder)
    return Outcome(trial_id, parameters, job.status, folder, architecture, card, by_hand=by_hand)


def _copy(output: Path, folder: Path) -> None:
    """Copy the result files of a trial into a folder that no other process uses."""
    with claimed(folder, "choose another folder with --results"):
        for name in results_folder.COLLECTED:
            if (output / name).is_file():
                temporary = folder / f".{name}"
                temporary.unlink(missing_ok=True)
                try:  # checkpoints can be large, and a link is safe because these files are replaced, never modified
                    os.link(output / name, temporary)
                except OSError:
                    shutil.copyfile(output / name, temporary)
                temporary.replace(folder / name)


def _card(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    card = read_mapping(path, "model card", InputError)
    check_card(card)
    if not isinstance(card.get("trial_parameters", {}), dict):
        raise InputError(f"{path}: 'trial_parameters' must be a mapping, got {shown(card['trial_parameters'])}")
    return card


def _folder_of(architecture: Architecture, parameters: Mapping[str, Any]) -> Path:
    """`<target>`, or the name of the architecture that was trained, and below it the other parameters."""
    rest = [f"{key}-{value}" for key, value in sorted(parameters.items()) if key not in ("target", "architecture")]
    trained = parameters.get("architecture")
    name = str(architecture.target) if trained is None else Path(str(trained)).name.removesuffix(".json")
    folder = Path(check_name(name, "the target of an architecture", ArchitectureError))
    return folder / _as_name("_".join(rest)) if rest else folder


def _as_name(text: str) -> str:
    """Return a text as the name of a folder, without separators and characters that cannot be printed."""
    name = "".join("-" if mark in "/\\" or not mark.isprintable() else mark for mark in text).lstrip(".")
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 9]}-{zlib.crc32(text.encode(errors='surrogatepass')):08x}"


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return "no stderr"
    return lines[-1] if lines else "nothing on stderr"


def failures(outcomes: list[Outcome]) -> tuple[list[str], list[str]]:
    """Say which trials have no result.

    Returns:
        Texts about the trials that make the experiment a failure, and about those that do not: trials that were made by
        hand, and trials that crashed and were repeated with success.
    """
    done = [outcome.parameters for outcome in outcomes if outcome.architecture is not None]
    failed: list[str] = []
    others: list[str] = []
    for outcome in outcomes:
        if outcome.architecture is not None:
            continue
        repeated = outcome.parameters in done
        kind = ", made by hand" if outcome.by_hand else ", repeated with success" if repeated else ""
        named = f"trial {outcome.trial_id} {outcome.status}{kind} ({outcome.parameters!s:.200}): {outcome.reason:.500}"
        (others if outcome.by_hand or repeated else failed).append(named)
    return failed, others


def warnings_of(outcomes: list[Outcome]) -> list[str]:
    """Return warnings about the searches, each with the folder of its results.

    These are budgets that a network exceeds, if only when measured, and the warnings of the searches themselves.
    """
    found: list[str] = []
    for outcome in outcomes:
        if outcome.architecture is None or outcome.folder is None or outcome.card is not None:
            continue
        try:
            recipe = read_mapping(outcome.folder / results_folder.RECIPE, "recipe", InputError)
        except InputError:  # results of another program, or a damaged file
            recipe = {}
        hard = must_keep_budget(recipe)
        budgets = own_budgets(outcome.architecture.target or "", outcome.architecture, hard=hard)
        outside = [
            f"the network is not within its budget ({kept})" + (f"; {kept.advice}" if kept.advice else "")
            for kept in budgets
            if kept.holds is False
        ]
        found += [f"{outcome.folder}: {text}" for text in (*outside, *outcome.architecture.warnings)]
    return found


def next_command(outcomes: list[Outcome]) -> str:
    """Return the command that brings the first network with results nearer to its device.

    Returns:
        `retrain` for a network of a search, `export` for a retrained one. Empty if no trial has results, if the network
        belongs to a model class of the user's own, or if the folder's name cannot be shown.
    """
    for outcome in outcomes:
        if outcome.architecture is None or outcome.folder is None or outcome.architecture.spec is None:
            continue
        if outcome.card is None:
            return shell_command("retrain", outcome.folder)
        return shell_command("export", outcome.folder, "--format", "onnx", "int8")
    return ""


COLUMNS = (
    "target", "strategy", "accuracy", "budget_ms", "predicted_latency_ms", "measured_latency_ms",
    "latency_table", "expected_over_budget", "layers", "parameters", "architecture",
)  # fmt: skip


def summary_rows(outcomes: list[Outcome]) -> list[dict[str, str]]:
    """One row for each trial with results; the keys are `COLUMNS`."""
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
                "measured_latency_ms": _number(measured, "" if found.target is None else "not measured"),
                "latency_table": _table_quality(folder / results_folder.LATENCY_TABLE),
                "expected_over_budget": "" if ratio is None else f"{ratio:.3f}",
                "layers": _layers(found),
                "parameters": str(found.parameters),
                "architecture": str(folder / results_folder.ARCHITECTURE),
            }
        )
    return rows


def _table_quality(path: Path) -> str:
    """The verdict on the latency table of a search, in lower case; empty for a retraining, which has none."""
    if not path.is_file():
        return ""
    try:
        table = LatencyTable.load(path)
    except LatencyTableError:
        return "cannot be read"
    return "not judged" if table.backend == "published" else verdict(table).name.lower()


def _layers(found: Architecture) -> str:
    """The number of searched layers that the network has, of those that the space has."""
    kept = sum(operator is not None for operator in found.require_spec().choice_operators(found.choices))
    return f"{kept} of {len(found.layer_labels)}"


def _number(value: float | None, otherwise: str) -> str:
    return otherwise if value is None else f"{value:.4g}"


def _accuracy(outcome: Outcome) -> float:
    if outcome.card is not None:
        return float(outcome.card["results"]["validation"]["top1"])
    assert outcome.architecture is not None
    return outcome.architecture.metrics["default"]


def at_equal_latency(outcomes: list[Outcome], weight_key: str = Rules().weight_key) -> list[Outcome]:
    """Select one of all trials that differ only in the latency weight: the one nearest to the budget.

    Args:
        outcomes: Outcomes of all trials of an experiment.
        weight_key: Name of the parameter that holds the latency weight.

    Returns:
        For each combination of the other parameters, the outcome whose expected latency is nearest to the budget.
    """
    runs: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.architecture is not None:
            others = {key: value for key, value in outcome.parameters.items() if key != weight_key}
            runs.setdefault(json.dumps(others, sort_keys=True, default=str), []).append(outcome)

    def distance(outcome: Outcome) -> float:
        assert outcome.architecture is not None
        return distance_to_budget(outcome.parameters, outcome.architecture.metrics)

    return [min(listed, key=distance) for listed in runs.values()]


def write_summary(rows: list[dict[str, str]], path: Path) -> Path:
    """Write the summary as CSV."""
    return write_csv(path, COLUMNS, rows)


def table_rows(rows: list[dict[str, str]]) -> list[list[str]]:
    """Return the rows of the summary as a table, heading first, without columns that are empty in all rows."""
    shown = [column for column in COLUMNS if any(row[column] for row in rows)]
    return [shown, *([row[column] for column in shown] for row in rows)]


def format_table(rows: list[dict[str, str]]) -> str:
    """Format the summary as aligned text; see `table_rows`."""
    return "\n".join(aligned(table_rows(rows)))
