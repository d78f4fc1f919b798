"""Names that are imported on first use, and the import paths of version 0.1.

The packages here import nothing when they are imported themselves. So a recipe can be checked without torch, the
numerical code works without NNI, and a trial gets its parameters from NNI's manager before it imports torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, spec_from_loader
from types import ModuleType
from typing import Any

_PACKAGE = __name__.rpartition(".")[0]

# Modules of version 0.1, and the modules that contain their names today. Users' code and recipes may use the old names.
OLD_MODULES: dict[str, tuple[str, ...]] = {
    "arch_schedule": ("strategies.arch_schedule",),
    "arch_settings": ("strategies.arch_settings",),
    "architecture": ("network.architecture",),
    "baselines": ("strategies.nni_strategies",),
    "catalogue": ("network.catalogue",),
    "cli_latency": ("cli.latency",),
    "cli_network": ("cli.network",),
    "cli_settings": ("cli.settings",),
    "compatibility": ("strategies.compatibility",),
    "cpu_kernels": ("training.cpu_kernels",),
    "decode": ("decoding.knapsack", "decoding.distribution", "decoding.random_networks"),
    "describe": ("deploy.describe",),
    "evaluator": ("training.image_classification", "training.sgd", "training.accuracy"),
    "export": ("deploy.export",),
    "fields": ("network.fields",),
    "folding": ("network.folding",),
    "freezing": ("supernet.freezing",),
    "gates": ("supernet.binary_gates",),
    "supernet.gates": ("supernet.binary_gates",),
    "latency.fitting.blend": ("latency.fitting.few_shot",),
    "gradient": ("strategies.lightning_module",),
    "image_arrays": ("data.image_arrays",),
    "judge": ("search.shared_weights",),
    "latency_aware": ("strategies.latency_aware",),
    "model_card": ("deploy.model_card",),
    "objective": ("strategies.objective",),
    "operators": ("network.operators", "network.blocks", "network.plain_network", "supernet.entangling"),
    "parallel": ("strategies.path_parallel",),
    "penalty": ("strategies.penalty",),
    "profiler": ("nni_spaces.profiler",),
    "pruning": ("supernet.pruning",),
    "ranking": ("decoding.ranking",),
    "recipe": ("search.recipe",),
    "recorder": ("search.epoch_callback", "search.prepared"),
    "reinforce": ("strategies.reinforce",),
    "resources": ("files.resources",),
    "results_folder": ("files.results_folder",),
    "retrain": ("deploy.retrain", "deploy.retrain_epochs"),
    "retrain_recipe": ("deploy.retrain_recipe",),
    "search_checkpoint": ("decoding.checkpoint",),
    "settings": ("files.settings",),
    "space": ("supernet.space", "supernet.entangling"),
    "space_latency": ("nni_spaces.space_latency",),
    "space_spec": ("network.space_spec",),
    "space_walk": ("nni_spaces.space_walk",),
    "strategy": ("strategies.proxyless",),
    "targets": ("search.targets",),
    "warmup": ("search.warmup",),
    "weight_paths": ("strategies.weight_paths",),
    "weights": ("network.weights",),
    "latency.analytic_backend": ("latency.backends.analytic",),
    "latency.backend": ("latency.backends.base",),
    "latency.command_backend": ("latency.backends.command",),
    "latency.fit": ("latency.fitting.fit", "latency.arrays"),
    "latency.onnx_backend": ("latency.backends.onnx_runtime", "network.onnx_file", "network.quantization"),
    "latency.regression": ("latency.fitting.regression",),
    "latency.similarity": ("latency.fitting.similarity",),
    "latency.suggest": ("latency.fitting.suggest",),
    "latency.torch_backend": ("latency.backends.pytorch",),
    "nni_bridge.cells": ("nni_bridge.grid_points",),
}

# Names of these modules that are different today.
RENAMED: dict[str, dict[str, str]] = {
    "baselines": {"Baseline": "NniStrategy"},
    "judge": {"Judge": "SharedWeightEvaluator"},
    "ranking": {"with_opinions": "add_weighted_criteria"},
    "recorder": {"Recorder": "EpochCallback"},
    "reinforce": {"Baseline": "MovingAverage"},
    "nni_bridge.cells": {"Cell": "GridPoint", "MAX_CELLS": "MAX_GRID_POINTS", "find_cell": "find_grid_point"},
}


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Create a package's `__getattr__`, which imports the module of a name when the name is used.

    Args:
        package: Name of the package, its `__name__`.
        homes: Mapping from names to the modules that contain them, relative to `nni_proxyless`.
    """

    def get(name: str) -> Any:
        if name in homes:
            return getattr(import_module(f"{_PACKAGE}.{homes[name]}"), name)
        raise AttributeError(f"module '{package}' has no attribute '{name}'")

    return get


def names_of_modules(
    package: str, modules: Sequence[str], renamed: Mapping[str, str] | None = None
) -> Callable[[str], Any]:
    """Create a package's `__getattr__`, which looks names up in several modules.

    The package's own modules come first, so that `from package import module` imports nothing else.

    Args:
        package: Name of the package, its `__name__`.
        modules: Modules in which names are looked up, relative to `nni_proxyless`. The first one that has a name is
            used.
        renamed: Mapping from old names to today's names.
    """

    def get(name: str) -> Any:
        # Python imports a module itself if this raises AttributeError.
        is_package = "__path__" in vars(sys.modules[package])
        if not name.startswith("__") and not (is_package and find_spec(f"{package}.{name}")):
            today = (renamed or {}).get(name, name)
            for module in modules:
                found = import_module(f"{_PACKAGE}.{module}")
                if hasattr(found, today):
                    return getattr(found, today)
        raise AttributeError(f"module '{package}' has no attribute '{name}'")

    return get


class OldModules(MetaPathFinder, Loader):
    """Import finder and loader for the modules of version 0.1 under their old names."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return the spec of a module that version 0.1 had under this name; `None` for other names."""
        known = fullname.removeprefix(f"{_PACKAGE}.") in OLD_MODULES and fullname.startswith(f"{_PACKAGE}.")
        return spec_from_loader(fullname, self) if known else None

    def exec_module(self, module: ModuleType) -> None:
        """Forward every name of the module to the modules that contain it today."""
        old = module.__name__.removeprefix(f"{_PACKAGE}.")
        module.__dict__["__getattr__"] = names_of_modules(module.__name__, OLD_MODULES[old], RENAMED.get(old))
