"""The warnings of a report, which a reader should see first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..deploy.exported import is_lossy
from ..latency.difference import difference_warning
from ..latency.judgement import unknown_backend, warnings_of
from . import tables
from .results import Results, Trained
from .verdict import Line


def warnings_to_show(results: Results, lines: Sequence[Line]) -> list[str]:
    """Return the warnings about budgets, predictions, tables, searches, trainings, exports and damaged files.

    Args:
        results: Results to report.
        lines: Rows of the verdict.
    """
    outside = [line for line in lines if line.budgets_hold is False]
    found = [f"{line.name}: the network is not within its budgets ({line.budget_text})" for line in outside]
    told: dict[str, dict[str, None]] = {}  # warnings, and the names that each is about
    for name, text in (*_of_predictions(results, lines), *_of_searches(results), *_of_trainings(results, lines)):
        told.setdefault(text, {})[name] = None
    found += [f"{', '.join(names)}: {text}" for text, names in told.items()]
    found += [f"{name}: {text}" for name, text in _of_exports(results)]
    return [*found, *(f"not read: {problem}" for problem in results.problems)]


def _of_predictions(results: Results, lines: Sequence[Line]) -> Iterator[tuple[str, str]]:
    """Of predictions that are more than 10 % off. Searches of early versions and baselines have no warning of it."""
    rows = [row for row in tables.predicted_and_measured(results) if row["what"] == "network"]
    latencies = [(str(row["name"]), row["predicted_latency_ms"], row["measured_latency_ms"]) for row in rows]
    for line in lines:
        name = f"{line.name} on {line.target}" if line.kind == "baseline" else line.name
        latencies.append((name, line.predicted_ms, line.measured_ms))
    for name, predicted, measured in latencies:
        text = difference_warning(predicted, measured)
        if text is not None:
            yield name, text


def _of_searches(results: Results) -> Iterator[tuple[str, str]]:
    for search in results.searches:
        of_table = () if search.table is None else (*warnings_of(search.table), *unknown_backend(search.table))
        yield from ((search.name, text) for text in (*search.warnings, *of_table))


def _of_trainings(results: Results, lines: Sequence[Line]) -> Iterator[tuple[str, str]]:
    for trained in results.trained:
        listed = trained.card.get("warnings")
        yield from ((trained.name, str(text)) for text in (listed if isinstance(listed, list) else ()))
    for line in lines:
        if line.trained is not None and line.kind != "baseline" and results.baselines and _inherits(line.trained):
            yield line.trained.name, "it started from inherited weights, and the baselines from random ones"


def _inherits(trained: Trained) -> bool:
    weights = trained.card.get("weights")
    return isinstance(weights, Mapping) and weights.get("inherited_from") is not None


def _of_exports(results: Results) -> Iterator[tuple[str, str]]:
    yield from ((f"{row['name']}, {row['what']}", text) for row, text in tables.differing_exports(results))
    for name, content in results.exports.items():
        for one in content["formats"]:
            agreement, loss = one["agreement"], one["accuracy_loss"]
            if is_lossy(agreement, loss):
                agrees = "" if agreement is None else f"agrees with PyTorch on {100 * agreement:.1f} % of the images"
                lost = "" if loss is None else f"loses {100 * loss:.1f} points of accuracy"
                text = " and ".join(filter(None, (agrees, lost)))
                yield f"{name}, {one['file']}", f"the file {text}, so the test accuracy is not that of this file"
