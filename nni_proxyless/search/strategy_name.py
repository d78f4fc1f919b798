"""Check that the strategy class of a recipe can exist. It imports neither torch nor NNI."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec

from ..errors import RecipeError
from .recipe import STRATEGIES


def check_strategy(name: str) -> None:
    """Check that the module of a strategy exists, without importing it, because it would import torch and NNI.

    Args:
        name: Strategy of a recipe.

    Raises:
        RecipeError: The strategy is `package.module:Class`, and there is no such module.
    """
    if name in STRATEGIES:
        return
    module, _, attribute = name.partition(":")
    missing = _missing(module)
    if missing is not None:
        raise RecipeError(
            f"strategy {name} cannot be loaded: there is no module '{missing}'; install its package, or start from its "
            "folder with python -m nni_proxyless"
        )
    if module in sys.modules:
        found = getattr(sys.modules[module], attribute, None)
        bases = found.__mro__ if isinstance(found, type) else ()
        if not any(base.__module__.partition(".")[0] == "nni" for base in bases):
            raise RecipeError(f"strategy {name} cannot be loaded: it is not a subclass of NNI's OneShotStrategy")


def _missing(module: str) -> str | None:
    """Return the first part of a module's name that does not exist; `None` if all do, or if only an import can tell."""
    place = None
    parts = module.split(".")
    for number in range(1, len(parts) + 1):
        name = ".".join(parts[:number])
        if name in sys.modules:
            place = getattr(sys.modules[name], "__path__", None)
        else:
            try:
                found = _spec(name, place)
            except Exception:  # such as of a package without a file within one that is not imported
                return None
            if found is None:
                return name
            place = found.submodule_search_locations
        if place is None:  # it is not a package, but may put modules into `sys.modules`, as `os` does
            return None
    return None


def _spec(name: str, place: object) -> ModuleSpec | None:
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        found: ModuleSpec | None = None if find is None else find(name, place, None)
        if found is not None:
            return found
    return None
