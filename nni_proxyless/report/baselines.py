"""Baselines of a report: MobileNetV2, and random networks of the same latency, trained like the networks found.

Each retraining in the results determines the recipe of its baselines, and its network determines their size or latency.
The names and the networks of baselines depend on the results alone, so a second call trains only what is missing.
Nothing that a recipe names is run: neither a function that returns data nor a command that measures.
"""

from __future__ import annotations

import logging
import random
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..data.place import check_place
from ..decoding.random_networks import draw_within
from ..deploy.forecast import forecast_retraining
from ..deploy.retrain import prepare_retraining, run_retraining
from ..deploy.retrain_recipe import RetrainRecipe
from ..errors import InputError, ProxylessError
from ..files import results_folder
from ..network.architecture import Architecture
from ..network.catalogue import MOBILENET_V2
from ..network.space_spec import SpaceSpec
from ..search.earlier import check_same_recipe
from ..search.targets import Target
from ..training.step_probe import NOTHING, Timing
from .baseline_recipe import recipe_of_baselines
from .kept_budgets import own_budgets, value_of
from .results import RANDOM_BASELINE, Results, Search, Trained
from .tables import is_here

_log = logging.getLogger(__name__)
BASELINES = "baselines"
RANDOM_NETWORKS = 3
_WIDTHS = [round(0.05 * step, 2) for step in range(2, 41)]  # 0.1 to 2
# Parts of the found network's latency that a random network takes at least, the first one that allows enough networks.
_SAME_LATENCY = (0.97, 0.9, 0.8)


@dataclass(frozen=True)
class Baseline:
    """A network to compare with those that were found.

    Attributes:
        name: Name of its folder.
        architecture: Network.
        recipe: Recipe of its training.
        folder: Folder of its results.
        like: Retraining whose recipe is used.
        why: Text that says in what respect it is comparable.
        trained: Whether it has been trained.
    """

    name: str
    architecture: Architecture
    recipe: RetrainRecipe
    folder: Path
    like: Trained
    why: str
    trained: bool

    @property
    def file(self) -> Path:
        """File of the architecture, from which the training reads it."""
        return self.folder.with_name(f"{self.name}.json")


def plan_baselines(results: Results, random_networks: int = RANDOM_NETWORKS) -> list[Baseline]:
    """Choose the baselines of all retrained networks.

    Args:
        results: Results of searches and retrainings.
        random_networks: Number of random networks for each network that was found.

    Returns:
        Baselines, also those that have been trained.

    Raises:
        InputError: No found network was retrained, or its recipe cannot be used for other networks: it adapts inherited
            weights, needs several devices, names a function, or is missing.
    """
    found: dict[str, Baseline] = {}
    pairs = [(search, results.retrained(search)) for search in results.chosen]
    for search, trained in pairs:
        if trained is None or search.architecture is None or search.architecture.spec is None:
            continue
        settings = recipe_of_baselines(trained)
        for name, architecture, why in [
            _mobilenet(search.architecture.spec, search),
            *_random(results, search, random_networks),
        ]:
            made = _baseline(results, name, architecture, settings, trained, why)
            known = found.get(name)
            if known is not None and _without_network(known.recipe) != _without_network(made.recipe):
                made = _baseline(results, f"{name}_{search.target}", architecture, settings, trained, why)
            found.setdefault(made.name, made)
    if not found:
        first = next((s.folder for s, _ in pairs if s.architecture is not None and s.architecture.spec), None)
        hint = f": {shlex.join(['nni-proxyless', 'retrain', str(first)])}" if first is not None else ""
        raise InputError(
            f"{results.folder} has no retrained network of a search, so there is no recipe for the baselines; retrain "
            f"one first{hint}"
        )
    return list(found.values())


def train_baselines(planned: list[Baseline]) -> None:
    """Train the baselines that are missing. A training that was interrupted continues.

    Args:
        planned: Result of `plan_baselines`.

    Raises:
        InputError: The data are not there, or another process uses a folder.
        RunError: A training failed.
        Stopped: The process got SIGTERM or SIGHUP.
    """
    for one in planned:
        if not one.trained:
            _log.info("baseline %s: training in %s", one.name, one.folder)
            run_retraining(prepare_retraining(one.recipe), one.folder)


def write_networks(planned: list[Baseline], results: Results) -> None:
    """Write the architecture files of the baselines that are not trained yet, random networks with measured latencies.

    A latency is measured if the target is this machine. Targets with the backend `command` are never measured, because
    the recipe of the search may come from somebody else.

    Raises:
        InputError: A file cannot be written.
    """
    for one in planned:
        if not one.trained and not one.file.is_file():
            architecture = one.architecture
            if architecture.target is not None:
                architecture = replace(architecture, measured_latency_ms=_measured(architecture, results))
            architecture.save(one.file)


def forecast_baselines(planned: list[Baseline]) -> Timing | None:
    """Time a few steps of the trainings to come, and forecast how long all of them take.

    One training of each kind is timed. Epochs that interrupted trainings have finished are not subtracted.

    Args:
        planned: Baselines whose architecture files are written.

    Returns:
        Duration; `None` if an epoch has too few steps to be timed.

    Raises:
        InputError: The data are not there, or the accelerator is not available.
    """
    kinds: dict[str, list[Baseline]] = {}
    for one in planned:
        if not one.trained:
            kinds.setdefault(f"{one.architecture.strategy} {one.like.name}", []).append(one)
    total = NOTHING
    for of_kind in kinds.values():
        found = forecast_retraining(prepare_retraining(of_kind[0].recipe))
        if found is None:
            return None
        total = total.plus(found.total.times(len(of_kind)))
    return total


def _measured(architecture: Architecture, results: Results) -> float | None:
    search = next(search for search in results.searches if search.target == architecture.target)
    described = search.recipe["targets"].get(search.target)
    if not isinstance(described, Mapping) or described.get("backend") == "command":
        return None
    if not is_here(results.table(search.target)):
        return None
    try:
        target = Target.parse(search.target, dict(described), search.folder)
        return target.measure(architecture, results.table(search.target))
    except ProxylessError as reason:
        _log.warning("the latency of a random network on %s is not measured: %s", search.target, reason)
        return None


def _baseline(
    results: Results, name: str, architecture: Architecture, settings: RetrainRecipe, like: Trained, why: str
) -> Baseline:
    folder = results.folder / BASELINES / name
    content = {**settings.to_dict(absolute=True), "architecture": str(folder.with_name(f"{name}.json").resolve())}
    recipe = RetrainRecipe.from_dict(content, settings.folder)
    check_same_recipe(
        folder, [recipe], f"delete the folder to train the baseline like {like.name}", ignored=("architecture",)
    )
    trained = (folder / results_folder.MODEL_CARD).is_file() and (folder / results_folder.WEIGHTS).is_file()
    if not trained:
        data_dir = None if recipe.data_dir is None else recipe.resolve(recipe.data_dir)
        check_place(recipe.data, architecture.require_spec().input_shape, data_dir, recipe.download)
    return Baseline(name, architecture, recipe, folder, like, why, trained)


def _without_network(recipe: RetrainRecipe) -> dict[str, Any]:
    return {key: value for key, value in recipe.to_dict(absolute=True).items() if key != "architecture"}


def _mobilenet(spec: SpaceSpec, search: Search) -> tuple[str, Architecture, str]:
    """Return MobileNetV2 of the width whose multiply-adds are closest to those of a found network."""
    assert search.architecture is not None
    wanted = search.architecture.multiply_adds
    made = {width: Architecture.mobilenet_v2(width, like=spec) for width in _WIDTHS}
    width = min(made, key=lambda width: abs(made[width].multiply_adds - wanted))
    why = f"{made[width].multiply_adds / 1e6:.3g} M multiply-adds, {search.name} has {wanted / 1e6:.3g} M"
    return f"{MOBILENET_V2}_{width:g}", made[width], why


def _random(results: Results, search: Search, count: int) -> list[tuple[str, Architecture, str]]:
    """Draw random networks of a found network's latency by its target's table, which keep its other budgets, too."""
    found, table = search.architecture, results.table(search.target)
    assert found is not None
    assert found.spec is not None
    spec, latency = found.spec, value_of(results, found, search.target)
    if count == 0 or table is None or latency is None:
        return []
    costs = table.costs(spec)
    others = [kept.constraint for kept in own_budgets(search.target, found) if kept.constraint.name != search.target]

    def accepts(least: float) -> Callable[[Mapping[str, Any]], bool]:
        def accept(choices: Mapping[str, Any]) -> bool:
            if not least * latency <= costs.of(choices) <= latency or dict(choices) == dict(found.choices):
                return False
            made = Architecture.of_space(spec, dict(choices))
            values = [(constraint, value_of(results, made, constraint.name)) for constraint in others]
            return all(value is not None and constraint.keeps(value) for constraint, value in values)

        return accept

    drawn: list[dict[str, Any]] = []
    for least in _SAME_LATENCY:
        accept = accepts(least)
        generator = random.Random(f"baselines of {search.target}")
        candidates = {layer.label: layer.names for layer in spec.layers}
        drawn = list(filter(accept, draw_within(candidates, costs, latency, count, generator, accept)))
        if len(drawn) == count:
            break
    if len(drawn) < count:
        _log.warning(
            "%s: only %d of %d random networks have a latency close to %.4g ms", search.name, len(drawn), count, latency
        )
    networks = []
    for number, choices in enumerate(drawn, start=1):
        predicted = costs.of(choices)
        architecture = Architecture.of_space(
            spec, choices, target=search.target, strategy=RANDOM_BASELINE, predicted_latency_ms=predicted
        )
        why = f"{predicted:.4g} ms according to the table of {search.target}; {search.name} takes {latency:.4g} ms"
        networks.append((f"random_{search.target}_{latency:.4g}ms_{number}", architecture, why))
    return networks
