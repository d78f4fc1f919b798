"""The sections of a report, and the files next to its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..decoding.budgets import QUANTITIES
from ..errors import OF_THE_MACHINE, InputError, RunError
from ..files import results_folder
from ..files.writing import write_atomically, write_csv, write_text
from . import course_figures, figures, tables
from .checks import latency_of, number_of
from .drawing import Picture, require_matplotlib, to_png, to_svg
from .headings import heading
from .kept_budgets import all_constraints
from .render import Drawn, Section, address, render
from .results import RANDOM_BASELINE, Results, Search
from .verdict import Latencies, verdict
from .warnings import warnings_to_show

PAGE = "report.html"
_MOST_MAPS = 6


def make_report(results: Results, out: Path | None = None, *, measure: bool = True) -> Path:
    """Write the self-contained page `report.html`, and its figures and CSV files next to it.

    Args:
        results: Results to report.
        out: Folder of the report. The default is `report` in the folder of the results.
        measure: Whether to measure the latency of baselines on targets that are this machine.

    Returns:
        Path of the page.

    Raises:
        MissingDependencyError: Matplotlib or Jinja is not installed.
        InputError: The folder cannot be written.
        RunError: The disk is full.
    """
    require_matplotlib()
    folder = out or results.folder / "report"
    try:
        folder.mkdir(parents=True, exist_ok=True)  # measuring and drawing take their time
    except OSError as reason:
        raise _not_written(folder, reason) from reason
    baselines = baseline_latencies(results, measure)
    lines = verdict(results, baselines)
    parts = sections(results, baselines, folder)
    drawn = {picture.name: draw(picture) for part in parts for picture in part.pictures}
    page = render(results, lines, warnings_to_show(results, lines), parts, drawn, folder)
    try:
        for name, one in drawn.items():
            write_atomically(folder / f"{name}.png", partial(_write_bytes, content=one.png))
        for key, rows in [("verdict", [line.row() for line in lines]), *((part.key, part.rows) for part in parts)]:
            if rows:
                write_csv(folder / f"{key}.csv", list(rows[0]), rows)
        return write_text(folder / PAGE, page)
    except OSError as reason:
        raise _not_written(folder, reason) from reason


def draw(picture: Picture) -> Drawn:
    """Draw a picture as SVG for the page, and as PNG for the file beside it."""
    key = "".join(c if c.isascii() and c.isalnum() else "_" for c in picture.name)
    panels = [to_svg(panel, f"{key}-{number}") for number, panel in enumerate(picture.panels, start=1)]
    legend = "" if picture.legend is None else to_svg(picture.legend, f"{key}-legend")
    return Drawn(panels, legend, to_png(picture))


def _not_written(folder: Path, reason: OSError) -> InputError | RunError:
    why = "it is a file" if isinstance(reason, FileExistsError) else reason.strerror or reason
    text = f"cannot write the report into {folder}: {why}"
    if reason.errno in OF_THE_MACHINE:
        return RunError(text)
    return InputError(f"{text}; choose another folder with --out")


def baseline_latencies(results: Results, measure: bool) -> dict[tuple[str, str], float | None]:
    """Measure the latency of each baseline on each target that it is compared on.

    Args:
        results: Results to report.
        measure: Whether measuring is allowed.

    Returns:
        Latency in milliseconds by name of the baseline and name of the target. It is `None` if it cannot be measured
        here, or if measuring is not allowed. Targets that their recipe does not describe are absent.
    """
    found: dict[tuple[str, str], float | None] = {}
    for trained in results.baselines:
        for target in filter(trained.is_of, results.targets):
            known = latency_of(trained.architecture.measured_latency_ms)
            if trained.architecture.strategy == RANDOM_BASELINE and known is not None:
                found[trained.name, target] = known
                continue
            recipe = next(search.recipe for search in results.searches if search.target == target)
            described = recipe["targets"].get(target)
            if described:
                here = measure and tables.is_here(results.table(target))
                found[trained.name, target] = tables.baseline_latency(trained, described, target, here)
    return found


def sections(results: Results, baselines: Latencies, folder: Path) -> list[Section]:
    """Return all sections of the page that have any content.

    Args:
        results: Results to report.
        baselines: Measured latency in milliseconds by name of the baseline and name of the target.
        folder: Folder of the page.
    """
    made = [
        _accuracy(results, baselines),
        _architectures(results),
        _cross_table(results),
        _fronts(results, folder),
        _predictions(results),
        _progress(results, folder),
        _costs(results),
    ]
    return [part for part in made if part.pictures or part.rows or part.text]


def _architectures(results: Results) -> Section:
    part = Section("architectures", "Architectures")
    drawn = [(_title(results, search), rows) for search in results.chosen if (rows := tables.drawn_blocks(search))]
    part.rows, part.shown = [row for _, rows in drawn for row in rows], False
    if drawn:
        _say_if_cut(part, len(drawn), figures.MOST_DRAWN, "networks")
        part.pictures.append(figures.architectures(drawn[: figures.MOST_DRAWN], results.targets))
        finished = sum(search.architecture is not None for search in results.searches)
        if finished > len(drawn):
            part.text.append(f"Of {finished} finished searches, the best network of each target and budget is drawn.")
    missing = [target for target in results.targets if target not in {search.target for search in results.chosen}]
    if missing:
        part.text.append(f"There is no network to draw for {', '.join(missing)}.")
    return part


def _accuracy(results: Results, baselines: Latencies) -> Section:
    part = Section("accuracy_latency", "Accuracy against latency")
    known = tables.points(results, baselines)
    if known:
        _say_if_cut(part, len(results.targets), figures.MOST_DRAWN, "targets")
        shown = results.targets[: figures.MOST_DRAWN]
        part.pictures.append(figures.accuracy_against_latency(known, shown, results.targets))
        part.rows, part.folded = [point.row() for point in known], True
        part.text.append(
            "Filled markers are retrained networks. Hollow markers are networks with the supernet's weights. Their "
            "accuracy on held-out images says less about their accuracy after a retraining. The lines join the "
            "Pareto-optimal networks of each kind."
        )
        unknown = [
            f"{one.name} on {target}"
            for one in results.baselines
            for target in filter(one.is_of, results.targets)
            if (one.name, target) not in {(point.name, point.target) for point in known}
        ]
        if unknown:
            part.text.append(f"Baselines without a known latency are not drawn: {', '.join(unknown)}.")
        trained = [point for point in known if point.trained]
        without = list(dict.fromkeys(point.name for point in trained if point.accuracy_on == tables.HELD_OUT))
        if without:
            which = "" if len(without) == len({point.name for point in trained}) else f" of {', '.join(without)}"
            part.text.append(
                f"The data{which} have no test part. The held-out images chose the best epoch of each retraining, so "
                "these accuracies are slightly too high."
            )
    return part


def _cross_table(results: Results) -> Section:
    part = Section("cross_table", "Each network on each target", hidden=("accuracy_on",))
    part.rows = tables.cross_table(results)
    if part.rows:
        devices = [*results.targets, *(c.name for c in all_constraints(results) if c.name not in QUANTITIES)]
        part.headings = {column: heading(column, devices) for column in part.rows[0]}
        budgets = " The last columns say which budgets a network meets, as predicted or computed."
        has_budgets = any(" <= " in column for column in part.rows[0])
        part.text = [
            "Latencies in milliseconds, predicted from each target's latency table. The accuracies are those on "
            f"{part.rows[0]['accuracy_on']}.{budgets if has_budgets else ''}",
            *tables.own_is_fastest(part.rows),
        ]
    return part


def _fronts(results: Results, folder: Path) -> Section:
    part = Section("fronts", "Fronts")
    _say_if_cut(part, len(results.fronts), figures.MOST_DRAWN, "fronts")
    for front, picture in zip(results.fronts, figures.fronts(results.fronts, results.targets), strict=False):
        part.pictures.append(picture)
        picture.source.append((front.name, address(front.path, folder)))
    if part.pictures:
        part.text.append("Each point is a network that no other network of its front dominates.")
    return part


def _progress(results: Results, folder: Path) -> Section:
    part = Section("progress", "Progress of the searches")
    if results.searches:
        part.pictures.append(course_figures.progress(results))
        part.rows = [{"search": s.name, **row} for s in results.searches for row in s.history]
        part.rows = _same_columns(part.rows)
        part.shown = False
    chosen = _shown_maps(results)
    most_layers = max((len({row["layer"] for row in search.probabilities}) for search in chosen), default=0)
    _say_if_cut(part, most_layers, course_figures.MOST_PANELS, "layers")
    epochs = [int(row["epoch"]) for search in chosen for row in search.probabilities]
    known: set[str] = set()
    for number, search in enumerate(chosen, start=1):
        name = f"probabilities_{search.name.replace('/', '_')[:100]}"
        name = name if name not in known else f"{name}_{number}"
        known.add(name)
        picture = course_figures.heat_map(search, (min(epochs), max(epochs)), name)
        picture.source.append((results_folder.PROBABILITIES, address(search.folder / "probabilities.csv", folder)))
        part.pictures.append(picture)
    if chosen and any(number_of(row.get("temperature")) not in (None, 1.0) for s in chosen for row in s.history):
        part.text.append(
            "The heat maps show the probabilities at temperature 1. In the last epochs, a search trains at a lower "
            "temperature, at which they are sharper. Entropy and expected latency refer to that temperature."
        )
    with_probabilities = sum(bool(search.probabilities) for search in results.searches)
    if len(chosen) < with_probabilities:
        part.text.append(
            "The heat maps show the candidates' probabilities over the epochs for the best search of each target and "
            f"budget ({len(chosen)} of {with_probabilities} searches). Those of the other searches are in their "
            "probabilities.csv."
        )
    return part


def _say_if_cut(part: Section, count: int, most: int, what: str) -> None:
    if count > most:
        part.text.append(f"The first {most} of {count} {what} are drawn.")


def _shown_maps(results: Results) -> list[Search]:
    with_probabilities = [search for search in results.searches if search.probabilities]
    if len(with_probabilities) <= _MOST_MAPS:
        return sorted(with_probabilities, key=lambda search: results.targets.index(search.target))
    return [search for search in results.chosen if search.probabilities]


def _predictions(results: Results) -> Section:
    part = Section("predicted_measured", "Predicted and measured latency", headings={"target": "found for"})
    part.rows = tables.predicted_and_measured(results)
    if part.rows:
        part.pictures.append(figures.predicted_against_measured(part.rows, results.targets))
    return part


def _costs(results: Results) -> Section:
    return Section("cost", "What it cost", rows=tables.costs(results))


def _title(results: Results, search: Search) -> str:
    found = search.architecture
    assert found is not None
    trained = results.retrained(search)
    if trained is None:
        accuracy = f"{100 * search.accuracy:.1f} % held-out, supernet weights"
    elif trained.test_accuracy is None:
        accuracy = f"{100 * trained.accuracy:.1f} % held-out, retrained"
    else:
        accuracy = f"{100 * trained.test_accuracy:.1f} % test, retrained"
    latency = f"{found.predicted_latency_ms:.3g} ms" if found.predicted_latency_ms is not None else "latency unknown"
    return (
        f"{search.target} ({search.strategy})\n{latency}, {accuracy}, {found.multiply_adds / 1e6:.1f} M multiply-adds"
    )


def _same_columns(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    columns = dict.fromkeys(key for row in rows for key in row)
    return [{key: row.get(key, "") for key in columns} for row in rows]


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)
