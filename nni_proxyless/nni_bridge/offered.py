"""What a trial accepts from NNI's manager: what the config's search space and the recipe offer.

The manager has no password. Anyone who reaches its port can make a trial with any parameters, or replace the search
space. A trial therefore uses the search space with which the experiment was started. It reads this from the manager's
database if the manager runs on this machine, and otherwise from the config next to the recipe.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from ..deploy.retrain_recipe import RetrainRecipe
from ..errors import InputError, unknown_name
from ..files.writing import read_mapping
from ..search.recipe import STRATEGIES, Recipe
from .algorithms import is_own
from .grid_points import Rules

_DATABASE = Path("db") / "nni.sqlite"
# Keys by which a recipe names programs. A trial takes them from its recipe alone, unless the search space has them.
_OF_PROGRAMS = ("targets", "strategy_args")


@dataclass(frozen=True)
class Offer:
    """Search space with which an experiment was started.

    Attributes:
        source: Where it was found, for error messages.
        values: For each key, the values of a choice; an empty list for a range of numbers.
        weight_key: Key that the experiment's own tuner adds, if it does.
    """

    source: str
    values: Mapping[str, list[Any]]
    weight_key: str | None = None

    @classmethod
    def of_config(cls, source: str, config: Mapping[str, Any], folder: Path | None = None) -> Offer | None:
        """Make the offer of a config; `None` if it has no search space."""
        space = config.get("searchSpace")
        if space is None and folder is not None and isinstance(config.get("searchSpaceFile"), str):
            space = read_mapping(folder / config["searchSpaceFile"], "search space", InputError)
        if not isinstance(space, Mapping):
            return None
        values: dict[str, list[Any]] = {}
        for key, described in space.items():
            is_choice = isinstance(described, Mapping) and described.get("_type") == "choice"
            values[str(key)] = list(described.get("_value") or []) if is_choice else []
        tuner, weight_key = config.get("tuner"), None
        if isinstance(tuner, Mapping) and is_own(tuner):
            weight_key = str((tuner.get("classArgs") or {}).get("weight_key", Rules().weight_key))
        return cls(source, values, weight_key)


def find_offers(output: Path, recipe: Path) -> list[Offer]:
    """Find the search space of a trial's experiment.

    Args:
        output: Folder of the trial's output, which for the local training service is that of its experiment.
        recipe: Path of the recipe.

    Returns:
        The offer of the experiment, or those of all configs next to the recipe that name it; empty if there are none.
    """
    resolved = output.resolve()
    if resolved.parent.name == "trials" and len(resolved.parents) > 3:
        found = _of_experiment(resolved.parents[3])
        if found is not None:
            return [found]
    offers = []
    for path in sorted(recipe.resolve().parent.glob("*.y*ml")):
        with contextlib.suppress(InputError):
            config = read_mapping(path, "config", InputError)
            if recipe.name in str(config.get("trialCommand", "")):
                offer = Offer.of_config(f"config {path}", config, path.parent)
                offers += [] if offer is None else [offer]
    return offers


def _of_experiment(home: Path) -> Offer | None:
    """Return the offer of the local experiment in a folder: the first profile that its manager has stored."""
    path = home / _DATABASE
    if not path.is_file():
        return None
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=30)) as database:
            row = database.execute("select params from ExperimentProfile order by rowid limit 1").fetchone()
        return None if row is None else Offer.of_config(f"experiment {home.name}", json.loads(row[0]))
    except (sqlite3.Error, ValueError):
        return None


def check_offered(
    parameters: object, offers: Iterable[Offer], kind: type[Recipe] | type[RetrainRecipe], content: Mapping[str, Any]
) -> dict[str, Any]:
    """Check that parameters from the manager are among those that the config and the recipe offer.

    Numbers, true and false may have any value, since the recipe checks their range. A text, and anything else, must be
    one that the search space or the recipe has, or a built-in name.

    Args:
        parameters: What the manager has sent.
        offers: Search spaces of the experiment. Without any, all keys but those that name programs are accepted.
        kind: Kind of the trial's recipe.
        content: Content of the trial's recipe.

    Returns:
        The parameters.

    Raises:
        InputError: One of them is not. The message says which, and what is allowed.
    """
    if not isinstance(parameters, Mapping):
        raise InputError(f"the parameters of a trial must be a mapping, got {parameters!r:.200}")
    listed = list(offers)
    keys = {key for offer in listed for key in offer.values} | {
        offer.weight_key for offer in listed if offer.weight_key
    }
    source = " or ".join(offer.source for offer in listed)[:200] or "the recipe, with no config beside it,"
    for key, value in parameters.items():
        if listed and key not in keys:
            wrong = unknown_name("key", key[:100], keys)
            raise InputError(f"NNI's manager sent a key that {source} does not offer: {wrong}")
        if not listed and key in _OF_PROGRAMS:
            raise InputError(f"NNI's manager sent '{key}', which a trial takes from its recipe only")
        options = [one for offer in listed for one in offer.values.get(key, [])]
        options += [content[key]] if key in content else []
        options += _builtin(key, kind, content)
        if value is None or isinstance(value, (bool, int, float)) or value in options:
            continue
        named = ", ".join(f"{one!r:.60}" for one in options[:20]) or "numbers"
        raise InputError(f"NNI's manager sent {key}: {value!r:.200}, but {source} offers only {named}")
    return dict(parameters)


def _builtin(key: str, kind: type[Recipe] | type[RetrainRecipe], content: Mapping[str, Any]) -> list[Any]:
    """Return the values of a key that need no trust: the names of this package and of the recipe's targets."""
    if key == "strategy":
        return list(STRATEGIES)
    if key == "target":
        from ..search.targets import DEFAULT_TARGETS

        targets = content.get("targets")
        return list(targets if isinstance(targets, Mapping) and targets else DEFAULT_TARGETS)
    field = kind.model_fields.get(key)
    if field is None:
        return []
    default = field.get_default(call_default_factory=True)
    return [default, *_literals(field.annotation)]


def _literals(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return tuple(value for part in get_args(annotation) for value in _literals(part))
