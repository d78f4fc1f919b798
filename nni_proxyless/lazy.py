"""Names that are loaded on first use, and the import paths of version 0.1.

Packages here import nothing when they are imported: a recipe is checked without torch, the mathematics runs without
NNI, and a trial asks NNI's manager for its parameters before it imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any

_PACKAGE = __name__.rpartition(".")[0]

# Module of version 0.1 to the modules that hold its names today. Users' files and recipes may name them.
OLD_MODULES: dict[str, tuple[str, ...]] = {
    "arch_schedule": ("strategies.arch_schedule",),
    "arch_settings": ("strategies.arch_settings",),
    "architecture": ("network.architecture",),
    "baselines": ("strategies.baselines",),
    "catalogue": ("network.catalogue",),
    "compatibility": ("strategies.compatibility",),
    "cpu_kernels": ("training.cpu_kernels",),
    "decode": ("decoding.knapsack", "decoding.distribution", "decoding.random_networks"),
    "describe": ("deploy.describe",),
    "evaluator": ("training.image_classification", "training.sgd", "training.accuracy"),
    "export": ("deploy.export",),
    "fields": ("network.fields",),
    "folding": ("network.folding",),
    "freezing": ("supernet.freezing",),
    "gates": ("supernet.gates",),
    "gradient": ("strategies.lightning_module",),
    "image_arrays": ("data.image_arrays",),
    "judge": ("search.shared_weights",),
    "latency_aware": ("strategies.latency_aware",),
    "model_card": ("deploy.model_card",),
    "objective": ("strategies.objective",),
    "operators": ("network.operators", "network.blocks", "network.plain_network", "supernet.entangling"),
    "parallel": ("search.parallel",),
    "penalty": ("strategies.penalty",),
    "profiler": ("nni_spaces.profiler",),
    "pruning": ("supernet.pruning",),
    "ranking": ("decoding.ranking",),
    "recipe": ("search.recipe",),
    "recorder": ("search.epoch_callback", "search.prepare"),
    "reinforce": ("strategies.reinforce",),
    "retrain": ("deploy.retrain",),
    "retrain_recipe": ("deploy.retrain_recipe",),
    "search_checkpoint": ("decoding.checkpoint",),
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
    "latency.onnx_backend": ("latency.backends.onnx_runtime",),
    "latency.regression": ("latency.fitting.regression",),
    "latency.similarity": ("latency.fitting.similarity",),
    "latency.suggest": ("latency.fitting.suggest",),
    "latency.torch_backend": ("latency.backends.pytorch",),
    "nni_bridge.cells": ("nni_bridge.grid_points",),
}


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's `__getattr__`: each name is imported from its module when it is first asked for.

    Args:
        package: The package's `__name__`.
        homes: Name to the module that holds it, below `nni_proxyless`.
    """

    def get(name: str) -> Any:
        if name in homes:
            return getattr(import_module(f"{_PACKAGE}.{homes[name]}"), name)
        raise AttributeError(f"module '{package}' has no attribute '{name}'")

    return get


def names_of_modules(package: str, modules: Sequence[str]) -> Callable[[str], Any]:
    """A `__getattr__` that looks for any name in some modules below `nni_proxyless`."""

    def get(name: str) -> Any:
        if not name.startswith("__"):
            for module in modules:
                found = import_module(f"{_PACKAGE}.{module}")
                if hasattr(found, name):
                    return getattr(found, name)
        raise AttributeError(f"module '{package}' has no attribute '{name}'")

    return get


class OldModules(MetaPathFinder, Loader):
    """Finds the modules of version 0.1 under their old names."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The module's spec, if version 0.1 had a module of this name."""
        known = fullname.removeprefix(f"{_PACKAGE}.") in OLD_MODULES and fullname.startswith(f"{_PACKAGE}.")
        return spec_from_loader(fullname, self) if known else None

    def exec_module(self, module: ModuleType) -> None:
        """Forward every name to the modules that hold it today."""
        homes = OLD_MODULES[module.__name__.removeprefix(f"{_PACKAGE}.")]
        module.__dict__["__getattr__"] = names_of_modules(module.__name__, homes)
