"""Fronts in two or three quantities, which `decode --front` writes: a CSV file, architecture files and a picture."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, MissingDependencyError
from .decode_tables import HINT, named_tables
from .outputs import output_file
from .parser import Once
from .terminal import write_lines

if TYPE_CHECKING:
    from ..decoding.budgets import Limit
    from ..decoding.checkpoint import SearchCheckpoint
    from ..decoding.pareto_front import FrontNetwork
    from ..latency.table import LatencyTable

POINTS = 200  # architecture files of a front, if the user does not choose their number
ACCURACY = "accuracy"
_FILE, _PICTURE = "front.csv", "front.png"
_NETWORK = re.compile(r"network_\d+\.json")


class FileOrQuantities(Once):
    """Stores one word as the file of `--front`, and several as its quantities."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        super().__call__(parser, namespace, values, option)
        if len(values) > 1:
            namespace.front, namespace.quantities = None, tuple(values)
            return
        try:
            namespace.front = output_file(values[0])
        except argparse.ArgumentTypeError as reason:
            raise argparse.ArgumentError(self, str(reason)) from reason


def decode_front(options: argparse.Namespace, limits: Sequence[Limit]) -> int:
    """Write the front in the quantities of `--front`, within the budgets.

    The folder `--out` gets `front.csv` with all networks of the front, an architecture file for each of them, or for
    `--points` of them that are spread over the front, and a picture if Matplotlib is installed.
    """
    from ..decoding.checkpoint import SearchCheckpoint, checkpoint_file, within_budgets
    from ..decoding.pareto_front import spread
    from ..files.writing import write_csv

    costs = [name for name in options.quantities if name not in ("likelihood", ACCURACY)]
    given = named_tables(options.table, options.checkpoint, [*costs, *(limit.name for limit in limits)])
    names = tuple(given.name(name) for name in options.quantities)
    limits = [replace(limit, name=given.name(limit.name)) for limit in limits]
    _check(options, names, limits, list(given.files))
    checkpoint_file(options.checkpoint)
    tables = given.load()
    found = SearchCheckpoint.load(options.checkpoint)
    networks, held_out = _front(found, names, tables, limits, options)
    kept = spread(networks, options.points or POINTS)
    distribution = found.for_table(next(iter(tables.values()), None), limits, tables)
    digits = len(str(len(networks)))
    files = {number: f"network_{number + 1:0{digits}}.json" for number in kept}
    for file in _files_of_earlier_front(options.out) - set(files.values()):
        (options.out / file).unlink(missing_ok=True)
    for number, file in files.items():
        choices = networks[number].choices
        metrics = {"default": held_out[number]} if held_out else {}
        within_budgets(found.spec, distribution, choices, target=next(iter(tables), None), metrics=metrics).save(
            options.out / file
        )
    rows = [
        {
            "file": files.get(number, ""),
            **{_column(name): value for name, value in network.values.items()},
            **({"held_out_accuracy": held_out[number]} if held_out else {}),
            **network.choices,
        }
        for number, network in enumerate(networks)
    ]
    path = write_csv(options.out / _FILE, list(rows[0]), rows)
    lines = [f"{len(networks)} networks on the front of {', '.join(names)}"]
    if len(kept) < len(networks):
        lines.append(f"architecture files: {len(kept)} of them, spread over the front (--points)")
    if not {"likelihood", ACCURACY} & set(names):
        lines.append(
            "the front has neither likelihood nor accuracy, so its networks are the cheapest ones of the space"
        )
    lines += [f"front: {path.resolve()}", _drawn(networks, names, found, tables, options.out / _PICTURE)]
    write_lines(*lines)
    return 0


def _files_of_earlier_front(folder: Path) -> set[str]:
    """Return the architecture files that `front.csv` of a folder names, of the kind that `decode_front` writes."""
    from ..files.reading import read_rows

    try:
        rows = read_rows(folder / _FILE, "front", InputError)
    except InputError:  # there is none, or it is not ours
        return set()
    return {name for row in rows if _NETWORK.fullmatch(name := row.get("file", ""))}


def _check(options: argparse.Namespace, names: Sequence[str], limits: Sequence[Limit], tables: Sequence[str]) -> None:
    """Check the options, as far as that is possible without reading the search."""
    from ..decoding.budgets import Limit, check_names

    if len(names) > 3:
        raise InputError(f"--front needs a file, or two or three quantities, got {len(names)}: {', '.join(names)}")
    if len(set(names)) < len(names):
        raise InputError(f"--front names a quantity twice: {', '.join(names)}")
    taken = next((name for name in tables if name in ("likelihood", ACCURACY)), None)
    if taken is not None:
        raise InputError(f"a table must not be called {taken}, which is a quantity of --front; rename it")
    costs = [name for name in names if name not in ("likelihood", ACCURACY)]
    check_names(
        [*limits, *(Limit(name) for name in costs)],
        tables,
        f"; --front also takes likelihood and accuracy{HINT}",
    )
    if not costs:
        raise InputError("--front needs at least one latency or quantity besides likelihood and accuracy")
    if options.out is None:
        raise InputError("--front with quantities needs --out, the folder for the front and its networks")
    if options.budget_ms is not None:
        raise InputError("--front with quantities takes --budget, such as --budget 'phone<=40', instead of --budget-ms")
    if (options.finalists is not None) != (ACCURACY in names):
        raise InputError(
            "--front with accuracy needs --finalists, the number of networks that are evaluated"
            if options.finalists is None
            else "--finalists needs accuracy among the quantities of --front"
        )


def _front(
    found: SearchCheckpoint,
    names: Sequence[str],
    tables: dict[str, LatencyTable],
    limits: Sequence[Limit],
    options: argparse.Namespace,
) -> tuple[list[FrontNetwork], list[float]]:
    """Return the networks of the front, and their accuracies on held-out images if accuracy is a quantity."""
    if ACCURACY not in names:
        return found.front(names, tables, limits), []
    from ..search.accuracy_front import front_by_accuracy

    return front_by_accuracy(options.checkpoint, names, tables, limits, options.finalists)


def _column(name: str) -> str:
    return "log_likelihood" if name == "likelihood" else name


def _drawn(
    networks: Sequence[FrontNetwork],
    names: Sequence[str],
    found: SearchCheckpoint,
    tables: dict[str, LatencyTable],
    path: Path,
) -> str:
    """Draw the front, and return the line that says where the picture is, or why there is none."""
    from ..decoding.budgets import QUANTITIES
    from ..files.writing import write_atomically
    from ..report.front_figure import draw_front

    units = {name: "ms" if name in tables else {"params": "", "flops": ""}.get(unit := QUANTITIES.get(name, ""), unit)
             for name in names}  # fmt: skip
    try:
        picture = draw_front([network.values for network in networks], names, units, found.spec.name)
    except MissingDependencyError as reason:
        return f"no picture of the front: {reason}"

    def write(file: Path) -> None:
        file.write_bytes(picture)

    return f"picture: {write_atomically(path, write).resolve()}"
