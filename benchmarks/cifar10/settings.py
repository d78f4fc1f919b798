"""What `cifar10.py` searches, trains and measures: settings, files, and networks by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.constants import (
    CACHE,
    CIFAR10_RESULTS,
    CIFAR10_SIZE,
    CIFAR10_WIDTH,
    OWN_WEIGHTS,
)
from benchmarks.results_csv import read_rows
from nni_proxyless.latency import LatencyTable
from nni_proxyless.network.architecture import Architecture
from nni_proxyless.network.space_spec import SpaceSpec

MODULE = "benchmarks.cifar10.cifar10"
WORK = CACHE / "cifar10_runs"
SPACE = "mobilenetv2_cifar"
TARGETS: dict[str, dict[str, Any]] = {
    "cpu_torch": {"backend": "torch", "threads": 1, "batch": 8},
    "cpu_onnxruntime": {"backend": "onnxruntime", "threads": 1, "batch": 8},
}
SEARCH: dict[str, Any] = {
    "space": SPACE, "width_mult": CIFAR10_WIDTH, "input_size": CIFAR10_SIZE, "data": "arrays",
    "arch_fraction": 0.3, "held_out_fraction": 0.1, "epochs": 32, "batch_size": 32, "learning_rate": 0.05,
    "weight_decay": 3e-4, "decay_norm_bias": False, "threads": 1,
}  # fmt: skip
RETRAIN: dict[str, Any] = {
    "data": "arrays", "arch_fraction": 0.3, "held_out_fraction": 0.1, "epochs": 10, "warmup_epochs": 1,
    "batch_size": 64, "learning_rate": 0.1, "weight_decay": 3e-4, "threads": 1,
}  # fmt: skip
WARMUP = 24  # epochs, trained once for all targets and budgets of a seed
NNI_EPOCHS = 3  # NNI's steps train all candidates: this many epochs take as long as the other searches
WITHOUT_DECAY: dict[str, Any] = {"arch_weight_decay": 0.0}
PROXYLESS: dict[str, dict[str, Any]] = {
    "proxyless": {},  # the recipe's defaults
    "proxyless, no architecture decay": WITHOUT_DECAY,
    "proxyless, no architecture decay, own weights": {**WITHOUT_DECAY, **OWN_WEIGHTS},
    "proxyless_two_path, own weights": {"arch_gradient": "two_path", "arch_update_every": 1, **OWN_WEIGHTS},
    "proxyless, as many steps as DARTS": {"epochs": NNI_EPOCHS, "warmup_epochs": 0},
}
RANDOM: dict[str, dict[str, Any]] = {"random_best_of_8": {}, "random_best_of_8, own weights": OWN_WEIGHTS}
# NNI's strategies: the name in `all_budgets.py`, and settings besides.
NNI: dict[str, tuple[str, dict[str, Any]]] = {"darts": ("darts", {}), "darts, own weights": ("darts", OWN_WEIGHTS)}
# MobileNetV2 (Sandler et al. 2018) has fewer layers in most stages than the space, and cannot leave any out.
MOBILENET = "MobileNetV2"
MOBILENET_V2_DEPTHS = (2, 3, 4, 3, 3, 1)
MOBILENET_WIDTHS = (0.2, 0.35, 0.5)
SEARCH_COLUMNS = (
    "strategy", "target", "budget", "seed", "budget_ms", "predicted_ms", "architecture", "multiply_adds",
    "weight_steps", "architecture_steps", "seconds",
)  # fmt: skip
RETRAIN_COLUMNS = ("network", "seed", "top1", "validation_top1", "parameters", "multiply_adds", "seconds")
LATENCY_COLUMNS = ("network", "target", "round", "milliseconds", "processor")


def spec() -> SpaceSpec:
    """The space of the searches."""
    return SpaceSpec.from_yaml(SPACE).with_changes(width_mult=CIFAR10_WIDTH, input_size=CIFAR10_SIZE)


def network(name: str) -> Architecture:
    """The architecture with a name: the candidate names of a network of the space, or `mobilenet_v2_<width>`."""
    if not name.startswith("mobilenet_v2_"):
        space = spec()
        return Architecture.of_space(space, dict(zip((la.label for la in space.layers), name.split(), strict=True)))
    base = SpaceSpec.from_yaml(SPACE)
    stages = tuple(replace(stage, depth=d) for stage, d in zip(base.stages, MOBILENET_V2_DEPTHS, strict=True))
    like = replace(base, stages=stages).with_changes(input_size=CIFAR10_SIZE)
    return Architecture.mobilenet_v2(float(name.rsplit("_", 1)[1]), like)


def table_path(target: str) -> Path:
    """The latency table of a target."""
    return CIFAR10_RESULTS / f"{target}.yml"


def budget_ms(target: str, fraction: float) -> float:
    """A fraction of the largest network's latency, in milliseconds."""
    return fraction * float(LatencyTable.load(table_path(target)).costs(spec()).largest)


def csv_path(name: str) -> Path:
    """The CSV file of `searches`, `retrained` or `latency`."""
    return CIFAR10_RESULTS / f"{name}.csv"


def read(name: str) -> list[dict[str, str]]:
    """The rows of `searches`, `retrained` or `latency`."""
    return read_rows(csv_path(name))
