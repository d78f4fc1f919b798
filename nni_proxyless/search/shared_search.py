"""One search for every target and budget: a search without a device in its loss, decoded for each of them.

A distribution over architectures that was learnt without a latency term can be decoded within any budget of any device.
Searches that differ only in their target and budgets therefore train it once. It is stored in the cache, under a hash
of everything that it depends on. The first search trains it and holds a lock. The others wait, and then compare their
own finalists. Each network is evaluated once for all of them (`kept_accuracies`).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from shutil import copyfile
from typing import Any

import filelock
import torch
from torch import nn

from ..decoding.budgets import Limit
from ..decoding.checkpoint import SearchCheckpoint
from ..decoding.distribution import ArchitectureDistribution
from ..errors import InputError
from ..files import results_folder
from ..files.reading import read_rows
from ..files.resources import cache_folder
from ..files.writing import write_atomically, write_csv, write_yaml, writing
from ..latency.judgement import warnings_of
from ..network.architecture import Architecture
from ..network.space_spec import SpaceSpec
from ..progress import work_begins
from ..strategies.exported import installed_versions
from ..strategies.finalists import with_doubts
from .earlier import replacing
from .epoch_callback import Record, SearchReport, write_finalists
from .other_tables import save_tables
from .prepared import Prepared, check_budget
from .recipe import Recipe
from .shared_history import own_history, record_of
from .shared_weights import SharedWeightComparison

_log = logging.getLogger(__name__)
NAME = "shared search"
Train = Callable[[Prepared, Path, SearchReport | None], Any]
# Keys of a recipe that only concern the decoding.
OF_THE_DECODING = (
    "target", "targets", "budget_ms", "budget_fraction", "budgets", "finalists", "share_search", "accept_tables",
)  # fmt: skip
_COPIED = (
    results_folder.PROBABILITIES, results_folder.PRUNED, results_folder.COST, results_folder.CHECKPOINT,
    results_folder.PREPROCESSING,
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
    prepared: Prepared, output: Path, train: Train, report: SearchReport | None = None
) -> tuple[Architecture, nn.Module, Record]:
    """Train the shared search if it is not in the cache yet, and decode it for the target and the budgets of a recipe.

    Args:
        prepared: Inputs of the search.
        output: Folder of the results, in which no other process writes. It gets everything but the architecture and its
            weights.
        train: Function that runs a search and writes its results to a folder, or continues the search in it. Its last
            argument is a function like `report`.
        report: Function that is called for each epoch with the epoch's record and the record's number, counted from 0.
            The records have the latencies of this target, whichever target the search is trained by.

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
    folder = shared_folder(prepared)
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(f"{folder}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        _log.info("waiting for another process, which trains the shared search (%s)", folder)
        lock.acquire()

    def report_own(_: Record, number: int | None) -> None:
        if report is not None and number is not None:
            report(
                record_of(own_history(folder, *within_own_budgets(prepared, _untrained(prepared.spec)))[number]), number
            )

    try:
        trained = (folder / results_folder.ARCHITECTURE).is_file()
        if trained:
            _log.info("the search is shared; it was trained before: %s", folder)
        else:
            kept = folder / results_folder.RECIPE
            if kept.is_file():  # interrupted; another target may have begun it
                common = Recipe.load(kept)
                prepared.table.save(folder / results_folder.LATENCY_TABLE)  # that of the log's latencies
            # Nothing is measured: the network that the search itself finds is no result.
            target = replace(common.chosen_target(), name=NAME, backend=None)
            train(replace(prepared, recipe=common, target=target, other_tables={}), folder, report_own)
    finally:
        lock.release()
    architecture, network, record, rows = _decoded(prepared, folder, output)
    for number, row in enumerate(rows if trained and report is not None else ()):
        assert report is not None
        report(record_of(row), number)
    return architecture, network, record


def epochs_done(prepared: Prepared) -> int:
    """Return how many epochs of the shared search of a recipe are trained already. Nothing is written."""
    folder = shared_folder(prepared)
    if (folder / results_folder.ARCHITECTURE).is_file():
        return prepared.recipe.epochs
    needed = (results_folder.RECIPE, results_folder.HISTORY, *results_folder.NEEDED_BY_SEARCH)
    if not all((folder / name).is_file() for name in needed):
        return 0
    return len(read_rows(folder / results_folder.HISTORY, "history", InputError))


def software() -> dict[str, Any]:
    """Return the versions that the weights of a search depend on."""
    return {
        "cuda": torch.cuda.is_available(),
        "versions": [version(name) for name in ("nni-proxyless", "torch", "torchvision", "pytorch-lightning")],
    }


def shared_settings(recipe: Recipe) -> dict[str, Any]:
    """Return the settings that all recipes of a shared search have in common."""
    content = without_device(recipe).to_dict(absolute=True)
    return {key: value for key, value in content.items() if key not in OF_THE_DECODING}


def shared_folder(prepared: Prepared) -> Path:
    """Return the folder of the shared search of a recipe, in the cache. It need not exist."""
    splits = prepared.splits
    data = {
        "preprocessing": splits.preprocessing.to_dict(),
        "classes": list(splits.class_names),
        "images": [len(splits.weights), len(splits.architecture), len(splits.held_out)],
    }
    content = {
        "recipe": shared_settings(prepared.recipe), "space": prepared.spec.to_dict(), **data, **software(),
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:24]
    return cache_folder() / "searches" / digest


def _untrained(spec: SpaceSpec) -> SearchCheckpoint:
    candidates = {layer.label: layer.names for layer in spec.layers}
    uniform = {label: torch.full((len(names),), 1.0 / len(names)) for label, names in candidates.items()}
    return SearchCheckpoint(spec, ArchitectureDistribution(candidates, uniform))


def own_budget_ms(prepared: Prepared) -> float | None:
    """Return the latency budget of a recipe's own target in milliseconds; `None` if it has none."""
    own = _own_limit(prepared)
    return None if own is None else own.resolve(prepared.table.costs(prepared.spec).largest)


def _own_limit(prepared: Prepared) -> Limit | None:
    recipe = prepared.recipe
    return next((limit for limit in recipe.limits() if limit.name == recipe.target), None)


def within_own_budgets(prepared: Prepared, found: SearchCheckpoint) -> tuple[ArchitectureDistribution, float | None]:
    """Return the distribution of a search within a recipe's other budgets, and the latency budget of its target in ms.

    Args:
        prepared: Inputs of the search.
        found: What the search has found.
    """
    recipe, own = prepared.recipe, _own_limit(prepared)
    tables = {recipe.target: prepared.table, **prepared.other_tables}
    others = [limit for limit in recipe.limits() if limit != own]
    distribution = found.for_table(prepared.table, others, tables)
    return replace(distribution, target=recipe.target), own_budget_ms(prepared)


def _decoded(
    prepared: Prepared, folder: Path, output: Path
) -> tuple[Architecture, nn.Module, Record, list[dict[str, Any]]]:
    recipe = prepared.recipe
    comparison = SharedWeightComparison(folder, recipe.num_finalists(recipe.has_budget), own=True, keep=True)
    distribution, budget_ms = within_own_budgets(prepared, comparison.found)
    architecture, compared, network = comparison.compare(distribution, recipe.target, budget_ms)
    compared = with_doubts(compared, prepared.table, budget_ms)
    told = (
        *warnings_of(prepared.table),
        *(text for table in prepared.other_tables.values() for text in warnings_of(table)),
    )
    for text in told:
        _log.warning("%s", text)
    architecture = replace(architecture, versions=installed_versions(), warnings=told)
    history = own_history(folder, distribution, budget_ms, architecture)
    with replacing(output, lambda: None) as begin:
        begin(0)
    for name in _COPIED:
        if (folder / name).is_file():
            write_atomically(output / name, partial(copyfile, folder / name))
    write_csv(output / results_folder.HISTORY, list(history[0]), history)
    write_finalists(output, prepared.spec, compared)
    prepared.table.save(output / results_folder.LATENCY_TABLE)
    save_tables(output / results_folder.OTHER_TABLES, prepared.other_tables)
    write_yaml(output / results_folder.RECIPE, recipe.to_dict(absolute=True))
    return architecture, network, record_of(history[-1]), history
