"""The page of a report. Its figures and CSV files are written next to it."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import OF_THE_MACHINE, InputError, RunError
from ..files.writing import write_atomically, write_csv, write_text
from ..latency import this_device
from ..report import figures, tables
from .gather import Results, Search

PAGE = "report.html"


@dataclass
class Section:
    """A section of the page.

    Attributes:
        key: Name of the section's anchor and of its CSV file.
        title: Heading.
        text: Paragraphs.
        pictures: Mapping from the name of each figure to its PNG.
        rows: Rows of the table, which is written as a CSV file and shown on the page.
        shown: Whether the page shows the table. If not, it is only in the CSV file.
    """

    key: str
    title: str
    text: list[str] = field(default_factory=list)
    pictures: dict[str, bytes] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] = ()
    shown: bool = True


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
    figures.require_matplotlib()
    folder = out or results.folder / "report"
    try:
        folder.mkdir(parents=True, exist_ok=True)  # measuring and drawing take their time
    except OSError as reason:
        raise _not_written(folder, reason) from reason
    parts = sections(results, baseline_latencies(results, measure))
    page = render(results, parts)
    try:
        for part in parts:
            for name, png in part.pictures.items():
                write_atomically(folder / f"{name}.png", partial(_write_bytes, content=png))
            if part.rows:
                write_csv(folder / f"{part.key}.csv", list(part.rows[0]), part.rows)
        return write_text(folder / PAGE, page)
    except OSError as reason:
        raise _not_written(folder, reason) from reason


def _not_written(folder: Path, reason: OSError) -> InputError | RunError:
    why = "it is a file" if isinstance(reason, FileExistsError) else reason.strerror or reason
    text = f"cannot write the report into {folder}: {why}"
    if reason.errno in OF_THE_MACHINE:
        return RunError(text)
    return InputError(f"{text}; choose another folder with --out")


def baseline_latencies(results: Results, measure: bool) -> dict[tuple[str, str], float | None]:
    """Measure the latency of each baseline on each target.

    Args:
        results: Results to report.
        measure: Whether measuring is allowed.

    Returns:
        Latency in milliseconds by name of the baseline and name of the target. It is `None` if it cannot be measured
        here, or if measuring is not allowed. Targets that their recipe does not describe are absent.
    """
    found: dict[tuple[str, str], float | None] = {}
    for trained in results.trained:
        if trained.is_baseline:
            for target in results.targets:
                recipe = next(search.recipe for search in results.searches if search.target == target)
                described = recipe["targets"].get(target)
                if described:
                    found[trained.name, target] = tables.baseline_latency(trained, described, target, measure)
    return found


def sections(results: Results, baselines: Mapping[tuple[str, str], float | None]) -> list[Section]:
    """Return all sections of the page that have any content."""
    made = [
        _architectures(results),
        _accuracy(results, baselines),
        _cross_table(results),
        _progress(results),
        _predictions(results),
        _costs(results),
    ]
    return [part for part in made if part.pictures or part.rows or part.text]


def _architectures(results: Results) -> Section:
    part = Section("architectures", "Architectures")
    best = [search for target in results.targets if (search := results.best(target)) is not None]
    drawn = [(_title(results, search), rows) for search in best if (rows := tables.drawn_blocks(search))]
    part.rows, part.shown = [row for _, rows in drawn for row in rows], False
    if drawn:
        _say_if_cut(part, len(drawn), figures.MOST_DRAWN, "networks")
        part.pictures["architectures"] = figures.architectures(drawn[: figures.MOST_DRAWN])
        finished = sum(not search.running for search in results.searches)
        if finished > len(drawn):
            part.text.append(f"Of {finished} finished searches, the most accurate network of each target is drawn.")
    missing = [target for target in results.targets if target not in {search.target for search in best}]
    if missing:
        part.text.append(f"Still searching, nothing decoded yet: {', '.join(missing)}.")
    return part


def _accuracy(results: Results, baselines: Mapping[tuple[str, str], float | None]) -> Section:
    part = Section("accuracy_latency", "Accuracy against latency")
    known = tables.points(results, baselines)
    if known:
        _say_if_cut(part, len(results.targets), figures.MOST_DRAWN, "targets")
        part.pictures["accuracy_latency"] = figures.accuracy_against_latency(
            known, results.targets[: figures.MOST_DRAWN]
        )
        part.rows = [point.row() for point in known]
        part.text.append(
            "Filled markers: retrained networks, evaluated on held-out images. Hollow markers: networks with the "
            "supernet's weights, whose accuracy is a weaker sign of what they reach when retrained. The lines join "
            "the Pareto-optimal networks of each kind."
        )
        if not any(trained.is_baseline for trained in results.trained):
            part.text.append(
                "No baseline has been trained yet. This command adds MobileNetV2 with width multiplier 0.5, if FOLDER "
                "is below the folder of these results: nni-proxyless retrain mobilenet_v2_0.5 space=SPACE data=DATA "
                "--output FOLDER"
            )
    return part


def _cross_table(results: Results) -> Section:
    part = Section("cross_table", "Each network on each target")
    part.rows = tables.cross_table(results)
    if part.rows:
        part.text = [
            "Latencies in milliseconds, predicted from each target's latency table.",
            *tables.own_is_fastest(part.rows),
        ]
    return part


def _progress(results: Results) -> Section:
    part = Section("progress", "How the searches went")
    if results.searches:
        part.pictures["progress"] = figures.progress(results)
        part.rows = [{"search": s.name, **row} for s in results.searches for row in s.history]
        part.rows = _same_columns(part.rows)
        part.shown = False
    chosen = list(_shown_maps(results))
    most_layers = max((len({row["layer"] for row in search.probabilities}) for search in chosen), default=0)
    _say_if_cut(part, most_layers, figures.MOST_PANELS, "layers")
    for number, search in enumerate(chosen, start=1):
        name = f"probabilities_{search.name.replace('/', '_')[:100]}"
        part.pictures[name if name not in part.pictures else f"{name}_{number}"] = figures.heat_map(search)
    with_probabilities = sum(bool(search.probabilities) for search in results.searches)
    if len(chosen) < with_probabilities:
        part.text.append(
            "The heat maps show the candidates' probabilities over the epochs for the best search of each target "
            f"({len(chosen)} of {with_probabilities} searches). Those of the other searches are in their "
            "probabilities.csv."
        )
    return part


def _say_if_cut(part: Section, count: int, most: int, what: str) -> None:
    if count > most:
        part.text.append(f"The first {most} of {count} {what} are drawn.")


def _shown_maps(results: Results, most: int = 6) -> list[Search]:
    with_probabilities = [search for search in results.searches if search.probabilities]
    if len(with_probabilities) <= most:
        return with_probabilities
    best = [results.best(target) for target in results.targets]
    return [search for search in best if search is not None and search.probabilities]


def _predictions(results: Results) -> Section:
    part = Section("predicted_measured", "Predicted and measured latency")
    part.rows = tables.predicted_and_measured(results)
    if part.rows:
        part.pictures["predicted_measured"] = figures.predicted_against_measured(part.rows)
    return part


def _costs(results: Results) -> Section:
    return Section("cost", "What it cost", rows=tables.costs(results))


def _title(results: Results, search: Search) -> str:
    found = search.architecture
    assert found is not None
    trained = results.retrained(search)
    accuracy = (
        f"{100 * results.accuracy(search):.1f} %{' retrained' if trained else ' with the weights of the supernet'}"
    )
    latency = f"{found.predicted_latency_ms:.3g} ms" if found.predicted_latency_ms is not None else "latency unknown"
    return (
        f"{search.target} ({search.strategy}): {latency}, {accuracy}, {found.multiply_adds / 1e6:.1f} M multiply-adds"
    )


def _same_columns(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    columns = dict.fromkeys(key for row in rows for key in row)
    return [{key: row.get(key, "") for key in columns} for row in rows]


def render(results: Results, parts: Sequence[Section]) -> str:
    """Render the HTML page with all figures embedded.

    Raises:
        MissingDependencyError: Jinja is not installed.
    """
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("nni_proxyless", "report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["shown"] = _shown
    device = this_device()
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="minutes")
    running = sum(search.running for search in results.searches)
    counts = f"{len(results.searches)} searches" + (f", {running} of them running" if running else "")
    return environment.get_template("page.html.j2").render(
        title=f"nni-proxyless: {results.title}",
        subtitle=f"{counts}, {len(results.trained)} retrained networks; made {now} by nni-proxyless {__version__} on "
        f"{device.name} ({device.processor})",
        warnings=[
            *(f"{search.name}: {text}" for search in results.searches for text in search.warnings),
            *(f"{row['name']}, {row['what']}: {text}" for row, text in tables.differing_exports(results)),
            *(f"not read: {problem}" for problem in results.problems),
        ],
        sections=[
            {
                "key": part.key,
                "title": part.title,
                "text": part.text,
                "pictures": [
                    {"alt": name.replace("_", " "), "data": base64.b64encode(png).decode()}
                    for name, png in part.pictures.items()
                ],
                "columns": list(part.rows[0]) if part.rows and part.shown else [],
                "rows": part.rows if part.shown else [],
                "csv": f"{part.key}.csv" if part.rows else "",
            }
            for part in parts
        ],
    )


def _shown(value: Any, column: str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    if column == "error":
        return f"{100 * value:+.1f} %"
    return f"{value:.4f}" if column == "accuracy" else f"{value:.4g}"


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)
