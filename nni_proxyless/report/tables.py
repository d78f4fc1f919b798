"""The numbers of a report as plain rows, from which its figures, tables and CSV files are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..deploy.describe import blocks
from ..errors import ProxylessError
from ..latency import LatencyTable, this_device
from ..latency.difference import difference_warning, relative_error
from ..search.targets import Target
from .checks import latency_of
from .kept_budgets import KEPT, NOT_KEPT, all_constraints, value_of
from .results import Results, Search, Trained

SAME_CLASS = 0.01  # in accuracy: a rival of the same class is at most this much less accurate
EQUALLY_FAST = 0.01  # as a fraction of the latency: a rival that is faster by no more than this counts as equally fast
TEST, HELD_OUT, SHARED = "test images", "held-out images", "held-out images, with the weights of the supernet"
Row = dict[str, Any]


@dataclass(frozen=True)
class Point:
    """The latency and accuracy of one network on one target.

    Attributes:
        target: Target of the latency.
        kind: Strategy that found the network; for a baseline, the name of the network, such as `mobilenet_v2_0.5`.
        name: Path of the network's folder, relative to the results.
        latency_ms: Latency in milliseconds, measured if possible, otherwise predicted.
        measured: Whether the latency was measured.
        accuracy: Top-1 accuracy between 0 and 1.
        accuracy_on: Images that the accuracy was evaluated on: `test images` or `held-out images`.
        trained: Whether the accuracy is that of the retrained network, rather than with the supernet's weights.
        baseline: Whether the network is a baseline.
    """

    target: str
    kind: str
    name: str
    latency_ms: float
    measured: bool
    accuracy: float
    accuracy_on: str
    trained: bool
    baseline: bool = False

    def row(self) -> Row:
        return dict(vars(self))


def drawn_blocks(search: Search) -> list[Row]:
    """Return one row for each block of the network that a search found, for the figure of architectures."""
    if search.architecture is None or search.architecture.spec is None:
        return []
    try:
        listed = blocks(search.architecture, search.table)
    except ProxylessError:  # the table is of another space and lacks operators of this network
        listed = blocks(search.architecture)
    rows = []
    for position, block in enumerate(listed):
        op = block.operator
        rows.append(
            {
                "target": search.target,
                "search": search.name,
                "position": position,
                "block": block.name,
                "stage": block.stage,
                "kind": "skip" if op is None else op.kind,
                "kernel": "" if op is None else op.kernel,
                "expansion": "" if op is None else op.expansion,
                "stride": "" if op is None else op.stride,
                "width": "" if op is None else op.output_shape[0],
                "size": "" if op is None else _size(*op.output_shape[1:]),
                "latency_ms": "" if block.latency_ms is None else block.latency_ms,
            }
        )
    return rows


def _size(height: int, width: int) -> int | str:
    return height if height == width else f"{height} x {width}"


def baseline_latency(trained: Trained, target: Mapping[str, Any], name: str, measure: bool) -> float | None:
    """Measure the latency of a baseline on a target that is this machine.

    Args:
        trained: Baseline.
        target: Description of the target in the recipe of a search.
        name: Name of the target.
        measure: Whether measuring is allowed.

    Returns:
        Latency in milliseconds, or `None` if the target is another machine, or if measuring fails or is not allowed.
        A target with the backend `command` is never measured: the recipe may come from somebody else, and a report must
        not start a program of theirs.
    """
    if not measure or target.get("backend") == "command":
        return None
    try:
        return Target.parse(name, dict(target), trained.folder).measure(trained.architecture)
    except ProxylessError:
        return None


def is_here(table: LatencyTable | None) -> bool:
    """Whether latencies that are measured here can be compared with those of a table: the processor is the same."""
    return table is None or table.device.processor == this_device().processor


def points(results: Results, baselines: Mapping[tuple[str, str], float | None]) -> list[Point]:
    """List the networks that searches found, their retrainings, and the baselines whose latency is known.

    Args:
        results: Results to report.
        baselines: Measured latency in milliseconds by name of the baseline and name of the target.
    """
    found = []
    for search in results.searches:
        architecture = search.architecture
        latency, measured = search.latency_ms, False
        if architecture is not None and (known := latency_of(architecture.measured_latency_ms)) is not None:
            latency, measured = known, True
        of = (search.target, search.strategy)
        found.append(Point(*of, search.name, latency, measured, search.accuracy, HELD_OUT, False))
        trained = results.retrained(search)
        if trained is not None:
            found.append(Point(*of, trained.name, latency, measured, *_shown_accuracy(trained), True))
    for one in results.baselines:
        for target in filter(one.is_of, results.targets):
            time = baselines.get((one.name, target))
            latency_ms = value_of(results, one.architecture, target) if time is None else time
            if latency_ms is not None:
                of_kind = (target, one.kind, one.name, latency_ms, time is not None)
                found.append(Point(*of_kind, *_shown_accuracy(one), True, True))
    return sorted(found, key=lambda p: (results.targets.index(p.target), p.baseline, p.latency_ms, p.name))


def _shown_accuracy(trained: Trained) -> tuple[float, str]:
    """Return the test accuracy, or without a test part the held-out accuracy, and the images that it is of."""
    test = trained.test_accuracy
    return (trained.accuracy, HELD_OUT) if test is None else (test, TEST)


def front(of_target: Sequence[Point]) -> list[Point]:
    """Return the Pareto front of the networks of a target in latency and accuracy, the fastest network first."""
    kept: list[Point] = []
    for point in sorted(of_target, key=lambda p: (p.latency_ms, -p.accuracy)):
        if not kept or point.accuracy > kept[-1].accuracy:
            kept.append(point)
    return kept


def cross_table(results: Results) -> list[Row]:
    """Predict the latency, in milliseconds, of each network by every target's latency table.

    If searches had budgets, there is a column for each budget, which says whether the network meets it, and a column
    for each quantity with a budget. The accuracies of all networks are of the same kind, which `accuracy_on` names.
    Baselines have no target.
    """
    constraints = all_constraints(results)
    quantities = list(dict.fromkeys([*results.targets, *(constraint.name for constraint in constraints)]))
    searches = [search for search in results.chosen if search.architecture and search.architecture.spec]
    kind = _common_kind(results, searches)
    named: list[tuple[str, str, Any, Any]] = [
        (search.target, search.name, _of_kind(results, search, kind), search.architecture) for search in searches
    ]
    for baseline in results.baselines if searches else ():
        accuracy = {TEST: baseline.test_accuracy, HELD_OUT: baseline.accuracy}.get(kind)
        named.append(("", baseline.name, accuracy, baseline.architecture))
    rows = []
    for target, name, accuracy, architecture in named:
        values = {quantity: value_of(results, architecture, quantity) for quantity in quantities}
        row: Row = {"found_for": target, "search": name, "accuracy": _or_empty(accuracy), "accuracy_on": kind}
        row |= {quantity: _or_empty(value) for quantity, value in values.items()}
        for constraint in constraints:
            value = values[constraint.name]
            row[constraint.label] = "" if value is None else KEPT if constraint.keeps(value) else NOT_KEPT
        rows.append(row)
    return rows


def _common_kind(results: Results, searches: Sequence[Search]) -> str:
    """Return the best kind of accuracy that the networks of all searches have."""
    trained = [results.retrained(search) for search in searches]
    if any(one is None for one in trained):
        return SHARED
    return TEST if all(one is not None and one.test_accuracy is not None for one in trained) else HELD_OUT


def _of_kind(results: Results, search: Search, kind: str) -> float | None:
    trained = results.retrained(search)
    if trained is None or kind == SHARED:
        return search.accuracy
    return trained.test_accuracy if kind == TEST else trained.accuracy


def own_is_fastest(rows: Sequence[Row]) -> list[str]:
    """State for each network, in one sentence, whether it is the fastest of its accuracy class on its target.

    Nothing is stated about a network without another target's network or a baseline to compare it with. Accuracies with
    the weights of different supernets are too noisy for a comparison, so they get one sentence that says so.

    Args:
        rows: Rows of `cross_table`.
    """
    if any(row.get("accuracy_on") == SHARED for row in rows):
        if len({row["found_for"] for row in rows}) < 2:
            return []
        return [
            "Not all networks are retrained. The accuracies are those with the weights of the searches, which are too "
            "noisy to compare networks of different searches. Retrain the networks first."
        ]
    sentences = []
    for row in rows:
        target = row["found_for"]
        own = row.get(target, "")
        if own == "":
            continue
        several = sum(other["found_for"] == target for other in rows) > 1
        which = f" ({row['search']})" if several else ""
        others = [
            other for other in rows if other["found_for"] != target and other[target] != "" and other["accuracy"] != ""
        ]
        if not others:
            continue
        alike = [other for other in others if other["accuracy"] >= row["accuracy"] - SAME_CLASS]
        rivals = [other for other in alike if other[target] < own * (1 - EQUALLY_FAST)]
        if rivals:
            named = ", ".join(
                f"that of {r['found_for'] or r['search']} ({r[target]:.4g} ms, accuracy {r['accuracy']:.4f})"
                for r in rivals
            )
            sentences.append(
                f"{target}: another network is faster than its own{which} at about the same accuracy. Its own takes "
                f"{own:.4g} ms at accuracy {row['accuracy']:.4f}. Faster: {named}."
            )
        elif not alike:
            sentences.append(
                f"{target}: all others are over {100 * SAME_CLASS:g} percentage point less accurate than its own "
                f"network{which}, which takes {own:.4g} ms at accuracy {row['accuracy']:.4f}."
            )
        else:
            sentences.append(
                f"{target}: its own network{which} is the fastest, or equally fast, of those that are at most "
                f"{100 * SAME_CLASS:g} percentage point less accurate ({own:.4g} ms)."
            )
    return sentences


def predicted_and_measured(results: Results) -> list[Row]:
    """List the networks and exported files whose latency was both predicted and measured."""
    rows = [
        _latencies(
            search.target, search.name, "network",
            latency_of(found.predicted_latency_ms), latency_of(found.measured_latency_ms),
        )
        for search in results.searches
        if (found := search.architecture) is not None
    ]  # fmt: skip
    for name, content in results.exports.items():
        rows += [
            _latencies(
                str(content.get("target")),
                name,
                str(one["file"]),
                one["predicted_latency_ms"],
                one["measured_latency_ms"],
            )
            for one in content.get("formats", ())
        ]
    known = [row for row in rows if row["predicted_latency_ms"] is not None and row["measured_latency_ms"] is not None]
    targets = [*results.targets, *(row["target"] for row in known)]
    return sorted(known, key=lambda row: (targets.index(row["target"]), row["name"], row["what"] != "network"))


def differing_exports(results: Results) -> list[tuple[Row, str]]:
    """List the exported files whose prediction is more than 10 % off, each with a warning."""
    rows = [row for row in predicted_and_measured(results) if row["what"] != "network"]
    told = [(row, difference_warning(row["predicted_latency_ms"], row["measured_latency_ms"])) for row in rows]
    return [(row, text) for row, text in told if text is not None]


def _latencies(target: str, name: str, what: str, predicted: float | None, measured: float | None) -> Row:
    error = relative_error(predicted, measured) if predicted and measured else None
    return {
        "target": target,
        "name": name,
        "what": what,
        "predicted_latency_ms": predicted,
        "measured_latency_ms": measured,
        "error": error,
    }


def costs(results: Results) -> list[Row]:
    """List the time, memory and steps of each search and each retraining."""
    rows = []
    for search in results.searches:
        cost = search.cost
        rows.append(
            {
                "what": f"search {search.name}" + (" (not finished)" if search.unfinished else ""),
                "epochs": cost.get("epochs") or len(search.history),
                "seconds": cost.get("seconds") or search.history[-1].get("seconds", ""),
                "peak_memory_mib": _or_empty(cost.get("peak_memory_mib")),
                "weight_steps": _or_empty(cost.get("weight_steps")),
                "architecture_steps": _or_empty(cost.get("architecture_steps")),
                "machine": _machine(cost.get("machine")),
            }
        )
    for trained in results.trained:
        cost = trained.card["cost"]
        rows.append(
            {
                "what": f"retraining {trained.name}",
                "epochs": _or_empty(cost.get("epochs")),
                "seconds": _or_empty(cost.get("seconds")),
                "peak_memory_mib": _or_empty(cost.get("peak_memory_mib")),
                "weight_steps": "",
                "architecture_steps": "",
                "machine": _machine(cost.get("machine")),
            }
        )
    return rows


def _machine(device: Mapping[str, Any] | None) -> str:
    return "" if not device else f"{device['processor']}, {device['cores']} cores"


def _or_empty(value: Any) -> Any:
    return "" if value is None else value
