"""One search for every target and budget: a search without a device in its loss, decoded for each of them.

A distribution over architectures that was learnt without a latency term can be decoded within any budget of any device.
So searches that differ only in their target and budgets train it once. It lies in the cache, under a hash of everything
that it depends on. The first search trains it and holds a lock; the others wait, and compare their own finalists.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from shutil import copyfile
from typing import Any

import filelock
from torch import nn

from ..errors import InputError
from ..files import results_folder
from ..files.reading import read_rows
from ..files.resources import cache_folder
from ..files.writing import write_atomically, write_csv, write_yaml, writing
from ..latency.judgement import warnings_of
from ..network.architecture import Architecture
from ..progress import work_begins
from ..strategies.exported import installed_versions
from ..strategies.finalists import with_doubts
from .earlier import replacing
from .epoch_callback import Record, finalist_rows
from .other_tables import save_tables
from .prepared import Prepared, check_budget
from .recipe import Recipe
from .shared_weights import SharedWeightComparison

_log = logging.getLogger(__name__)
Train = Callable[[Prepared, Path], Any]
# Keys of a recipe that only concern the decoding.
OF_THE_DECODING = (
    "target", "targets", "budget_ms", "budget_fraction", "budgets", "finalists", "share_search", "accept_tables",
)  # fmt: skip
_COPIED = (
    results_folder.HISTORY, results_folder.PROBABILITIES, results_folder.PRUNED, results_folder.COST,
    results_folder.CHECKPOINT, results_folder.PREPROCESSING,
)  # fmt: skip


def without_device(recipe: Recipe) -> Recipe:
    """Return the recipe of the search that all targets and budgets share: no budget, and no weight of the latency."""
    settings = recipe.to_dict(absolute=True)
    settings |= {
        "budget_ms": None, "budget_fraction": None, "budgets": {}, "finalists": 1, "share_search": False,
        "objective": "add_linear", "latency_weight": 0.0,
    }  # fmt: skip
    return Recipe.from_dict({key: value for key, value in settings.items() if value is not None})


def from_shared_search(
    prepared: Prepared, output: Path, depends_on: Mapping[str, Any], train: Train
) -> tuple[Architecture, nn.Module, Record]:
    """Train the shared search if it is not there yet, and decode it for the target and the budgets of a recipe.

    Args:
        prepared: Inputs of the search.
        output: Folder of the results, in which no other process writes. It gets everything but the architecture and its
            weights.
        depends_on: What the search depends on besides its recipe, such as the versions of packages.
        train: Function that runs a search and writes its results to a folder, or continues the search in it.

    Returns:
        Architecture, the network with the supernet's weights, and the record of the result.

    Raises:
        InputError: No network is within the budgets.
        RunError: The training failed.
    """
    recipe = prepared.recipe
    tables = {recipe.target: prepared.table, **prepared.other_tables}
    latencies = {name: table.costs(prepared.spec) for name, table in tables.items()}
    check_budget(recipe, latencies[recipe.target], prepared.spec, latencies)
    work_begins()
    common = without_device(recipe)
    folder = _folder_of(common, prepared, depends_on)
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(f"{folder}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        _log.info("waiting for another process, which trains the shared search (%s)", folder)
        lock.acquire()
    try:
        if (folder / results_folder.ARCHITECTURE).is_file():
            _log.info("the search is shared; it was trained before: %s", folder)
        else:
            kept = folder / results_folder.RECIPE
            if kept.is_file():  # interrupted; another target may have begun it
                common = Recipe.load(kept)
            train(replace(prepared, recipe=common, target=common.chosen_target(), other_tables={}), folder)
    finally:
        lock.release()
    return _decoded(prepared, folder, output)


def _folder_of(common: Recipe, prepared: Prepared, depends_on: Mapping[str, Any]) -> Path:
    settings = {key: value for key, value in common.to_dict(absolute=True).items() if key not in OF_THE_DECODING}
    splits = prepared.splits
    data = {
        "preprocessing": splits.preprocessing.to_dict(),
        "classes": list(splits.class_names),
        "images": [len(splits.weights), len(splits.architecture), len(splits.held_out)],
    }
    content = {"recipe": settings, "space": prepared.spec.to_dict(), **data, **depends_on}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:24]
    return cache_folder() / "searches" / digest


def _decoded(prepared: Prepared, folder: Path, output: Path) -> tuple[Architecture, nn.Module, Record]:
    recipe = prepared.recipe
    comparison = SharedWeightComparison(folder, recipe.num_finalists(recipe.has_budget), own=True)
    limits = recipe.limits()
    tables = {recipe.target: prepared.table, **prepared.other_tables}
    own = next((limit for limit in limits if limit.name == recipe.target), None)
    budget_ms = None if own is None else own.resolve(prepared.table.costs(prepared.spec).largest)
    others = [limit for limit in limits if limit is not own]
    distribution = replace(comparison.found.for_table(prepared.table, others, tables), target=recipe.target)
    architecture, compared, network = comparison.compare(distribution, recipe.target, budget_ms)
    compared = with_doubts(compared, prepared.table, budget_ms)
    told = (
        *warnings_of(prepared.table),
        *(text for table in prepared.other_tables.values() for text in warnings_of(table)),
    )
    for text in told:
        _log.warning("%s", text)
    architecture = replace(architecture, versions=installed_versions(), warnings=told)
    with replacing(output, lambda: None) as begin:
        begin(0)
    for name in _COPIED:
        if (folder / name).is_file():
            write_atomically(output / name, partial(copyfile, folder / name))
    rows = finalist_rows(prepared.spec, compared)
    if rows:
        write_csv(output / results_folder.FINALISTS, list(rows[0]), rows)
    prepared.table.save(output / results_folder.LATENCY_TABLE)
    save_tables(output / results_folder.OTHER_TABLES, prepared.other_tables)
    write_yaml(output / results_folder.RECIPE, recipe.to_dict(absolute=True))
    history = read_rows(folder / results_folder.HISTORY, "history", InputError)
    expected = distribution.expected_ms()
    assert architecture.predicted_latency_ms is not None
    assert expected is not None
    record = Record(
        default=float(architecture.metrics["default"]),
        latency_ms=architecture.predicted_latency_ms,
        expected_latency_ms=expected,
        entropy=distribution.mean_entropy(),
        train_loss=float(history[-1]["train_loss"]),
        expected_over_budget=None if budget_ms is None else expected / budget_ms,
    )
    return architecture, network, record
